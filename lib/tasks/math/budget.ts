/**
 * A bound on the work that an answer may cause, counted and not timed, so that a verdict depends on the answer alone.
 */

/** Work that would be too large, or has no meaning (a division by zero): the answer is then compared as text. */
export class Unreadable extends Error {}

let left = Infinity;

/** Counts `units` of work, each about a microsecond. @throws Unreadable when {@link withBudget}'s is used up */
export function spend(units: number): void {
  left -= units;
  if (left < 0) throw new Unreadable('too much work');
}

/** What `body` returns, or undefined where it is unreadable or takes more work than `units`, or than is left outside. */
export function withBudget<T>(units: number, body: () => T): T | undefined {
  const outer = left;
  const given = Math.min(units, outer);
  left = given;
  try {
    return body();
  } catch (error) {
    if (error instanceof Unreadable) return undefined;
    throw error;
  } finally {
    left = outer - (given - left);
  }
}
