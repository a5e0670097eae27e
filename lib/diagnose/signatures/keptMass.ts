import { clusteredMean, errorsAbove } from '../countedTokens.js';
import {
  type Finding,
  LEAST_SPREAD,
  MOST_RATIO,
  notTestable,
  percent,
  type Signature,
  said,
  TOO_FEW,
} from './signature.js';

/** How one-sided the difference must be. */
const ONE_SIDED = 0.4;
const ERRORS = 6;

/**
 * Log-probs of the rollout renormalised over the tokens that top-p or top-k kept, held against those over the whole
 * vocabulary: log mu - log pi = -log Z with the kept mass Z, never negative and at most -log topP. The mean of pi / mu is
 * then that of Z, below 1, where it is 1 for any two distributions of which one was sampled.
 */
export const keptMass: Signature = {
  name: 'kept-mass',
  title: 'constant offset of kept mass (top-p, top-k)',
  test(tokens): Finding {
    const { d, meanAbs, count, spread } = tokens;
    if (!(spread >= LEAST_SPREAD)) return notTestable(TOO_FEW);
    const ratio = clusteredMean(tokens, (i) => Math.min(Math.exp(-d[i]!), MOST_RATIO));
    const lack = -errorsAbove(ratio, 1);
    let [offset, squares] = [0, 0];
    for (let i = 0; i < count; i++) {
      offset += d[i]!;
      squares += d[i]! ** 2;
    }
    // Distributions that differ have KL[mu || pi], about half the mean square, on that side, too.
    const oneSided = Math.max(0, (offset - squares / 2) / count) / meanAbs;
    return {
      found: oneSided >= ONE_SIDED && lack >= ERRORS,
      explained: Math.min(1, oneSided),
      evidence: `mean of pi / mu ${said(ratio.mean)} (${said(lack)} standard errors below 1); ${percent(oneSided)} of the mismatch lies on the side of log mu`,
      values: { keptMass: ratio.mean, errors: lack, oneSided },
    };
  },
};
