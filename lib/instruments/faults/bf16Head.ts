import { invalid } from '../../errors.js';
import type { Fault } from './fault.js';
import { roundedToBf16 } from './head.js';

/** The rollout engine holds the head in bf16, and from strength 2 on computes it in bf16: hidden states in, logits out. */
export const bf16Head: Fault = {
  name: 'bf16-head',
  title: 'the rollout engine’s head is bf16',
  strength: 'what is bf16: 1 the head’s weights, 2 logits, too, 3 logits and log-probs, too',
  strengths: { weak: 1, ordinary: 2, strong: 3 },
  allows: (parts) => [1, 2, 3].includes(parts),
  allowed: '1, 2 or 3',
  runs: 'runs in another precision than bf16',
  check({ config }) {
    if (config.precision === 'bf16') invalid('inject', 'a precision other than bf16 for bf16-head', 'bf16');
  },
  async apply(step, parts) {
    const { gemmFamilyOf } = await import('../../numerics.js');
    const { linear } = await import('../../ops/linear.js');
    const { cast } = await import('../../tensor/tensor.js');
    const { precision } = step.config;
    const { gemmSplitK: splitK, logits16 } = step.numerics.rollout;
    const family = gemmFamilyOf(step.numerics.rollout);
    using head = cast(step.subject.model.head.master, 'bf16');
    using wider = cast(head, precision);
    using engine = step.rolloutEngine({
      head: (hidden) =>
        parts === 1
          ? linear(hidden, [wider], { family, splitK, outDtype: logits16 ? precision : 'fp32' })
          : linear(cast(hidden, 'bf16'), [head], { family, splitK, outDtype: 'bf16' }),
    });
    const responses = await step.sample(engine);
    if (parts < 3) return step.dump(responses);
    const rounded = await roundedToBf16(responses.map(({ logged }) => logged));
    return step.dump(responses.map((response, i) => ({ ...response, logged: rounded[i]! })));
  },
};
