/**
 * Pairs of answers as solutions of MATH, AIME and AMC problems and models write them, judged by hand.
 *
 * `same`: by form, exactly. `value`: by value alone; strict comparison refuses them. `different`: under no comparison.
 */
export interface Pairs {
  readonly same?: readonly (readonly [string, string])[];
  readonly value?: readonly (readonly [string, string])[];
  readonly different?: readonly (readonly [string, string])[];
}
