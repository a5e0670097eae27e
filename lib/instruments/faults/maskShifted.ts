import { tokensOf } from './change.js';
import type { Fault } from './fault.js';

/** Position i of the training mask holds what belongs to position i - shift; what comes in is 0. */
export const maskShifted: Fault = {
  name: 'mask-shifted',
  title: 'the training mask is shifted against the tokens',
  strength: 'tokens that the mask is late, or early where below 0',
  strengths: { weak: -1, ordinary: 1, strong: 2 },
  allows: (shift) => Number.isInteger(shift) && shift !== 0 && Math.abs(shift) <= 16,
  allowed: 'a whole number from -16 to 16 but 0',
  runs: 'any run',
  apply({ rollout, training }, shift) {
    const shifted = training.map((record) => ({
      ...record,
      mask: record.mask.map((_, i) => record.mask[i - shift] ?? 0),
    }));
    const counted = (records: typeof training) =>
      records.reduce((sum, { mask }) => sum + mask.reduce((a, b) => a + b, 0), 0);
    return { rollout, training: shifted, touched: tokensOf(training) - counted(shifted) };
  },
};
