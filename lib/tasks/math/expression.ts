/** What a formula says: numbers, letters, and what is done with them. */
import { negate as negateRational, one, type Rational, rational } from './rational.js';

/**
 * A difference is a sum with a product by -1, a quotient a product with a power of -1, a root a power of 1/n.
 *
 * Letters include `pi`, `e`, `i`, `infinity` and `deg`, the angle of one degree. Calls: functions by their name in
 * vocabulary.ts, `log` with the base as second argument, `abs`, `floor`, `ceil`, `factorial`, `binom`, and `f`, `g` or
 * `h`, of which nothing is known.
 */
export type Expression =
  | { readonly kind: 'number'; readonly value: Rational }
  | { readonly kind: 'letter'; readonly name: string }
  | { readonly kind: 'sum'; readonly terms: readonly Expression[] }
  | { readonly kind: 'product'; readonly factors: readonly Expression[] }
  | { readonly kind: 'power'; readonly base: Expression; readonly exponent: Expression }
  | { readonly kind: 'call'; readonly name: string; readonly arguments: readonly Expression[] };

/** Letters that stand for one value in every answer. */
export const CONSTANTS: ReadonlySet<string> = new Set(['pi', 'e', 'i', 'deg']);

export function number(value: Rational | number | bigint): Expression {
  return { kind: 'number', value: typeof value === 'object' ? value : rational(value) };
}

export function letter(name: string): Expression {
  return { kind: 'letter', name };
}

export function sum(...terms: Expression[]): Expression {
  return terms.length === 1 ? terms[0]! : { kind: 'sum', terms };
}

export function product(...factors: Expression[]): Expression {
  const flat = factors.flatMap((factor) => (factor.kind === 'product' ? factor.factors : [factor]));
  return flat.length < 2 ? (flat[0] ?? number(1)) : { kind: 'product', factors: flat };
}

export function power(base: Expression, exponent: Expression): Expression {
  return { kind: 'power', base, exponent };
}

export function call(name: string, ...parameters: Expression[]): Expression {
  return { kind: 'call', name, arguments: parameters };
}

export function negate(value: Expression): Expression {
  return value.kind === 'number' ? number(negateRational(value.value)) : product(number(-1), value);
}

export function difference(a: Expression, b: Expression): Expression {
  return sum(a, negate(b));
}

export function quotient(a: Expression, b: Expression): Expression {
  return product(a, power(b, number(-1)));
}

/** The `index`-th root; of a negative number an odd root is the real one, by {@link Expression}'s rule for powers. */
export function root(radicand: Expression, index: Expression): Expression {
  return power(radicand, quotient(number(one), index));
}

/** Every letter in `value`, constants included. */
export function lettersOf(value: Expression, found: Set<string> = new Set()): Set<string> {
  switch (value.kind) {
    case 'number':
      break;
    case 'letter':
      found.add(value.name);
      break;
    case 'power':
      lettersOf(value.base, found);
      lettersOf(value.exponent, found);
      break;
    default:
      for (const part of partsOf(value)) lettersOf(part, found);
  }
  return found;
}

function partsOf(value: Exclude<Expression, { kind: 'number' | 'letter' | 'power' }>): readonly Expression[] {
  if (value.kind === 'sum') return value.terms;
  return value.kind === 'product' ? value.factors : value.arguments;
}

/** Whether no letter but the {@link CONSTANTS} is in `value`. */
export function isConstant(value: Expression): boolean {
  return [...lettersOf(value)].every((name) => CONSTANTS.has(name));
}
