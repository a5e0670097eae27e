import type { CountedTokens } from './countedTokens.js';

/** Responses with fewer unsure tokens say too little of their noise. */
const LEAST_OPENNESS = 0.2;

/** How noisy the responses are that say enough of it. */
export interface ResponseNoise {
  /** The responses. */
  readonly responses: number[];
  /** The logit noise of each (see `CountedTokens.logitNoise`); NaN of those that are left out. */
  readonly noise: Float64Array;
  /** Its logarithm, in which that of equal ones counts as a tenth of the least noise there is. */
  readonly log: Float64Array;
}

export function responseNoise({ count, response, responses, d, openness }: CountedTokens): ResponseNoise {
  const absolute = new Float64Array(responses);
  const open = new Float64Array(responses);
  for (let i = 0; i < count; i++) {
    absolute[response[i]!]! += Math.abs(d[i]!);
    open[response[i]!]! += openness[i]!;
  }
  const noise = absolute.map((sum, s) => (open[s]! >= LEAST_OPENNESS ? sum / open[s]! : Number.NaN));
  let least = Infinity;
  for (const own of noise) if (own > 0 && own < least) least = own;
  const equal = Math.log(Number.isFinite(least) ? least / 10 : 1);
  return {
    responses: Array.from(noise.keys()).filter((s) => !Number.isNaN(noise[s]!)),
    noise,
    log: noise.map((own) => (own === 0 ? equal : Math.log(own))),
  };
}

/** Number, mean and sum of squared distances from it, of numbers that are added one by one (Welford). */
export class Moments {
  count = 0;
  mean = 0;
  squares = 0;

  add(x: number): void {
    const distance = x - this.mean;
    this.mean += distance / ++this.count;
    this.squares += distance * (x - this.mean);
  }

  /** Of all but those that are in `part`, too. */
  without(part: Moments): Moments {
    const rest = new Moments();
    rest.count = this.count - part.count;
    if (rest.count === 0) return rest;
    rest.mean = this.mean + ((this.mean - part.mean) * part.count) / rest.count;
    const between = ((rest.mean - part.mean) ** 2 * part.count * rest.count) / this.count;
    rest.squares = Math.max(0, this.squares - part.squares - between);
    return rest;
  }

  /** Together with others. */
  merge(other: Moments): void {
    const count = this.count + other.count;
    if (count === 0) return;
    const distance = other.mean - this.mean;
    this.squares += other.squares + (distance ** 2 * this.count * other.count) / count;
    this.mean += (distance * other.count) / count;
    this.count = count;
  }

  /** Of the mean. */
  get variance(): number {
    return this.squares / Math.max(1, this.count - 1) / this.count;
  }
}

/** Two groups of logs of noise: how many times the second's is above the first's, and in standard errors. */
export interface Jump {
  readonly ratio: number;
  readonly errors: number;
  readonly before: number;
  readonly after: number;
}

/**
 * The standard error is the greater one of Welch's and Student's: a small group that happens to have but one of two sizes of noise
 * has no error of its own.
 */
export function jumpOf(before: Moments, after: Moments): Jump {
  const rise = after.mean - before.mean;
  const [n, m] = [before.count, after.count];
  const pooled = ((before.squares + after.squares) / Math.max(1, n + m - 2)) * (1 / n + 1 / m);
  return {
    ratio: Math.exp(rise),
    errors: rise === 0 ? 0 : rise / Math.sqrt(Math.max(pooled, before.variance + after.variance)),
    before: Math.exp(before.mean),
    after: Math.exp(after.mean),
  };
}
