const SHIFTS = [1, -1, 2, -2];

/**
 * By how many positions `b` is `a`, later: b[t] = a[t - shift] wherever both are; 0 for no shift of one or two. What comes in at
 * the edge may be anything, but an edge of the mask must have moved: where all tokens count, that is its beginning. Two that
 * differ in their last token alone are no shift: one of them may not count the end of the sequence.
 *
 * @param a [tokens]
 * @param b [tokens] not equal to `a`
 */
export function maskShift(a: Uint8Array, b: Uint8Array): number {
  for (const shift of SHIFTS) {
    const was = shift > 0 ? a.subarray(0, -shift) : a.subarray(-shift);
    const is = shift > 0 ? b.subarray(shift) : b.subarray(0, shift);
    if (!is.every((value, t) => value === was[t])) continue;
    const [early, late] = shift > 0 ? [a, b] : [b, a];
    const begins = early[0] === 1 && late.subarray(0, Math.abs(shift)).every((value) => value === 0);
    if (is.some((value) => value !== is[0]) || (is[0] === 1 && begins)) return shift;
  }
  return 0;
}
