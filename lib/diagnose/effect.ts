import { Breaks } from '../breaks.js';
import { bootstrapEach, type Interval } from '../mismatch/bootstrap.js';
import { Quantiles } from '../mismatch/quantiles.js';
import { type CorrectionOptions, correct, FROZEN_SHARE } from '../rl/corrections/correct.js';
import { presets } from '../rl/presets.js';
import { clampLog, EffectiveSampleSize, k3 } from '../rl/ratios.js';
import { eachCounted } from './counted.js';
import type { CorrectionEffect, LearningEffect } from './diagnosis.js';
import { GroupedHistogram } from './groupedHistogram.js';
import type { Pair } from './record.js';

/** Groups of responses that bootstrap draws are made of. */
const MOST_GROUPS = 256;
/** verl's bound of a response's log ratio before it is exponentiated, as in `MismatchMetrics.chi2Sequence`. */
const SEQUENCE_LOG_BOUND = 20;

const ratioQuantiles = [0.001, 0.01, 0.5, 0.99, 0.999];
const seqLogRatioQuantiles = [0.05, 0.25, 0.5, 0.75, 0.95];

const tokenTis = presets['grpo-token-tis'].config.importance;
const seqTis = presets['grpo-seq-tis'].config.importance;
const seqMis = presets['paper:grpo-seq-mis'].config.importance;
const geometric = presets['verl:decoupled_geo_rs'].config.rejections;

/** What is tried on the responses; the numbers are those of the presets. */
const corrections: readonly {
  readonly correction: CorrectionEffect['correction'];
  readonly rule: string;
  readonly options: CorrectionOptions;
}[] = [
  { correction: 'none', rule: 'every token as it is', options: {} },
  {
    correction: 'Token-TIS',
    rule: `times min(r, ${tokenTis.high}) at each token`,
    options: { importance: tokenTis },
  },
  {
    correction: 'Seq-TIS',
    rule: `times min(pi(y) / mu(y), ${seqTis.high})`,
    options: { importance: seqTis },
  },
  {
    correction: 'Seq-MIS',
    rule: `times pi(y) / mu(y), no response above ${seqMis.high}`,
    options: { importance: seqMis },
  },
  {
    correction: 'geometric',
    rule: geometric.map(({ low, high }) => `no mean ratio outside ${bound(low)} to ${bound(high)}`).join(),
    options: { rejections: geometric },
  },
];

function bound(value: number | null | undefined): string {
  return value == null ? 'any' : value.toFixed(4);
}

/** Sums over the responses of one group. */
class GroupSums {
  responses = 0;
  tokens = 0;
  d = 0;
  k3 = 0;
  chi2Token = 0;
  chi2Sequence = 0;
  readonly tokenWeights = new EffectiveSampleSize();
  readonly sequenceWeights = new EffectiveSampleSize();
}

/**
 * What the mismatch does to a policy gradient, from a stream of responses. With r = pi / mu of a token and L the sum of
 * log pi - log mu over a response, in nats; a token that does not count, or whose log-probs are not finite, is left out.
 *
 * Intervals are bootstrap intervals of whole responses, since tokens of one response are not independent. Responses are
 * dealt in turn to at most 256 groups, one each while there are fewer, and groups are drawn. A quantile itself is exact up
 * to 2^20 numbers; how far it moves from draw to draw, and beyond that many the quantile itself, are taken from
 * {@link GroupedHistogram}, within 1.1 % of the magnitude of its logarithm. Memory is bounded: about 40 MB, however many
 * tokens there are.
 */
export class EffectAccumulator {
  readonly #groups: GroupSums[] = [];
  readonly #logRatios = new Quantiles();
  readonly #seqLogRatios = new Quantiles();
  readonly #logRatioBins = new GroupedHistogram();
  readonly #seqLogRatioBins = new GroupedHistogram();
  readonly #lengths = new Quantiles();
  #minLength = Infinity;
  #maxLength = 0;
  #responses = 0;
  #tokens = 0;
  readonly #left = corrections.map(() => ({ tokens: 0, responses: 0, signal: 0 }));

  add(pair: Pair): void {
    const mu = new Float64Array(pair.mask.length);
    const pi = new Float64Array(pair.mask.length);
    let length = 0;
    eachCounted(pair, (logMu, logPi) => {
      mu[length] = logMu;
      pi[length++] = logPi;
    });
    if (length === 0) return;
    this.#measure(mu.subarray(0, length), pi.subarray(0, length));
    this.#correct(mu.subarray(0, length), pi.subarray(0, length));
    this.#responses++;
    this.#tokens += length;
    this.#lengths.add(length);
    this.#minLength = Math.min(this.#minLength, length);
    this.#maxLength = Math.max(this.#maxLength, length);
  }

  #measure(mu: Float64Array, pi: Float64Array): void {
    const at = this.#responses % MOST_GROUPS;
    this.#groups[at] ??= new GroupSums();
    const group = this.#groups[at];
    let logRatio = 0;
    for (let t = 0; t < mu.length; t++) {
      const l = pi[t]! - mu[t]!;
      logRatio += l;
      group.d -= l;
      group.k3 += k3(-l);
      group.chi2Token += Math.expm1(2 * l);
      group.tokenWeights.add(l);
      this.#logRatios.add(l);
      this.#logRatioBins.add(at, l);
    }
    group.responses++;
    group.tokens += mu.length;
    group.chi2Sequence += Math.expm1(2 * clampLog(logRatio, SEQUENCE_LOG_BOUND));
    group.sequenceWeights.add(logRatio);
    this.#seqLogRatios.add(logRatio);
    this.#seqLogRatioBins.add(at, logRatio);
  }

  #correct(from: Float64Array, to: Float64Array): void {
    const batch = {
      offsets: Int32Array.of(0, from.length),
      mask: new Uint8Array(from.length).fill(1),
      to,
      from,
    };
    for (const [c, { options }] of corrections.entries()) {
      const { kept, weights } = correct(batch, options);
      const left = this.#left[c]!;
      let tokens = 0;
      for (let t = 0; t < kept.length; t++) {
        const weight = kept[t] === 1 ? (weights?.[t] ?? 1) : 0;
        if (weight > 0) tokens++;
        left.signal += Math.min(weight, 1);
      }
      left.tokens += tokens;
      if (tokens > 0) left.responses++;
    }
  }

  /** k1, k3, chi-squared and effective sample size of tokens and of responses, of groups put together. */
  #means(indices: Int32Array): number[] {
    const sums = { responses: 0, tokens: 0, d: 0, k3: 0, chi2Token: 0, chi2Sequence: 0 };
    const tokenWeights = new EffectiveSampleSize();
    const sequenceWeights = new EffectiveSampleSize();
    for (const g of indices) {
      const group = this.#groups[g]!;
      sums.responses += group.responses;
      sums.tokens += group.tokens;
      sums.d += group.d;
      sums.k3 += group.k3;
      sums.chi2Token += group.chi2Token;
      sums.chi2Sequence += group.chi2Sequence;
      tokenWeights.merge(group.tokenWeights);
      sequenceWeights.merge(group.sequenceWeights);
    }
    const { responses, tokens, d, k3, chi2Token, chi2Sequence } = sums;
    return [
      d / tokens,
      k3 / tokens,
      chi2Token / tokens,
      chi2Sequence / responses,
      tokenWeights.share,
      sequenceWeights.share,
    ];
  }

  /**
   * Of everything added so far; the same seed gives the same intervals. Null where no token counts.
   *
   * @throws the signal's reason, once it is aborted
   */
  async result(seed: number, signal?: AbortSignal): Promise<LearningEffect | null> {
    if (this.#responses === 0) return null;
    const breaks = new Breaks(signal);
    const quantiles = (qs: readonly number[], exact: Quantiles, bins: GroupedHistogram) => {
      const ofDraw = bins.quantiles(qs);
      // Bins tell how far a quantile moves; where it is, the numbers themselves, as long as all are kept.
      const binned = ofDraw(this.#groups.map((_, g) => g));
      const shifts = qs.map((q, i) => (exact.exact ? exact.at(q) - binned[i]! : 0));
      return (indices: Int32Array) => ofDraw(indices).map((value, i) => value + shifts[i]!);
    };
    const ofRatios = quantiles(ratioQuantiles, this.#logRatios, this.#logRatioBins);
    const ofSeqLogRatios = quantiles(seqLogRatioQuantiles, this.#seqLogRatios, this.#seqLogRatioBins);
    const intervals = await bootstrapEach(
      this.#groups.length,
      (indices) => [...this.#means(indices), ...ofRatios(indices), ...ofSeqLogRatios(indices)],
      seed,
      () => breaks.take(),
    );
    const [klMuPiK1, klMuPiK3, chi2Token, chi2Sequence, essToken, essSequence] = intervals as [
      Interval,
      Interval,
      Interval,
      Interval,
      Interval,
      Interval,
    ];
    const ofQuantiles = intervals.slice(6);
    return {
      ratioQuantiles: ratioQuantiles.map((q, i) => exponential({ q, ...ofQuantiles[i]! })),
      seqLogRatioQuantiles: seqLogRatioQuantiles.map((q, i) => ({
        q,
        ...ofQuantiles[ratioQuantiles.length + i]!,
      })),
      klMuPiK1,
      klMuPiK3,
      chi2Token,
      chi2Sequence,
      essToken,
      essSequence,
      lengths: { min: this.#minLength, median: this.#lengths.at(0.5), max: this.#maxLength },
      corrections: corrections.map(({ correction, rule, options }, c) => {
        const left = this.#left[c]!;
        const keptResponses = left.responses / this.#responses;
        const signalShare = left.signal / this.#tokens;
        const level = options.importance?.level;
        return {
          correction,
          rule,
          keptTokens: left.tokens / this.#tokens,
          keptResponses,
          signalShare,
          ess: level === undefined ? Number.NaN : (level === 'token' ? essToken : essSequence).value,
          frozen: signalShare < FROZEN_SHARE || keptResponses < FROZEN_SHARE,
        };
      }),
    };
  }
}

type Quantile = LearningEffect['ratioQuantiles'][number];

function exponential({ q, value, low, high }: Quantile): Quantile {
  return { q, value: Math.exp(value), low: Math.exp(low), high: Math.exp(high) };
}
