import type { Parameter } from '../autograd/parameter.js';
import type { ResolvedDecoderConfig } from '../models/config.js';
import type { Decoder } from '../models/decoder.js';
import { loraColumns, PassMemory } from '../models/passMemory.js';
import type { LoraAdapter } from '../nn/lora.js';
import type { Numerics } from '../numerics.js';
import { pageSize } from '../ops/attention.js';
import { packedSize } from '../ops/packWeight.js';
import { info } from '../runtime.js';
import { AllocatorModel, type Block } from '../tensor/allocatorModel.js';
import { bytesPerElement, type FloatDType } from '../tensor/dtype.js';
import { DecodeStep } from './decodeStep.js';
import type { LoraMode } from './engine.js';
import { KvCache } from './kvCache.js';
import { packableParameters } from './packable.js';

export interface RolloutMemoryOptions {
  readonly precision: FloatDType;
  readonly numerics: Numerics;
  readonly loraMode: LoraMode;
  readonly maxBatch: number;
  readonly maxLength: number;
  readonly kvPages: number;
}

/** The memory of a rollout engine, in numbers alone: what `RolloutEngine` takes and gives back. */
export class RolloutMemory {
  readonly #memory: AllocatorModel;
  readonly #model: Decoder;
  readonly #config: ResolvedDecoderConfig;
  readonly #options: RolloutMemoryOptions;
  /** The adapter, where it is computed with beside the weights. */
  readonly #lora: LoraAdapter | null;
  readonly #packed: ReadonlySet<Parameter>;

  constructor(memory: AllocatorModel, model: Decoder, options: RolloutMemoryOptions) {
    this.#memory = memory;
    this.#model = model;
    this.#config = model.config;
    this.#options = options;
    this.#lora = options.loraMode === 'factored' ? model.lora : null;
    this.#packed = new Set(packableParameters(model, this.#lora, options.numerics));
  }

  /** The copies of the weights, packed where products read them so. */
  weights(): void {
    const { vectorLevel, device } = info();
    const { precision } = this.#options;
    const size = bytesPerElement(precision);
    for (const parameter of [...this.#model.parameters, ...(this.#lora?.parameters ?? [])]) {
      const plain = this.#rounded(parameter);
      if (!this.#packed.has(parameter)) continue;
      this.#memory.take(packedSize(parameter.shape, precision, vectorLevel, device) * size);
      if (parameter !== this.#model.embedding) this.#memory.give(plain);
    }
  }

  /** Takes over the masters that change: what is merged or packed alone is made beside first. */
  sync(): void {
    const { lora, trainable, embedding } = this.#model;
    const merged = lora && !this.#lora ? new Set(lora.branches.map(({ base }) => base)) : null;
    for (const parameter of merged ?? trainable) {
      const beside = merged || (this.#packed.has(parameter) && parameter !== embedding);
      if (beside) this.#memory.give(this.#rounded(parameter));
    }
  }

  /** A copy in the rollout dtype, of the weight with its adapter where that is merged. */
  #rounded(parameter: Parameter): Block {
    const branches = this.#lora ? [] : (this.#model.lora?.of(parameter) ?? []);
    const merged = branches.length > 0 ? this.#memory.take(4 * parameter.size) : null;
    for (const { b } of branches) this.#memory.give(this.#memory.take(4 * b.size));
    const rounded = this.#memory.take(parameter.size * bytesPerElement(this.#options.precision));
    this.#memory.give(merged);
    return rounded;
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
    const { precision, numerics } = this.#options;
    const lora = this.#lora && loraColumns(this.#model, numerics.loraScaleFirst);
    return new PassMemory(memory, this.#config, precision, lora);
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
