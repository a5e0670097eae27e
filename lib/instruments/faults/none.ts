import type { Fault } from './fault.js';

/** The run as it is. */
export const none: Fault = {
  name: 'none',
  title: 'no fault: the clean run',
  strength: 'nothing',
  strengths: { weak: 0, ordinary: 0, strong: 0 },
  allows: (strength) => strength === 0,
  allowed: '0',
  runs: 'any run',
  apply: ({ rollout, training }) => ({ rollout, training, touched: 0 }),
};
