import type { CountedTokens } from '../countedTokens.js';
import { jumpOf, responseNoise } from '../responseNoise.js';
import { type Finding, notTestable, percent, type Signature, said, shareGone } from './signature.js';

const RATIO = 1.5;
const ERRORS = 6;
/** Share of responses that are equal to the bit, and of those that are not. */
const LEAST_SHARE = 0.03;
/** Of a batch, and of the others. */
const LEAST_RESPONSES = 8;

/** Numerics that depend on what else was in the batch: some batches agree and others don't, on the same weights. */
export const boundaries: Signature = {
  name: 'boundaries',
  title: 'steps at batch boundaries: batch variance',
  test(tokens): Finding {
    const noise = responseNoise(tokens);
    const has = Array.from({ length: tokens.responses }, (_, s) => s).filter((s) => !Number.isNaN(noise[s]!));
    if (has.length < 8) return notTestable('needs 8 responses with unsure tokens');
    return (
      ofEqual(tokens, noise, has) ??
      byBatch(tokens, noise, has) ??
      notTestable('no step has responses that are equal to the bit beside others, and no batches are named')
    );
  },
};

/** Steps in which some responses are equal to the bit in every token and others are not. */
function ofEqual(
  { sample, meanAbs, d, count, response }: CountedTokens,
  noise: Float64Array,
  has: readonly number[],
): Finding | undefined {
  const mixed = new Set<number>();
  let equal = 0;
  for (const step of new Set(has.map((s) => sample.steps[s]!))) {
    const own = has.filter((s) => Object.is(sample.steps[s], step));
    const same = own.filter((s) => noise[s] === 0).length;
    if (same < LEAST_SHARE * own.length || same > (1 - LEAST_SHARE) * own.length) continue;
    equal += same;
    for (const s of own) mixed.add(s);
  }
  if (mixed.size === 0) return undefined;
  let held = 0;
  for (let i = 0; i < count; i++) if (mixed.has(response[i]!)) held += Math.abs(d[i]!);
  return {
    found: true,
    explained: held / count / meanAbs,
    evidence: `${percent(equal / mixed.size)} of the responses of a step are equal to the bit in every token, the others are not`,
    values: { equalShare: equal / mixed.size },
  };
}

/** Each named batch against the others of its step. */
function byBatch(
  { sample, meanAbs, meanOpenness }: CountedTokens,
  noise: Float64Array,
  has: readonly number[],
): Finding | undefined {
  const batches = [...new Set(has.map((s) => sample.batches[s]!))].filter((batch) => batch >= 0);
  let best = { ratio: 1, errors: 0, before: 0, after: 0 };
  for (const batch of batches) {
    const own = has.filter((s) => sample.batches[s] === batch);
    const steps = new Set(own.map((s) => sample.steps[s]!));
    const others = has.filter((s) => sample.batches[s] !== batch && steps.has(sample.steps[s]!));
    if (own.length < LEAST_RESPONSES || others.length < LEAST_RESPONSES) continue;
    const jump = jumpOf(
      others.map((s) => noise[s]!),
      own.map((s) => noise[s]!),
    );
    if (Math.abs(jump.errors) > Math.abs(best.errors)) best = jump;
  }
  if (best.errors === 0) return undefined;
  const { ratio, errors, before, after } = best;
  return {
    found: Math.abs(Math.log(ratio)) >= Math.log(RATIO) && Math.abs(errors) >= ERRORS,
    explained: shareGone(meanAbs, Math.min(before, after) * meanOpenness),
    evidence: `of ${batches.length} batches the one that differs most has ${said(ratio)} times the noise of the others of its step (${said(Math.abs(errors))} standard errors)`,
    values: { ratio, errors },
  };
}
