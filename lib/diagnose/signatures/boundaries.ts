import type { CountedTokens } from '../countedTokens.js';
import { jumpOf, responseNoise } from '../responseNoise.js';
import { type Finding, notTestable, percent, type Signature, said, shareGone } from './signature.js';

const RATIO = 1.5;
const ERRORS = 6;
/** Share of responses that are equal to the bit, and of those that are not. */
const LEAST_SHARE = 0.03;

/** Numerics that depend on what else was in the batch: some batches agree and others don't. */
export const boundaries: Signature = {
  name: 'boundaries',
  title: 'steps at batch boundaries: batch variance',
  test(tokens): Finding {
    const noise = responseNoise(tokens);
    const has = Array.from({ length: tokens.responses }, (_, s) => s).filter((s) => !Number.isNaN(noise[s]!));
    if (has.length < 8) return notTestable('needs 8 responses with unsure tokens');
    const equal = has.filter((s) => noise[s] === 0).length / has.length;
    if (equal >= LEAST_SHARE && equal <= 1 - LEAST_SHARE) {
      return {
        found: true,
        explained: 1,
        evidence: `${percent(equal)} of the responses are equal to the bit in every token, the others are not`,
        values: { equalShare: equal },
      };
    }
    return (
      byBatch(tokens, noise, has) ??
      notTestable('no response is equal to the bit alone, and no batches are named')
    );
  },
};

/** Each named batch against all others. */
function byBatch(
  { sample, meanAbs, meanOpenness }: CountedTokens,
  noise: Float64Array,
  has: number[],
): Finding | undefined {
  const batches = [...new Set(has.map((s) => sample.batches[s]!))].filter((batch) => batch >= 0);
  let best = { batch: -1, ratio: 1, errors: 0, before: 0, after: 0 };
  for (const batch of batches) {
    const own = has.filter((s) => sample.batches[s] === batch).map((s) => noise[s]!);
    const others = has.filter((s) => sample.batches[s] !== batch).map((s) => noise[s]!);
    if (own.length < 4 || others.length < 4) continue;
    const jump = jumpOf(others, own);
    if (Math.abs(jump.errors) > Math.abs(best.errors)) best = { batch, ...jump };
  }
  if (best.batch < 0) return undefined;
  const { ratio, errors, before, after } = best;
  return {
    found: Math.abs(Math.log(ratio)) >= Math.log(RATIO) && Math.abs(errors) >= ERRORS,
    explained: shareGone(meanAbs, Math.min(before, after) * meanOpenness),
    evidence: `of ${batches.length} batches the one that differs most has ${said(ratio)} times the noise of the others (${said(Math.abs(errors))} standard errors)`,
    values: { ratio, errors },
  };
}
