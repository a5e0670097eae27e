import type { Fault } from './fault.js';
import { withPrompts } from './prompt.js';

/** The training series begins within the prompt. */
export const promptCounted: Fault = {
  name: 'prompt-counted',
  title: 'the training series has tokens of the prompt, too',
  strength: 'share of the prompt that is counted, from its end',
  strengths: { weak: 0.1, ordinary: 0.5, strong: 1 },
  allows: (share) => share > 0 && share <= 1,
  allowed: 'above 0 and at most 1',
  runs: 'any run',
  async apply(step, share) {
    const longer = await withPrompts(step, (length) => Math.ceil(share * length));
    return {
      rollout: step.rollout,
      training: longer.map(({ record }) => record),
      touched: longer.reduce((sum, { count }) => sum + count, 0),
    };
  },
};
