/**
 * A model of a size that people train, with random weights, through both engines: generation, scoring, training steps.
 * What it takes, and how far the engines are apart. For a GPU: node dist/bench/largeModel.js --device cuda --size 1.5b
 */
import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { devices } from '../lib/device.js';
import { checkChoice } from '../lib/errors.js';
import { mismatchMetrics } from '../lib/mismatch/metrics.js';
import { type DecoderConfig, resolveDecoderConfig } from '../lib/models/config.js';
import { Decoder } from '../lib/models/decoder.js';
import type { TokenSequence } from '../lib/models/sequences.js';
import { RolloutEngine } from '../lib/rollout/engine.js';
import { info, memory, setDevice, trimMemory } from '../lib/runtime.js';
import { floatDtypes, type NativeFloatDType } from '../lib/tensor/dtype.js';
import { TrainingEngine } from '../lib/training/engine.js';
import { commit } from './machine.js';
import { quantile } from './measure.js';
import { crossEntropy, randomPrompts } from './model.js';

/** Shapes of published models: Qwen2.5 of 0.5 and 1.5 billion parameters. */
const sizes: Readonly<Record<string, DecoderConfig>> = {
  tiny: {
    vocabSize: 1000,
    hiddenSize: 64,
    intermediateSize: 176,
    numLayers: 2,
    numHeads: 4,
    numKvHeads: 2,
    maxPositionEmbeddings: 4096,
  },
  '0.5b': {
    vocabSize: 151936,
    hiddenSize: 896,
    intermediateSize: 4864,
    numLayers: 24,
    numHeads: 14,
    numKvHeads: 2,
    maxPositionEmbeddings: 4096,
    attentionBias: true,
    tieWordEmbeddings: true,
  },
  '1.5b': {
    vocabSize: 151936,
    hiddenSize: 1536,
    intermediateSize: 8960,
    numLayers: 28,
    numHeads: 12,
    numKvHeads: 2,
    maxPositionEmbeddings: 4096,
    attentionBias: true,
    tieWordEmbeddings: true,
  },
};

const { values } = parseArgs({
  options: {
    size: { type: 'string', default: 'tiny' },
    device: { type: 'string', default: 'cpu' },
    precision: { type: 'string', default: 'bf16' },
    batch: { type: 'string', default: '64' },
    prompt: { type: 'string', default: '64' },
    tokens: { type: 'string', default: '64' },
    steps: { type: 'string', default: '5' },
    out: { type: 'string' },
  },
});
const size = checkChoice('largeModel', '--size', values.size, Object.keys(sizes));
const precision: NativeFloatDType = checkChoice('largeModel', '--precision', values.precision, floatDtypes);
setDevice(checkChoice('largeModel', '--device', values.device, devices));
const [batch, promptLength, newTokens, steps] = [
  values.batch,
  values.prompt,
  values.tokens,
  values.steps,
].map(Number) as [number, number, number, number];

const config = resolveDecoderConfig(sizes[size]!);
using model = new Decoder(config, { seed: 1 });
const parameters = model.parameters.reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0);
const vocabulary = { layers: 0, hidden: 0, heads: 0, ffn: 0, vocabulary: config.vocabSize };

async function timed<R>(body: () => Promise<R>): Promise<{ result: R; seconds: number }> {
  const began = performance.now();
  const result = await body();
  return { result, seconds: (performance.now() - began) / 1000 };
}

/** Tokens a second, the first run left out: it loads kernels and finds memory. */
async function generation(sequences: number) {
  using engine = new RolloutEngine(model, {
    precision,
    maxBatch: sequences,
    maxLength: promptLength + newTokens,
  });
  const requests = randomPrompts(vocabulary, sequences, promptLength);
  const run = () => engine.generate(requests, { seed: 1, maxNewTokens: newTokens });
  await run();
  const { result, seconds } = await timed(run);
  const tokens = result.reduce((sum, { tokens }) => sum + tokens.length, 0);
  return { completions: result, requests, tokensPerSecond: tokens / seconds };
}

const single = await generation(1);
const many = await generation(batch);
trimMemory();
const sequences: TokenSequence[] = many.completions.map(({ tokens }, i) => ({
  prompt: Int32Array.from(many.requests[i]!.prompt),
  response: tokens,
}));
const count = sequences.reduce((sum, { response }) => sum + response.length, 0);

using engine = new TrainingEngine(model, {
  precision,
  schedule: { kind: 'constant', learningRate: 1e-5 },
  microBatchTokens: 4096,
});
await engine.score(sequences);
const scoring = await timed(() => engine.score(sequences));
const mismatch = mismatchMetrics({
  offsets: scoring.result.offsets,
  mask: new Uint8Array(count).fill(1),
  rolloutLogprobs: Float64Array.from(many.completions.flatMap(({ logprobs }) => [...logprobs])),
  logprobs: scoring.result.logprobs,
});
const loss = crossEntropy(count);
const seconds: number[] = [];
const losses: number[] = [];
for (let i = 0; i <= steps; i++) {
  const step = await timed(() => engine.step(sequences, loss));
  losses.push(step.result.loss);
  if (i > 0) seconds.push(step.seconds);
}
const { cudaDevices, device } = info();
const passTokens = batch * (promptLength + newTokens);
const document = {
  commit: commit(),
  command: `node dist/bench/largeModel.js ${process.argv.slice(2).join(' ')}`,
  device: device === 'cuda' ? cudaDevices[0]!.name : 'cpu',
  model: { size, parameters, config },
  precision,
  batch,
  promptLength,
  newTokens,
  generation: { batch1TokensPerSecond: single.tokensPerSecond, tokensPerSecond: many.tokensPerSecond },
  scoring: { tokensPerSecond: passTokens / scoring.seconds },
  training: { tokensPerSecond: passTokens / quantile(seconds, 0.5), seconds, losses },
  mismatch,
  memory: memory(),
};
if (values.out) writeFileSync(values.out, `${JSON.stringify(document, null, 2)}\n`);
process.stdout.write(`${JSON.stringify(document, null, 2)}\n`);
