import type { CountedTokens } from './countedTokens.js';

/** Responses with fewer unsure tokens say too little of their noise. */
const LEAST_OPENNESS = 0.2;

/** The logit noise of each response (see `CountedTokens.logitNoise`); NaN where no token was open. */
export function responseNoise({ count, response, responses, d, openness }: CountedTokens): Float64Array {
  const absolute = new Float64Array(responses);
  const open = new Float64Array(responses);
  for (let i = 0; i < count; i++) {
    absolute[response[i]!]! += Math.abs(d[i]!);
    open[response[i]!]! += openness[i]!;
  }
  return absolute.map((sum, s) => (open[s]! >= LEAST_OPENNESS ? sum / open[s]! : Number.NaN));
}

/** Two groups of positive numbers: how many times the second's mean log is above the first's, and in standard errors. */
export interface Jump {
  readonly ratio: number;
  readonly errors: number;
  readonly before: number;
  readonly after: number;
}

/** Values of 0 count as a tenth of the least that is not 0. */
export function jumpOf(before: readonly number[], after: readonly number[]): Jump {
  const least = Math.min(...[...before, ...after].filter((x) => x > 0));
  const logs = (values: readonly number[]) => values.map((x) => Math.log(x > 0 ? x : least / 10));
  const [a, b] = [moments(logs(before)), moments(logs(after))];
  const error = Math.sqrt(a.variance / before.length + b.variance / after.length);
  const rise = b.mean - a.mean;
  return {
    ratio: Math.exp(rise),
    errors: rise === 0 ? 0 : rise / error,
    before: Math.exp(a.mean),
    after: Math.exp(b.mean),
  };
}

function moments(values: readonly number[]): { mean: number; variance: number } {
  const mean = values.reduce((sum, x) => sum + x, 0) / values.length;
  const squares = values.reduce((sum, x) => sum + (x - mean) ** 2, 0);
  return { mean, variance: squares / Math.max(1, values.length - 1) };
}
