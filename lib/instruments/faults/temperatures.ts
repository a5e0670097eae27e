/** What the faults with a wrong temperature have in common. */
import type { Fault } from './fault.js';

export const temperatures = {
  strength: 'temperature',
  strengths: { weak: 0.9, ordinary: 0.7, strong: 0.5 },
  allows: (temperature: number) => temperature > 0 && temperature <= 10 && temperature !== 1,
  allowed: 'above 0 and at most 10, but 1',
  runs: 'any run',
} satisfies Partial<Fault>;
