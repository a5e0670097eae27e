import type { Parameter } from '../../autograd/parameter.js';
import type { Fault } from './fault.js';
import { withMasters } from './masters.js';

/** Every weight w of one layer, drawn by the seed, is w (1 + strength N(0, 1)), at each step the same. */
export const corruptedLayer: Fault = {
  name: 'corrupted-layer',
  title: 'one layer of the rollout engine has weights with noise',
  strength: 'standard deviation of the noise, relative to each weight',
  strengths: { weak: 0.08, ordinary: 0.3, strong: 1 },
  allows: (noise) => noise > 0 && noise <= 1,
  allowed: 'above 0 and at most 1',
  runs: 'any run',
  async apply(step, std) {
    const { randomNormal } = await import('../../tensor/tensor.js');
    const { model } = step.subject;
    const random = step.random();
    const layer = random.integer(model.layers.length);
    const seed = random.next();
    const own = model.parameters.filter(({ name }) => name.startsWith(`model.layers.${layer}.`));
    const masters = new Map<Parameter, Float32Array>();
    for (const [stream, parameter] of own.entries()) {
      using noise = randomNormal(parameter.shape, { seed, stream, std });
      const factors = await noise.floats();
      const weights = await parameter.master.floats();
      masters.set(
        parameter,
        weights.map((weight, i) => weight * (1 + factors[i]!)),
      );
    }
    using engine = await withMasters(masters, () => step.rolloutEngine());
    return step.dump(await step.sample(engine));
  },
};
