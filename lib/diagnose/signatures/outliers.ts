import { nth } from '../select.js';
import { type Finding, OPEN, percent, type Signature, said } from './signature.js';

/** How many times the middle noise an outlier is. */
const FAR = 50;
/** And how many times the greatest noise that rounding makes on average. */
const BEYOND = 2;
/** Most tokens that can be a few. */
const FEW = 0.05;
/** Their share of the mismatch: in a mixture of experts other sums move some tokens, too, which hold less. */
const LEAST = 0.25;

/** A few tokens that hold most of the mismatch: an expert chosen otherwise, a mask that differs, a damaged value. */
export const outliers: Signature = {
  name: 'outliers',
  title: 'a few huge outliers: routing flips, masking',
  test({ count, d, openness, meanAbs, meanOpenness }, { floor }): Finding {
    const noise = new Float64Array(count);
    let n = 0;
    for (let i = 0; i < count; i++) if (openness[i]! >= OPEN) noise[n++] = Math.abs(d[i]!) / openness[i]!;
    const middle = n === 0 ? 0 : nth(noise.subarray(0, n), Math.floor(n / 2));
    // Where most tokens are equal to the bit, what the others have is no more than rounding, still.
    const least = Math.max(FAR * middle, BEYOND * floor.high);
    let [far, held] = [0, 0];
    for (let i = 0; i < count; i++) {
      if (Math.abs(d[i]!) <= least * Math.max(openness[i]!, OPEN)) continue;
      far++;
      held += Math.abs(d[i]!);
    }
    const share = far / count;
    const explained = meanAbs > 0 ? held / count / meanAbs : 0;
    // What differs everywhere has outliers, too: here all else is as it should be.
    const bulk = (meanAbs - held / count) / meanOpenness;
    return {
      found: far > 0 && share <= FEW && explained >= LEAST && bulk <= floor.high,
      explained,
      evidence: `${far} of ${count} tokens (${percent(share)}) are further apart than ${said(least)} nats of logit noise (the middle token: ${said(middle)}); they hold ${percent(explained)} of the mismatch`,
      values: { outliers: far, share, middleNoise: middle, bulkNoise: bulk },
    };
  },
};
