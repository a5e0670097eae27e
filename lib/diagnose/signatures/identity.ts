import { clusteredMean, errorsAbove } from '../countedTokens.js';
import { type Finding, MOST_RATIO, percent, type Signature, said } from './signature.js';

const ERRORS = 6;
const LEAST = 0.01;
/**
 * Noise of the logits, in nats, up to which a mean below 1 says something: of engines further apart a few huge ratios carry the
 * mean, and hardly any sample has drawn them.
 */
const MOST_NOISE = 1;

/**
 * E_mu[pi / mu] = 1 for any pi, if the tokens were drawn from mu and both are whole distributions. A mean that is not 1
 * says that the rollout's log-probs are not those of the distribution that was sampled (raw log-probs beside a temperature,
 * a filter), or that one side is not normalised; no rounding and no other weights can do that.
 */
export const identity: Signature = {
  name: 'identity',
  title: 'mean of pi / mu over tokens is 1',
  test(tokens): Finding {
    const { d, meanAbs, logitNoise } = tokens;
    const ratio = clusteredMean(tokens, (i) => Math.min(Math.exp(-d[i]!), MOST_RATIO));
    const off = errorsAbove(ratio, 1);
    const found =
      (off >= ERRORS || (off <= -ERRORS && logitNoise <= MOST_NOISE)) && Math.abs(ratio.mean - 1) >= LEAST;
    return {
      found,
      explained: found ? Math.min(1, Math.abs(ratio.mean - 1) / meanAbs) : 0,
      evidence: `mean of pi / mu is ${said(ratio.mean)}, ${said(Math.abs(off))} standard errors from 1 (${percent(Math.abs(ratio.mean - 1))} off)`,
      values: { meanRatio: ratio.mean, errors: off },
    };
  },
};
