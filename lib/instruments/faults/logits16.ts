import { tokensOf } from './change.js';
import type { Fault } from './fault.js';
import { roundedToBf16 } from './head.js';

/**
 * The training engine's logits are rounded before the log-softmax. They are computed by a rollout engine with the training
 * engine's choices, which gives its bits.
 */
export const logits16: Fault = {
  name: 'logits-16',
  title: 'the training engine’s logits are rounded to 16 bits',
  strength: 'what is rounded: 1 logits to fp16, 2 logits to bf16, 3 logits and log-probs to bf16',
  strengths: { weak: 1, ordinary: 2, strong: 3 },
  allows: (rounding) => [1, 2, 3].includes(rounding),
  allowed: '1, 2 or 3',
  runs: 'any run',
  async apply(step, rounding) {
    const { cast } = await import('../../tensor/tensor.js');
    const { sequences } = step;
    using engine = step.rolloutEngine({
      numerics: step.numerics.training,
      head: (_hidden, logits) => cast(logits(), rounding === 1 ? 'fp16' : 'bf16'),
    });
    const scored = await step.scoreBy(engine, sequences);
    const training = step.records(sequences, rounding === 3 ? await roundedToBf16(scored) : scored);
    return { rollout: step.rollout, training, touched: tokensOf(training) };
  },
};
