import { logAt, missing, tokensOf, withLogs } from './change.js';
import type { Fault } from './fault.js';
import { withPrompts } from './prompt.js';

/** Position i of the training series holds what belongs to position i - shift. */
export const offByOne: Fault = {
  name: 'off-by-one',
  title: 'the training series is shifted against the tokens',
  strength: 'tokens that the series is late, or early where below 0',
  strengths: { weak: -1, ordinary: 1, strong: 2 },
  allows: (shift) => Number.isInteger(shift) && shift !== 0 && Math.abs(shift) <= 16,
  allowed: 'a whole number from -16 to 16 but 0',
  runs: 'any run',
  async apply(step, shift) {
    // The prompt's end comes in at the front of a late series; behind the end of an early one there is nothing.
    const longer = await withPrompts(step, (length) => Math.min(Math.max(shift, 0), length));
    const training = step.training.map((record, r) => {
      const { record: all, count } = longer[r]!;
      const logs = record.tokens.map((_, i) => {
        const from = count + i - shift;
        return from >= 0 && from < all.tokens.length ? logAt(all, from) : missing;
      });
      return withLogs(record, logs);
    });
    return { rollout: step.rollout, training, touched: tokensOf(training) };
  },
};
