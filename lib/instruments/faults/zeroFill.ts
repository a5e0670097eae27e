import { logAt, withLogs } from './change.js';
import type { Fault } from './fault.js';

/** Half of what is missing is in runs at the end of responses, as where a stream breaks off; the rest is anywhere. */
export const zeroFill: Fault = {
  name: 'zero-fill',
  title: 'log-probs that the rollout engine did not return are filled with 0.0',
  strength: 'share of the tokens',
  strengths: { weak: 0.01, ordinary: 0.05, strong: 0.2 },
  allows: (share) => share > 0 && share <= 0.5,
  allowed: 'above 0 and at most 0.5',
  runs: 'any run',
  apply(step, share) {
    const random = step.random(step.step);
    let touched = 0;
    const rollout = step.rollout.map((record) => {
      const { length } = record.tokens;
      // Runs of up to half of a response make up half of the share.
      const longest = Math.ceil(length / 2);
      const breaksOff = random.uniform() < (share * length) / (longest + 1);
      const run = breaksOff ? 1 + random.integer(longest) : 0;
      const logs = record.tokens.map((_, i) => {
        const filled = random.uniform() < share / 2 || i >= length - run;
        if (filled) touched++;
        return filled ? { logprob: 0, top: null } : logAt(record, i);
      });
      return withLogs(record, logs);
    });
    return { rollout, training: step.training, touched };
  },
};
