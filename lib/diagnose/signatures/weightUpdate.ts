import type { CountedTokens } from '../countedTokens.js';
import { jumpOf, responseNoise } from '../responseNoise.js';
import { type Finding, notTestable, percent, type Signature, said, shareGone } from './signature.js';

const RATIO = 1.5;
const ERRORS = 6;
/** Responses on either side of a jump. */
const LEAST_RESPONSES = 12;

/** A mismatch that jumps where the weights were updated: from there on one engine has those of before. */
export const weightUpdate: Signature = {
  name: 'weight-update',
  title: 'jump at a weight update: stale weights',
  test(tokens): Finding {
    return olderTokens(tokens) ?? jumpOverSteps(tokens);
  },
};

/** Tokens that are said to be of other weights, against those of the same. */
function olderTokens({ count, token, sample, d, openness, meanAbs }: CountedTokens): Finding | undefined {
  const groups = { same: [0, 0, 0], older: [0, 0, 0] };
  for (let i = 0; i < count; i++) {
    const group = sample.older[token[i]!] === 1 ? groups.older : groups.same;
    group[0]! += Math.abs(d[i]!);
    group[1]! += openness[i]!;
    group[2]!++;
  }
  const [same, older] = [groups.same, groups.older] as const;
  if (older[2] === 0) return undefined;
  const share = older[2]! / count;
  const ratio = older[0]! / older[1]! / (same[0]! / same[1]!);
  const left = (same[0]! / same[1]!) * ((same[1]! + older[1]!) / count);
  return {
    found: true,
    explained: same[2] === 0 ? 1 : shareGone(meanAbs, left),
    evidence:
      `${percent(share)} of the tokens have another weights version in training than in the rollout` +
      (same[2] === 0 ? '' : `, and ${said(ratio)} times the noise of the others`),
    values: { olderShare: share, ratio },
  };
}

function jumpOverSteps(tokens: CountedTokens): Finding {
  const { sample, responses, meanAbs, count, meanOpenness } = tokens;
  const noise = responseNoise(tokens);
  const has = Array.from({ length: responses }, (_, s) => s).filter((s) => !Number.isNaN(noise[s]!));
  const stepped = has.every((s) => !Number.isNaN(sample.steps[s]!));
  const time = (s: number) => (stepped ? sample.steps[s]! : sample.order[s]!);
  has.sort((a, b) => time(a) - time(b));
  const steps = [...new Set(has.map(time))];
  // Without steps, a jump may be anywhere in the file: some places are looked at.
  const borders = stepped
    ? steps.slice(1)
    : Array.from({ length: 15 }, (_, i) => steps[Math.round(((i + 1) * steps.length) / 16)]!);
  let best = { border: Number.NaN, ratio: 1, errors: 0, before: 0, after: 0 };
  for (const border of borders) {
    const cut = has.findIndex((s) => time(s) >= border);
    if (cut < LEAST_RESPONSES || has.length - cut < LEAST_RESPONSES) continue;
    const jump = jumpOf(
      has.slice(0, cut).map((s) => noise[s]!),
      has.slice(cut).map((s) => noise[s]!),
    );
    if (Math.abs(jump.errors) > Math.abs(best.errors)) best = { border, ...jump };
  }
  if (Number.isNaN(best.border)) return notTestable('needs 12 responses on either side of a step');
  const { border, ratio, errors, before, after } = best;
  const calm = Math.min(before, after);
  return {
    found: Math.abs(Math.log(ratio)) >= Math.log(RATIO) && Math.abs(errors) >= ERRORS,
    explained: shareGone(meanAbs * count, calm * meanOpenness * count),
    evidence: `from ${stepped ? 'step' : 'response'} ${border} on the noise is ${said(ratio)} times that of before (${said(Math.abs(errors))} standard errors)`,
    values: { border, ratio, errors },
  };
}
