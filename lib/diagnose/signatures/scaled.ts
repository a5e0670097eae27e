import { weightedMedian } from '../countedTokens.js';
import { type Finding, percent, type Signature, said, shareGone } from './signature.js';

/** Share of the mismatch that must be gone. */
const GONE = 0.5;
/** Log-probs of numbers nearer to 1 than this are not told apart by it. */
const LEAST = 0.01;

/** Log-probs that were divided by a temperature after the softmax, which leaves them unnormalised: log pi = s log mu. */
export const scaled: Signature = {
  name: 'scaled',
  title: 'log-probs that are multiples of each other',
  test({ count, mu, pi, meanAbs }): Finding {
    const ratios: number[] = [];
    const weights: number[] = [];
    for (let i = 0; i < count; i++) {
      if (!(mu[i]! < 0) || !(pi[i]! < 0)) continue;
      ratios.push(pi[i]! / mu[i]!);
      weights.push(Math.abs(mu[i]!));
    }
    const s = weightedMedian(ratios, weights);
    let left = 0;
    for (let i = 0; i < count; i++) left += Math.abs(pi[i]! - s * mu[i]!);
    const explained = ratios.length === 0 ? 0 : shareGone(meanAbs, left / count);
    const found = explained >= GONE && Math.abs(s - 1) >= LEAST;
    return {
      found,
      explained,
      evidence: `log pi is ${said(s)} times log mu at the middle token; without that factor ${percent(1 - explained)} of the mismatch is left`,
      values: { scale: s },
    };
  },
};
