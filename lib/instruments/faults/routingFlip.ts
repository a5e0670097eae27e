import { invalid } from '../../errors.js';
import type { Routes } from '../../models/routes.js';
import type { Fault } from './fault.js';

/**
 * Some tokens go to another expert in the training engine than its router would choose: in one mixture, drawn for each, the
 * least of the token's experts gives way to one that it did not have. The other tokens keep the training engine's own
 * experts.
 */
export const routingFlip: Fault = {
  name: 'routing-flip',
  title: 'some tokens go to another expert in the training engine',
  strength: 'share of the tokens',
  strengths: { weak: 0.005, ordinary: 0.02, strong: 0.05 },
  allows: (share) => share > 0 && share <= 1,
  allowed: 'above 0 and at most 1',
  runs: 'mixtures of experts in which a token leaves some out',
  check({ model }) {
    if (model === null) return;
    if (model.numExperts === 0) invalid('inject', 'a mixture of experts for routing-flip', 'a dense model');
    if (model.numExperts === model.numExpertsPerToken) {
      invalid('inject', 'experts that a token does not go to, for routing-flip', 'none');
    }
  },
  async apply(step, share) {
    const { sequences, rollout } = step;
    const { shape, routes: chosen } = await step.ownRoutes();
    const { expertsPerToken: k, experts, layers } = shape;
    const random = step.random(step.step);
    let touched = 0;
    const routes = chosen.map((own, s): Routes => {
      const changed = own.slice();
      const { prompt, response } = sequences[s]!;
      // A response token is predicted from the one before it.
      for (let t = 0; t < response.length; t++) {
        if (random.uniform() >= share) continue;
        const at = ((prompt.length - 1 + t) * layers.length + random.integer(layers.length)) * k;
        const had = changed.subarray(at, at + k);
        const others = Array.from({ length: experts }, (_, e) => e).filter((e) => !had.includes(e));
        had[k - 1] = others[random.integer(others.length)]!;
        touched++;
      }
      return changed;
    });
    const training = step.records(sequences, await step.score(sequences, routes));
    return { rollout, training, touched };
  },
};
