import type { ResolvedDecoderConfig } from '../models/config.js';
import {
  type LayerBlocks,
  type LoraColumns,
  type LoraWeight,
  type MlpBlocks,
  PassMemory,
  type Projected,
} from '../models/passMemory.js';
import type { AllocatorModel, Block } from '../tensor/allocatorModel.js';
import type { FloatDType } from '../tensor/dtype.js';
import type { Recompute } from './engine.js';

/**
 * The memory of the training engine's passes, in numbers alone: op by op, what `TrainingEngine` takes and gives back, every
 * token but a sequence's first counted as one of a response.
 */
export class TrainingPassMemory {
  readonly #pass: PassMemory;

  constructor(
    memory: AllocatorModel,
    config: ResolvedDecoderConfig,
    precision: FloatDType,
    lora: LoraColumns | null,
  ) {
    this.#pass = new PassMemory(memory, config, precision, lora);
  }

  /** `score`: one pass of packed sequences of `tokens` tokens. */
  score(tokens: number): void {
    const pass = this.#pass;
    const inputs = this.#inputs(tokens);
    const hidden = pass.hidden(tokens, 'packed');
    const head = this.#head(tokens);
    pass.memory.give(...inputs, ...hidden, ...head.gathered, ...head.scores);
  }

  /** The forward and the backward pass of one micro-batch of `tokens` tokens. */
  microBatch(tokens: number, recompute: Recompute): void {
    const pass = this.#pass;
    const { memory } = pass;
    const { numLayers, hiddenSize } = pass.config;
    const inputs = this.#inputs(tokens);
    const embedded = pass.take(tokens, hiddenSize);
    const kept: { layer?: LayerBlocks; outputs: Block[] }[] = [];
    for (let i = 0; i < numLayers; i++) {
      const layer = pass.layer(i, tokens, 'kept');
      kept.push(recompute === 'layers' ? { outputs: pass.dropLayer(layer) } : { layer, outputs: [] });
    }
    const last = pass.norm(tokens, true);
    const head = this.#head(tokens);

    const seed = pass.take(tokens, 1, 'fp32');
    const dGathered = pass.take(tokens, hiddenSize);
    memory.give(...head.scores);
    const dHidden = pass.take(tokens, hiddenSize);
    memory.give(dGathered, head.gathered.pop()!);
    let gradient = pass.take(tokens, hiddenSize);
    memory.give(dHidden, last.sum, last.out);
    for (const [i, { layer, outputs }] of [...kept.entries()].reverse()) {
      memory.give(...outputs);
      const blocks = layer ?? pass.layer(i, tokens, 'kept');
      gradient = this.#layerBackward(tokens, blocks, gradient);
      const groups = blocks.mlp.mixture?.groups ?? [];
      if (layer) inputs.push(...groups);
      else memory.give(...groups);
    }
    memory.give(gradient, embedded, seed, ...inputs, ...head.gathered);
  }

  /** Positions, sequence bounds, the order of heads, token ids: what is uploaded before the pass. */
  #inputs(tokens: number): Block[] {
    const pass = this.#pass;
    const vector = () => pass.take(tokens, 1, 'int32');
    return [vector(), vector(), ...pass.headOrder(tokens), vector()];
  }

  /** The rows that predict, their hidden states, the targets; then log-probs, log-sum-exp and entropy. */
  #head(tokens: number): { gathered: Block[]; scores: Block[] } {
    const pass = this.#pass;
    const [rows, targets] = [pass.take(tokens, 1, 'int32'), pass.take(tokens, 1, 'int32')];
    const gathered = [rows, targets, pass.take(tokens, pass.config.hiddenSize)];
    return { gathered, scores: Array.from({ length: 3 }, () => pass.take(tokens, 1, 'fp32')) };
  }

  /** From the gradient of a layer's outputs, which share it, to that of its inputs; gives the layer back. */
  #layerBackward(tokens: number, blocks: LayerBlocks, gradient: Block): Block {
    const pass = this.#pass;
    const { memory } = pass;
    const stream = () => pass.take(tokens, pass.config.hiddenSize);
    const { attentionNorm, attended, attentionOut, mlpNorm, mlp } = blocks;

    const dMlpNorm = mlp.mixture ? this.#mixtureBackward(tokens, mlp) : this.#mlpBackward(tokens, mlp);
    const dBetween = stream();
    memory.give(dMlpNorm, gradient, mlpNorm.sum, mlpNorm.out);

    const dAttended = this.#projectBackward(tokens, pass.attentionColumns, 'out', attentionOut);
    memory.give(attentionOut.y);
    let dQkv = pass.take(tokens, pass.qkvColumns);
    memory.give(dAttended, attended, blocks.lse);
    if (blocks.headNorm !== null) dQkv = this.#headNormBackward(tokens, blocks.headNorm, dQkv);
    const dAttentionNorm = this.#projectBackward(tokens, pass.config.hiddenSize, 'qkv', blocks.qkv);
    memory.give(dQkv, blocks.qkv.y);
    let dInput = stream();
    if (attentionNorm.sum === null) {
      // The first layer's input is read by its norm and by the residual stream: the two are added.
      const sum = stream();
      memory.give(dInput);
      dInput = sum;
    }
    memory.give(dBetween, dAttentionNorm, attentionNorm.sum, attentionNorm.out);
    return dInput;
  }

  /** The gradient of a projection's input: those of its adapter's branches, last first, and its own, added up. */
  #projectBackward(tokens: number, inputs: number, weight: LoraWeight, { inner }: Projected): Block {
    const pass = this.#pass;
    const { memory, lora } = pass;
    let sum: Block | null = null;
    const add = () => {
      const own = pass.take(tokens, inputs);
      const before = sum;
      sum = before === null ? own : pass.take(tokens, inputs);
      if (before !== null) memory.give(before, own);
    };
    for (const [i, product] of [...inner.entries()].reverse()) {
      const dOuter = pass.take(tokens, lora![weight][i]!);
      const dInner = [pass.take(tokens, lora!.rank), pass.take(tokens, lora!.rank)];
      add();
      memory.give(dOuter, ...dInner, product);
    }
    add();
    return sum!;
  }

  #mlpBackward(tokens: number, { gateUp, gated, out }: MlpBlocks): Block {
    const pass = this.#pass;
    const dGated = this.#projectBackward(tokens, pass.config.intermediateSize, 'down', out);
    pass.memory.give(out.y);
    pass.memory.give(dGated, gated); // the gradient of gateUp takes its memory
    const dInput = this.#projectBackward(tokens, pass.config.hiddenSize, 'gateUp', gateUp);
    pass.memory.give(gateUp.y);
    return dInput;
  }

  /** Leaves the groups of rows, which are the tape's. */
  #mixtureBackward(tokens: number, { gateUp, gated, out, mixture }: MlpBlocks): Block {
    const pass = this.#pass;
    const { memory } = pass;
    const { hiddenSize, numExperts, numExpertsPerToken: k, moeIntermediateSize } = pass.config;
    const { logits, ids, weights, sorted, down } = mixture!;
    const dDown = pass.take(tokens * k, hiddenSize);
    const dWeights = pass.take(tokens, k, 'fp32');
    memory.give(out.y);
    const dGated = pass.take(tokens * k, moeIntermediateSize);
    memory.give(dDown, down);
    memory.give(dGated, gated);
    const dSorted = pass.take(tokens * k, hiddenSize);
    memory.give(gateUp.y);
    const ofExperts = pass.take(tokens, hiddenSize);
    memory.give(dSorted, sorted);
    const dLogits = pass.take(tokens, numExperts);
    memory.give(dWeights, ids, weights);
    const ofRouter = pass.take(tokens, hiddenSize);
    const sum = pass.take(tokens, hiddenSize);
    memory.give(ofExperts, ofRouter, dLogits, logits);
    return sum;
  }

  /** Sorts gradients and heads, takes the gradients of the norms of queries and keys, and sorts back. */
  #headNormBackward(tokens: number, normed: Block, gradient: Block): Block {
    const pass = this.#pass;
    const { numKvHeads, headDim } = pass.config;
    const sorted = [pass.take(tokens, pass.qkvColumns), pass.take(tokens, pass.qkvColumns)];
    const inner = [pass.take(tokens, pass.attentionColumns), pass.take(tokens, numKvHeads * headDim)];
    const out = pass.take(tokens, pass.qkvColumns);
    pass.memory.give(...sorted, ...inner, gradient, normed);
    return out;
  }
}
