/** Divergences over whole distributions, where logits are at hand. */
import { k3 } from '../rl/ratios.js';

/** Means over tokens, in nats. */
export interface Divergence {
  /** KL[mu || pi] = sum_v mu_v (log mu_v - log pi_v). */
  readonly klMuPi: number;
  /** KL[pi || mu]. */
  readonly klPiMu: number;
  /** Jensen-Shannon: the mean of KL[mu || m] and KL[pi || m] with m = (mu + pi) / 2; at most log 2. */
  readonly js: number;
  /** Total variation, sum_v |mu_v - pi_v| / 2; a share. */
  readonly tv: number;
}

/**
 * The divergence between both engines' distributions, each row a token's log-probs over the vocabulary. Sums are taken
 * in fp64 of the differences of the logs, so that engines that agree have exactly 0. A token with NaN on either side is
 * left out; where one engine gives a probability of exactly 0 to what the other may draw, that KL is infinite.
 *
 * KL is summed as p log(p / q) + q - p, whose terms are never negative: log-probs in fp32 do not sum to 1 exactly, and
 * that first-order error would outweigh the divergence of engines that differ by rounding alone.
 *
 * @param mu log-probs of the rollout engine, an array [tokens, vocabSize] a sequence
 * @param pi those of the training engine, of the same shape
 */
export function meanDivergence(
  mu: readonly Float32Array[],
  pi: readonly Float32Array[],
  vocabSize: number,
): Divergence {
  const mean = new MeanDivergence(vocabSize);
  mean.add(mu, pi);
  return mean.value();
}

/** The same, of more sequences than are in memory at a time. */
export class MeanDivergence {
  readonly #vocabSize: number;
  #tokens = 0;
  readonly #sums = { klMuPi: 0, klPiMu: 0, js: 0, tv: 0 };

  constructor(vocabSize: number) {
    this.#vocabSize = vocabSize;
  }

  add(mu: readonly Float32Array[], pi: readonly Float32Array[]): void {
    const vocabSize = this.#vocabSize;
    let { klMuPi, klPiMu, js, tv } = this.#sums;
    for (const [s, muOf] of mu.entries()) {
      const piOf = pi[s]!;
      for (let at = 0; at < muOf.length; at += vocabSize) {
        if (hasNaN(muOf, at, vocabSize) || hasNaN(piOf, at, vocabSize)) continue;
        this.#tokens++;
        for (let v = at; v < at + vocabSize; v++) {
          const d = muOf[v]! - piOf[v]!;
          // NaN: both are impossible.
          if (d === 0 || Number.isNaN(d)) continue;
          const p = Math.exp(muOf[v]!);
          const q = Math.exp(piOf[v]!);
          klMuPi += klTerm(p, q, d);
          klPiMu += klTerm(q, p, -d);
          if (p > 0) js -= (p * logMixture(d)) / 2;
          if (q > 0) js -= (q * logMixture(-d)) / 2;
          tv += Math.abs(p - q) / 2;
        }
      }
    }
    Object.assign(this.#sums, { klMuPi, klPiMu, js, tv });
  }

  value(): Divergence {
    const { klMuPi, klPiMu, js, tv } = this.#sums;
    const tokens = this.#tokens;
    return { klMuPi: klMuPi / tokens, klPiMu: klPiMu / tokens, js: js / tokens, tv: tv / tokens };
  }
}

/** p log(p / q) + q - p with d = log(p / q); 0 times the logarithm of 0 counts as 0. */
function klTerm(p: number, q: number, d: number): number {
  if (p === 0) return q;
  // Where d is small its terms cancel: k3 has the digits.
  return Math.abs(d) <= 0.03 ? p * k3(d) : p * d + (q - p);
}

/** log(m / p) of the mean m of p and q with d = log(p / q); the exponential of a large number is not taken. */
function logMixture(d: number): number {
  return d > 0 ? Math.log1p(Math.expm1(-d) / 2) : Math.log1p(Math.expm1(d) / 2) - d;
}

function hasNaN(values: Float32Array, at: number, count: number): boolean {
  for (let i = at; i < at + count; i++) if (Number.isNaN(values[i])) return true;
  return false;
}
