import { type Finding, percent, type Signature, said } from './signature.js';

const LEAST = 0.5;
/** How much worse than the others the first tokens are. */
const WORSE = 8;
/** Share of the responses of which that holds. */
const MOST = 0.5;

/** Tokens of the prompt within what counts: the first counted tokens of responses are far apart, the others are not. */
export const promptCounted: Signature = {
  name: 'prompt-counted',
  title: 'prompt tokens counted: the first tokens are far apart',
  test({ count, response, d, meanAbs }): Finding {
    const leading: number[] = [];
    let [held, others] = [0, 0];
    for (let i = 0; i < count; i++) {
      const distance = Math.abs(d[i]!);
      if (i === 0 || response[i] !== response[i - 1]) {
        leading.push(distance);
        held += distance;
      } else {
        others += distance;
      }
    }
    const first = held / leading.length;
    const rest = others / Math.max(1, count - leading.length);
    const worse = leading.filter((distance) => distance >= WORSE * rest).length / leading.length;
    const explained = meanAbs > 0 ? held / (held + others) : 0;
    return {
      found: count > 2 * leading.length && explained >= LEAST && first >= WORSE * rest && worse >= MOST,
      explained,
      evidence: `mean |log mu - log pi| is ${said(first)} at the first counted token of responses and ${said(rest)} at the others; the first hold ${percent(explained)} of the mismatch`,
      values: { first, rest, worse },
    };
  },
};
