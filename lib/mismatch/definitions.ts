import type { MismatchMetrics } from './metrics.js';

/** What is said to be healthy, and by whom. */
export interface HealthyRange {
  readonly low?: number;
  readonly high?: number;
  readonly source: string;
}

export interface MetricDefinition {
  /** A few words, for tables. */
  readonly label: string;
  readonly definition: string;
  readonly unit:
    | 'nats'
    | 'nats/token'
    | 'nats/1,000 tokens'
    | 'probability'
    | 'share'
    | 'ratio'
    | 'count'
    | 'ppl';
  readonly healthy?: HealthyRange;
}

const VERL = 'verl, rollout correction';
const NEMO = 'NeMo RL';
const PAPER = 'arXiv 2510.26788';

/** Every metric of {@link MismatchMetrics}: its definition, unit, and healthy range where a source gives one. */
export const metricDefinitions: Readonly<Record<keyof MismatchMetrics, MetricDefinition>> = {
  tokens: { label: 'tokens', definition: 'response tokens measured', unit: 'count' },
  sequences: { label: 'responses', definition: 'responses with at least one token', unit: 'count' },
  nonFinite: {
    label: 'not finite',
    definition: 'tokens left out because a log-prob is NaN or infinite',
    unit: 'count',
    healthy: { high: 0, source: 'a log-prob is finite' },
  },
  klMuPiK1: {
    label: 'KL[mu||pi], k1',
    definition: 'mean of log mu - log pi over tokens sampled from mu',
    unit: 'nats/token',
    healthy: { low: -0.1, high: 0.1, source: VERL },
  },
  klMuPiK2: {
    label: 'KL[mu||pi], k2',
    definition: 'mean of (log mu - log pi)^2 / 2',
    unit: 'nats/token',
  },
  klMuPiK3: {
    label: 'KL[mu||pi], k3',
    definition: 'mean of r - 1 - log r with r = pi / mu; never negative',
    unit: 'nats/token',
    healthy: { high: 1e-3, source: `${NEMO}, gen_kl_error` },
  },
  chi2Token: {
    label: 'chi-squared, token',
    definition: 'mean of r^2 - 1 over tokens',
    unit: 'ratio',
    healthy: { high: 1, source: VERL },
  },
  chi2Sequence: {
    label: 'chi-squared, response',
    definition: 'mean of exp(2 L) - 1 over responses, L held within +-20',
    unit: 'ratio',
  },
  maxProbDiff: {
    label: 'largest pi - mu',
    definition: 'greatest signed difference in probability of a token',
    unit: 'probability',
    healthy: { high: 0.5, source: `${PAPER}, fp16 runs` },
  },
  meanProbDiff: {
    label: 'mean |pi - mu|',
    definition: 'mean of |pi - mu| over tokens',
    unit: 'probability',
    healthy: { high: 0.004, source: `${PAPER}, bf16 at the start` },
  },
  minProbDiff: {
    label: 'smallest pi - mu',
    definition: 'least signed difference in probability of a token',
    unit: 'probability',
    healthy: { low: -0.5, source: `${PAPER}, fp16 runs` },
  },
  minAbsProbDiff: {
    label: 'least |pi - mu|',
    definition: 'least difference in probability of a token',
    unit: 'probability',
  },
  maxAbsProbDiff: {
    label: 'greatest |pi - mu|',
    definition: 'greatest difference in probability of a token, either way',
    unit: 'probability',
  },
  probDiffP50: { label: '|pi - mu|, 50 %', definition: 'median of |pi - mu|', unit: 'probability' },
  probDiffP95: { label: '|pi - mu|, 95 %', definition: '95 % quantile of |pi - mu|', unit: 'probability' },
  probDiffP99: { label: '|pi - mu|, 99 %', definition: '99 % quantile of |pi - mu|', unit: 'probability' },
  probDiffP999: {
    label: '|pi - mu|, 99.9 %',
    definition: '99.9 % quantile of |pi - mu|',
    unit: 'probability',
  },
  saturatedShare: {
    label: 'saturated',
    definition: 'share of tokens with |pi - mu| above 0.5',
    unit: 'share',
    healthy: { high: 0, source: `${PAPER}, fp16 runs` },
  },
  meanAbsLogRatio: {
    label: 'mean |log pi - log mu|',
    definition: 'mean of |log pi - log mu| over tokens',
    unit: 'nats/token',
  },
  minAbsLogRatio: {
    label: 'min |log pi - log mu|',
    definition: 'least |log pi - log mu| of a token',
    unit: 'nats',
  },
  maxAbsLogRatio: {
    label: 'max |log pi - log mu|',
    definition: 'greatest |log pi - log mu| of a token',
    unit: 'nats',
  },
  absLogRatioP50: { label: '|log r|, 50 %', definition: 'median of |log pi - log mu|', unit: 'nats' },
  absLogRatioP95: { label: '|log r|, 95 %', definition: '95 % quantile of |log pi - log mu|', unit: 'nats' },
  absLogRatioP99: { label: '|log r|, 99 %', definition: '99 % quantile of |log pi - log mu|', unit: 'nats' },
  absLogRatioP999: {
    label: '|log r|, 99.9 %',
    definition: '99.9 % quantile of |log pi - log mu|',
    unit: 'nats',
  },
  differingShare: {
    label: 'tokens that differ',
    definition: 'share of tokens whose two log-probs are not the same number',
    unit: 'share',
  },
  probCorrelation: {
    label: 'correlation of mu, pi',
    definition: 'Pearson correlation of the probabilities of tokens',
    unit: 'ratio',
    healthy: { low: 0.99, source: 'MiniMax-M1, arXiv 2506.13585' },
  },
  tokenMultProbError: {
    label: 'token mult prob error',
    definition: 'mean of exp|log pi - log mu|',
    unit: 'ratio',
    healthy: { high: 1.02, source: NEMO },
  },
  tokenRatioMean: {
    label: 'mean r, token',
    definition: 'mean of r = pi / mu over tokens',
    unit: 'ratio',
    healthy: { low: 0.5, high: 2, source: VERL },
  },
  tokenRatioStd: {
    label: 'std of r, token',
    definition: 'standard deviation of r over tokens',
    unit: 'ratio',
    healthy: { high: 1, source: VERL },
  },
  tokenRatioMax: { label: 'max r, token', definition: 'greatest r of a token', unit: 'ratio' },
  tokenRatioHighShare: { label: 'r > 2', definition: 'share of tokens with r above 2', unit: 'share' },
  tokenRatioLowShare: { label: 'r < 1/2', definition: 'share of tokens with r below 1/2', unit: 'share' },
  essToken: {
    label: 'ESS, token',
    definition: 'effective sample size of the weights r as a share of the tokens',
    unit: 'share',
    healthy: { low: 0.3, source: VERL },
  },
  trainingPpl: {
    label: 'training perplexity',
    definition: 'mean over responses of exp(-mean log pi)',
    unit: 'ppl',
  },
  rolloutPpl: {
    label: 'rollout perplexity',
    definition: 'mean over responses of exp(-mean log mu)',
    unit: 'ppl',
  },
  logPplDiff: {
    label: 'log perplexity gap',
    definition: 'mean over responses of mean log mu - mean log pi',
    unit: 'nats/token',
  },
  pplRatio: {
    label: 'perplexity ratio',
    definition: 'mean over responses of exp(mean log mu - mean log pi)',
    unit: 'ratio',
  },
  seqLogRatioMean: {
    label: 'mean L',
    definition: 'mean over responses of L = sum of log pi - log mu',
    unit: 'nats',
  },
  seqLogRatioStd: {
    label: 'std of L',
    definition: 'standard deviation of L over responses',
    unit: 'nats',
  },
  seqLogRatioMin: { label: 'least L', definition: 'least L of a response', unit: 'nats' },
  seqLogRatioMax: { label: 'greatest L', definition: 'greatest L of a response', unit: 'nats' },
  seqLogRatioPer1k: {
    label: 'drift',
    definition: '1,000 times the mean of log pi - log mu over all tokens',
    unit: 'nats/1,000 tokens',
  },
  seqLogRatioSlopePer1k: {
    label: 'slope of L',
    definition: 'least-squares slope of L on the length of the response',
    unit: 'nats/1,000 tokens',
    healthy: { low: -0.1, source: `${PAPER}, fp16 has -0.07, bf16 -1.01` },
  },
  ess: {
    label: 'ESS, response',
    definition: 'effective sample size of the weights exp(L) as a share of the responses',
    unit: 'share',
    healthy: { low: 0.3, source: VERL },
  },
  sequenceKlMuPi: {
    label: 'KL[mu||pi], response',
    definition: 'mean over responses of -L',
    unit: 'nats',
    healthy: { high: 0.32, source: `${PAPER}, fp16; bf16 has 7.64` },
  },
};

/** A range in a few characters: `<= 0.001`, `>= 0.99`, `-0.1 to 0.1`; exactly 0 where nothing above it is healthy. */
export function rangeText({ low, high }: HealthyRange): string {
  if (low === undefined) return high === 0 ? '0' : `<= ${high}`;
  return high === undefined ? `>= ${low}` : `${low} to ${high}`;
}

/** Whether a value lies in the healthy range of its metric; null where there is none, or no value. */
export function isHealthy(name: keyof MismatchMetrics, value: number): boolean | null {
  const { healthy } = metricDefinitions[name];
  if (healthy === undefined || Number.isNaN(value)) return null;
  return value >= (healthy.low ?? -Infinity) && value <= (healthy.high ?? Infinity);
}
