import type { Fault } from './fault.js';

/** log mu is over the tokens that top-p keeps, renormalised; log pi is over all. */
export const topPMass: Fault = {
  name: 'top-p-mass',
  title: 'sampled with top-p and logged renormalised, which the training engine leaves out',
  strength: 'top-p',
  strengths: { weak: 0.98, ordinary: 0.9, strong: 0.7 },
  allows: (topP) => topP > 0 && topP < 1,
  allowed: 'above 0 and below 1',
  runs: 'any run',
  async apply(step, topP) {
    using engine = step.rolloutEngine();
    return step.dump(await step.sample(engine, { topP }), { topP });
  },
};
