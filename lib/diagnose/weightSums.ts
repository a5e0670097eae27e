/** Sums of weights and of their squares that can be put together: from logs, so that weights beyond fp64 still count. */
export class WeightSums {
  /** The greatest log weight; both sums are in units of exp(#top). */
  #top = -Infinity;
  #sum = 0;
  #squares = 0;
  #count = 0;

  add(log: number): void {
    if (log > this.#top) this.#scale(log);
    const weight = Math.exp(log - this.#top);
    this.#sum += weight;
    this.#squares += weight * weight;
    this.#count++;
  }

  merge(other: WeightSums): void {
    if (other.#count === 0) return;
    if (other.#top > this.#top) this.#scale(other.#top);
    const unit = Math.exp(other.#top - this.#top);
    this.#sum += other.#sum * unit;
    this.#squares += other.#squares * unit * unit;
    this.#count += other.#count;
  }

  /** As `effectiveSampleSize` of all their logs: (sum w)^2 / sum w^2 as a share of their number; NaN for none. */
  get ess(): number {
    return ((this.#sum / this.#count) * this.#sum) / this.#squares;
  }

  #scale(top: number): void {
    const unit = this.#count === 0 ? 0 : Math.exp(this.#top - top);
    this.#sum *= unit;
    this.#squares *= unit * unit;
    this.#top = top;
  }
}
