import { commonCandidates } from '../candidates.js';
import { type Finding, notTestable, percent, type Signature, said } from './signature.js';

/** Variance of a token's mean error over what independent errors would give. */
const LEAST = 4;

/**
 * Whether the same token errs the same way again and again. Rounding depends on all the digits of what is rounded, so that its errors in
 * different contexts are independent; weights that differ move a token's logit alike in many contexts.
 */
export const tokenBias: Signature = {
  name: 'token-bias',
  title: 'the same token errs the same way: weights differ',
  test({ sample }): Finding {
    const sums = new Map<number, { n: number; sum: number }>();
    let [squares, total] = [0, 0];
    for (const { ids, mu, pi } of commonCandidates(sample)) {
      const errors = mu.map((value, i) => value - pi[i]!);
      const mean = errors.reduce((a, b) => a + b, 0) / errors.length;
      errors.forEach((error, i) => {
        const own = sums.get(ids[i]!) ?? { n: 0, sum: 0 };
        own.n++;
        own.sum += error - mean;
        squares += (error - mean) ** 2;
        total++;
        sums.set(ids[i]!, own);
      });
    }
    const often = [...sums.values()].filter(({ n }) => n >= 8);
    if (often.length < 3 || squares === 0) return notTestable('needs the most likely tokens of both engines');
    const variance = squares / total;
    const ratio = often.reduce((sum, { n, sum: s }) => sum + s ** 2 / n, 0) / often.length / variance;
    const share = often.reduce((sum, { n, sum: s }) => sum + s ** 2 / n, 0) / squares;
    return {
      found: ratio >= LEAST,
      explained: Math.min(1, share),
      evidence: `mean errors of ${often.length} tokens vary ${said(ratio)} times as much as independent errors would; they hold ${percent(share)} of the variance`,
      values: { ratio, share, tokens: often.length },
    };
  },
};
