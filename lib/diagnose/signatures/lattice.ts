import { floatBits } from '../../tensor/dtype.js';
import type { CountedTokens } from '../countedTokens.js';
import { type Side, sides } from '../record.js';
import type { TopSample } from '../sample.js';
import { type Finding, percent, type Signature, said } from './signature.js';

/** What log-probs in fp32 are good for. */
const TOLERANCE = 3e-6;
/** Positions that are looked at, evenly spread. */
const POSITIONS = 400;
const LEAST_POSITIONS = 10;
/** Candidates of a position: of fewer, some constant or other makes 16-bit numbers. */
const CANDIDATES = 4;
/** Share of the positions that must fit; numbers of a finer format fit a coarser one at some. */
const FITS = 0.9;
/** Logits below this are not looked at. */
const SMALL = 2 ** -6;
/** Octaves of the greatest logit. */
const OCTAVES = { from: -2, to: 6 };

/** Share of even steps among gaps, half of them by chance. */
const EVEN = 0.62;
/** The step of fp16 numbers of 32 to 64; few logits are larger. */
const MOST_FP16_STEP = 2 ** -5;
/** Log-probs whose odds say something of a gap of logits. */
const ODDS = { least: -4, most: -0.02 };
/** n times the squared mean resultant: chance exceeds it with probability e^-30. */
const RAYLEIGH = 30;
/** Tokens that are looked at, evenly spread. */
const MOST_ODDS = 20_000;
/** Steps that the standard deviation of odds must span: near each other they are near multiples of any step. */
const SPAN = 2;
/**
 * Parts of the frequency of a step at which the odds of a lattice don't gather, but those of a few values do. Not half of it: larger
 * logits, an octave up, gather there.
 */
const PARTS = [0.35, 0.4, 0.45, 0.55, 0.6, 0.65];
/** Squared resultants of a lattice are at least so many times those there. */
const PEAK = 4;
/** Multiples of a step are multiples of its parts, too: the step of most is the largest one with so much of the best resultant. */
const OF_MOST = 0.5;

const formats = [
  { dtype: 'bf16', mantissa: 7 },
  { dtype: 'fp16', mantissa: 10 },
] as const;

/** What is known of one side. */
interface Lattice {
  readonly side: Side;
  readonly dtype: 'bf16' | 'fp16';
  readonly mantissa: number;
  readonly share: number;
  /** Distance of neighbouring numbers at the size that the greatest of them usually has. */
  readonly step: number;
  readonly of: 'logits' | 'values' | 'odds';
}

/**
 * Logits that were rounded to 16 bits: then some constant, the logarithm of the sum of exponentials, makes all of a
 * position's log-probs numbers of that format. Also log-probs that were themselves stored in 16 bits.
 *
 * It is the step that is certain: fp16 logits of 16 to 32 are as far apart as bf16 logits of 2 to 4. Where the step is the same at all
 * candidates, and logits below 64 would have it in fp16, it is called that.
 *
 * Without candidates the odds of the chosen token show the lattice wherever two tokens compete.
 */
export const lattice: Signature = {
  name: 'lattice',
  title: 'differences on a lattice of 2^-k: 16-bit logits or log-probs',
  steady: true,
  test(tokens, { floor }): Finding {
    const found = sides.map(
      (side) => storedLattice(tokens, side) ?? logitLattice(tokens, side) ?? oddsLattice(tokens, side),
    );
    const [rollout, training] = found;
    const bits = floatBits(floor.dtype)!.mantissa;
    // Logits in the format of the engine are a habit of serving engines; in training, or coarser than that, they are not.
    const odd = [
      training,
      rollout !== undefined && (rollout.of === 'values' || rollout.mantissa < bits) ? rollout : undefined,
    ].filter((own) => own !== undefined);
    const worst = odd.sort((a, b) => b.step - a.step)[0];
    // Errors spread evenly over a step, of which the log-prob sees the mean absolute one.
    const noise = worst === undefined ? 0 : worst.step / 4;
    const texts = found.map((own, i) => (own === undefined ? `${sides[i]}: none` : textOf(own)));
    return {
      found: worst !== undefined,
      explained: worst === undefined ? 0 : Math.min(1, (noise / tokens.logitNoise) ** 2),
      evidence: texts.join('; '),
      values: Object.fromEntries(
        found.flatMap((own) =>
          own === undefined
            ? []
            : [
                [`${own.side}Step`, own.step],
                [`${own.side}MantissaBits`, own.mantissa],
                [`${own.side}Stored`, own.of === 'values' ? 1 : 0],
              ],
        ),
      ),
    };
  },
};

function textOf({ side, dtype, step, share, of }: Lattice): string {
  if (of === 'values') return `${side}: ${percent(share)} of the log-probs are ${dtype} numbers`;
  return of === 'odds'
    ? `${side}: the odds of chosen tokens gather at multiples of 2^${Math.log2(step)} (mean resultant ${said(share)}): ${dtype} logits`
    : `${side}: at ${percent(share)} of the positions all candidates are ${dtype} logits less a constant, in steps of 2^${Math.log2(step)}`;
}

/** Share of log-probs that are numbers of a format, from which on they are called so. */
const STORED_FITS = 0.99;

/** Log-probs that are all numbers of a 16-bit format. */
function storedLattice({ count, mu, pi }: CountedTokens, side: Side): Lattice | undefined {
  const values = side === 'rollout' ? mu : pi;
  for (const { dtype, mantissa } of formats) {
    let [fit, n, exponents] = [0, 0, 0];
    for (let i = 0; i < count; i++) {
      const x = values[i]!;
      if (!(x < 0) || !Number.isFinite(x)) continue;
      const exponent = Math.floor(Math.log2(-x));
      n++;
      exponents += exponent;
      if (Number.isInteger(x * 2 ** (mantissa - exponent))) fit++;
      // Others can't make up for these.
      else if (n - fit > (1 - STORED_FITS) * count) break;
    }
    if (n >= 20 && fit / n >= STORED_FITS) {
      const step = 2 ** (Math.round(exponents / n) - mantissa);
      return { side, dtype, mantissa, share: fit / n, step, of: 'values' };
    }
  }
  return undefined;
}

function logitLattice({ sample }: CountedTokens, side: Side): Lattice | undefined {
  const top = sample.tops[side];
  if (top === null) return undefined;
  const all: number[] = [];
  for (let t = 0; t < sample.mask.length; t++) if (sample.mask[t] === 1 && isLong(top, t)) all.push(t);
  const stride = Math.ceil(all.length / POSITIONS);
  const lists = all
    .filter((_, i) => i % stride === 0)
    .map((t) =>
      top.logprobs
        .slice(top.offsets[t], top.offsets[t + 1])
        .sort()
        .reverse(),
    );
  if (lists.length < LEAST_POSITIONS) return undefined;
  for (const { dtype, mantissa } of formats) {
    const sizes = lists.map((list) => octaveOf(list, mantissa)).filter((octave) => octave !== undefined);
    const share = sizes.length / lists.length;
    if (share < FITS) continue;
    const even = dtype === 'bf16' ? evenStep(lists) : undefined;
    if (even !== undefined && even <= MOST_FP16_STEP) {
      return { side, dtype: 'fp16', mantissa: 10, share, step: even, of: 'logits' };
    }
    const middle = sizes.sort((a, b) => a - b)[Math.floor(sizes.length / 2)]!;
    return { side, dtype, mantissa, share, step: 2 ** (middle - mantissa), of: 'logits' };
  }
  return undefined;
}

/** The step that gaps are multiples of, if it is the same everywhere: then every other gap is a multiple of twice the step. */
function evenStep(lists: readonly Float64Array[]): number | undefined {
  const gaps = lists
    .flatMap((list) => Array.from(list.subarray(1), (log) => list[0]! - log))
    .filter((gap) => gap > TOLERANCE);
  const share = (step: number) =>
    gaps.filter((gap) => Math.abs(gap - step * Math.round(gap / step)) <= TOLERANCE).length / gaps.length;
  for (let step = 1; step >= 2 ** -10; step /= 2) {
    if (share(step) >= FITS) return share(2 * step) <= EVEN ? step : undefined;
  }
  return undefined;
}

/**
 * Odds of chosen tokens that gather at multiples of a step, by Rayleigh's test of their phases: where two tokens compete, the odds
 * are the gap of their logits. Odds of few values, or that are all near each other, gather at multiples of other steps as well.
 */
function oddsLattice({ count, mu, pi }: CountedTokens, side: Side): Lattice | undefined {
  const values = side === 'rollout' ? mu : pi;
  const stride = Math.ceil(count / MOST_ODDS);
  const odds: number[] = [];
  for (let i = 0; i < count; i += stride) {
    const x = values[i]!;
    if (x < ODDS.most && x > ODDS.least) odds.push(x - Math.log(-Math.expm1(x)));
  }
  const mean = odds.reduce((sum, x) => sum + x, 0) / odds.length;
  const deviation = Math.sqrt(odds.reduce((sum, x) => sum + (x - mean) ** 2, 0) / odds.length);
  const peaks: { step: number; resultant: number }[] = [];
  for (let k = 1; k <= 9; k++) {
    const frequency = 2 ** k;
    if (deviation * frequency < SPAN) continue;
    const resultant = resultantOf(odds, frequency);
    if (!(odds.length * resultant ** 2 >= RAYLEIGH)) continue;
    const isPeak = PARTS.every((part) => PEAK * resultantOf(odds, part * frequency) ** 2 <= resultant ** 2);
    if (isPeak) peaks.push({ step: 1 / frequency, resultant });
  }
  const most = peaks.reduce((best, { resultant }) => Math.max(best, resultant), 0);
  const ofMost = peaks.find(({ resultant }) => resultant >= OF_MOST * most);
  if (ofMost === undefined) return undefined;
  const { step, resultant } = ofMost;
  const [dtype, mantissa] = step >= MOST_FP16_STEP ? (['bf16', 7] as const) : (['fp16', 10] as const);
  return { side, dtype, mantissa, share: resultant, step, of: 'odds' };
}

/** Length of the mean of unit vectors whose angles are numbers at a frequency in turns per nat: 1 where all point the same way. */
function resultantOf(numbers: readonly number[], frequency: number): number {
  let [cos, sin] = [0, 0];
  for (const x of numbers) {
    const phase = 2 * Math.PI * x * frequency;
    cos += Math.cos(phase);
    sin += Math.sin(phase);
  }
  return Math.hypot(cos, sin) / numbers.length;
}

function isLong({ offsets, logprobs }: TopSample, t: number): boolean {
  if (offsets[t + 1]! - offsets[t]! < CANDIDATES) return false;
  for (let i = offsets[t]!; i < offsets[t + 1]!; i++) if (!Number.isFinite(logprobs[i])) return false;
  return true;
}

/**
 * The highest octave of a greatest logit with which all logits are numbers of that many mantissa bits; undefined if there is none.
 *
 * @param list from the greatest on
 */
function octaveOf(list: Float64Array, mantissa: number): number | undefined {
  const gaps = list.map((log) => list[0]! - log).subarray(1);
  const splitter = 2 ** (52 - mantissa) + 1;
  // From the top: numbers of a coarse step fit finer ones, too.
  for (let octave = OCTAVES.to - 1; octave >= OCTAVES.from; octave--) {
    const [from, to] = [2 ** octave, 2 ** (octave + 1)];
    if (!gaps.every((gap) => canBeGap(gap, from, to, mantissa))) continue;
    const step = 2 ** (octave - mantissa);
    for (let greatest = from; greatest < to; greatest += step) {
      let fits = true;
      for (let i = 0; fits && i < gaps.length; i++) fits = isNumber(greatest - gaps[i]!, splitter);
      if (fits) return octave;
    }
  }
  return undefined;
}

/**
 * Whether a number of a format may be so far below one between two others: both, and the gap, are then multiples of the step
 * at the lower one, unless that can be so near 0 that its step says nothing.
 */
function canBeGap(gap: number, from: number, to: number, mantissa: number): boolean {
  const [low, high] = [from - gap, to - gap];
  const size = low > 0 ? Math.min(low, from) : high < 0 ? -high : 0;
  if (size < SMALL) return true;
  const step = Math.min(2 ** (Math.floor(Math.log2(size)) - mantissa), from * 2 ** -mantissa);
  return Math.abs(gap - step * Math.round(gap / step)) <= TOLERANCE;
}

/** Whether a logit is a number with n mantissa bits, whose splitter is 2^(52 - n) + 1. */
function isNumber(logit: number, splitter: number): boolean {
  // Small ones are multiples of anything within the tolerance.
  if (Math.abs(logit) < SMALL) return true;
  // Veltkamp's splitting: the nearest number with so many bits.
  const split = logit * splitter;
  return Math.abs(logit - (split - (split - logit))) <= TOLERANCE;
}
