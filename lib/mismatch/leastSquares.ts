/** Least squares of one variable on another, added up point by point without cancellation (Welford 1962). */
export class LeastSquares {
  #count = 0;
  #meanX = 0;
  #meanY = 0;
  #xx = 0;
  #xy = 0;
  #yy = 0;

  add(x: number, y: number): void {
    this.#count++;
    const dx = x - this.#meanX;
    const dy = y - this.#meanY;
    this.#meanX += dx / this.#count;
    this.#meanY += dy / this.#count;
    this.#xx += dx * (x - this.#meanX);
    this.#xy += dx * (y - this.#meanY);
    this.#yy += dy * (y - this.#meanY);
  }

  /** Of y = intercept + slope x; NaN where x does not vary. */
  get slope(): number {
    return this.#xx > 0 ? this.#xy / this.#xx : Number.NaN;
  }

  get intercept(): number {
    return this.#meanY - this.slope * this.#meanX;
  }

  /** Standard deviation of y with Bessel's correction; 0 for a single point, NaN for none. */
  get deviationOfY(): number {
    if (this.#count < 2) return this.#count === 1 ? 0 : Number.NaN;
    return Math.sqrt(this.#yy / (this.#count - 1));
  }

  /** Pearson's correlation coefficient; NaN where one of them does not vary. */
  get correlation(): number {
    return this.#xx > 0 && this.#yy > 0 ? this.#xy / Math.sqrt(this.#xx * this.#yy) : Number.NaN;
  }
}
