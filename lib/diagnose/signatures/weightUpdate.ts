import type { CountedTokens } from '../countedTokens.js';
import type { NoiseFloor } from '../noiseFloor.js';
import { type Jump, jumpOf, Moments, responseNoise } from '../responseNoise.js';
import { type Finding, notTestable, percent, type Signature, said, shareGone } from './signature.js';

const RATIO = 1.5;
/** The same where no steps are known: batches and prompts differ along a file, too. */
const RATIO_OF_PLACES = 2;
const ERRORS = 6;
/** Responses on either side of a jump. */
const LEAST_RESPONSES = 12;
/** Noise of the louder side in the floor's usual one: what rounding alone makes needs no other weights. */
const LEAST_NOISE = 0.75;
/** How much better than a line a jump must fit, in variances of the noise around it: a mismatch that grows step by step is no jump. */
const BETTER = 4;
/** Other weights touch every response: among those that are said to have them hardly any is equal to the bit. */
const MOST_EQUAL = 0.05;

/** A mismatch that jumps where the weights were updated: from there on one engine has those of before. */
export const weightUpdate: Signature = {
  name: 'weight-update',
  title: 'jump at a weight update: stale weights',
  test(tokens, { floor }): Finding {
    return olderTokens(tokens) ?? jumpOverSteps(tokens, floor);
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
  // Where all of the same are certain, they have no noise to hold the others against.
  const calm = same[0] === 0 ? 0 : same[0]! / same[1]!;
  const ratio = older[0] === 0 ? 0 : older[0]! / older[1]! / calm;
  const left = calm === 0 ? 0 : calm * ((same[1]! + older[1]!) / count);
  return {
    found: true,
    explained: same[2] === 0 ? 1 : shareGone(meanAbs, left),
    evidence:
      `${percent(share)} of the tokens have another weights version in training than in the rollout` +
      (same[2] === 0 ? '' : `, and ${said(ratio)} times the noise of the others`),
    values: { olderShare: share, ratio },
  };
}

function jumpOverSteps(tokens: CountedTokens, floor: NoiseFloor): Finding {
  const { sample, meanAbs, meanOpenness } = tokens;
  const { responses, log, noise } = responseNoise(tokens);
  const stepped = responses.every((s) => !Number.isNaN(sample.steps[s]!));
  const time = (s: number) => (stepped ? sample.steps[s]! : sample.order[s]!);
  responses.sort((a, b) => time(a) - time(b));
  const starts = startsOf(responses.map(time));
  const cuts = stepped ? starts.slice(1) : placesWithin(starts);
  const all = new Moments();
  for (const s of responses) all.add(log[s]!);
  const before = new Moments();
  let best: (Jump & { readonly border: number }) | undefined;
  for (const cut of cuts) {
    while (before.count < cut) before.add(log[responses[before.count]!]!);
    if (cut < LEAST_RESPONSES || responses.length - cut < LEAST_RESPONSES) continue;
    const jump = jumpOf(before, all.without(before));
    if (best === undefined || Math.abs(jump.errors) > Math.abs(best.errors)) {
      best = { border: time(responses[cut]!), ...jump };
    }
  }
  if (best === undefined) return notTestable('needs 12 responses on either side of a step');
  const { border, ratio, errors } = best;
  const calm = Math.min(best.before, best.after);
  const loud = Math.max(best.before, best.after) / floor.usual;
  const louder = responses.filter((s) => time(s) >= border === ratio > 1);
  const equal = louder.filter((s) => noise[s] === 0).length / louder.length;
  // Of two steps a line is a jump.
  const better =
    starts.length > 2
      ? betterThanLine(
          responses.map(time),
          responses.map((s) => log[s]!),
          border,
        )
      : Infinity;
  return {
    found:
      Math.abs(Math.log(ratio)) >= Math.log(stepped ? RATIO : RATIO_OF_PLACES) &&
      Math.abs(errors) >= ERRORS &&
      loud >= LEAST_NOISE &&
      better >= BETTER &&
      equal <= MOST_EQUAL,
    explained: shareGone(meanAbs, calm * meanOpenness),
    evidence:
      `from ${stepped ? 'step' : 'response'} ${border} on the noise is ${said(ratio)} times that of before (${said(Math.abs(errors))} standard errors)` +
      (better < BETTER ? '; it grows or shrinks steadily rather than at once' : '') +
      (loud < LEAST_NOISE ? `; even the louder side has but ${percent(loud)} of the usual noise` : ''),
    values: { border, ratio, errors, loud },
  };
}

/** How much more squared distance a line leaves than a jump does, in variances of what the jump leaves. */
function betterThanLine(x: readonly number[], y: readonly number[], border: number): number {
  const [all, before] = [new Moments(), new Moments()];
  const times = new Moments();
  let products = 0;
  x.forEach((time, i) => {
    all.add(y[i]!);
    times.add(time);
    if (time < border) before.add(y[i]!);
  });
  x.forEach((time, i) => {
    products += (time - times.mean) * (y[i]! - all.mean);
  });
  const ofJump = before.squares + all.without(before).squares;
  const ofLine = all.squares - products ** 2 / times.squares;
  return ofJump === 0 ? Infinity : ((ofLine - ofJump) / ofJump) * (x.length - 2);
}

/** Where each number begins, of ascending ones. */
function startsOf(times: readonly number[]): number[] {
  return times.flatMap((time, i) => (i === 0 || time !== times[i - 1] ? [i] : []));
}

/** Without steps a jump may be anywhere: some places are looked at. */
function placesWithin(starts: readonly number[]): number[] {
  const places = Array.from({ length: 15 }, (_, i) => starts[Math.round(((i + 1) * starts.length) / 16)]);
  return places.filter((place) => place !== undefined);
}
