import type { TokenSample } from './sample.js';

/** The counted tokens of a sample, side by side; what every signature starts from. */
export interface CountedTokens {
  readonly sample: TokenSample;
  readonly count: number;
  readonly responses: number;
  /** [count] the place in the sample. */
  readonly token: Int32Array;
  /** [count] the response. */
  readonly response: Int32Array;
  readonly mu: Float64Array;
  readonly pi: Float64Array;
  /** [count] d = log mu - log pi. */
  readonly d: Float64Array;
  /** [count] how open the choice was: 1 - p, the mean of both engines. */
  readonly openness: Float64Array;
  /** mean |d| */
  readonly meanAbs: number;
  readonly meanOpenness: number;
  /**
   * mean |d| / mean (1 - p), the noise of the logits in nats. An error e_v of each logit moves log p_y by e_y - sum_v p_v
   * e_v, whose size is that of the errors times something between 1 - p_y and sqrt(2) (1 - p_y): so this number hardly
   * depends on how sure the policy is, and can be held against a format's rounding.
   */
  readonly logitNoise: number;
  /** (sum |d|)^2 / sum d^2: over how many tokens the mismatch is spread; of one that alone differs it is 1. */
  readonly spread: number;
}

export function countedTokens(sample: TokenSample): CountedTokens {
  const { offsets, mask, mu, pi } = sample;
  let count = 0;
  for (let t = 0; t < mask.length; t++) count += mask[t]!;
  const token = new Int32Array(count);
  const response = new Int32Array(count);
  const own = { mu: new Float64Array(count), pi: new Float64Array(count), d: new Float64Array(count) };
  const openness = new Float64Array(count);
  let i = 0;
  let [absolute, squares, open] = [0, 0, 0];
  for (let s = 0; s + 1 < offsets.length; s++) {
    for (let t = offsets[s]!; t < offsets[s + 1]!; t++) {
      if (mask[t] === 0) continue;
      token[i] = t;
      response[i] = s;
      own.mu[i] = mu[t]!;
      own.pi[i] = pi[t]!;
      own.d[i] = mu[t]! - pi[t]!;
      openness[i] = (unlikely(mu[t]!) + unlikely(pi[t]!)) / 2;
      absolute += Math.abs(own.d[i]!);
      squares += own.d[i]! ** 2;
      open += openness[i]!;
      i++;
    }
  }
  return {
    sample,
    count,
    responses: offsets.length - 1,
    token,
    response,
    ...own,
    openness,
    meanAbs: absolute / count,
    meanOpenness: open / count,
    logitNoise: absolute === 0 ? 0 : absolute / open,
    spread: spreadOf(absolute, squares),
  };
}

/** 1 - exp(log p), 0 where a log-prob is above 0. */
function unlikely(logprob: number): number {
  return Math.max(0, -Math.expm1(logprob));
}

/** As `CountedTokens.spread`, from the sum of magnitudes and that of squares; 0 where all are 0, or next to it. */
export function spreadOf(absolute: number, squares: number): number {
  return squares > 0 ? (absolute / squares) * absolute : 0;
}

/** Responses of fewer than this are too few units: errors of so few are often far too small by chance. */
const LEAST_RESPONSES = 8;
/** The same of tokens. */
const LEAST_TOKENS = 30;

/** A mean and its standard error. */
export interface ClusteredMean {
  readonly mean: number;
  readonly error: number;
}

/**
 * Of some value of each counted token, those with NaN left out. The independent units are whole responses; of fewer than 8,
 * whichever of responses and tokens gives the greater error; infinite where there are fewer than 30 tokens, too.
 */
export function clusteredMean(tokens: CountedTokens, value: (i: number) => number): ClusteredMean {
  const { count, response, responses } = tokens;
  const sums = new Float64Array(responses);
  const counts = new Float64Array(responses);
  let [sum, n] = [0, 0];
  for (let i = 0; i < count; i++) {
    const x = value(i);
    if (Number.isNaN(x)) continue;
    sums[response[i]!]! += x;
    counts[response[i]!]!++;
    sum += x;
    n++;
  }
  const mean = sum / n;
  let [between, units] = [0, 0];
  for (let s = 0; s < responses; s++) {
    between += (sums[s]! - mean * counts[s]!) ** 2;
    if (counts[s]! > 0) units++;
  }
  if (units >= LEAST_RESPONSES) return { mean, error: Math.sqrt(between) / n };
  if (n < LEAST_TOKENS) return { mean, error: Infinity };
  let within = 0;
  for (let i = 0; i < count; i++) {
    const x = value(i);
    if (!Number.isNaN(x)) within += (x - mean) ** 2;
  }
  return { mean, error: Math.sqrt(Math.max(between, within)) / n };
}

/** How many standard errors a mean is above what is expected. */
export function errorsAbove({ mean, error }: ClusteredMean, expected: number): number {
  return mean === expected ? 0 : (mean - expected) / error;
}
