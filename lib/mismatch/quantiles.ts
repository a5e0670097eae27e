/** Values kept before they are thinned out. */
const CAPACITY = 2 ** 20;

/**
 * Quantiles of a stream of numbers. Exact up to 2^20 values; beyond that every second value is dropped and only every
 * second, fourth, ... one is kept, so that memory stays bounded and the same stream gives the same numbers.
 */
export class Quantiles {
  #values = new Float64Array(1024);
  #count = 0;
  #stride = 1;
  #skipped = 0;
  #sorted = true;

  add(value: number): void {
    if (this.#skipped > 0) {
      this.#skipped--;
      return;
    }
    if (this.#count === CAPACITY) {
      for (let i = 0; 2 * i < this.#count; i++) this.#values[i] = this.#values[2 * i]!;
      this.#count /= 2;
      this.#stride *= 2;
    }
    if (this.#count === this.#values.length) {
      const grown = new Float64Array(2 * this.#values.length);
      grown.set(this.#values);
      this.#values = grown;
    }
    this.#values[this.#count++] = value;
    this.#skipped = this.#stride - 1;
    this.#sorted = false;
  }

  /** Whether no value had to be dropped so far. */
  get exact(): boolean {
    return this.#stride === 1;
  }

  /** The value below which the share `q` of the others lies, between two neighbours by their distance; NaN of none. */
  at(q: number): number {
    if (this.#count === 0) return Number.NaN;
    if (!this.#sorted) {
      this.#values.subarray(0, this.#count).sort();
      this.#sorted = true;
    }
    const place = q * (this.#count - 1);
    const below = this.#values[Math.floor(place)]!;
    const above = this.#values[Math.ceil(place)]!;
    return below + (above - below) * (place - Math.floor(place));
  }
}
