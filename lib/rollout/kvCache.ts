import { InternalError } from '../errors.js';
import type { ResolvedDecoderConfig } from '../models/config.js';
import { pageSize } from '../ops/attention.js';
import { bytesPerElement, type FloatDType } from '../tensor/dtype.js';
import { full, type Tensor, zeros } from '../tensor/tensor.js';

/**
 * The paged key-value cache: pages of 16 positions, shared by the slots of a batch through a block table.
 *
 * A sequence reserves the pages of its greatest length when it is admitted, so that it can never be evicted half
 * way; pages go back when it ends.
 */
export class KvCache implements Disposable {
  /** One a layer: [pages, numKvHeads, headDim, 16], in the order of KvCacheView. */
  readonly keys: readonly Tensor[];
  /** One a layer: [pages, numKvHeads, 16, headDim]. */
  readonly values: readonly Tensor[];
  /** int32 [slots, pages a sequence]: the page of each block of 16 positions. */
  readonly blockTable: Tensor;
  readonly #table: Int32Array;
  readonly #pagesPerSlot: number;
  readonly #freePages: number[];
  readonly #freeSlots: number[];
  readonly #pagesOf = new Map<number, number[]>();
  #tableChanged = false;

  constructor(
    config: ResolvedDecoderConfig,
    options: { slots: number; maxLength: number; pages?: number; dtype: FloatDType },
  ) {
    const { slots, maxLength, dtype } = options;
    this.#pagesPerSlot = Math.ceil(maxLength / pageSize);
    const pages = options.pages ?? slots * this.#pagesPerSlot;
    const { numLayers, numKvHeads, headDim } = config;
    this.keys = Array.from({ length: numLayers }, () => zeros([pages, numKvHeads, headDim, pageSize], dtype));
    this.values = Array.from({ length: numLayers }, () =>
      zeros([pages, numKvHeads, pageSize, headDim], dtype),
    );
    this.blockTable = full([slots, this.#pagesPerSlot], -1, 'int32');
    this.#table = new Int32Array(slots * this.#pagesPerSlot).fill(-1);
    this.#freePages = Array.from({ length: pages }, (_, i) => pages - 1 - i);
    this.#freeSlots = Array.from({ length: slots }, (_, i) => slots - 1 - i);
  }

  /** The pages that a sequence of this length takes. */
  static pagesFor(length: number): number {
    return Math.ceil(length / pageSize);
  }

  /** How many sequences of this length a cache of `bytes` holds; at least 1. */
  static sequencesWithin(
    bytes: number,
    { numLayers, numKvHeads, headDim }: ResolvedDecoderConfig,
    length: number,
    dtype: FloatDType,
  ): number {
    const perPage = 2 * numLayers * numKvHeads * headDim * pageSize * bytesPerElement(dtype);
    return Math.max(1, Math.floor(bytes / (KvCache.pagesFor(length) * perPage)));
  }

  /** A slot with pages for `length` positions, or undefined while there is no room. */
  reserve(length: number): number | undefined {
    const count = KvCache.pagesFor(length);
    if (this.#freeSlots.length === 0 || this.#freePages.length < count) return undefined;
    const slot = this.#freeSlots.pop()!;
    const pages = this.#freePages.splice(this.#freePages.length - count, count);
    this.#pagesOf.set(slot, pages);
    this.#table.set(pages, slot * this.#pagesPerSlot);
    this.#tableChanged = true;
    return slot;
  }

  release(slot: number): void {
    const pages = this.#pagesOf.get(slot);
    if (!pages) throw new InternalError(`slot ${slot} of the KV cache is not in use`);
    this.#pagesOf.delete(slot);
    this.#freePages.push(...pages);
    this.#freeSlots.push(slot);
  }

  /** Brings the device's block table up to date. */
  uploadTable(): void {
    if (this.#tableChanged) this.blockTable.upload(this.#table);
    this.#tableChanged = false;
  }

  [Symbol.dispose](): void {
    for (const t of [...this.keys, ...this.values, this.blockTable]) t.dispose();
  }
}
