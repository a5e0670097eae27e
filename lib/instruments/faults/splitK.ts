import { expectMatched } from './change.js';
import type { Fault } from './fault.js';

/** Sums of the rollout engine's products are made of partial sums, in an otherwise matched run. */
export const splitK: Fault = {
  name: 'split-k',
  title: 'the rollout engine’s products sum in parts (split-K)',
  strength: 'parts that a sum over the hidden size is split into',
  strengths: { weak: 2, ordinary: 4, strong: 8 },
  allows: (parts) => Number.isInteger(parts) && parts >= 2 && parts <= 64,
  allowed: 'a whole number from 2 to 64',
  runs: 'runs with matched numerics',
  check: (setting) => expectMatched('split-k', setting),
  async apply(step, parts) {
    const gemmSplitK = Math.ceil(step.subject.model.config.hiddenSize / parts);
    using engine = step.rolloutEngine({ numerics: { ...step.numerics.rollout, gemmSplitK } });
    return step.dump(await step.sample(engine));
  },
};
