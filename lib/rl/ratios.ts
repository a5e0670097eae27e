/** Small functions of log ratios that losses, corrections and metrics share. */

/**
 * exp(-d) - 1 + d for d = log p - log q of a token sampled from p: the k3 estimate of KL[p || q], never
 * negative (Schulman 2020, "Approximating KL divergence").
 *
 * Near 0 even expm1(-d) + d cancels (it keeps 1e-16 / d of relative precision), and the engines' differences
 * live there; so small d take the series d^2/2! - d^3/3! + ... - d^9/9!, exact to the last bits below 0.03.
 */
export function k3(d: number): number {
  if (Math.abs(d) > 0.03) return Math.expm1(-d) + d;
  let sum = 1;
  for (let k = 9; k > 2; k--) sum = 1 - (d / k) * sum;
  return (d * d * sum) / 2;
}

/**
 * Effective sample size of importance weights w as a share of their number, 1 / mean((w / mean w)^2): 1 when
 * all weights are equal, 1 / n when one has everything. Taken from log w, so weights beyond fp64 still count;
 * NaN for none.
 */
export function effectiveSampleSize(logWeights: ArrayLike<number>): number {
  const size = new EffectiveSampleSize();
  for (let i = 0; i < logWeights.length; i++) size.add(logWeights[i]!);
  return size.share;
}

/** The same of any number of weights, one by one or put together from parts: sums of w and w^2, in units of the greatest so far. */
export class EffectiveSampleSize {
  #count = 0;
  #top = -Infinity;
  #sum = 0;
  #squares = 0;

  add(logWeight: number): void {
    this.#count++;
    this.#raise(logWeight);
    const weight = logWeight === -Infinity ? 0 : Math.exp(logWeight - this.#top);
    this.#sum += weight;
    this.#squares += weight * weight;
  }

  /** Adds all the weights of another. */
  merge(other: EffectiveSampleSize): void {
    this.#count += other.#count;
    this.#raise(other.#top);
    const scale = other.#top === -Infinity ? 0 : Math.exp(other.#top - this.#top);
    this.#sum += other.#sum * scale;
    this.#squares += other.#squares * scale * scale;
  }

  get share(): number {
    return ((this.#sum / this.#count) * this.#sum) / this.#squares;
  }

  /** Brings the sums to the units of a greater weight. */
  #raise(top: number): void {
    if (!(top > this.#top)) return;
    const scale = Math.exp(this.#top - top);
    this.#top = top;
    this.#sum *= scale;
    this.#squares *= scale * scale;
  }
}

/**
 * {@link effectiveSampleSize} of the weights exp(sum_t (log to - log from)) of whole responses, over those with a counted
 * token; NaN for none.
 */
export function sequenceEss(
  batch: { readonly offsets: Int32Array; readonly mask: Uint8Array },
  to: Float64Array,
  from: Float64Array,
): number {
  const logs: number[] = [];
  let current = -1;
  eachLogRatio(batch, to, from, (logRatio, _, s) => {
    if (s === current) logs[logs.length - 1]! += logRatio;
    else logs.push(logRatio);
    current = s;
  });
  return effectiveSampleSize(logs);
}

/** `value` held within [-limit, limit]. */
export function clampLog(value: number, limit: number): number {
  return Math.min(Math.max(value, -limit), limit);
}

/** Calls `body` with the log ratio to - from of every counted token, and its sequence. */
export function eachLogRatio(
  { offsets, mask }: { readonly offsets: Int32Array; readonly mask: Uint8Array },
  to: Float64Array,
  from: Float64Array,
  body: (logRatio: number, token: number, sequence: number) => void,
): void {
  for (let s = 0; s + 1 < offsets.length; s++) {
    for (let t = offsets[s]!; t < offsets[s + 1]!; t++) {
      if (mask[t] === 1) body(to[t]! - from[t]!, t, s);
    }
  }
}
