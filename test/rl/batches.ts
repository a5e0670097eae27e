/** Batches for the tests of this folder; fp64 throughout. */
import fc from 'fast-check';
import { batchTotals, type PolicyBatch } from '../../lib/rl/batch.js';

export interface Sequence {
  /** log mu, log pi_old, log pi per token, and whether it counts. */
  tokens: { rollout: number; old: number; now: number; counts: boolean }[];
  advantage: number;
}

/** Masked positions are poisoned with NaN, so that reading one shows. */
export function toBatch(sequences: readonly Sequence[], totals?: PolicyBatch['totals']): PolicyBatch {
  const offsets = new Int32Array(sequences.length + 1);
  sequences.forEach((sequence, s) => {
    offsets[s + 1] = offsets[s]! + sequence.tokens.length;
  });
  const tokens = sequences.flatMap((sequence) => sequence.tokens);
  const mask = Uint8Array.from(tokens, (token) => (token.counts ? 1 : 0));
  return {
    offsets,
    mask,
    rolloutLogprobs: Float64Array.from(tokens, (token) => (token.counts ? token.rollout : Number.NaN)),
    oldLogprobs: Float64Array.from(tokens, (token) => (token.counts ? token.old : Number.NaN)),
    logprobs: Float64Array.from(tokens, (token) => (token.counts ? token.now : Number.NaN)),
    advantages: Float64Array.from(sequences, (sequence) => sequence.advantage),
    totals: totals ?? batchTotals(offsets, mask),
  };
}

const real = (min: number, max: number) => fc.double({ min, max, noNaN: true });

/** Random sequences: some empty, some wholly masked, with pi near pi_old near mu. */
export const sequencesArbitrary: fc.Arbitrary<Sequence[]> = fc.array(
  fc.record({
    tokens: fc.array(
      fc
        .record({
          rollout: real(-8, -0.01),
          old: real(-0.4, 0.4),
          now: real(-0.4, 0.4),
          counts: fc.boolean(),
        })
        .map(({ rollout, old, now, counts }) => ({
          rollout,
          old: rollout + old,
          now: rollout + old + now,
          counts,
        })),
      { maxLength: 7 },
    ),
    advantage: real(-2, 2),
  }),
  { minLength: 1, maxLength: 6 },
);

/** Like {@link sequencesArbitrary}, with mu = pi_old = pi. */
export const onPolicyArbitrary: fc.Arbitrary<Sequence[]> = sequencesArbitrary.map((sequences) =>
  sequences.map(({ tokens, advantage }) => ({
    tokens: tokens.map((token) => ({ ...token, old: token.rollout, now: token.rollout })),
    advantage,
  })),
);

export function token(rollout: number, old: number, now: number, counts = true): Sequence['tokens'][number] {
  return { rollout, old, now, counts };
}

/** Central difference of f at x along coordinate i. */
export function difference(f: (x: Float64Array) => number, x: Float64Array, i: number, h = 1e-6): number {
  const up = x.slice();
  const down = x.slice();
  up[i]! += h;
  down[i]! -= h;
  return (f(up) - f(down)) / (2 * h);
}

export function near(actual: number, expected: number, tolerance = 1e-12): boolean {
  return Math.abs(actual - expected) <= tolerance * Math.max(1, Math.abs(expected));
}
