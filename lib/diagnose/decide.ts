import type { CauseName } from './causes.js';
import type { CountedTokens } from './countedTokens.js';
import type { Precheck, PrecheckKind, SignatureName, SignatureResult, Verdict } from './diagnosis.js';
import type { NoiseFloor } from './noiseFloor.js';
import { signatures } from './signatures/index.js';
import type { Signature } from './signatures/signature.js';

export interface Decision {
  readonly verdict: Verdict;
  readonly cause: CauseName;
}

/**
 * What a fault's signature stands for, the most specific first: of several that are found it is the first rank that counts,
 * and within it what accounts for most. Bookkeeping is wrong however little it does.
 */
const faults: Partial<Record<SignatureName, { cause: CauseName; rank: number; bookkeeping: boolean }>> = {
  // Gaps between candidates are scaled by both; that log-probs are scaled, too, only this one can do.
  scaled: { cause: 'scaled', rank: 0, bookkeeping: true },
  'zero-fill': { cause: 'zero-fill', rank: 1, bookkeeping: true },
  'prompt-counted': { cause: 'prompt-counted', rank: 1, bookkeeping: true },
  shift: { cause: 'shift', rank: 1, bookkeeping: true },
  temperature: { cause: 'temperature', rank: 1, bookkeeping: true },
  'kept-mass': { cause: 'kept-mass', rank: 1, bookkeeping: true },
  'weight-update': { cause: 'stale-weights', rank: 2, bookkeeping: false },
  boundaries: { cause: 'batch-variance', rank: 3, bookkeeping: false },
  chunks: { cause: 'chunk-borders', rank: 3, bookkeeping: false },
  outliers: { cause: 'outliers', rank: 3, bookkeeping: false },
  lattice: { cause: '16-bit-logits', rank: 4, bookkeeping: false },
};

/** Prechecks that end the comparison: what does not align has no numbers. */
const misaligned: readonly PrecheckKind[] = [
  'retokenised',
  'prompt-counted',
  'mask-shifted',
  'mask',
  'token-ids',
  'length',
];

/** Times the floor's upper end from which on noise is no longer only suspicious. */
const FAR_BEYOND = 3;
/** Unsure tokens equal to the bit, and their share, from which on engines do the same roundings. */
const EQUAL = { tokens: 4, share: 0.004 };

/** Every signature's result; steady ones are taken from `before`, where they have been tested on more tokens. */
export function testAll(
  tokens: CountedTokens,
  floor: NoiseFloor,
  before: readonly SignatureResult[] = [],
): SignatureResult[] {
  return signatures.map((signature) => testOne(signature, tokens, floor, before));
}

export function testOne(
  { name, title, steady, test }: Signature,
  tokens: CountedTokens,
  floor: NoiseFloor,
  before: readonly SignatureResult[] = [],
): SignatureResult {
  const known = steady ? before.find((result) => result.name === name) : undefined;
  return known ?? { name, title, ...test(tokens, { floor }) };
}

/**
 * The cause: what does not align comes first, then the signature that accounts for most of the mismatch, then the size of
 * the noise.
 */
export function decide(
  tokens: CountedTokens,
  results: readonly SignatureResult[],
  prechecks: readonly Precheck[],
  floor: NoiseFloor,
): Decision {
  const refused = ofPrechecks(prechecks);
  if (refused !== undefined) return refused;
  if (tokens.count === 0) return { verdict: 'BROKEN', cause: ofNothing(prechecks) };
  // Of these no signature can be read.
  const most = prechecks.filter(({ count, of }) => 2 * count > of);
  return (
    ofImpossible(most.filter(({ kind }) => kind === 'not-finite' || kind === 'above-zero')) ??
    ofSignatures(tokens, results, floor) ??
    ofImpossible(prechecks) ??
    ofNoise(tokens, results, floor, prechecks)
  );
}

function ofPrechecks(prechecks: readonly Precheck[]): Decision | undefined {
  const [worst] = prechecks
    .filter(({ kind, count }) => count > 0 && misaligned.includes(kind))
    .sort((a, b) => b.count - a.count);
  return worst && { verdict: 'BROKEN', cause: worst.kind as CauseName };
}

/** Whether it is what does not align, whatever the numbers say. */
export function isMisaligned(cause: CauseName): boolean {
  return misaligned.some((kind) => kind === cause);
}

/** Why there is no token to compare. */
function ofNothing(prechecks: readonly Precheck[]): CauseName {
  const kinds = ['not-finite', 'nothing-counts'] as const;
  return kinds.find((kind) => prechecks.some((check) => check.kind === kind)) ?? 'missing';
}

/** Findings that cannot be, or that both sides admit. */
function ofImpossible(prechecks: readonly Precheck[]): Decision | undefined {
  const has = (kind: PrecheckKind) => prechecks.some((check) => check.kind === kind && check.count > 0);
  if (has('not-finite')) return { verdict: 'BROKEN', cause: 'not-finite' };
  if (has('above-zero')) return { verdict: 'BROKEN', cause: 'above-zero' };
  if (has('weights-version')) return { verdict: 'SUSPICIOUS', cause: 'weights-version' };
  if (has('settings')) return { verdict: 'SUSPICIOUS', cause: 'settings' };
  return undefined;
}

function ofSignatures(
  { logitNoise, meanAbs }: CountedTokens,
  results: readonly SignatureResult[],
  floor: NoiseFloor,
): Decision | undefined {
  const found = results
    .filter(({ name, found }) => found && faults[name] !== undefined)
    .sort((a, b) => faults[a.name]!.rank - faults[b.name]!.rank || (b.explained ?? 0) - (a.explained ?? 0));
  const [first] = found;
  if (first === undefined) {
    const identity = results.find(({ name }) => name === 'identity');
    return identity?.found && logitNoise > 0 ? { verdict: 'BROKEN', cause: 'not-the-sampler' } : undefined;
  }
  const { bookkeeping } = faults[first.name]!;
  const cause =
    first.name === 'zero-fill' && atTheStart(first) ? 'prompt-counted' : faults[first.name]!.cause;
  // What this fault does alone, held against the floor.
  const noise = logitNoise * (first.explained ?? 0);
  const harmless =
    first.name === 'lattice' && logitNoise <= floor.high && meanAbs > 0 && !coarse(first, floor);
  if (harmless) return { verdict: 'NOISE FLOOR', cause };
  const limit = bookkeeping ? floor.usual : floor.high;
  return { verdict: noise > limit ? 'BROKEN' : 'SUSPICIOUS', cause };
}

/** Whether what was filled with zeros are the first tokens of responses: those of the prompt, which a rollout has no log-probs of. */
function atTheStart({ values: { zeros = 0, leading = 0 } }: SignatureResult): boolean {
  return leading >= 0.9 * zeros;
}

/** Whether logits have fewer bits than the format that both engines are said to compute in. */
function coarse({ values }: SignatureResult, { unit }: NoiseFloor): boolean {
  const declared = -Math.log2(unit) - 1;
  return [values.rolloutMantissaBits, values.trainingMantissaBits].some(
    (bits) => bits !== undefined && bits < declared,
  );
}

function ofNoise(
  { logitNoise, meanAbs }: CountedTokens,
  results: readonly SignatureResult[],
  floor: NoiseFloor,
  prechecks: readonly Precheck[],
): Decision {
  const result = (name: SignatureName) => results.find((own) => own.name === name)!;
  if (logitNoise > floor.high) {
    const verdict = logitNoise > FAR_BEYOND * floor.high ? 'BROKEN' : 'SUSPICIOUS';
    return { verdict, cause: 'different-weights' };
  }
  if (prechecks.some(({ kind, count }) => kind === 'missing' && count > 0)) {
    return { verdict: 'SUSPICIOUS', cause: 'missing' };
  }
  if (meanAbs === 0) return { verdict: 'NOISE FLOOR', cause: 'bit-identical' };
  if (result('position').found) return { verdict: 'SUSPICIOUS', cause: 'position' };
  const { equal = 0, equalShare = 0 } = result('floor').values;
  const sameRoundings = equal >= EQUAL.tokens && equalShare >= EQUAL.share;
  const cause = sameRoundings ? 'reduction-order' : 'rounding';
  return { verdict: 'NOISE FLOOR', cause };
}
