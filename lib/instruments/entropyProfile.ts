import { bootstrap, type Interval } from '../mismatch/bootstrap.js';
import { LeastSquares } from '../mismatch/leastSquares.js';
import { k3 } from '../rl/ratios.js';

/** Tokens of one bin, and their sums of entropy, of |log pi - log mu| and of k3. */
export type EntropySums = readonly [tokens: number, entropy: number, absolute: number, k3: number];

/** Tokens whose entropy lies in [low, high), in nats. */
export interface EntropyBin {
  readonly low: number;
  readonly high: number;
  /** Share of all tokens. */
  readonly share: number;
  /** Mean entropy under the training engine, in nats. */
  readonly entropy: number;
  readonly meanAbsLogRatio: Interval;
  readonly klMuPiK3: Interval;
  /** Share of the k3 of all tokens. */
  readonly shareOfK3: number;
}

/** The mismatch against how open the choice of a token is, on the same weights. */
export interface EntropyProfile {
  /** Bins with tokens, from the least entropy up. */
  readonly bins: readonly EntropyBin[];
  /** The power of the entropy that the mean |log pi - log mu| of a bin goes with, over bins of {@link FITTED} tokens or more. */
  readonly exponent: Interval;
}

/** Bins are a factor of 2 wide; all below the first edge, 2^-10 nats, are one, as are all from 4 nats on. */
const LOWEST = -10;
const HIGHEST = 2;
const BINS = HIGHEST - LOWEST + 2;
/** Fewer tokens than this tell too little of a bin's mean for a fit. */
const FITTED = 100;

/** Sums over the tokens [begin, end) in each bin of their entropy. */
export function sumByEntropy(
  { entropy, rollout, logprobs }: Readonly<Record<'entropy' | 'rollout' | 'logprobs', ArrayLike<number>>>,
  begin: number,
  end: number,
): EntropySums[] {
  const sums = Array.from({ length: BINS }, (): [number, number, number, number] => [0, 0, 0, 0]);
  for (let t = begin; t < end; t++) {
    const own = sums[binOf(entropy[t]!)]!;
    const d = rollout[t]! - logprobs[t]!;
    own[0]++;
    own[1] += entropy[t]!;
    own[2] += Math.abs(d);
    own[3] += k3(d);
  }
  return sums;
}

/** The sums of a bin's tokens here and there. */
export function addSums(a: EntropySums, b: EntropySums): EntropySums {
  return [a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3]];
}

/** The profile of the sums of several prompts, with 95 % bootstrap intervals over prompts. */
export function entropyProfile(prompts: readonly (readonly EntropySums[])[], seed: number): EntropyProfile {
  const all = prompts.map((_, i) => i);
  const total = (bin: number, column: 0 | 1 | 2 | 3, indices: ArrayLike<number> = all) => {
    let sum = 0;
    for (let i = 0; i < indices.length; i++) sum += prompts[indices[i]!]![bin]![column];
    return sum;
  };
  const used = Array.from({ length: BINS }, (_, bin) => bin).filter((bin) => total(bin, 0) > 0);
  const overAll = (column: 0 | 3) => used.reduce((sum, bin) => sum + total(bin, column), 0);
  const [tokens, k3OfAll] = [overAll(0), overAll(3)];
  const bins = used.map((bin): EntropyBin => {
    const mean = (column: 2 | 3) =>
      bootstrap(prompts.length, (indices) => total(bin, column, indices) / total(bin, 0, indices), seed);
    return {
      low: bin === 0 ? 0 : 2 ** (LOWEST + bin - 1),
      high: bin === BINS - 1 ? Infinity : 2 ** (LOWEST + bin),
      share: total(bin, 0) / tokens,
      entropy: total(bin, 1) / total(bin, 0),
      meanAbsLogRatio: mean(2),
      klMuPiK3: mean(3),
      shareOfK3: total(bin, 3) / k3OfAll,
    };
  });
  const fitted = used.filter((bin) => total(bin, 0) >= FITTED && total(bin, 2) > 0);
  const exponent = bootstrap(
    prompts.length,
    (indices) => {
      const line = new LeastSquares();
      for (const bin of fitted) {
        const [count, entropy, absolute] = [0, 1, 2].map((column) =>
          total(bin, column as 0 | 1 | 2, indices),
        );
        if (entropy! > 0 && absolute! > 0)
          line.add(Math.log2(entropy! / count!), Math.log2(absolute! / count!));
      }
      return line.slope;
    },
    seed,
  );
  return { bins, exponent };
}

function binOf(entropy: number): number {
  return Math.min(Math.max(Math.floor(Math.log2(entropy)) - LOWEST + 1, 0), BINS - 1);
}
