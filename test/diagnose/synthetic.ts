/**
 * Responses of two engines that are known to the last digit, in fp64: random logits, tokens drawn from the rollout's
 * distribution, and log-probs of both sides. Faults are put in by hand, so that what a signature should find follows
 * from a formula.
 */
import { countedTokens } from '../../lib/diagnose/countedTokens.js';
import { testAll } from '../../lib/diagnose/decide.js';
import { type SignatureName, type SignatureResult, signatureNames } from '../../lib/diagnose/diagnosis.js';
import { noiseFloor } from '../../lib/diagnose/noiseFloor.js';
import type { Pair, Side, TopLogprobs } from '../../lib/diagnose/record.js';
import { sampleOf, type TokenSample } from '../../lib/diagnose/sample.js';
import { CounterRandom } from '../../lib/random.js';
import { normal, pairOf } from './support.js';

/** Where logits are asked for. */
export interface Spot {
  readonly response: number;
  readonly position: number;
  readonly random: CounterRandom;
}

export interface SyntheticOptions {
  readonly seed?: number;
  readonly responses?: number;
  readonly length?: number | ((response: number) => number);
  readonly vocabulary?: number;
  /** Share of positions at which the policy is all but certain. */
  readonly sure?: number;
  /** Standard deviation of the normal error of each training logit, in nats. */
  readonly noise?: number | ((spot: Spot) => number);
  /** What each engine makes of the common logits; noise comes before training's. */
  readonly engines?: Partial<Record<Side, (logits: Float64Array, spot: Spot) => ArrayLike<number>>>;
  /** The distribution that tokens are drawn from, as log-probs; default the rollout's own. */
  readonly sampler?: (logits: Float64Array) => Float64Array;
  /** Most likely tokens that are listed; 0 for none. */
  readonly top?: number;
  readonly more?: (response: number) => Partial<Pair>;
}

/** Whole distributions at one position, and the token that was drawn. */
export interface Position {
  readonly logMu: Float64Array;
  readonly logPi: Float64Array;
  readonly token: number;
}

export interface Synthetic {
  /** [responses][tokens] */
  readonly positions: readonly (readonly Position[])[];
  readonly pairs: readonly Pair[];
  readonly sample: TokenSample;
}

export function logSoftmax(logits: ArrayLike<number>): Float64Array {
  const z = Float64Array.from(logits);
  const greatest = z.reduce((a, b) => Math.max(a, b));
  const sum = z.reduce((total, x) => total + Math.exp(x - greatest), 0);
  return z.map((x) => x - greatest - Math.log(sum));
}

/** Log-probs renormalised over the fewest of the most likely tokens that hold `topP`; -Infinity for the others. */
export function topPFiltered(logits: ArrayLike<number>, topP: number): Float64Array {
  const all = logSoftmax(logits);
  const order = [...all.keys()].sort((a, b) => all[b]! - all[a]!);
  let mass = 0;
  const kept = new Set<number>();
  for (const v of order) {
    if (mass >= topP) break;
    kept.add(v);
    mass += Math.exp(all[v]!);
  }
  return all.map((log, v) => (kept.has(v) ? log - Math.log(mass) : -Infinity));
}

/** Rounds to nearest even with so many mantissa bits, one the exponent alone bounds. */
export function rounded(x: number, mantissa: number): number {
  if (x === 0 || !Number.isFinite(x)) return x;
  let exponent = 0;
  let size = Math.abs(x);
  for (; size >= 2; size /= 2) exponent++;
  for (; size < 1; size *= 2) exponent--;
  const units = size * 2 ** mantissa;
  const below = Math.floor(units);
  const rest = units - below;
  const whole = rest > 0.5 || (rest === 0.5 && below % 2 === 1) ? below + 1 : below;
  return Math.sign(x) * whole * 2 ** (exponent - mantissa);
}

function drawn(logprobs: Float64Array, random: CounterRandom): number {
  let left = random.uniform();
  let last = 0;
  for (let v = 0; v < logprobs.length; v++) {
    const p = Math.exp(logprobs[v]!);
    if (p === 0) continue;
    last = v;
    left -= p;
    if (left < 0) break;
  }
  return last;
}

function topOf(logprobs: Float64Array, most: number): TopLogprobs {
  const tokens = [...logprobs.keys()].sort((a, b) => logprobs[b]! - logprobs[a]!).slice(0, most);
  return { tokens, logprobs: tokens.map((v) => logprobs[v]!) };
}

export function synthetic(options: SyntheticOptions = {}): Synthetic {
  const { seed = 1, responses = 64, length = 20, vocabulary = 47, sure = 0.5, noise = 0, top = 0 } = options;
  const positions: Position[][] = [];
  const pairs: Pair[] = [];
  for (let r = 0; r < responses; r++) {
    const random = new CounterRandom(seed, r);
    const count = typeof length === 'number' ? length : length(r);
    const own = Array.from({ length: count }, (_, t): Position => {
      const spot = { response: r, position: t, random };
      const spread = 1.5 + 2 * random.uniform();
      const logits = Float64Array.from({ length: vocabulary }, () => spread * normal(random));
      if (random.uniform() < sure) logits[random.integer(vocabulary)]! += 12 + 6 * random.uniform();
      const size = typeof noise === 'number' ? noise : noise(spot);
      const noisy = logits.map((z) => z + size * normal(random));
      const { rollout, training } = options.engines ?? {};
      const logMu = logSoftmax(rollout?.(logits, spot) ?? logits);
      const logPi = logSoftmax(training?.(noisy, spot) ?? noisy);
      return { logMu, logPi, token: drawn(options.sampler?.(logits) ?? logMu, random) };
    });
    positions.push(own);
    const tops = (side: 'logMu' | 'logPi') =>
      top === 0 ? null : own.map((position) => topOf(position[side], top));
    pairs.push(
      pairOf(
        r,
        own.map(({ logMu, token }) => logMu[token]!),
        own.map(({ logPi, token }) => logPi[token]!),
        {
          tokens: own.map(({ token }) => token),
          topLogprobs: { rollout: tops('logMu'), training: tops('logPi') },
          ...options.more?.(r),
        },
      ),
    );
  }
  return { positions, pairs, sample: sampleOf(pairs) };
}

/** The same responses with other log-probs of one side: a fault of the bookkeeping. */
export function withSeries(
  pairs: readonly Pair[],
  side: Side,
  series: (own: Float64Array, pair: Pair) => ArrayLike<number>,
): Pair[] {
  return pairs.map((pair) => ({ ...pair, [side]: Float64Array.from(series(pair[side], pair)) }));
}

const unknown = { numLayers: null, hiddenSize: null };

/** What every signature finds, by name. */
export function findings(
  sample: TokenSample | readonly Pair[],
  dtype = 'bf16',
): Readonly<Record<SignatureName, SignatureResult>> {
  const tokens = countedTokens('offsets' in sample ? sample : sampleOf(sample));
  const results = testAll(tokens, noiseFloor(dtype, unknown));
  return Object.fromEntries(results.map((result) => [result.name, result])) as Record<
    SignatureName,
    SignatureResult
  >;
}

/** Names of what is found, apart from those that describe every mismatch. */
export function foundIn(results: Readonly<Record<SignatureName, SignatureResult>>): SignatureName[] {
  return signatureNames.filter(
    (name) => results[name].found && !(['floor', 'uncertainty'] as SignatureName[]).includes(name),
  );
}

/** A dtype's usual noise of the logits as the standard deviation of each logit's error. */
export function usualNoise(dtype: string): number {
  return noiseFloor(dtype, unknown).usual;
}
