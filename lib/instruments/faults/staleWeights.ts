import { invalid } from '../../errors.js';
import type { Fault } from './fault.js';
import { withMasters } from './masters.js';
import { type RunConfig, UPDATES_PER_STEP } from './runConfig.js';

/** From this step on the rollout engine is stale. */
function firstStale({ steps }: RunConfig): number {
  return Math.floor(steps / 2);
}

/** A weight sync is lost: the dump claims the version that the engine should have had. */
export const staleWeights: Fault = {
  name: 'stale-weights',
  title: 'from the middle step on the rollout engine has weights of some updates ago',
  strength: 'updates that the rollout engine is behind',
  strengths: { weak: 1, ordinary: 4, strong: 16 },
  allows: (updates) => Number.isInteger(updates) && updates >= 1,
  allowed: 'a whole number of at least 1',
  runs: 'runs with as many updates before the middle step, of which there are 8 a step',
  check({ config }, updates) {
    const before = firstStale(config) * UPDATES_PER_STEP;
    if (updates > before) {
      const steps = 2 * Math.ceil(updates / UPDATES_PER_STEP);
      invalid(
        'inject',
        `steps of at least ${steps}, for weights that are ${updates} updates old`,
        config.steps,
      );
    }
  },
  versions: (config, updates) =>
    Array.from(
      { length: config.steps - firstStale(config) },
      (_, i) => (firstStale(config) + i) * UPDATES_PER_STEP - updates,
    ),
  async apply(step, updates) {
    const { rollout, training, version, config } = step;
    if (step.step < firstStale(config)) return { rollout, training, touched: 0 };
    using engine = await withMasters(step.snapshot(version - updates), () => step.rolloutEngine());
    return step.dump(await step.sample(engine));
  },
};
