/** Exact fractions of whole numbers of any size: the numbers of the answer checker. */
import { spend, Unreadable } from './budget.js';

/** A fraction in lowest terms, `denominator` above zero. */
export interface Rational {
  readonly numerator: bigint;
  readonly denominator: bigint;
}

/**
 * Longest numerator or denominator in bits. Every gold answer of MATH, AIME and AMC is far shorter; what is longer has
 * no value here, so that no answer can make the arithmetic slow.
 */
export const MAX_BITS = 4096;

const BOUND = 1n << BigInt(MAX_BITS);

export const zero: Rational = { numerator: 0n, denominator: 1n };
export const one: Rational = { numerator: 1n, denominator: 1n };

/** The fraction in lowest terms. @throws Unreadable for a zero denominator or more than {@link MAX_BITS} bits */
export function rational(numerator: bigint | number, denominator: bigint | number = 1n): Rational {
  let n = BigInt(numerator);
  let d = BigInt(denominator);
  if (d === 0n) throw new Unreadable('division by zero');
  if (d < 0n) {
    n = -n;
    d = -d;
  }
  spend(costOf(absolute(n) + d));
  if (d !== 1n) {
    const common = greatestCommonDivisor(absolute(n), d);
    n /= common;
    d /= common;
  }
  if (absolute(n) >= BOUND || d >= BOUND) throw new Unreadable('number too long');
  return { numerator: n, denominator: d };
}

/** What Euclid's algorithm costs on numbers of this size, in microseconds or so. */
function costOf(size: bigint): number {
  if (size < 1n << 64n) return 1;
  if (size < 1n << 256n) return 10;
  return size < 1n << 1024n ? 60 : 600;
}

/** `12`, `0.75`, `.5`, `1.5e-3`: decimal digits with at most one point and an exponent of ten. */
export function parseDecimal(text: string): Rational {
  const [mantissa, exponent] = text.toLowerCase().split('e');
  const [whole, fraction = ''] = mantissa!.split('.');
  if (text.length > MAX_BITS / 4) throw new Unreadable('number too long');
  const digits = rational(BigInt(`${whole}${fraction}` || '0'));
  return multiply(digits, power(rational(10), BigInt(exponent ?? 0) - BigInt(fraction.length)));
}

export function add(a: Rational, b: Rational): Rational {
  return rational(a.numerator * b.denominator + b.numerator * a.denominator, a.denominator * b.denominator);
}

export function multiply(a: Rational, b: Rational): Rational {
  return rational(a.numerator * b.numerator, a.denominator * b.denominator);
}

export function divide(a: Rational, b: Rational): Rational {
  return rational(a.numerator * b.denominator, a.denominator * b.numerator);
}

export function negate(a: Rational): Rational {
  return { numerator: -a.numerator, denominator: a.denominator };
}

/** `base` to a whole `exponent` of either sign. @throws Unreadable for 0 to a power below 1, or a result too long */
export function power(base: Rational, exponent: bigint): Rational {
  if (exponent < 1n && base.numerator === 0n) throw new Unreadable('no such power of zero');
  if (exponent < 0n) return power(divide(one, base), -exponent);
  const bits = Math.max(bitLength(base.numerator), bitLength(base.denominator)) - 1;
  if (BigInt(bits) * exponent > BigInt(MAX_BITS)) throw new Unreadable('number too long');
  // Plus or minus one has as many bits at any power, but `**` takes exponents of a few bits only.
  if (bits === 0) return exponent % 2n === 0n ? one : base;
  return rational(base.numerator ** exponent, base.denominator ** exponent);
}

export function equal(a: Rational, b: Rational): boolean {
  return a.numerator === b.numerator && a.denominator === b.denominator;
}

export function isWhole(a: Rational): boolean {
  return a.denominator === 1n;
}

/** -1, 0 or 1. */
export function sign(a: Rational): number {
  return a.numerator < 0n ? -1 : a.numerator > 0n ? 1 : 0;
}

/** The largest whole number that is not above `a`. */
export function floor(a: Rational): bigint {
  const quotient = a.numerator / a.denominator;
  return a.numerator < 0n && a.denominator !== 1n ? quotient - 1n : quotient;
}

export function format(a: Rational): string {
  return isWhole(a) ? `${a.numerator}` : `${a.numerator}/${a.denominator}`;
}

export function absolute(value: bigint): bigint {
  return value < 0n ? -value : value;
}

export function bitLength(value: bigint): number {
  const hex = absolute(value).toString(16);
  return 4 * (hex.length - 1) + (32 - Math.clz32(Number.parseInt(hex[0]!, 16)));
}

export function greatestCommonDivisor(a: bigint, b: bigint): bigint {
  while (b !== 0n) [a, b] = [b, a % b];
  return a;
}

/** The whole part of the k-th root of a number that is not below zero, by Newton's iteration from above. */
export function wholeRoot(value: bigint, k: bigint): bigint {
  if (value < 2n) return value;
  spend(10);
  let root = 1n << (BigInt(bitLength(value)) / k + 1n);
  for (;;) {
    const next = ((k - 1n) * root + value / root ** (k - 1n)) / k;
    if (next >= root) return root;
    root = next;
  }
}
