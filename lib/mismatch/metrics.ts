import { invalid } from '../errors.js';
import { checkRagged } from '../rl/batch.js';
import { clampLog, EffectiveSampleSize, k3 } from '../rl/ratios.js';
import { LeastSquares } from './leastSquares.js';
import { Quantiles } from './quantiles.js';

/** Log-probs of the same tokens under both engines; ragged as in `PolicyBatch`. */
export interface MismatchBatch {
  /** [sequences + 1] */
  offsets: Int32Array;
  /** [tokens] log mu in nats. */
  rolloutLogprobs: Float64Array | Float32Array;
  /** [tokens] log pi in nats. */
  logprobs: Float64Array | Float32Array;
  /** [tokens] 1 = counts; a masked position may hold anything. */
  mask: Uint8Array;
}

/**
 * The gap between two engines on one batch or many, on raw ratios: before any truncation. With d = log mu - log pi and
 * r = pi / mu of a token, L = sum_t (log pi - log mu) of a response; `MuPi` in a name says that it estimates
 * KL[mu || pi], since the tokens were sampled from mu. `metricDefinitions` has each definition and, where there is one,
 * the healthy range with its source.
 *
 * Equal log-probs give exactly 0, 1 where it is a ratio, a correlation or a share of effective samples. With no token to
 * measure, every number but the counts is NaN.
 */
export interface MismatchMetrics {
  /** Tokens measured: unmasked, with both log-probs finite. */
  tokens: number;
  /** Sequences with at least one such token. */
  sequences: number;
  /** Unmasked tokens left out because a log-prob is NaN or infinite. */
  nonFinite: number;
  /** mean d, nats per token. */
  klMuPiK1: number;
  /** mean d^2 / 2. */
  klMuPiK2: number;
  /** mean r - 1 - log r; never negative. */
  klMuPiK3: number;
  /** mean r^2 - 1 over tokens. */
  chi2Token: number;
  /** mean exp(2 L) - 1 over responses, L held within +-20 as in verl. */
  chi2Sequence: number;
  /**
   * Largest pi - mu (signed, in probability): 1 where training is sure of a token that rollout found
   * impossible.
   */
  maxProbDiff: number;
  /** mean |pi - mu|. */
  meanProbDiff: number;
  /** Smallest pi - mu (signed). */
  minProbDiff: number;
  /** Extremes of |pi - mu|. */
  minAbsProbDiff: number;
  maxAbsProbDiff: number;
  /** Quantiles of |pi - mu|. */
  probDiffP50: number;
  probDiffP95: number;
  probDiffP99: number;
  probDiffP999: number;
  /** Share of tokens with |pi - mu| above 0.5. */
  saturatedShare: number;
  /** mean |d|, and its extremes. */
  meanAbsLogRatio: number;
  minAbsLogRatio: number;
  maxAbsLogRatio: number;
  /** Quantiles of |d|. */
  absLogRatioP50: number;
  absLogRatioP95: number;
  absLogRatioP99: number;
  absLogRatioP999: number;
  /** Share of tokens whose two log-probs are not the same number. */
  differingShare: number;
  /** Pearson correlation of mu and pi over tokens. */
  probCorrelation: number;
  /** mean exp|d|: NeMo RL's token_mult_prob_error. */
  tokenMultProbError: number;
  /** Mean, standard deviation and greatest of r over tokens. */
  tokenRatioMean: number;
  tokenRatioStd: number;
  tokenRatioMax: number;
  /** Share of tokens with r above 2, and below 1/2. */
  tokenRatioHighShare: number;
  tokenRatioLowShare: number;
  /** Effective sample size of the weights r, as a share of the tokens. */
  essToken: number;
  /** mean over responses of exp(-mean log pi), of exp(-mean log mu). */
  trainingPpl: number;
  rolloutPpl: number;
  /** mean over responses of mean log mu - mean log pi, and of its exponential. */
  logPplDiff: number;
  pplRatio: number;
  /** Mean over sequences of L. */
  seqLogRatioMean: number;
  /** Standard deviation of L with Bessel's correction; 0 for a single sequence. */
  seqLogRatioStd: number;
  seqLogRatioMin: number;
  seqLogRatioMax: number;
  /** 1000 * sum of all (log pi - log mu) / tokens: the mean drift per 1,000 tokens. */
  seqLogRatioPer1k: number;
  /**
   * 1000 * the least-squares slope of L on the length of the response (arXiv 2510.26788, figure 2); NaN where all have
   * one length.
   */
  seqLogRatioSlopePer1k: number;
  /** Effective sample size of the weights exp(L), as a share of the sequences. */
  ess: number;
  /** Mean over sequences of -L: KL[mu || pi] of whole responses, as in figure 2. */
  sequenceKlMuPi: number;
}

/** |pi - mu| above which a token counts as saturated. */
const SATURATED = 0.5;
/** The bound of `tokenRatioHighShare`, and one over that of `tokenRatioLowShare`; verl's default. */
const RATIO_BOUND = 2;
/** verl's bound of sequence log ratios before they are exponentiated. */
const SEQUENCE_LOG_BOUND = 20;

/**
 * Adds up batches of log-probs, so that a run can measure micro-batch by micro-batch. A sequence stays in one
 * batch. Memory does not grow with what is added, beyond that of {@link Quantiles}.
 */
export class MismatchAccumulator {
  #tokens = 0;
  #sequences = 0;
  #nonFinite = 0;
  #differing = 0;
  #saturated = 0;
  #high = 0;
  #low = 0;
  #d = 0;
  #squares = 0;
  #k3 = 0;
  #chi2 = 0;
  #absolute = 0;
  #minAbsolute = Infinity;
  #maxAbsolute = 0;
  #multError = 0;
  #probDiff = 0;
  #maxProbDiff = -Infinity;
  #minProbDiff = Infinity;
  #minAbsProbDiff = Infinity;
  /** r - 1, which keeps the digits that r near 1 has not. */
  #excess = 0;
  #excessSquares = 0;
  #maxLogRatio = -Infinity;
  #seqLogRatio = 0;
  #minSeqLogRatio = Infinity;
  #maxSeqLogRatio = -Infinity;
  #chi2Sequence = 0;
  #trainingPpl = 0;
  #rolloutPpl = 0;
  #logPplDiff = 0;
  #pplRatio = 0;
  readonly #probDiffs = new Quantiles();
  readonly #absLogRatios = new Quantiles();
  readonly #probs = new LeastSquares();
  readonly #drift = new LeastSquares();
  readonly #essToken = new EffectiveSampleSize();
  readonly #ess = new EffectiveSampleSize();

  /** @throws InvalidArgumentError on a malformed batch; nothing is added then */
  add(batch: MismatchBatch): void {
    const { offsets, rolloutLogprobs, logprobs, mask } = batch;
    checkLogprobs('rolloutLogprobs', rolloutLogprobs);
    checkLogprobs('logprobs', logprobs);
    checkRagged('mismatchMetrics', offsets, mask, { rolloutLogprobs, logprobs });
    for (let s = 0; s + 1 < offsets.length; s++) {
      let tokens = 0;
      let muSum = 0;
      let piSum = 0;
      let logRatio = 0;
      for (let t = offsets[s]!; t < offsets[s + 1]!; t++) {
        if (mask[t] === 0) continue;
        const logMu = rolloutLogprobs[t]!;
        const logPi = logprobs[t]!;
        if (!Number.isFinite(logMu) || !Number.isFinite(logPi)) {
          this.#nonFinite++;
          continue;
        }
        tokens++;
        muSum += logMu;
        piSum += logPi;
        logRatio += logPi - logMu;
        this.#addToken(logMu, logPi);
      }
      if (tokens > 0) this.#addSequence(tokens, logRatio, muSum, piSum);
    }
  }

  /** Metrics of everything added so far. */
  result(): MismatchMetrics {
    const tokens = this.#tokens;
    const sequences = this.#sequences;
    const measured = (value: number) => (tokens > 0 ? value : Number.NaN);
    const seqLogRatioMean = this.#seqLogRatio / sequences;
    const excess = this.#excess / tokens;
    return {
      tokens,
      sequences,
      nonFinite: this.#nonFinite,
      klMuPiK1: this.#d / tokens,
      klMuPiK2: this.#squares / 2 / tokens,
      klMuPiK3: this.#k3 / tokens,
      chi2Token: this.#chi2 / tokens,
      chi2Sequence: this.#chi2Sequence / sequences,
      maxProbDiff: measured(this.#maxProbDiff),
      meanProbDiff: this.#probDiff / tokens,
      minProbDiff: measured(this.#minProbDiff),
      minAbsProbDiff: measured(this.#minAbsProbDiff),
      maxAbsProbDiff: measured(Math.max(this.#maxProbDiff, -this.#minProbDiff)),
      probDiffP50: this.#probDiffs.at(0.5),
      probDiffP95: this.#probDiffs.at(0.95),
      probDiffP99: this.#probDiffs.at(0.99),
      probDiffP999: this.#probDiffs.at(0.999),
      saturatedShare: this.#saturated / tokens,
      meanAbsLogRatio: this.#absolute / tokens,
      minAbsLogRatio: measured(this.#minAbsolute),
      maxAbsLogRatio: measured(this.#maxAbsolute),
      absLogRatioP50: this.#absLogRatios.at(0.5),
      absLogRatioP95: this.#absLogRatios.at(0.95),
      absLogRatioP99: this.#absLogRatios.at(0.99),
      absLogRatioP999: this.#absLogRatios.at(0.999),
      differingShare: this.#differing / tokens,
      // Also where all probabilities are the same, of which there is no correlation.
      probCorrelation: tokens > 0 && this.#differing === 0 ? 1 : this.#probs.correlation,
      tokenMultProbError: this.#multError / tokens,
      tokenRatioMean: 1 + excess,
      // Ratios beyond fp64 are spread without bound: not the NaN of their difference.
      tokenRatioStd:
        this.#excessSquares === Infinity
          ? Infinity
          : Math.sqrt(Math.max(0, this.#excessSquares / tokens - excess * excess)),
      tokenRatioMax: measured(Math.exp(this.#maxLogRatio)),
      tokenRatioHighShare: this.#high / tokens,
      tokenRatioLowShare: this.#low / tokens,
      essToken: this.#essToken.share,
      trainingPpl: this.#trainingPpl / sequences,
      rolloutPpl: this.#rolloutPpl / sequences,
      logPplDiff: this.#logPplDiff / sequences,
      pplRatio: this.#pplRatio / sequences,
      seqLogRatioMean,
      seqLogRatioStd: this.#drift.deviationOfY,
      seqLogRatioMin: measured(this.#minSeqLogRatio),
      seqLogRatioMax: measured(this.#maxSeqLogRatio),
      seqLogRatioPer1k: (1000 * this.#seqLogRatio) / tokens,
      seqLogRatioSlopePer1k: 1000 * this.#drift.slope,
      ess: this.#ess.share,
      // Not unary minus, which would turn 0 into -0.
      sequenceKlMuPi: 0 - seqLogRatioMean,
    };
  }

  #addToken(logMu: number, logPi: number): void {
    const d = logMu - logPi;
    const difference = probabilityDifference(logMu, logPi);
    const absolute = Math.abs(d);
    const excess = Math.expm1(-d);
    this.#tokens++;
    if (d !== 0) this.#differing++;
    if (Math.abs(difference) > SATURATED) this.#saturated++;
    if (-d > Math.log(RATIO_BOUND)) this.#high++;
    if (d > Math.log(RATIO_BOUND)) this.#low++;
    this.#d += d;
    this.#squares += d * d;
    this.#k3 += k3(d);
    this.#chi2 += Math.expm1(-2 * d);
    this.#absolute += absolute;
    this.#minAbsolute = Math.min(this.#minAbsolute, absolute);
    this.#maxAbsolute = Math.max(this.#maxAbsolute, absolute);
    this.#multError += Math.exp(absolute);
    this.#probDiff += Math.abs(difference);
    this.#maxProbDiff = Math.max(this.#maxProbDiff, difference);
    this.#minProbDiff = Math.min(this.#minProbDiff, difference);
    this.#minAbsProbDiff = Math.min(this.#minAbsProbDiff, Math.abs(difference));
    this.#excess += excess;
    this.#excessSquares += excess * excess;
    this.#maxLogRatio = Math.max(this.#maxLogRatio, -d);
    this.#essToken.add(-d);
    this.#probDiffs.add(Math.abs(difference));
    this.#absLogRatios.add(absolute);
    this.#probs.add(Math.exp(logMu), Math.exp(logPi));
  }

  #addSequence(tokens: number, logRatio: number, muSum: number, piSum: number): void {
    this.#sequences++;
    this.#seqLogRatio += logRatio;
    this.#minSeqLogRatio = Math.min(this.#minSeqLogRatio, logRatio);
    this.#maxSeqLogRatio = Math.max(this.#maxSeqLogRatio, logRatio);
    this.#chi2Sequence += Math.expm1(2 * clampLog(logRatio, SEQUENCE_LOG_BOUND));
    this.#ess.add(logRatio);
    this.#drift.add(tokens, logRatio);
    this.#trainingPpl += Math.exp(-piSum / tokens);
    this.#rolloutPpl += Math.exp(-muSum / tokens);
    this.#logPplDiff -= logRatio / tokens;
    this.#pplRatio += Math.exp(-logRatio / tokens);
  }
}

/**
 * The mismatch between a rollout engine and a training engine on one batch (arXiv 2510.26788, figure 2; the
 * estimators k1, k2 and k3 as logged by verl and the authors' code). Non-finite pairs are counted and left
 * out, never thrown.
 *
 * @throws InvalidArgumentError on a malformed batch
 */
export function mismatchMetrics(batch: MismatchBatch): MismatchMetrics {
  const accumulator = new MismatchAccumulator();
  accumulator.add(batch);
  return accumulator.result();
}

/** pi - mu without cancellation, from the larger probability so that nothing overflows. */
function probabilityDifference(logMu: number, logPi: number): number {
  return logPi > logMu
    ? Math.exp(logPi) * -Math.expm1(logMu - logPi)
    : Math.exp(logMu) * Math.expm1(logPi - logMu);
}

function checkLogprobs(name: string, values: unknown): void {
  if (!(values instanceof Float64Array || values instanceof Float32Array)) {
    invalid('mismatchMetrics', `${name} to be a Float64Array or a Float32Array`, values);
  }
}
