import { weightedMedian } from '../select.js';
import {
  type Finding,
  isTemperature,
  LEAST_SPREAD,
  notTestable,
  percent,
  type Signature,
  said,
  shareGone,
  TOO_FEW,
} from './signature.js';

/** Share of the mismatch that must be gone. */
const GONE = 0.5;
/** Log-probs of numbers nearer to 1 than this are not told apart by it. */
const LEAST = 0.01;

/** Log-probs that were divided by a temperature after the softmax, which leaves them unnormalised: log pi = s log mu. */
export const scaled: Signature = {
  name: 'scaled',
  title: 'log-probs that are multiples of each other',
  test({ count, mu, pi, meanAbs, spread }): Finding {
    const ratios = new Float64Array(count);
    const weights = new Float64Array(count);
    let n = 0;
    for (let i = 0; i < count; i++) {
      if (!(mu[i]! < 0) || !(pi[i]! < 0)) continue;
      ratios[n] = pi[i]! / mu[i]!;
      weights[n++] = Math.abs(mu[i]!);
    }
    if (n === 0 || !(spread >= LEAST_SPREAD)) return notTestable(TOO_FEW);
    const s = weightedMedian(ratios.subarray(0, n), weights.subarray(0, n));
    let left = 0;
    for (let i = 0; i < count; i++) left += Math.abs(pi[i]! - s * mu[i]!);
    const explained = shareGone(meanAbs, left / count);
    const found = explained >= GONE && Math.abs(s - 1) >= LEAST && isTemperature(s);
    return {
      found,
      explained,
      evidence: `log pi is ${said(s)} times log mu at the middle token; without that factor ${percent(1 - explained)} of the mismatch is left`,
      values: { scale: s },
    };
  },
};
