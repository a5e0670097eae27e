/**
 * The normal form of a formula: equal forms are equal values, exactly and without a rounded number anywhere.
 *
 * A formula becomes a sum of terms, each a rational coefficient times powers of atoms (letters, primes under a root,
 * functions, other sums). Order of terms and factors, fractions, roots of whole numbers, powers of i and signs leave no
 * trace. Formulas without letters are multiplied out and their denominators made rational where that is easy; with
 * letters, products of sums stay products, so that `x^2 - 1` and `(x - 1)(x + 1)` have different forms: a problem that
 * asks for factors is not answered by itself.
 */
import { spend, Unreadable, withBudget } from './budget.js';
import { CONSTANTS, type Expression } from './expression.js';
import {
  absolute,
  add,
  bitLength,
  divide,
  equal,
  floor,
  format,
  isWhole,
  MAX_BITS,
  multiply,
  negate,
  one,
  power,
  type Rational,
  rational,
  sign,
  wholeRoot,
} from './rational.js';

/** `coefficient` times each atom to its power, which is never zero; atoms in order. */
interface Term {
  readonly coefficient: Rational;
  readonly powers: readonly (readonly [atom: string, exponent: Rational])[];
}

/** A sum: terms with different powers, in order, no coefficient zero; no term at all for zero. */
export type NormalForm = readonly Term[];

/** Most terms of a sum that products make. */
const MAX_TERMS = 100;
/** Largest power to which a sum of constants is multiplied out. */
const MAX_EXPANSION = 12n;
/** Primes that are looked for under a root; what is left over is a prime, a square or an atom of its own. */
const MAX_PRIME = 2000;
const MAX_FACTORIAL = 500n;

const WORK = 5000;

/** Undefined where the formula has no value (a division by zero) or is too large. */
export function normalForm(expression: Expression): NormalForm | undefined {
  return withBudget(WORK, () => new Normalizer().form(expression));
}

/** A text that is the same for equal forms. */
export function textOf(form: NormalForm): string {
  if (form.length === 0) return '0';
  return form.map((term) => `${format(term.coefficient)} ${keyOf(term)}`).join(' + ');
}

/** The number that a form is, where it is rational. */
export function rationalOf(form: NormalForm): Rational | undefined {
  if (form.length === 0) return rational(0);
  return form.length === 1 && form[0]!.powers.length === 0 ? form[0]!.coefficient : undefined;
}

/** The form times a rational so that its first coefficient is one; and that coefficient. */
export function primitive(form: NormalForm): { form: NormalForm; content: Rational } {
  const content = form[0]?.coefficient ?? one;
  return { content, form: scaled(form, divide(one, content)) };
}

function scaled(form: NormalForm, factor: Rational): NormalForm {
  return form.map((term) => ({ ...term, coefficient: multiply(term.coefficient, factor) }));
}

function keyOf(term: Term): string {
  return term.powers.map(([atom, exponent]) => `${atom}^${format(exponent)}`).join(' ');
}

/** Atoms of which every power may be taken apart: they are above zero. */
const isPositive = (atom: string) => atom === 'pi' || atom === 'e' || atom === 'deg' || /^\d+$/.test(atom);

class Normalizer {
  /** Sums that stand as atoms, by their text. */
  readonly #sums = new Map<string, NormalForm>();
  /** Atoms in which no letter occurs but the constants. */
  readonly #constants = new Set<string>(CONSTANTS);

  form(expression: Expression): NormalForm {
    switch (expression.kind) {
      case 'number':
        return this.#number(expression.value);
      case 'letter':
        return [{ coefficient: one, powers: [[expression.name, one]] }];
      case 'sum':
        return this.#sum(expression.terms.flatMap((term) => this.form(term)));
      case 'product':
        return expression.factors
          .map((factor) => this.form(factor))
          .reduce((product, factor) => this.#multiply(product, factor));
      case 'power':
        return this.#power(this.form(expression.base), this.form(expression.exponent));
      case 'call':
        return this.#call(
          expression.name,
          expression.arguments.map((argument) => this.form(argument)),
        );
    }
  }

  #number(value: Rational): NormalForm {
    return value.numerator === 0n ? [] : [{ coefficient: value, powers: [] }];
  }

  /** Collects terms of the same powers. */
  #sum(terms: readonly Term[]): NormalForm {
    const collected = new Map<string, Term>();
    for (const term of terms) {
      spend(1);
      const key = keyOf(term);
      const before = collected.get(key);
      const coefficient = before ? add(before.coefficient, term.coefficient) : term.coefficient;
      if (coefficient.numerator === 0n) collected.delete(key);
      else collected.set(key, { ...term, coefficient });
      if (collected.size > MAX_TERMS) throw new Unreadable('too many terms');
    }
    return [...collected].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, term]) => term);
  }

  #multiply(a: NormalForm, b: NormalForm): NormalForm {
    if (a.length === 0 || b.length === 0) return [];
    // A mere number goes into a sum; so do constants into constants. Anything else keeps a sum as one factor.
    const opens = rationalOf(a) || rationalOf(b) || (this.#isConstant(a) && this.#isConstant(b));
    if (!opens || a.length * b.length === 1) return this.#multiplyTerms(this.#factor(a), this.#factor(b));
    if (a.length * b.length > MAX_TERMS) throw new Unreadable('too many terms');
    return this.#sum(a.flatMap((left) => b.flatMap((right) => this.#multiplyTerms(left, right))));
  }

  #multiplyTerms(a: Term, b: Term): NormalForm {
    spend(2);
    const powers = new Map(a.powers);
    for (const [atom, exponent] of b.powers) powers.set(atom, add(powers.get(atom) ?? rational(0), exponent));
    return this.#term(multiply(a.coefficient, b.coefficient), powers);
  }

  /** A term with whole powers of primes and of i worked into its coefficient. */
  #term(coefficient: Rational, powers: ReadonlyMap<string, Rational>): NormalForm {
    const kept: [string, Rational][] = [];
    let factor = coefficient;
    for (const [atom, exponent] of powers) {
      let rest = exponent;
      if (atom === 'i' && isWhole(exponent)) {
        const turns = ((exponent.numerator % 4n) + 4n) % 4n;
        if (turns >= 2n) factor = negate(factor);
        rest = rational(turns % 2n);
      } else if (/^\d+$/.test(atom)) {
        const whole = floor(exponent);
        // A power too long to be written out stays one.
        if (absolute(whole) * BigInt(bitLength(BigInt(atom))) <= BigInt(MAX_BITS)) {
          factor = multiply(factor, power(rational(BigInt(atom)), whole));
          rest = add(exponent, rational(-whole));
        }
      }
      if (rest.numerator !== 0n) kept.push([atom, rest]);
    }
    // A sum that is left alone is a sum again, and no factor.
    const sum = kept.length === 1 && equal(kept[0]![1], one) ? this.#sums.get(kept[0]![0]) : undefined;
    if (sum) return scaled(sum, factor);
    kept.sort(([a], [b]) => (a < b ? -1 : 1));
    return [{ coefficient: factor, powers: kept }];
  }

  #isConstant(form: NormalForm): boolean {
    return form.every((term) =>
      term.powers.every(([atom]) => this.#constants.has(atom) || /^\d+$/.test(atom)),
    );
  }

  /** A form as one term: a sum becomes a number times an atom whose first coefficient is one. */
  #factor(form: NormalForm): Term {
    if (form.length === 1) return form[0]!;
    const { form: sum, content } = primitive(form);
    return { coefficient: content, powers: [[this.#atom(sum), one]] };
  }

  #atom(form: NormalForm): string {
    const atom = `(${textOf(form)})`;
    if (form.length > 1) this.#sums.set(atom, form);
    if (this.#isConstant(form)) this.#constants.add(atom);
    return atom;
  }

  #power(base: NormalForm, exponent: NormalForm): NormalForm {
    const value = rationalOf(exponent);
    if (value === undefined) return this.#letterPower(base, exponent);
    if (base.length === 0) {
      if (sign(value) <= 0) throw new Unreadable('no such power of zero');
      return [];
    }
    return isWhole(value) ? this.#wholePower(base, value.numerator) : this.#fractionalPower(base, value);
  }

  #wholePower(base: NormalForm, exponent: bigint): NormalForm {
    if (exponent === 0n) return this.#number(one);
    if (base.length > 1 && this.#isConstant(base)) {
      if (exponent < 0n) {
        const inverse = this.#inverse(base);
        if (inverse) return this.#wholePower(inverse, -exponent);
      } else if (exponent <= MAX_EXPANSION) {
        let result = base;
        for (let i = 1n; i < exponent; i++) result = this.#multiply(result, base);
        return result;
      }
    }
    const { coefficient, powers } = this.#factor(base);
    const raised = new Map(powers.map(([atom, e]) => [atom, multiply(e, rational(exponent))]));
    const numbers = this.#rationalPower(coefficient, rational(exponent));
    return this.#term(one, raised).reduce(
      (product: NormalForm, term) => this.#multiply(product, [term]),
      numbers,
    );
  }

  /** 1 / (a + b) is (a - b) / (a² - b²), which is a number where the squares are. */
  #inverse(base: NormalForm): NormalForm | undefined {
    if (base.length !== 2) return undefined;
    const conjugate = [base[0]!, { ...base[1]!, coefficient: negate(base[1]!.coefficient) }];
    const norm = rationalOf(this.#multiply(base, conjugate));
    return norm && norm.numerator !== 0n ? scaled(conjugate, divide(one, norm)) : undefined;
  }

  #fractionalPower(base: NormalForm, exponent: Rational): NormalForm {
    const whole = this.#factor(base);
    const taken = whole.powers.every(([atom]) => isPositive(atom));
    if (taken) {
      const raised = new Map(whole.powers.map(([atom, e]) => [atom, multiply(e, exponent)]));
      return this.#multiply(this.#rationalPower(whole.coefficient, exponent), this.#term(one, raised));
    }
    // Only a positive number may leave the root: the sign of the rest is unknown.
    const content = rational(absolute(whole.coefficient.numerator), whole.coefficient.denominator);
    const rest = scaled(base, divide(one, content));
    const [only] = rest.length === 1 ? rest[0]!.powers : [];
    const isAtom =
      only && rest[0]!.powers.length === 1 && equal(only[1], one) && equal(rest[0]!.coefficient, one);
    const atom = isAtom ? only[0] : this.#atom(rest);
    return this.#multiply(this.#rationalPower(content, exponent), [
      { coefficient: one, powers: [[atom, exponent]] },
    ]);
  }

  /** A number to a fraction of a power, as powers of primes. */
  #rationalPower(base: Rational, exponent: Rational): NormalForm {
    if (equal(base, one)) return [{ coefficient: one, powers: [] }];
    const powers = new Map<string, Rational>();
    let coefficient = one;
    if (sign(base) < 0) {
      const odd = exponent.numerator % 2n !== 0n;
      // Odd roots of negative numbers are real, square roots are multiples of i.
      if (exponent.denominator % 2n === 1n) coefficient = odd ? negate(one) : one;
      else if (exponent.denominator === 2n) powers.set('i', rational(exponent.numerator));
      else
        return [{ coefficient: one, powers: [[this.#atom([{ coefficient: base, powers: [] }]), exponent]] }];
    }
    for (const [prime, count] of this.#primes(absolute(base.numerator), exponent.denominator)) {
      powers.set(prime, multiply(rational(count), exponent));
    }
    for (const [prime, count] of this.#primes(base.denominator, exponent.denominator)) {
      powers.set(prime, multiply(rational(-count), exponent));
    }
    return this.#term(coefficient, powers);
  }

  /** Factors of `value`: all primes below {@link MAX_PRIME}, then what is left, as a root where it is a power. */
  #primes(value: bigint, root: bigint): Map<string, bigint> {
    spend(10);
    const factors = new Map<string, bigint>();
    let rest = value;
    const small = rest < 1n << 53n;
    for (let prime = 2; prime < (small ? MAX_PRIME : 100); prime += prime === 2 ? 1 : 2) {
      if (rest === 1n || (small && prime * prime > Number(rest))) break;
      let count = 0n;
      const divisor = BigInt(prime);
      while (rest % divisor === 0n) {
        rest /= divisor;
        count++;
      }
      if (count > 0n) factors.set(String(prime), count);
    }
    if (rest === 1n) return factors;
    const exact = root > 1n && root < 100n ? wholeRoot(rest, root) : 0n;
    if (exact > 1n && exact ** root === rest) factors.set(String(exact), root);
    else factors.set(String(rest), 1n);
    return factors;
  }

  /** A power whose exponent is no number: an atom to the whole number that the exponent is a multiple of. */
  #letterPower(base: NormalForm, exponent: NormalForm): NormalForm {
    const { coefficient, powers } = this.#factor(exponent);
    const outside = isWhole(coefficient) ? coefficient : one;
    const inside: NormalForm = [{ coefficient: divide(coefficient, outside), powers }];
    const atom = `(${textOf(base)})^(${textOf(inside)})`;
    if (this.#isConstant(base) && this.#isConstant(inside)) this.#constants.add(atom);
    return [{ coefficient: one, powers: [[atom, outside]] }];
  }

  #call(name: string, parameters: readonly NormalForm[]): NormalForm {
    const values = parameters.map(rationalOf);
    if (values.every((value) => value !== undefined)) {
      const value = numericCall(name, values);
      if (value) return this.#number(value);
    }
    const atom = `${name}(${parameters.map(textOf).join('; ')})`;
    if (parameters.every((parameter) => this.#isConstant(parameter))) this.#constants.add(atom);
    return [{ coefficient: one, powers: [[atom, one]] }];
  }
}

/** A function of numbers whose value is a number. */
export function numericCall(name: string, values: readonly Rational[]): Rational | undefined {
  const [first, second] = values as [Rational, Rational];
  switch (name) {
    case 'abs':
      return sign(first) < 0 ? negate(first) : first;
    case 'floor':
      return rational(floor(first));
    case 'ceil':
      return rational(-floor(negate(first)));
    case 'factorial':
      return isWhole(first) && sign(first) >= 0 ? factorial(first.numerator) : undefined;
    case 'binom':
      return isWhole(first) && isWhole(second) ? binomial(first.numerator, second.numerator) : undefined;
    default:
      return undefined;
  }
}

function factorial(n: bigint): Rational {
  if (n > MAX_FACTORIAL) throw new Unreadable('number too long');
  spend(50);
  let product = 1n;
  for (let i = 2n; i <= n; i++) product *= i;
  return rational(product);
}

function binomial(n: bigint, k: bigint): Rational | undefined {
  if (n < 0n || k < 0n) return undefined;
  if (k > n) return rational(0);
  const steps = k < n - k ? k : n - k;
  if (steps > MAX_FACTORIAL) throw new Unreadable('number too long');
  let value = one;
  for (let i = 1n; i <= steps; i++) value = multiply(value, rational(n - steps + i, i));
  return value;
}
