/**
 * Whether two formulas are the same function, by their values at a few points: rational functions modulo a prime, those
 * with roots and functions in fixed point, formulas for whole numbers (`n!`, `2^n`) at whole numbers.
 */
import { Unreadable, withBudget } from './budget.js';
import {
  addComplex,
  type Complex,
  callComplex,
  complexNumber,
  complexOne,
  complexPi,
  exp,
  imaginaryUnit,
  multiplyComplex,
  powerComplex,
  rationalPowerComplex,
  sameComplex,
} from './complex.js';
import { CONSTANTS, type Expression, isConstant, lettersOf } from './expression.js';
import { addField, fieldFunction, fieldLetter, fieldNumber, fieldPower, multiplyField } from './field.js';
import { numericCall } from './normalForm.js';
import { add, equal, isWhole, multiply, negate, power, type Rational, rational } from './rational.js';

/** One kind of number to compute with; every function throws Unreadable where it has no answer. */
interface Arithmetic<T> {
  /** Whether it has fractions alone; then a power gets no `exponent` but asks for its value. */
  readonly exact?: true;
  number(value: Rational): T;
  letter(name: string): T;
  add(a: T, b: T): T;
  multiply(a: T, b: T): T;
  /** @param exponent undefined where it is not rational, or not known to be */
  power(base: T, exponent: Rational | undefined, value: () => T): T;
  call(name: string, values: readonly T[]): T;
}

function evaluate<T>(expression: Expression, arithmetic: Arithmetic<T>): T {
  const visit = (part: Expression): T => {
    switch (part.kind) {
      case 'number':
        return arithmetic.number(part.value);
      case 'letter':
        return arithmetic.letter(part.name);
      case 'sum':
        return part.terms.map(visit).reduce((a, b) => arithmetic.add(a, b));
      case 'product':
        return part.factors.map(visit).reduce((a, b) => arithmetic.multiply(a, b));
      case 'power': {
        const exponent = arithmetic.exact ? undefined : rationalValue(part.exponent);
        return arithmetic.power(visit(part.base), exponent, () => visit(part.exponent));
      }
      case 'call': {
        const value = arithmetic.exact ? undefined : rationalValue(part);
        return value ? arithmetic.number(value) : arithmetic.call(part.name, part.arguments.map(visit));
      }
    }
  };
  return visit(expression);
}

/** Fractions, with letters as `letter` gives them. */
function fractions(letter: (name: string) => Rational): Arithmetic<Rational> {
  return {
    exact: true,
    number: (value) => value,
    letter,
    add,
    multiply,
    power: (base, _, value) => {
      const exponent = value();
      if (!isWhole(exponent)) throw new Unreadable('no rational power');
      return power(base, exponent.numerator);
    },
    call: (name, values) => {
      const value = numericCall(name, values);
      if (!value) throw new Unreadable('no rational value');
      return value;
    },
  };
}

const numbersAlone = fractions((name) => {
  throw new Unreadable(`a letter: ${name}`);
});

/** Work of one evaluation: some milliseconds. */
const WORK = 3000;

function rationalValue(expression: Expression): Rational | undefined {
  return withBudget(WORK, () => evaluate(expression, numbersAlone));
}

/** A kind of number, the points that are tried in it and the points at which two formulas have to agree. */
interface Family<T> {
  readonly name: string;
  readonly tried: number;
  readonly needed: number;
  /** @param isReal whether values that are not real count as none */
  at(point: number, isReal: boolean): Arithmetic<T>;
  same(a: T, b: T): boolean;
}

const residues: Family<bigint> = {
  name: 'residues',
  tried: 3,
  needed: 3,
  same: (a, b) => a === b,
  at: (point) => ({
    number: fieldNumber,
    letter: (name) => fieldLetter(name, point),
    add: addField,
    multiply: multiplyField,
    power: (base, exponent) => {
      if (!exponent || !isWhole(exponent)) throw new Unreadable('no power of a field');
      return fieldPower(base, exponent.numerator);
    },
    call: (name, values) => {
      if (!isUnknownFunction(name)) throw new Unreadable('no rational function');
      return fieldFunction(name, values[0]!);
    },
  }),
};

/** `f`, `f'`, `g_1`: a function of which nothing is known. */
function isUnknownFunction(name: string): boolean {
  return /^[fgh](?![a-z])/.test(name);
}

/** An element of the field as a number from 0 to 1. */
function unitInterval(element: bigint): Rational {
  return rational(element >> 64n, 1n << 64n);
}

/**
 * Letters are 0.5 to 2.5 in size: positive at points 0, 4, 5 and 6, negative at 1, of either sign at 2, 3 and 7. Where a
 * formula has no value (the root of a negative letter), another point is tried.
 */
const fixedPoint: Family<Complex> = {
  name: 'fixed point',
  tried: 8,
  needed: 4,
  same: sameComplex,
  at: (point, isReal) => {
    /** A function of letters has real values, or none: `\sqrt a \sqrt b` is no negative number. */
    const checked = (value: Complex, ...from: readonly Complex[]) => {
      if (isReal && value.im !== 0n && from.every(({ im }) => im === 0n))
        throw new Unreadable('no real value');
      return value;
    };
    return {
      number: complexNumber,
      letter: (name) => {
        if (name === 'pi') return complexPi;
        if (name === 'i') return imaginaryUnit;
        if (name === 'e') return exp(complexOne);
        if (name === 'deg') return multiplyComplex(complexPi, complexNumber(rational(1, 180)));
        const element = fieldLetter(name, point);
        const size = add(multiply(unitInterval(element), rational(2)), rational(1, 2));
        const isNegative = point === 1 || ([2, 3, 7].includes(point) && element % 2n === 1n);
        return complexNumber(isNegative ? negate(size) : size);
      },
      add: addComplex,
      multiply: multiplyComplex,
      power: (base, exponent, value) =>
        checked(exponent ? rationalPowerComplex(base, exponent) : powerComplex(base, value()), base),
      call: (name, values) => {
        if (!isUnknownFunction(name)) return checked(callComplex(name, values), ...values);
        // One value for each argument, but for its last digits.
        const [re, im] = [values[0]!.re, values[0]!.im].map((part) => (part + (1n << 159n)) >> 160n);
        return complexNumber(unitInterval(fieldLetter(`function ${name} ${re} ${im}`, 0)));
      },
    };
  },
};

/** Letters are whole numbers from 3 to 30. */
const wholeNumbers: Family<Rational> = {
  name: 'whole numbers',
  tried: 8,
  needed: 8,
  same: equal,
  at: (point) =>
    fractions((name) => {
      if (CONSTANTS.has(name)) throw new Unreadable('no whole number');
      return rational(3n + (fieldLetter(name, point) % 28n));
    }),
};

/** The values of one formula, each computed when first asked for. */
class Values {
  readonly constant: boolean;
  readonly #isReal: boolean;
  readonly #expression: Expression;
  readonly #known = new Map<string, unknown>();

  constructor(expression: Expression) {
    this.#expression = expression;
    this.constant = isConstant(expression);
    this.#isReal = !this.constant && !lettersOf(expression).has('i');
  }

  get rational(): Rational | undefined {
    return this.#once('rational', () => rationalValue(this.#expression));
  }

  at<T>(family: Family<T>, point: number): T | undefined {
    return this.#once(`${family.name} ${point}`, () =>
      withBudget(WORK, () => evaluate(this.#expression, family.at(point, this.#isReal))),
    );
  }

  #once<T>(key: string, compute: () => T | undefined): T | undefined {
    if (!this.#known.has(key)) this.#known.set(key, compute());
    return this.#known.get(key) as T | undefined;
  }
}

/** A gold answer is compared with many responses: its values are kept with it. */
const known = new WeakMap<Expression, Values>();

function valuesOf(expression: Expression): Values {
  let values = known.get(expression);
  if (!values) {
    values = new Values(expression);
    known.set(expression, values);
  }
  return values;
}

/** Whether two formulas are the same function; undefined where their values do not tell. */
export function sameValue(a: Expression, b: Expression): boolean | undefined {
  const [left, right] = [valuesOf(a), valuesOf(b)];
  if (left.rational && right.rational) return equal(left.rational, right.rational);
  return agree(left, right, residues) ?? agree(left, right, fixedPoint) ?? agree(left, right, wholeNumbers);
}

function agree<T>(a: Values, b: Values, family: Family<T>): boolean | undefined {
  const constant = a.constant && b.constant;
  const needed = constant ? 1 : family.needed;
  let agreed = 0;
  for (let point = 0; point < (constant ? 1 : family.tried) && agreed < needed; point++) {
    const [x, y] = [a.at(family, point), b.at(family, point)];
    if (x === undefined || y === undefined) {
      // What all points have to agree at is no longer possible.
      if (needed === family.tried) return undefined;
      continue;
    }
    if (!family.same(x, y)) return false;
    agreed++;
  }
  return agreed >= needed ? true : undefined;
}

/** Whether one formula is the other times a number, so that `a = 0` says what `b = 0` says; of rational functions alone. */
export function proportional(a: Expression, b: Expression): boolean | undefined {
  const [left, right] = [valuesOf(a), valuesOf(b)];
  const [a0, b0] = [left.at(residues, 0), right.at(residues, 0)];
  if (!a0 || !b0) return undefined;
  for (let point = 1; point < residues.tried; point++) {
    const [x, y] = [left.at(residues, point), right.at(residues, point)];
    if (x === undefined || y === undefined) return undefined;
    if (multiplyField(x, b0) !== multiplyField(a0, y)) return false;
  }
  return true;
}
