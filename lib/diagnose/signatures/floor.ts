import { clusteredMean, errorsAbove } from '../countedTokens.js';
import { type Finding, OPEN, percent, type Signature, said } from './signature.js';

/** Noise as two engines of one format have it: on both sides alike, and as large as the format's rounding makes it. */
export const floor: Signature = {
  name: 'floor',
  title: 'symmetric noise of the size that the format predicts',
  test(tokens, { floor: predicted }): Finding {
    const { d, meanAbs, logitNoise, openness, count } = tokens;
    const { dtype, unit, low, high } = predicted;
    // KL[mu || pi] is half the mean square where the two differ by noise alone: more than that is a bias.
    const bias = clusteredMean(tokens, (i) => d[i]! - d[i]! ** 2 / 2);
    const biasErrors = errorsAbove(bias, 0);
    let [equal, open] = [0, 0];
    for (let i = 0; i < count; i++) {
      if (openness[i]! < OPEN) continue;
      open++;
      if (d[i] === 0) equal++;
    }
    const equalShare = open === 0 ? Number.NaN : equal / open;
    const inside = logitNoise <= high;
    const size =
      logitNoise === 0
        ? 'no difference at all: equal to the bit'
        : `mean |log mu - log pi| ${said(meanAbs)}, a noise of the logits of ${said(logitNoise)} nats = ${said(logitNoise / unit)} roundings of ${dtype} (floor: ${said(low / unit)} to ${said(high / unit)})`;
    const symmetric = `; mean beyond KL ${said(bias.mean)} (${said(Math.abs(biasErrors))} standard errors)`;
    const equalText = Number.isNaN(equalShare)
      ? ''
      : `; ${percent(equalShare)} of unsure tokens are equal to the bit`;
    return {
      found: inside,
      explained: null,
      evidence: logitNoise === 0 ? size : size + symmetric + equalText,
      values: {
        logitNoise,
        units: logitNoise / unit,
        bias: bias.mean,
        biasErrors,
        equal,
        equalShare,
        low: low / unit,
        high: high / unit,
      },
    };
  },
};
