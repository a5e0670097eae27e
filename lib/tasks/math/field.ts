/**
 * Formulas modulo a prime: whether two rational functions are the same one.
 *
 * Letters get fixed pseudo-random values of the field of {@link PRIME} elements, pi and e too, as no polynomial with
 * rational coefficients relates them to anything here; i is a root of -1. Equal functions have equal values, and
 * different ones of degree d agree at a random point with probability at most d / 2^128 (Schwartz 1980, Zippel 1979).
 */
import { createHash } from 'node:crypto';
import { spend, Unreadable } from './budget.js';
import type { Rational } from './rational.js';

/** The largest prime below 2^128; it is 1 modulo 4, so that -1 has a root. */
const PRIME = (1n << 128n) - 159n;
/** A large odd exponent: the power of an argument stands for a function of which nothing is known. */
const SCRAMBLE = (1n << 89n) - 1n;

export function fieldNumber({ numerator, denominator }: Rational): bigint {
  if (denominator === 1n) return residue(numerator);
  return multiplyField(residue(numerator), inverse(residue(denominator)));
}

export function addField(a: bigint, b: bigint): bigint {
  return (a + b) % PRIME;
}

export function multiplyField(a: bigint, b: bigint): bigint {
  return (a * b) % PRIME;
}

/** @throws Unreadable for zero to a power below 1 */
export function fieldPower(base: bigint, exponent: bigint): bigint {
  if (base === 0n && exponent <= 0n) throw new Unreadable('no such power of zero');
  return raise(base, residueOfExponent(exponent));
}

/** The value of the letter `name` at one of the points at which formulas are compared. */
export function fieldLetter(name: string, point: number): bigint {
  if (name === 'i') return rootOfMinusOne;
  if (name === 'deg') return multiplyField(fieldLetter('pi', point), inverse(180n));
  spend(3);
  const digest = createHash('sha256').update(`${point} ${name}`).digest('hex');
  return residue(BigInt(`0x${digest}`));
}

/** The value of the unknown function `name` at `argument`. */
export function fieldFunction(name: string, argument: bigint): bigint {
  return raise(addField(argument, fieldLetter(`function ${name}`, 0)), SCRAMBLE);
}

function residue(value: bigint): bigint {
  const rest = value % PRIME;
  return rest < 0n ? rest + PRIME : rest;
}

/** Exponents count modulo PRIME - 1 (Fermat). */
function residueOfExponent(exponent: bigint): bigint {
  const rest = exponent % (PRIME - 1n);
  return rest < 0n ? rest + PRIME - 1n : rest;
}

function inverse(value: bigint): bigint {
  if (value === 0n) throw new Unreadable('division by zero');
  return raise(value, PRIME - 2n);
}

function raise(base: bigint, exponent: bigint): bigint {
  spend(exponent < 1n << 16n ? 2 : 40);
  let result = 1n;
  for (let square = base; exponent > 0n; exponent >>= 1n) {
    if (exponent & 1n) result = (result * square) % PRIME;
    square = (square * square) % PRIME;
  }
  return result;
}

/** The power (PRIME - 1) / 4 of the least number that is no square: its square is -1. */
const rootOfMinusOne = quarterTurn();

function quarterTurn(): bigint {
  for (let base = 2n; ; base++) {
    const root = raise(base, (PRIME - 1n) / 4n);
    if ((root * root) % PRIME === PRIME - 1n) return root;
  }
}
