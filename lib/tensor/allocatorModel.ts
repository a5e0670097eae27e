/**
 * The size of the block that the allocator gives for a tensor: whole cache lines, in eight classes a doubling, so that at
 * most an eighth is unused (`sizeClass` of native/core/allocator.cc).
 */
export function blockBytes(bytes: number): number {
  const line = 64;
  const rounded = Math.max(1, Math.ceil(bytes / line)) * line;
  let step = line;
  while (step * 16 < rounded) step *= 2;
  return Math.ceil(rounded / step) * step;
}

/** A block of memory by its size: blocks of one size are alike. */
export type Block = number;

/**
 * What the allocator would do, in numbers alone: what a run will take is said before there is a tensor. The numbers are
 * those of `memory()`.
 */
export class AllocatorModel {
  #bytes = 0;
  #cachedBytes = 0;
  #peakBytes = 0;
  readonly #live = new Map<Block, number>();
  readonly #cached = new Map<Block, number>();

  /** Held by live tensors. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Held by nobody, kept for reuse by tensors of the same size class. */
  get cachedBytes(): number {
    return this.#cachedBytes;
  }

  /** The most that live tensors held since {@link resetPeak}. */
  get peakBytes(): number {
    return this.#peakBytes;
  }

  resetPeak(): void {
    this.#peakBytes = this.#bytes;
  }

  take(bytes: number): Block {
    const block = blockBytes(bytes);
    const cached = this.#cached.get(block) ?? 0;
    if (cached > 0) {
      this.#cached.set(block, cached - 1);
      this.#cachedBytes -= block;
    }
    this.#live.set(block, (this.#live.get(block) ?? 0) + 1);
    this.#bytes += block;
    this.#peakBytes = Math.max(this.#peakBytes, this.#bytes);
    return block;
  }

  give(...blocks: readonly (Block | null)[]): void {
    for (const block of blocks) {
      if (block === null) continue;
      this.#live.set(block, this.#live.get(block)! - 1);
      this.#cached.set(block, (this.#cached.get(block) ?? 0) + 1);
      this.#bytes -= block;
      this.#cachedBytes += block;
    }
  }

  /** Takes all that another one has, live or cached: what a recording of its ops retains. */
  takeAll(recorded: AllocatorModel): void {
    for (const blocks of [recorded.#live, recorded.#cached])
      for (const [block, count] of blocks) for (let i = 0; i < count; i++) this.take(block);
  }
}
