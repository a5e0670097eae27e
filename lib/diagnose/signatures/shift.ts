import { spreadOf } from '../countedTokens.js';
import {
  type Finding,
  LEAST_SPREAD,
  notTestable,
  percent,
  type Signature,
  said,
  shareGone,
  TOO_FEW,
} from './signature.js';

const SHIFTS = [-2, -1, 1, 2];
/** Share of the mismatch that must be gone. */
const GONE = 0.5;

/** Series that are a token or two apart: log mu of token t beside log pi of token t + k. */
export const shift: Signature = {
  name: 'shift',
  title: 'series shifted against each other',
  test({ count, mu, sample, token, response, d }): Finding {
    let best = { by: 0, explained: 0, apart: 0, left: 0 };
    let testable = false;
    for (const by of SHIFTS) {
      let [apart, squares, beside, left, n] = [0, 0, 0, 0, 0];
      for (let i = 0; i < count; i++) {
        const t = token[i]! + by;
        const s = response[i]!;
        if (t < sample.offsets[s]! || t >= sample.offsets[s + 1]! || sample.mask[t] === 0) continue;
        apart += Math.abs(d[i]!);
        squares += d[i]! ** 2;
        beside += Math.abs(sample.mu[t]! - sample.pi[t]!);
        left += Math.abs(mu[i]! - sample.pi[t]!);
        n++;
      }
      if (!(spreadOf(apart, squares) >= LEAST_SPREAD)) continue;
      testable = true;
      // What is odd at the ends of one series alone is gone with them: that is no shift.
      apart = Math.min(apart, beside);
      const explained = shareGone(apart, left);
      if (explained > best.explained) best = { by, explained, apart: apart / n, left: left / n };
    }
    if (!testable) return notTestable(TOO_FEW);
    const { by, explained, apart, left } = best;
    return {
      found: explained >= GONE,
      explained,
      evidence:
        by === 0
          ? 'log-probs fit best where they stand: no shift by 1 or 2 tokens brings them closer'
          : `training shifted by ${by > 0 ? '+' : ''}${by} fits ${explained >= GONE ? 'far better' : 'little better'}: mean |log mu - log pi| ${said(left)} in place of ${said(apart)} (${percent(explained)} gone)`,
      values: { shift: by, meanAbs: apart, meanAbsShifted: left },
    };
  },
};
