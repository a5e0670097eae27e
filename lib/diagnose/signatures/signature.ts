import type { CountedTokens } from '../countedTokens.js';
import type { SignatureName, SignatureResult } from '../diagnosis.js';
import type { NoiseFloor } from '../noiseFloor.js';

/** What is known beside the tokens. */
export interface SignatureContext {
  /** The format that both engines are said to compute in, and the noise that goes with it. */
  readonly floor: NoiseFloor;
}

/** One test of what a fault would leave in the numbers. */
export interface Signature {
  readonly name: SignatureName;
  /** What it looks for, in a few words. */
  readonly title: string;
  /** Whether other responses of the same run hardly change the result, so that it need not be tested again on each draw. */
  readonly steady?: boolean;
  test(tokens: CountedTokens, context: SignatureContext): Finding;
}

/** A signature's result without its name. */
export type Finding = Omit<SignatureResult, 'name' | 'title'>;

/** A finding of nothing, for lack of what the test needs. */
export function notTestable(why: string): Finding {
  return { found: false, explained: null, evidence: why, values: {} };
}

/** A number as sentences have it: three significant digits. */
export function said(value: number): string {
  if (!Number.isFinite(value) || value === 0) return String(value);
  const size = Math.abs(value);
  return size >= 1e-3 && size < 1e6 ? String(Number(value.toPrecision(3))) : value.toExponential(1);
}

/** A share as sentences have it. */
export function percent(share: number): string {
  return `${said(100 * share)} %`;
}

/** The share of `before` that is gone once `after` is left, between 0 and 1. */
export function shareGone(before: number, after: number): number {
  return before > 0 && after < before ? Math.min(1, 1 - after / before) : 0;
}

/** Tokens that a mismatch must be spread over before a law is read into it: any single number fits one. */
export const LEAST_SPREAD = 12;
/** Says so, where it is not. */
export const TOO_FEW = `needs a mismatch that at least ${LEAST_SPREAD} tokens share`;

/** Temperatures differ by up to this factor; of series that have nothing to do with each other, the best fit is a factor near 0. */
const MOST_FACTOR = 5;

/** Whether one side's temperature can be that many times the other's. */
export function isTemperature(factor: number): boolean {
  return factor >= 1 / MOST_FACTOR && factor <= MOST_FACTOR;
}

/** Means of pi / mu are of ratios up to this: one of them must not be the mean. */
export const MOST_RATIO = 1e3;

/** 1 - p from which on a token is unsure. */
export const OPEN = 0.01;
