import { type Finding, percent, type Signature, said } from './signature.js';

const LEAST = 0.5;
/** How much worse than the others the first tokens are. */
const WORSE = 8;
const MOST_LEADING = 1;

/** Tokens of the prompt within what counts: the first counted tokens of responses are far apart, the others are not. */
export const promptCounted: Signature = {
  name: 'prompt-counted',
  title: 'prompt tokens counted: the first tokens are far apart',
  test({ count, response, d, meanAbs }): Finding {
    let [leading, held, others] = [0, 0, 0];
    let before = -1;
    let place = 0;
    for (let i = 0; i < count; i++) {
      place = response[i] === before ? place + 1 : 0;
      before = response[i]!;
      if (place < MOST_LEADING) {
        leading++;
        held += Math.abs(d[i]!);
      } else {
        others += Math.abs(d[i]!);
      }
    }
    const first = held / leading;
    const rest = others / Math.max(1, count - leading);
    const explained = meanAbs > 0 ? held / (held + others) : 0;
    return {
      found: count > 2 * leading && explained >= LEAST && first >= WORSE * rest,
      explained,
      evidence: `mean |log mu - log pi| is ${said(first)} at the first counted token of responses and ${said(rest)} at the others; the first hold ${percent(explained)} of the mismatch`,
      values: { first, rest },
    };
  },
};
