import { join } from 'node:path';
import { PointLog } from '../io/pointLog.js';
import type { RunDirectory } from '../io/runDirectory.js';
import { bootstrap, type Interval } from '../mismatch/bootstrap.js';
import type { Divergence } from '../mismatch/divergence.js';
import { LeastSquares } from '../mismatch/leastSquares.js';
import { type MismatchMetrics, mismatchMetrics } from '../mismatch/metrics.js';
import type { Decoder } from '../models/decoder.js';
import type { Scores, TokenSequence } from '../models/sequences.js';
import { createAlgorithm } from '../rl/algorithms.js';
import { k3 } from '../rl/ratios.js';
import type { BaseConfig } from '../sanity/baseConfig.js';
import { type OpenedSubject, openSubject, type SubjectSource } from '../sanity/openSubject.js';
import { sampleResponses, startText } from '../sanity/subject.js';
import type { FloatDType } from '../tensor/dtype.js';
import { TrainingEngine } from '../training/engine.js';
import { type DeploymentGap, deploymentGap } from './deploymentGap.js';
import {
  addSums,
  type EntropyProfile,
  type EntropySums,
  entropyProfile,
  sumByEntropy,
} from './entropyProfile.js';
import { type GradientBias, gradientBias } from './gradientBias.js';
import { type RoutingEffect, routingEffect } from './routingEffect.js';
import { divergenceOf } from './wholeDivergence.js';

/** The precisions of both engines. */
export interface Pair {
  readonly training: FloatDType;
  readonly rollout: FloatDType;
}

export interface ProfileConfig {
  /** What is measured: bases, one for each length of answers and base seed, or a run. */
  readonly subjects: readonly SubjectSource[];
  readonly pairs: readonly Pair[];
  /** Responses to each subject in each pair. */
  readonly samples: number;
  readonly seed: number;
}

/** A response: its tokens, L = sum of log pi - log mu, and its sums of |log pi - log mu| and of k3. */
type ResponsePoint = readonly [tokens: number, logRatio: number, absolute: number, k3: number];

/** One subject measured in one pair of precisions. */
export interface ProfilePoint extends Pair {
  readonly task: string;
  /** Undefined for a checkpoint, which has no base. */
  readonly baseSeed?: number;
  /** RL steps behind the weights. */
  readonly step: number;
  /**
   * Prompts that were answered in turn, {@link GROUP} responses each time; undefined in runs of before it was told, where
   * each time counts as another prompt.
   */
  readonly prompts?: number;
  /** Undefined where responses have no rewards, as what follows from rewards. */
  readonly accuracy?: number;
  /** Mean entropy of a token under the training engine, in nats. */
  readonly entropy: number;
  readonly metrics: MismatchMetrics;
  /** Over the first `tokens` tokens, where there are more numbers than can be read; undefined for all. */
  readonly divergence: Divergence & { readonly tokens?: number };
  readonly deployment?: DeploymentGap;
  readonly gradient?: readonly GradientBias[];
  /** Of mixtures of experts. */
  readonly routing?: RoutingEffect;
  readonly responses: readonly ResponsePoint[];
  /** Sums by the entropy of a token, of each {@link GROUP} responses in turn; undefined in runs of before they were taken. */
  readonly byEntropy?: readonly (readonly EntropySums[])[];
  /** [mu, pi] of some tokens, evenly spread over all. */
  readonly tokens: readonly (readonly [number, number])[];
}

/** All subjects in one pair. */
export interface ProfileGroup extends Pair {
  readonly responses: number;
  readonly tokens: number;
  /** Standard deviation of the responses' lengths over their mean: below a tenth a slope says nothing. */
  readonly lengthSpread: number;
  /** Least-squares slope of L on length, in nats per 1,000 tokens, with its interval; NaN where lengths do not vary. */
  readonly slopePer1k: Interval;
  /** Mean of log pi - log mu over all tokens, per 1,000. */
  readonly driftPer1k: Interval;
  /** KL[mu || pi] of whole responses, first-order. */
  readonly sequenceKlMuPi: Interval;
  readonly klMuPiK3: Interval;
  readonly meanAbsLogRatio: Interval;
  /** Undefined in runs of before it was measured. */
  readonly entropy?: EntropyProfile;
}

/** One pair over another, response by response. */
export interface ProfileRatio {
  readonly of: Pair;
  readonly over: Pair;
  readonly klMuPiK3: Interval;
  readonly meanAbsLogRatio: Interval;
}

export interface ProfileSummary {
  readonly groups: readonly ProfileGroup[];
  /** bf16 over fp16, where both were measured. */
  readonly ratios: readonly ProfileRatio[];
  readonly points: readonly Omit<ProfilePoint, 'responses' | 'byEntropy' | 'tokens'>[];
  readonly interrupted: boolean;
}

export interface ProfileOptions {
  readonly directory: RunDirectory;
  /** A folder that keeps bases. */
  readonly base?: (config: BaseConfig) => string;
  readonly signal?: AbortSignal;
  readonly report?: (progress: { done: number; points: number; what: string }) => void;
}

const POINTS_FILE = 'points.jsonl';
const TOKENS_KEPT = 1500;
/** Responses to a prompt; their number is a multiple of it. */
export const GROUP = 8;

/**
 * The offline mismatch of arXiv 2510.26788, figure 2: responses sampled with the rollout engine, scored by the training
 * engine on the same weights, in each pair of precisions. Besides, over whole distributions; the bias of the gradient;
 * and the deployment gap.
 */
export async function profileMismatch(
  config: ProfileConfig,
  { directory, base, signal, report }: ProfileOptions,
): Promise<ProfileSummary> {
  const log = await PointLog.open<ProfilePoint>(join(directory.path, POINTS_FILE));
  const total = config.subjects.length * config.pairs.length;
  const points: ProfilePoint[] = [];
  let interrupted = false;
  for (const [s, source] of config.subjects.entries()) {
    const keys = config.pairs.map(({ training, rollout }) => `${s} ${training}:${rollout}`);
    const missing = keys.some((key) => log.get(key) === undefined);
    const tell = (what: string) => report?.({ done: points.length, points: total, what });
    if (interrupted) break;
    await using subject = missing
      ? await openSubject(source, {
          ...(base && 'base' in source && { directory: base(source.base) }),
          ...(signal && { signal }),
          report: (event) => tell(startText(event)),
        })
      : null;
    for (const [p, pair] of config.pairs.entries()) {
      if (missing && (subject === null || signal?.aborted)) {
        interrupted = true;
        break;
      }
      tell(`${pair.training}:${pair.rollout}`);
      points.push(await log.measured(keys[p]!, () => measurePoint(subject!, pair, config)));
    }
  }
  const groups = config.pairs.flatMap((pair) => {
    const own = points.filter((point) => same(point, pair));
    return own.length === 0 ? [] : [groupOf(pair, own, config.seed)];
  });
  const summary: ProfileSummary = {
    groups,
    ratios: ratiosOf(points, config),
    points: points.map(({ responses, byEntropy, tokens, ...point }) => point),
    interrupted,
  };
  await directory.writeSummary(summary);
  return summary;
}

async function measurePoint(
  subject: OpenedSubject,
  pair: Pair,
  { samples, seed }: ProfileConfig,
): Promise<ProfilePoint> {
  const { model, environment, judged, task, baseSeed, step } = subject;
  const isMixture = model.config.numExperts > 0;
  const sample = await sampleResponses(subject, {
    precision: pair.rollout,
    count: samples,
    groupSize: GROUP,
    seed,
    recordRoutes: isMixture,
  });
  const { sequences, completions, rewards } = sample;
  const scored = await scoreWith(model, pair, sequences, async (training) => {
    const routing = isMixture ? await routingEffect(training, sequences, completions) : undefined;
    if (!judged) return { routing };
    const options = { constantLength: environment.responseLength };
    const corrected = ['pg-seq-is', 'pg-seq-tis', 'pg-seq-mis', 'pg-token-is'] as const;
    const algorithms = corrected.map((name) => createAlgorithm(name, options));
    const plain = createAlgorithm('reinforce', options);
    return { routing, gradient: await gradientBias(training, sample, GROUP, plain, algorithms) };
  });
  const { pi, divergence } = scored;
  const { routing, gradient } = scored.more;
  const mu = new Float64Array(pi.logprobs.length);
  completions.forEach(({ logprobs }, s) => {
    mu.set(logprobs, pi.offsets[s]!);
  });
  const metrics = mismatchMetrics({
    offsets: pi.offsets,
    rolloutLogprobs: mu,
    logprobs: pi.logprobs,
    mask: new Uint8Array(mu.length).fill(1),
  });
  const responses = sequences.map(({ response }, s): ResponsePoint => {
    let [sum, absolute, k3Sum] = [0, 0, 0];
    for (let t = pi.offsets[s]!; t < pi.offsets[s + 1]!; t++) {
      const d = mu[t]! - pi.logprobs[t]!;
      sum -= d;
      absolute += Math.abs(d);
      k3Sum += k3(d);
    }
    return [response.length, sum, absolute, k3Sum];
  });
  const byEntropy = Array.from({ length: samples / GROUP }, (_, g) =>
    sumByEntropy(
      { entropy: pi.entropy, rollout: mu, logprobs: pi.logprobs },
      pi.offsets[g * GROUP]!,
      pi.offsets[(g + 1) * GROUP]!,
    ),
  );
  const stride = Math.max(1, Math.floor(mu.length / TOKENS_KEPT));
  const tokens: [number, number][] = [];
  for (let t = 0; t < mu.length; t += stride) tokens.push([Math.exp(mu[t]!), Math.exp(pi.logprobs[t]!)]);
  return {
    ...pair,
    task,
    ...(baseSeed !== undefined && { baseSeed }),
    step,
    prompts: environment.prompts.length,
    entropy: pi.entropy.reduce((sum, x) => sum + x, 0) / pi.entropy.length,
    metrics,
    divergence,
    ...(judged && {
      accuracy: rewards.reduce((sum, x) => sum + x, 0) / rewards.length,
      deployment: await deploymentGap(subject, {
        training: { precision: pair.training },
        rollout: { precision: pair.rollout },
        count: samples,
        seed: seed + 1,
      }),
    }),
    ...(gradient && { gradient }),
    ...(routing && { routing }),
    responses,
    byEntropy,
    tokens,
  };
}

/** What both engines say of responses; they are gone when the next are made. */
async function scoreWith<T>(
  model: Decoder,
  pair: Pair,
  sequences: readonly TokenSequence[],
  more: (training: TrainingEngine) => Promise<T>,
): Promise<{ pi: Scores; divergence: ProfilePoint['divergence']; more: T }> {
  using training = new TrainingEngine(model, {
    precision: pair.training,
    schedule: { kind: 'constant', learningRate: 0 },
  });
  const pi = await training.score(sequences);
  const divergence = await divergenceOf(model, pair.rollout, training, sequences);
  return { pi, divergence, more: await more(training) };
}

/**
 * The responses of each prompt of each subject. What is resampled is whole prompts: responses to one prompt are alike in
 * how far the engines are apart, so that fewer of them are independent than there are.
 */
function byPrompt(points: readonly ProfilePoint[]): ResponsePoint[][] {
  return points.flatMap(({ responses, prompts = Infinity }) => {
    const own: ResponsePoint[][] = [];
    responses.forEach((response, i) => {
      const prompt = Math.floor(i / GROUP) % prompts;
      own[prompt] ??= [];
      own[prompt].push(response);
    });
    return own;
  });
}

/** The sums by entropy of each prompt of each subject, bin by bin; none where a point has none. */
function entropyByPrompt(points: readonly ProfilePoint[]): EntropySums[][] {
  if (points.some(({ byEntropy }) => byEntropy === undefined)) return [];
  return points.flatMap(({ byEntropy = [], prompts = Infinity }) => {
    const own: EntropySums[][] = [];
    byEntropy.forEach((sums, g) => {
      const before = own[g % prompts];
      own[g % prompts] = before === undefined ? [...sums] : before.map((a, bin) => addSums(a, sums[bin]!));
    });
    return own;
  });
}

interface Sums {
  readonly count: number;
  readonly tokens: number;
  readonly logRatio: number;
  readonly absolute: number;
  readonly k3: number;
}

function sumsOf(responses: readonly ResponsePoint[]): Sums {
  const column = (k: 0 | 1 | 2 | 3) => responses.reduce((sum, response) => sum + response[k], 0);
  return {
    count: responses.length,
    tokens: column(0),
    logRatio: column(1),
    absolute: column(2),
    k3: column(3),
  };
}

/** The sums over prompts that were drawn, some more than once. */
function drawn(sums: readonly Sums[], indices: Int32Array): Sums {
  const total = { count: 0, tokens: 0, logRatio: 0, absolute: 0, k3: 0 };
  for (const i of indices) {
    const { count, tokens, logRatio, absolute, k3: ofPrompt } = sums[i]!;
    total.count += count;
    total.tokens += tokens;
    total.logRatio += logRatio;
    total.absolute += absolute;
    total.k3 += ofPrompt;
  }
  return total;
}

function groupOf(pair: Pair, points: readonly ProfilePoint[], seed: number): ProfileGroup {
  const prompts = byPrompt(points);
  const sums = prompts.map(sumsOf);
  const interval = (of: (total: Sums) => number) =>
    bootstrap(sums.length, (indices) => of(drawn(sums, indices)), seed);
  const lengths = prompts.flatMap((responses) => responses.map(([tokens]) => tokens));
  const byEntropy = entropyByPrompt(points);
  return {
    ...pair,
    responses: lengths.length,
    tokens: lengths.reduce((sum, tokens) => sum + tokens, 0),
    lengthSpread: spreadOf(lengths),
    slopePer1k: bootstrap(
      prompts.length,
      (indices) => {
        const line = new LeastSquares();
        for (const i of indices) for (const [tokens, logRatio] of prompts[i]!) line.add(tokens, logRatio);
        return 1000 * line.slope;
      },
      seed,
    ),
    driftPer1k: interval(({ logRatio, tokens }) => (1000 * logRatio) / tokens),
    sequenceKlMuPi: interval(({ logRatio, count }) => 0 - logRatio / count),
    klMuPiK3: interval((total) => total.k3 / total.tokens),
    meanAbsLogRatio: interval(({ absolute, tokens }) => absolute / tokens),
    ...(byEntropy.length > 0 && { entropy: entropyProfile(byEntropy, seed) }),
  };
}

function spreadOf(values: readonly number[]): number {
  const mean = values.reduce((sum, x) => sum + x, 0) / values.length;
  return Math.sqrt(values.reduce((sum, x) => sum + (x - mean) ** 2, 0) / values.length) / mean;
}

/** bf16 over fp16: the same prompts, answered with the same draws, are resampled together. */
function ratiosOf(points: readonly ProfilePoint[], { seed, pairs }: ProfileConfig): ProfileRatio[] {
  const of = pairs.find((pair) => same(pair, { training: 'bf16', rollout: 'bf16' }));
  const over = pairs.find((pair) => same(pair, { training: 'fp16', rollout: 'fp16' }));
  if (!of || !over) return [];
  const [a, b] = [of, over].map((pair) => byPrompt(points.filter((p) => same(p, pair))).map(sumsOf));
  const count = Math.min(a!.length, b!.length);
  if (count === 0) return [];
  const ratio = (column: 'k3' | 'absolute') =>
    bootstrap(
      count,
      (indices) => {
        const [x, y] = [drawn(a!, indices), drawn(b!, indices)];
        return x[column] / x.tokens / (y[column] / y.tokens);
      },
      seed,
    );
  return [{ of, over, klMuPiK3: ratio('k3'), meanAbsLogRatio: ratio('absolute') }];
}

function same(a: Pair, b: Pair): boolean {
  return a.training === b.training && a.rollout === b.rollout;
}
