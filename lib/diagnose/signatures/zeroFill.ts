import { sides } from '../record.js';
import { type Finding, percent, type Signature, said, shareGone } from './signature.js';

/** A log-prob of exactly 0 says that a token was certain; held against this of the other engine it is a missing value. */
const CERTAIN = -0.1;

/** Nearly certain: the first is enough where log-probs have digits for it, the second where they are rounded to a few decimals. */
const NEAR = { fine: -1e-3, coarse: -0.02 };
/** How many times more often than nearly certain tokens exact zeros must be unsure on the other side. */
const MORE_OFTEN = 5;
/** Share of nearly certain tokens that are unsure on the other side, at most, where too few are known to tell. */
const SELDOM = 0.02;

/** Values that one side lacks and that something filled with 0.0: exact zeros where the other engine was far from sure. */
export const zeroFill: Signature = {
  name: 'zero-fill',
  title: 'exact zeros where the other engine is unsure',
  test({ count, mu, pi, d, meanAbs, response }): Finding {
    const filled = { rollout: 0, training: 0 };
    let absolute = 0;
    let [leading, trailing] = [0, 0];
    for (let begin = 0, end = 0; begin < count; begin = end) {
      while (end < count && response[end] === response[begin]) end++;
      for (const side of sides) {
        const [own, other] = side === 'rollout' ? [mu, pi] : [pi, mu];
        // Zeros up to the first and from behind the last log-prob that is none.
        let [first, last] = [begin, end - 1];
        while (first < end && own[first] === 0) first++;
        while (last > first && own[last] === 0) last--;
        for (let i = begin; i < end; i++) {
          if (own[i] !== 0 || !(other[i]! < CERTAIN)) continue;
          filled[side]++;
          absolute += Math.abs(d[i]!);
          // Where all of a response is 0, that is not its start.
          if (i < first && first < end) leading++;
          else if (i > last) trailing++;
        }
      }
    }
    // Large noise and other experts make the other engine unsure of certain tokens, too, and zeros may be rounded numbers.
    const named = sides.filter((side) => {
      const [own, other] = side === 'rollout' ? [mu, pi] : [pi, mu];
      return filled[side] > MORE_OFTEN * byChance(own, other);
    });
    const zeros = filled.rollout + filled.training;
    const where =
      2 * leading > zeros
        ? ', most of them at the start'
        : 2 * trailing > zeros
          ? ', most of them at the end'
          : '';
    return {
      found: named.length > 0,
      explained: shareGone(meanAbs, meanAbs - absolute / count),
      evidence:
        zeros === 0
          ? 'no log-prob of exactly 0 where the other engine gives the token less than 90 %'
          : `${zeros} of ${count} tokens (${percent(zeros / count)}) are exactly 0${named.length > 0 ? ` in ${named.join(' or ')}` : ''}${where}, where the other engine says ${said(-absolute / zeros)} on average${named.length > 0 ? '' : ', which happens to nearly certain tokens as often'}`,
      values: {
        zeros,
        share: zeros / count,
        rollout: filled.rollout,
        training: filled.training,
        leading,
        trailing,
      },
    };
  },
};

/** How many exact zeros should be unsure on the other side, if that is as likely as of nearly certain tokens. */
function byChance(own: Float64Array, other: Float64Array): number {
  let [zeros, nearest] = [0, -Infinity];
  for (const x of own) {
    if (x === 0) zeros++;
    else if (x > nearest) nearest = x;
  }
  const limit = Math.max(NEAR.coarse, Math.min(NEAR.fine, 2 * nearest));
  let [near, unsure, all, unsureOfAll] = [0, 0, 0, 0];
  for (let i = 0; i < own.length; i++) {
    if (own[i]! === 0 || own[i]! < NEAR.coarse) continue;
    const is = other[i]! < CERTAIN ? 1 : 0;
    all++;
    unsureOfAll += is;
    if (own[i]! < limit) continue;
    near++;
    unsure += is;
  }
  // Where none is, that it is rare is all that is known.
  const share = unsureOfAll === 0 ? Math.min(SELDOM, 1 / (all + 1)) : (unsure + 1) / (near + 1);
  return zeros * share;
}
