import { spreadOf } from '../countedTokens.js';
import { type Finding, notTestable, percent, type Signature, said } from './signature.js';

/** Of long responses the first tokens hold little of the whole mismatch. */
const LEAST = 0.05;
/** How much worse than the others the first tokens are, and how many times their noise they have: to be less sure is not enough. */
const WORSE = 8;
const NOISIER = 4;
/** Responses, and their share, whose first tokens must share what the first tokens hold: a few may be outliers. */
const LEAST_RESPONSES = 8;
const LEAST_SHARE = 0.25;

/**
 * Tokens of the prompt within what counts: the first counted tokens of responses are far apart, the others are not. That they
 * are further apart than the others is not enough: where only the first token is a choice, all rounding shows there.
 */
export const promptCounted: Signature = {
  name: 'prompt-counted',
  title: 'prompt tokens counted: the first tokens are far apart',
  test({ count, response, responses, d, openness, meanAbs }, { floor }): Finding {
    if (responses < LEAST_RESPONSES) return notTestable(`needs ${LEAST_RESPONSES} responses`);
    let [leading, held, squares, open, others, openOthers] = [0, 0, 0, 0, 0, 0];
    for (let i = 0; i < count; i++) {
      const distance = Math.abs(d[i]!);
      if (i > 0 && response[i] === response[i - 1]) {
        others += distance;
        openOthers += openness[i]!;
        continue;
      }
      leading++;
      held += distance;
      squares += distance ** 2;
      open += openness[i]!;
    }
    const first = held / leading;
    const rest = others / Math.max(1, count - leading);
    const explained = meanAbs > 0 ? held / (held + others) : 0;
    return {
      found:
        count > 2 * leading &&
        explained >= LEAST &&
        first >= WORSE * rest &&
        held > floor.high * open &&
        held * openOthers >= NOISIER * others * open &&
        spreadOf(held, squares) >= Math.max(LEAST_RESPONSES, LEAST_SHARE * leading),
      explained,
      evidence: `mean |log mu - log pi| is ${said(first)} at the first counted token of responses and ${said(rest)} at the others; the first hold ${percent(explained)} of the mismatch`,
      values: { first, rest },
    };
  },
};
