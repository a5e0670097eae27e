import type { Fault } from './fault.js';
import { temperatures } from './temperatures.js';

/** log mu is of softmax(logits / T), as the settings of both dumps say; log pi is of softmax(logits). */
export const temperature: Fault = {
  ...temperatures,
  name: 'temperature',
  title: 'sampled and logged at a temperature that the training engine leaves out',
  async apply(step, value) {
    using engine = step.rolloutEngine();
    return step.dump(await step.sample(engine, { temperature: value }), { temperature: value });
  },
};
