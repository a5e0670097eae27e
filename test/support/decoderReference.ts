import { isMixtureLayer, type ResolvedDecoderConfig } from '../../lib/models/config.js';
import type { Decoder } from '../../lib/models/decoder.js';
import type { TokenSequence } from '../../lib/models/sequences.js';
import type { NativeFloatDType } from '../../lib/tensor/dtype.js';
import { normals } from './compare.js';
import { mixture64 } from './mixture.js';
import { roundTo } from './rounding.js';

/** Gives every parameter that begins as a constant (norms, biases) random values, so that each one matters. */
export function randomizeConstants(model: Decoder, seed: number): void {
  model.parameters.forEach((parameter, i) => {
    if (parameter.name.endsWith('norm.weight'))
      parameter.master.upload(normals(parameter.size, seed + i, 0.3).map((x) => 1 + x));
    if (parameter.name.endsWith('bias')) parameter.master.upload(normals(parameter.size, seed + i, 0.5));
  });
}

/** Masters by name, rounded to `dtype`, in fp64. */
export async function weightsOf(model: Decoder, dtype: NativeFloatDType): Promise<Map<string, Float64Array>> {
  const weights = new Map<string, Float64Array>();
  for (const { name, master } of model.parameters) {
    weights.set(
      name,
      Float64Array.from(await master.floats(), (x) => roundTo(x, dtype)),
    );
  }
  return weights;
}

/** Log-prob and entropy of each response token of each sequence: the whole decoder in fp64, in plain loops. */
export function referenceScores(
  { config }: Decoder,
  weights: ReadonlyMap<string, Float64Array>,
  sequences: readonly TokenSequence[],
  temperature = 1,
): { logprobs: Float64Array; entropy: Float64Array } {
  const { vocabSize, hiddenSize, intermediateSize, numLayers, numHeads, numKvHeads, headDim } = config;
  const w = (name: string) => weights.get(name)!;
  const logprobs: number[] = [];
  const entropy: number[] = [];
  for (const { prompt, response } of sequences) {
    const tokens = [...Array.from(prompt), ...Array.from(response)];
    const inputs = tokens.slice(0, -1);
    let x: Float64Array[] = inputs.map((id) =>
      w('model.embed_tokens.weight').slice(id * hiddenSize, (id + 1) * hiddenSize),
    );
    for (let layer = 0; layer < numLayers; layer++) {
      const prefix = `model.layers.${layer}`;
      const qkv = x.map((row, position) => {
        const normed = norm(row, w(`${prefix}.input_layernorm.weight`), config.rmsNormEps);
        const out = product(normed, w(`${prefix}.self_attn.qkv_proj.weight`));
        if (config.attentionBias) {
          const bias = w(`${prefix}.self_attn.qkv_proj.bias`);
          for (let i = 0; i < out.length; i++) out[i]! += bias[i]!;
        }
        for (let head = 0; head < numHeads + numKvHeads; head++) {
          const part = out.subarray(head * headDim, (head + 1) * headDim);
          const kind = head < numHeads ? 'q' : 'k';
          if (config.qkNorm)
            part.set(norm(part, w(`${prefix}.self_attn.${kind}_norm.weight`), config.rmsNormEps));
          rotate(part, position, config);
        }
        return out;
      });
      x = x.map((row, i) => {
        const attended = new Float64Array(numHeads * headDim);
        for (let head = 0; head < numHeads; head++) {
          const kvHead = numHeads + Math.floor((head * numKvHeads) / numHeads);
          const scores: number[] = [];
          for (let j = 0; j <= i; j++) {
            let dot = 0;
            for (let d = 0; d < headDim; d++) {
              dot += qkv[i]![head * headDim + d]! * qkv[j]![kvHead * headDim + d]!;
            }
            scores.push(dot / Math.sqrt(headDim));
          }
          softmax(scores).forEach((p, j) => {
            for (let d = 0; d < headDim; d++) {
              attended[head * headDim + d]! += p * qkv[j]![(kvHead + numKvHeads) * headDim + d]!;
            }
          });
        }
        const out = product(attended, w(`${prefix}.self_attn.o_proj.weight`));
        const bias = config.attentionOutBias ? w(`${prefix}.self_attn.o_proj.bias`) : null;
        return plus(row, bias ? plus(out, bias) : out);
      });
      x = x.map((row) => {
        const normed = norm(row, w(`${prefix}.post_attention_layernorm.weight`), config.rmsNormEps);
        if (isMixtureLayer(config, layer)) {
          const mixed = mixture64(normed, hiddenSize, {
            router: w(`${prefix}.mlp.gate.weight`),
            gateUp: w(`${prefix}.mlp.experts.gate_up_proj.weight`),
            down: w(`${prefix}.mlp.experts.down_proj.weight`),
            experts: config.numExperts,
            k: config.numExpertsPerToken,
            normalize: config.normalizeRouterWeights,
          });
          return plus(row, mixed);
        }
        const biased = (out: Float64Array, name: string) =>
          config.mlpBias ? plus(out, w(`${name}.bias`)) : out;
        const [into, back] = [`${prefix}.mlp.gate_up_proj`, `${prefix}.mlp.down_proj`];
        const gateUp = biased(product(normed, w(`${into}.weight`)), into);
        const gated = Float64Array.from({ length: intermediateSize }, (_, i) => {
          const gate = gateUp[i]!;
          return (gate / (1 + Math.exp(-gate))) * gateUp[intermediateSize + i]!;
        });
        return plus(row, biased(product(gated, w(`${back}.weight`)), back));
      });
    }
    const head = w(config.tieWordEmbeddings ? 'model.embed_tokens.weight' : 'lm_head.weight');
    for (let t = prompt.length; t < tokens.length; t++) {
      const logits = product(norm(x[t - 1]!, w('model.norm.weight'), config.rmsNormEps), head);
      const p = softmax(Array.from(logits, (logit) => logit / temperature));
      if (p.length !== vocabSize) throw new Error('the head has another vocabulary');
      logprobs.push(Math.log(p[tokens[t]!]!));
      entropy.push(p.reduce((sum, q) => sum - (q > 0 ? q * Math.log(q) : 0), 0));
    }
  }
  return { logprobs: Float64Array.from(logprobs), entropy: Float64Array.from(entropy) };
}

/** W x, W being [rows, x.length]. */
function product(x: Float64Array, matrix: Float64Array): Float64Array {
  const out = new Float64Array(matrix.length / x.length);
  for (let i = 0; i < out.length; i++) {
    let sum = 0;
    for (let k = 0; k < x.length; k++) sum += matrix[i * x.length + k]! * x[k]!;
    out[i] = sum;
  }
  return out;
}

function plus(a: Float64Array, b: Float64Array): Float64Array {
  return a.map((value, i) => value + b[i]!);
}

function norm(x: Float64Array, weight: Float64Array, eps: number): Float64Array {
  let squares = 0;
  for (const value of x) squares += value * value;
  const root = Math.sqrt(squares / x.length + eps);
  return x.map((value, i) => (value / root) * weight[i]!);
}

/** Turns the pairs (i, i + headDim / 2) by position * theta^(-2 i / headDim), scaled, in place. */
function rotate(
  head: Float64Array,
  position: number,
  { ropeTheta, ropeScaling: scaling }: ResolvedDecoderConfig,
): void {
  const half = head.length / 2;
  for (let i = 0; i < half; i++) {
    let frequency = 1 / ropeTheta ** ((2 * i) / head.length);
    if (scaling?.type === 'linear') frequency /= scaling.factor;
    if (scaling?.type === 'llama3') {
      const wavelength = (2 * Math.PI) / frequency;
      const longest = scaling.originalMaxPositionEmbeddings / scaling.lowFreqFactor;
      const shortest = scaling.originalMaxPositionEmbeddings / scaling.highFreqFactor;
      if (wavelength > longest) frequency /= scaling.factor;
      else if (wavelength > shortest) {
        const between = scaling.originalMaxPositionEmbeddings / wavelength - scaling.lowFreqFactor;
        const smooth = between / (scaling.highFreqFactor - scaling.lowFreqFactor);
        frequency *= (1 - smooth) / scaling.factor + smooth;
      }
    }
    const angle = position * frequency;
    const [a, b] = [head[i]!, head[i + half]!];
    head[i] = a * Math.cos(angle) - b * Math.sin(angle);
    head[i + half] = b * Math.cos(angle) + a * Math.sin(angle);
  }
}

function softmax(x: readonly number[]): number[] {
  const largest = x.reduce((a, b) => Math.max(a, b), -Infinity);
  const e = x.map((value) => Math.exp(value - largest));
  const sum = e.reduce((a, b) => a + b, 0);
  return e.map((value) => value / sum);
}
