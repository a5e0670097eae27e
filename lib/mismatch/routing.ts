/** How far apart two passes are in the experts that a mixture's tokens went to. */
import { checkInteger, invalid } from '../errors.js';

/**
 * The share of (token, mixture) pairs in which two passes used other sets of experts, whatever their order: the routing
 * flips of arXiv 2510.11370.
 *
 * @param a routes of some sequences, [tokens, mixtures, expertsPerToken] each
 * @param b those of another pass of the same sequences
 * @returns from 0 to 1; NaN where there is no token
 * @throws InvalidArgumentError where the sequences or their lengths differ
 */
export function routingFlips(
  a: readonly Uint16Array[],
  b: readonly Uint16Array[],
  expertsPerToken: number,
): number {
  const where = 'routingFlips';
  const k = checkInteger(where, 'expertsPerToken', expertsPerToken, 1);
  if (a.length !== b.length) invalid(where, `b of ${a.length} sequences, as a`, b.length);
  let flips = 0;
  let pairs = 0;
  a.forEach((own, s) => {
    const other = b[s]!;
    if (own.length % k !== 0) invalid(where, `a[${s}].length to be a multiple of ${k}`, own.length);
    if (own.length !== other.length) invalid(where, `b[${s}] of length ${own.length}, as a`, other.length);
    pairs += own.length / k;
    for (let begin = 0; begin < own.length; begin += k) {
      if (!sameSet(own, other, begin, begin + k)) flips++;
    }
  });
  return flips / pairs;
}

/** Whether two lists of different numbers have the same ones from `begin` to `end`. */
function sameSet(a: Uint16Array, b: Uint16Array, begin: number, end: number): boolean {
  for (let i = begin; i < end; i++) {
    // Nearly always at the same place.
    if (a[i] === b[i]) continue;
    let found = false;
    for (let j = begin; j < end && !found; j++) found = a[i] === b[j];
    if (!found) return false;
  }
  return true;
}
