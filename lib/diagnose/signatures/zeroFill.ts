import { type Finding, percent, type Signature, said, shareGone } from './signature.js';

/** A log-prob of exactly 0 says that a token was certain; held against this of the other engine it is a missing value. */
const CERTAIN = -0.1;

/** Values that one side lacks and that something filled with 0.0: exact zeros where the other engine was far from sure. */
export const zeroFill: Signature = {
  name: 'zero-fill',
  title: 'exact zeros where the other engine is unsure',
  test({ count, mu, pi, d, meanAbs, response, token, sample }): Finding {
    const filled = { rollout: 0, training: 0 };
    let absolute = 0;
    let [leading, trailing] = [0, 0];
    for (let i = 0; i < count; i++) {
      const side =
        mu[i] === 0 && pi[i]! < CERTAIN
          ? 'rollout'
          : pi[i] === 0 && mu[i]! < CERTAIN
            ? 'training'
            : undefined;
      if (side === undefined) continue;
      filled[side]++;
      absolute += Math.abs(d[i]!);
      const series = side === 'rollout' ? sample.mu : sample.pi;
      const [begin, end] = [sample.offsets[response[i]!]!, sample.offsets[response[i]! + 1]!];
      if (allZero(series, begin, token[i]!)) leading++;
      else if (allZero(series, token[i]! + 1, end)) trailing++;
    }
    const zeros = filled.rollout + filled.training;
    const side = filled.rollout >= filled.training ? 'rollout' : 'training';
    const where =
      2 * leading > zeros
        ? ', most of them at the start'
        : 2 * trailing > zeros
          ? ', most of them at the end'
          : '';
    return {
      found: zeros > 0,
      explained: shareGone(meanAbs, meanAbs - absolute / count),
      evidence:
        zeros === 0
          ? 'no log-prob of exactly 0 where the other engine gives the token less than 90 %'
          : `${zeros} of ${count} tokens (${percent(zeros / count)}) are exactly 0 in ${side}${where}, where the other engine says ${said(-absolute / zeros)} on average`,
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

function allZero(series: Float64Array, begin: number, end: number): boolean {
  for (let t = begin; t < end; t++) if (series[t] !== 0) return false;
  return true;
}
