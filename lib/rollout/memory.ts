import type { ResolvedDecoderConfig } from '../models/config.js';
import { PassMemory } from '../models/passMemory.js';
import type { Numerics } from '../numerics.js';
import { pageSize } from '../ops/attention.js';
import { AllocatorModel, type Block } from '../tensor/allocatorModel.js';
import { bytesPerElement, type FloatDType } from '../tensor/dtype.js';
import { DecodeStep } from './decodeStep.js';
import { KvCache } from './kvCache.js';

export interface RolloutMemoryOptions {
  readonly precision: FloatDType;
  readonly numerics: Numerics;
  readonly maxBatch: number;
  readonly maxLength: number;
  readonly kvPages: number;
}

/** The memory of a rollout engine, in numbers alone: what `RolloutEngine` takes and gives back beside its weights. */
export class RolloutMemory {
  readonly #memory: AllocatorModel;
  readonly #config: ResolvedDecoderConfig;
  readonly #options: RolloutMemoryOptions;

  constructor(memory: AllocatorModel, config: ResolvedDecoderConfig, options: RolloutMemoryOptions) {
    this.#memory = memory;
    this.#config = config;
    this.#options = options;
  }

  /** Keys and values of all pages, and the block table. */
  cache(): void {
    const { numLayers, numKvHeads, headDim } = this.#config;
    const { precision, kvPages, maxBatch, maxLength } = this.#options;
    const page = numKvHeads * headDim * pageSize * bytesPerElement(precision);
    for (let i = 0; i < 2 * numLayers; i++) this.#memory.take(kvPages * page);
    this.#memory.take(maxBatch * KvCache.pagesFor(maxLength) * 4);
  }

  /** The rotary table, and for every number of rows that decode steps have the order of heads. */
  tables(): void {
    const { headDim, qkNorm } = this.#config;
    this.#memory.take(this.#options.maxLength * headDim * 4);
    if (!qkNorm) return;
    const pass = this.#pass(this.#memory);
    for (const rows of DecodeStep.rowCounts(this.#options.maxBatch)) pass.headOrder(rows);
  }

  /**
   * The decode steps of every number of rows, recorded: inputs, activations, which layers share, and what is drawn. Kept
   * from the first generation on.
   */
  decodeSteps(): void {
    for (const rows of DecodeStep.rowCounts(this.#options.maxBatch)) {
      const recorded = new AllocatorModel();
      this.#drawn(this.#pass(recorded), rows, rows, null);
      this.#memory.takeAll(recorded);
      for (const inputs of [1, 6]) this.#memory.take(inputs * rows * 4);
      for (let i = 0; i < 2; i++) this.#memory.take(DecodeStep.maxSteps * rows * 4);
    }
  }

  /** Of these, the logits. */
  decodeLogits(): number {
    const memory = new AllocatorModel();
    const pass = this.#pass(memory);
    for (const rows of DecodeStep.rowCounts(this.#options.maxBatch)) this.#logits(pass, rows);
    return memory.bytes;
  }

  /** One pass of `prompts` prompts of `tokens` tokens together. */
  prefill(tokens: number, prompts: number): void {
    const pass = this.#pass(this.#memory);
    const inputs: Block[] = [4 * prompts, prompts, tokens, tokens, tokens].map((n) =>
      pass.take(n, 1, 'int32'),
    );
    const order = pass.headOrder(tokens);
    const blocks = this.#drawn(pass, tokens, prompts, prompts);
    this.#memory.give(...inputs, ...order, ...blocks);
  }

  #pass(memory: AllocatorModel): PassMemory {
    return new PassMemory(memory, this.#config, this.#options.precision);
  }

  /** A pass, the logits of its last rows, and a draw for each. */
  #drawn(pass: PassMemory, tokens: number, rows: number, selected: number | null): Block[] {
    const hidden = pass.hidden(tokens, 'paged', selected);
    const logits = this.#logits(pass, rows);
    return [...hidden, logits, pass.take(rows, 1, 'int32'), pass.take(rows, 1, 'fp32')];
  }

  #logits(pass: PassMemory, rows: number): Block {
    const { numerics, precision } = this.#options;
    return pass.take(rows, this.#config.vocabSize, numerics.logits16 ? precision : 'fp32');
  }
}
