/**
 * Complex numbers in fixed point, about 115 decimal digits behind the point: values of formulas with roots, pi and
 * functions, precise enough that formulas which agree are the same number.
 *
 * All rests on exp (Taylor's series of a small part, then squaring) and log (Halley's iteration on exp); values are
 * principal ones. What gets so large or so small that its digits are no longer known throws Unreadable.
 */
import { spend, Unreadable } from './budget.js';
import { absolute, bitLength, type Rational, wholeRoot } from './rational.js';

/** `re` and `im` in units of 2^-384. */
export interface Complex {
  readonly re: bigint;
  readonly im: bigint;
}

const SHIFT = 384n;
const ONE = 1n << SHIFT;
const LARGEST = 1n << (SHIFT + 512n);
/** 2^-340: below it, nothing but rounding errors. */
const NOISE = 1n << (SHIFT - 340n);
/** Relative difference of values that count as the same: 2^-200, or 60 digits. */
const SAME_BITS = 200n;
/** The argument of exp is divided by 2^12 before its series is summed. */
const HALVINGS = 12n;

export const complexZero: Complex = { re: 0n, im: 0n };
export const complexOne: Complex = { re: ONE, im: 0n };
export const imaginaryUnit: Complex = { re: 0n, im: ONE };
/** Machin's formula. */
export const complexPi: Complex = { re: 4n * (4n * arctanInverse(5n) - arctanInverse(239n)), im: 0n };
const TURN = 2n * complexPi.re;
/** ln 2 = 2 artanh(1/3). */
const LN2 = 2n * seriesOfInverse(3n, 1n);

/** 1/n - 1/(3 n^3) + 1/(5 n^5) - ... */
function arctanInverse(n: bigint): bigint {
  return seriesOfInverse(n, -1n);
}

/** 1/n + s/(3 n^3) + s^2/(5 n^5) + ..., with bits to spare for its rounding. */
function seriesOfInverse(n: bigint, s: bigint): bigint {
  let power = (ONE << 32n) / n;
  let total = 0n;
  for (let k = 1n; power !== 0n; k += 2n, power = (s * power) / (n * n)) total += power / k;
  return total >> 32n;
}

export function complexNumber({ numerator, denominator }: Rational): Complex {
  return checked({ re: (numerator << SHIFT) / denominator, im: 0n }, numerator === 0n);
}

/** Throws what is out of range; `mayVanish`: whether a value near zero is one that is known to be. */
function checked(value: Complex, mayVanish: boolean): Complex {
  const { re, im } = value;
  if (re > LARGEST || -re > LARGEST || im > LARGEST || -im > LARGEST) throw new Unreadable('too large');
  if (!mayVanish && isNoise(value)) throw new Unreadable('too small');
  return value;
}

function isNoise({ re, im }: Complex): boolean {
  return re < NOISE && -re < NOISE && im < NOISE && -im < NOISE;
}

/** The larger part: of the order of the absolute value. */
function sizeOf({ re, im }: Complex): bigint {
  return larger(absolute(re), absolute(im));
}

function larger(a: bigint, b: bigint): bigint {
  if (a > b) return a;
  return b;
}

function isZero({ re, im }: Complex): boolean {
  return re === 0n && im === 0n;
}

/** Whether two values are the same but for rounding. */
export function sameComplex(a: Complex, b: Complex): boolean {
  if (isNoise(a) || isNoise(b)) return isNoise(a) && isNoise(b);
  const bound = larger(sizeOf(a), sizeOf(b)) >> SAME_BITS;
  return absolute(a.re - b.re) <= bound && absolute(a.im - b.im) <= bound;
}

export function addComplex(a: Complex, b: Complex): Complex {
  return checked({ re: a.re + b.re, im: a.im + b.im }, true);
}

export function negateComplex({ re, im }: Complex): Complex {
  return { re: -re, im: -im };
}

export function multiplyComplex(a: Complex, b: Complex): Complex {
  spend(1);
  const re = (a.re * b.re - a.im * b.im) >> SHIFT;
  const im = (a.re * b.im + a.im * b.re) >> SHIFT;
  return checked({ re, im }, isZero(a) || isZero(b));
}

/** @throws Unreadable for a divisor that is zero but for rounding */
export function divideComplex(a: Complex, b: Complex): Complex {
  spend(2);
  if (isNoise(b)) throw new Unreadable('division by zero');
  const norm = b.re * b.re + b.im * b.im;
  const re = ((a.re * b.re + a.im * b.im) << SHIFT) / norm;
  const im = ((a.im * b.re - a.re * b.im) << SHIFT) / norm;
  return checked({ re, im }, isZero(a));
}

/** `base` to a whole exponent of either sign. */
export function wholePowerComplex(base: Complex, exponent: bigint): Complex {
  if (exponent < 0n) return divideComplex(complexOne, wholePowerComplex(base, -exponent));
  if (exponent >= 1n << 32n) throw new Unreadable('too large');
  let result = complexOne;
  for (let square = base, rest = exponent; rest > 0n; rest >>= 1n) {
    if (rest & 1n) result = multiplyComplex(result, square);
    if (rest > 1n) square = multiplyComplex(square, square);
  }
  return result;
}

/** `base` to a fraction: real for odd roots of real numbers, else the principal value. */
export function rationalPowerComplex(base: Complex, exponent: Rational): Complex {
  const { numerator, denominator } = exponent;
  if (denominator === 1n) return wholePowerComplex(base, numerator);
  if (isNoise(base)) {
    if (numerator < 0n) throw new Unreadable('division by zero');
    return complexZero;
  }
  if (denominator === 2n) return wholePowerComplex(squareRoot(base), numerator);
  const real = withoutNoise(base);
  if (real.im === 0n && real.re < 0n && denominator % 2n === 1n) {
    const value = rationalPowerComplex(negateComplex(real), exponent);
    return numerator % 2n === 0n ? value : negateComplex(value);
  }
  return exp(multiplyComplex(complexNumber(exponent), log(base)));
}

export function powerComplex(base: Complex, exponent: Complex): Complex {
  return isZero(exponent) ? complexOne : exp(multiplyComplex(exponent, log(base)));
}

/** A value beside the real axis by rounding alone, put onto it: above and below are other branches. */
function withoutNoise({ re, im }: Complex): Complex {
  return { re, im: absolute(im) < NOISE ? 0n : im };
}

function squareRoot(value: Complex): Complex {
  const { re, im } = withoutNoise(value);
  if (im === 0n) {
    const size = wholeRoot(absolute(re) << SHIFT, 2n);
    return re < 0n ? { re: 0n, im: size } : { re: size, im: 0n };
  }
  const real = wholeRoot(((modulus(value) + absolute(re)) / 2n) << SHIFT, 2n);
  const imaginary = (absolute(im) << SHIFT) / (2n * real);
  const [x, y] = re < 0n ? [imaginary, real] : [real, imaginary];
  return { re: x, im: im < 0n ? -y : y };
}

function modulus({ re, im }: Complex): bigint {
  return wholeRoot(re * re + im * im, 2n);
}

export function exp({ re, im }: Complex): Complex {
  if (absolute(re) > 160n << SHIFT || absolute(im) > 1n << (SHIFT + 64n))
    throw new Unreadable('exp out of range');
  spend(60);
  const doublings = rounded(re, LN2);
  const x = (re - doublings * LN2) >> HALVINGS;
  const y = (im - rounded(im, TURN) * TURN) >> HALVINGS;
  let [sumRe, sumIm] = [ONE, 0n];
  for (let [termRe, termIm, k] = [ONE, 0n, 1n]; termRe !== 0n || termIm !== 0n; k++) {
    // Divisions, unlike shifts, round towards zero, so that the terms come to an end.
    const divisor = k << SHIFT;
    [termRe, termIm] = [(termRe * x - termIm * y) / divisor, (termRe * y + termIm * x) / divisor];
    sumRe += termRe;
    sumIm += termIm;
  }
  for (let i = 0n; i < HALVINGS; i++) {
    [sumRe, sumIm] = [(sumRe * sumRe - sumIm * sumIm) >> SHIFT, (2n * sumRe * sumIm) >> SHIFT];
  }
  return { re: shifted(sumRe, doublings), im: shifted(sumIm, doublings) };
}

function rounded(value: bigint, unit: bigint): bigint {
  const twice = 2n * value + unit;
  const quotient = twice / (2n * unit);
  return twice < 0n ? quotient - 1n : quotient;
}

function shifted(value: bigint, bits: bigint): bigint {
  return bits >= 0n ? value << bits : value >> -bits;
}

/** The principal logarithm. @throws Unreadable for zero */
export function log(value: Complex): Complex {
  const { re, im } = withoutNoise(value);
  if (isNoise(value)) throw new Unreadable('logarithm of zero');
  const doublings = BigInt(bitLength(sizeOf(value))) - SHIFT;
  const unit = { re: shifted(re, -doublings), im: shifted(im, -doublings) };
  const [x, y] = [toNumber(unit.re), toNumber(unit.im)];
  let result: Complex = { re: fromNumber(Math.log(Math.hypot(x, y))), im: fromNumber(Math.atan2(y, x)) };
  // Each step triples the digits that are right, from a double's 16.
  for (let step = 0; step < 2; step++) {
    const guess = exp(result);
    const correction = divideSmall(addComplex(unit, negateComplex(guess)), addComplex(unit, guess));
    result = { re: result.re + 2n * correction.re, im: result.im + 2n * correction.im };
  }
  return { re: result.re + doublings * LN2, im: im === 0n && re > 0n ? 0n : result.im };
}

/** A quotient that may be as small as rounding. */
function divideSmall(a: Complex, b: Complex): Complex {
  const norm = b.re * b.re + b.im * b.im;
  return {
    re: ((a.re * b.re + a.im * b.im) << SHIFT) / norm,
    im: ((a.im * b.re - a.re * b.im) << SHIFT) / norm,
  };
}

/** Between -2 and 2, as a double. */
function toNumber(value: bigint): number {
  return Number(value >> (SHIFT - 64n)) / 2 ** 64;
}

function fromNumber(value: number): bigint {
  return BigInt(Math.round(value * 2 ** 52)) << (SHIFT - 52n);
}

/** The functions of vocabulary.ts and a few signs, by name; `log` has its base as second argument. */
export function callComplex(name: string, values: readonly Complex[]): Complex {
  const [z, second] = values as [Complex, Complex];
  switch (name) {
    case 'sin':
      return sine(z);
    case 'cos':
      return cosine(z);
    case 'tan':
      return divideComplex(sine(z), cosine(z));
    case 'cot':
      return divideComplex(cosine(z), sine(z));
    case 'sec':
      return divideComplex(complexOne, cosine(z));
    case 'csc':
      return divideComplex(complexOne, sine(z));
    case 'sinh':
      return half(addComplex(exp(z), negateComplex(exp(negateComplex(z)))));
    case 'cosh':
      return half(addComplex(exp(z), exp(negateComplex(z))));
    case 'tanh':
      return divideComplex(callComplex('sinh', values), callComplex('cosh', values));
    case 'arcsin':
      return arcsine(z);
    case 'arccos':
      return addComplex(half(complexPi), negateComplex(arcsine(z)));
    case 'arctan':
      return arctangent(z);
    case 'log':
      return divideComplex(log(z), log(second));
    case 'abs':
      return { re: modulus(z), im: 0n };
    case 'floor':
      return { re: wholeBelow(z) << SHIFT, im: 0n };
    case 'ceil':
      return { re: (wholeBelow(z) + 1n) << SHIFT, im: 0n };
    default:
      throw new Unreadable(`no values of ${name}`);
  }
}

function half({ re, im }: Complex): Complex {
  return { re: re / 2n, im: im / 2n };
}

/** i z */
function turned({ re, im }: Complex): Complex {
  return { re: -im, im: re };
}

function sine(z: Complex): Complex {
  if (z.im === 0n) return { re: exp(turned(z)).im, im: 0n };
  const twice = addComplex(exp(turned(z)), negateComplex(exp(negateComplex(turned(z)))));
  return half(negateComplex(turned(twice)));
}

function cosine(z: Complex): Complex {
  if (z.im === 0n) return { re: exp(turned(z)).re, im: 0n };
  return half(addComplex(exp(turned(z)), exp(negateComplex(turned(z)))));
}

/** -i log(i z + sqrt(1 - z^2)) */
function arcsine(z: Complex): Complex {
  const square = addComplex(complexOne, negateComplex(isNoise(z) ? complexZero : multiplyComplex(z, z)));
  return negateComplex(
    turned(log(addComplex(turned(z), isNoise(square) ? complexZero : squareRoot(square)))),
  );
}

/** (log(1 + i z) - log(1 - i z)) / 2i */
function arctangent(z: Complex): Complex {
  const [above, below] = [
    addComplex(complexOne, turned(z)),
    addComplex(complexOne, negateComplex(turned(z))),
  ];
  return half(negateComplex(turned(addComplex(log(above), negateComplex(log(below))))));
}

/** The whole number below a real value that is none itself. */
function wholeBelow(z: Complex): bigint {
  const real = withoutNoise(z);
  const below = z.re >> SHIFT;
  const rest = z.re - (below << SHIFT);
  if (real.im !== 0n || rest < NOISE || ONE - rest < NOISE) throw new Unreadable('no clear whole part');
  return below;
}
