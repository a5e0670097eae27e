import type { Pair } from './record.js';

/** Calls `body` with each token of a response that counts and whose log-probs, and their difference, are finite. */
export function eachCounted(
  { rollout, training, mask }: Pair,
  body: (logMu: number, logPi: number, position: number) => void,
): void {
  for (let t = 0; t < mask.length; t++) {
    if (mask[t] === 1 && Number.isFinite(training[t]! - rollout[t]!)) body(rollout[t]!, training[t]!, t);
  }
}
