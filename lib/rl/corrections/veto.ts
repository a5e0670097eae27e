import { eachLogRatio } from '../ratios.js';
import type { RatioBatch } from './ratioBatch.js';

/**
 * Token veto (Liu, Li et al. 2025; slime, earlier verl, 1e-4): a response with any token whose ratio to / from is below
 * `threshold` is left out whole: cleared in `kept`. Such a token was sampled although the policy that is trained finds
 * it all but impossible.
 *
 * @returns responses vetoed
 */
export function veto({ offsets, mask, to, from }: RatioBatch, threshold: number, kept: Uint8Array): number {
  const limit = Math.log(threshold);
  const vetoed = new Uint8Array(offsets.length - 1);
  eachLogRatio({ offsets, mask }, to, from, (logRatio, _, s) => {
    if (logRatio < limit) vetoed[s] = 1;
  });
  let sequences = 0;
  for (let s = 0; s < vetoed.length; s++) {
    if (vetoed[s] === 0) continue;
    sequences++;
    kept.fill(0, offsets[s]!, offsets[s + 1]!);
  }
  return sequences;
}
