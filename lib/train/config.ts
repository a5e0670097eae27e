/** Everything that a training run can be asked for, as one configuration with sections; JSON, or YAML. */
import {
  attempt,
  checkChoice,
  checkInteger,
  checkNumber,
  InvalidArgumentError,
  invalid,
  throwTogether,
} from '../errors.js';
import { isObject } from '../io/jsonFile.js';
import { type LoraTarget, loraTargets } from '../nn/lora.js';
import type { AlgorithmParameters } from '../rl/algorithms.js';
import { type EngineOptions, resolveEngineOptions } from '../rl/engineChoices.js';
import { resolveAlgorithmSpec } from '../rl/load.js';
import {
  type DataOptions,
  type ModelSource,
  type ModelSourceOptions,
  modelSourceKeys,
  resolveModelSource,
} from '../rl/modelSource.js';
import type { OverlongPrompts } from '../rl/overlongPrompts.js';
import { type RouterReplay, routerReplays, type TruncatedMode, truncatedModes } from '../rl/trainer.js';
import { type LoraMode, loraModes } from '../rollout/engine.js';
import { type OverflowMode, overflowModes, type Recompute, recomputeModes } from '../training/engine.js';
import { type ScheduleKind, scheduleKinds } from '../training/schedule.js';
import { Section, WHERE } from './section.js';

export interface BatchOptions {
  /** Prompts of a step; default 64, the paper's. */
  readonly promptsPerStep?: number;
  /** Responses to each; default 8. */
  readonly groupSize?: number;
  /** Optimizer updates of a step, each on an equal share of the responses; default 4. */
  readonly updatesPerStep?: number;
  /** Most tokens of one forward and backward pass, whose gradients add up; default 4096. */
  readonly microBatchTokens?: number;
  /** `layers`: layers are computed again in the backward pass, which saves memory; default `none`. */
  readonly recompute?: Recompute;
}

export interface OptimizerOptions {
  /** Highest learning rate; default 1e-6, the paper's for all weights, or 4e-5, its for an adapter. */
  readonly learningRate?: number;
  /** Default `constant`. */
  readonly schedule?: ScheduleKind;
  /** Steps until the learning rate is reached; default 0. */
  readonly warmupSteps?: number;
  /** Where linear and cosine schedules end, as a share of the highest; default 0. */
  readonly minRatio?: number;
  /** Default [0.9, 0.95]. */
  readonly betas?: readonly [number, number];
  /** Default 1e-8. */
  readonly eps?: number;
  /** Default 0. */
  readonly weightDecay?: number;
  /** Largest norm of the gradient of all parameters together; default 1. */
  readonly maxGradNorm?: number;
}

/** An adapter that is trained in place of the weights (arXiv 2106.09685). */
export interface LoraOptions {
  readonly rank: number;
  /** The adapter is scaled by alpha / rank; default twice the rank, as in the paper. */
  readonly alpha?: number;
  /** Default all projections that the model has one of in each layer. */
  readonly targets?: readonly LoraTarget[];
  /** How the rollout engine computes with it; default merged. */
  readonly rollout?: LoraMode;
}

/** A second set of problems, on which the policy is judged now and then. Without `data` there is no evaluation. */
export interface EvaluationOptions extends Partial<DataOptions> {
  /** Default the template of the training problems. */
  readonly template?: string;
  readonly maxPromptLength?: number;
  /** Default that of the training problems; a score over fewer problems is another benchmark's. */
  readonly overlongPrompts?: OverlongPrompts;
  /** Default that of the training problems. */
  readonly responseLength?: number;
  /** Steps between evaluations; default 16. There is one after the last step in any case. */
  readonly every?: number;
  /** Whether there is one before the first step; default true. */
  readonly atStart?: boolean;
  /** k of avg@k, responses to each problem; default 32. */
  readonly samples?: number;
  /** Default 0.6; 0 is greedy. */
  readonly temperature?: number;
  /** Default 0.95. */
  readonly topP?: number;
}

export interface CheckpointOptions {
  /** Steps between checkpoints; default 10. */
  readonly every?: number;
  /** Newest checkpoints to keep; default 2. */
  readonly keepLast?: number;
  /** Checkpoints with the best evaluation (without one, the best rewards) to keep beside them; default 1. */
  readonly keepBest?: number;
}

export interface RolloutOptions {
  /** Sequences decoded at once; default 256, or fewer where memory is short. */
  readonly maxBatch?: number;
  /** Pages of 16 positions in the KV cache; default enough for maxBatch of the longest sequences. */
  readonly kvPages?: number;
}

export interface TrainOptions extends ModelSourceOptions, EngineOptions {
  /** A preset or the path of a file, see {@link loadAlgorithm}; default `pg-seq-is`. */
  readonly algorithm?: string;
  /** Parameters that differ from the preset's. */
  readonly algorithmParameters?: AlgorithmParameters;
  /** Whether responses that are cut off are trained on (default; their reward is 0) or masked. */
  readonly truncated?: TruncatedMode;
  /** What becomes of a mini-batch whose gradients overflow; default `skip`. */
  readonly overflow?: OverflowMode;
  /** Default 100. */
  readonly steps?: number;
  /** Of the order of problems, sampling and mini-batches; default 1. */
  readonly seed?: number;
  readonly batch?: BatchOptions;
  readonly optimizer?: OptimizerOptions;
  readonly lora?: LoraOptions | null;
  /** Whose routing a mixture of experts trains by, see {@link RouterReplay}; default `none`, its own. */
  readonly routerReplay?: RouterReplay;
  readonly evaluation?: EvaluationOptions | null;
  readonly checkpoint?: CheckpointOptions;
  readonly rollout?: RolloutOptions;
  /** Steps between recordings of all log-probs, which `simulate` reads; default 0, none. */
  readonly recordEvery?: number;
}

export type EvaluationConfig = Omit<ModelSource, 'model'> &
  Required<Pick<EvaluationOptions, 'every' | 'atStart' | 'samples' | 'temperature' | 'topP'>>;

export type LoraTrainConfig = Required<Pick<LoraOptions, 'rank' | 'alpha' | 'rollout'>> &
  Pick<LoraOptions, 'targets'>;

export interface TrainConfig extends ModelSource, Required<EngineOptions> {
  readonly algorithm: string;
  readonly algorithmParameters: AlgorithmParameters;
  readonly truncated: TruncatedMode;
  readonly overflow: OverflowMode;
  readonly steps: number;
  readonly seed: number;
  readonly batch: Required<BatchOptions>;
  readonly optimizer: Required<OptimizerOptions>;
  readonly lora: LoraTrainConfig | null;
  readonly routerReplay: RouterReplay;
  readonly evaluation: EvaluationConfig | null;
  readonly checkpoint: Required<CheckpointOptions>;
  readonly rollout: RolloutOptions;
  readonly recordEvery: number;
}

const engineKeys = ['trainingPrecision', 'rolloutPrecision', 'numerics', 'lossScaler'] as const;
const topKeys: readonly (keyof TrainOptions)[] = [
  ...modelSourceKeys,
  ...engineKeys,
  'algorithm',
  'algorithmParameters',
  'truncated',
  'overflow',
  'steps',
  'seed',
  'batch',
  'optimizer',
  'lora',
  'routerReplay',
  'evaluation',
  'checkpoint',
  'rollout',
  'recordEvery',
];
const sectionKeys = {
  batch: ['promptsPerStep', 'groupSize', 'updatesPerStep', 'microBatchTokens', 'recompute'],
  optimizer: [
    'learningRate',
    'schedule',
    'warmupSteps',
    'minRatio',
    'betas',
    'eps',
    'weightDecay',
    'maxGradNorm',
  ],
  lora: ['rank', 'alpha', 'targets', 'rollout'],
  checkpoint: ['every', 'keepLast', 'keepBest'],
  rollout: ['maxBatch', 'kvPages'],
} as const;
const evaluationKeys: readonly (keyof EvaluationOptions)[] = [
  ...modelSourceKeys.filter((key) => key !== 'model'),
  'every',
  'atStart',
  'samples',
  'temperature',
  'topP',
];

/**
 * Fills in the defaults and checks everything that needs no file. A resolved configuration resolves to itself.
 *
 * @throws InvalidArgumentError listing all that is wrong, by dotted paths such as `optimizer.learningRate`
 */
export function resolveTrainOptions(options: TrainOptions): TrainConfig {
  const errors: unknown[] = [];
  const top = new Section(errors, '', options, topKeys, sectionKeys);
  const source = attempt(errors, () => resolveModelSource(WHERE, options));
  const engines = attempt(errors, () => resolveEngineOptions(WHERE, options));
  const config = {
    algorithm: top.checked('algorithm', 'pg-seq-is', (path, value) =>
      resolveAlgorithmSpec(WHERE, value, path),
    ),
    algorithmParameters: top.checked('algorithmParameters', {}, (path, value) =>
      isObject(value) ? value : invalid(WHERE, `${path} to be a section`, value),
    ),
    truncated: top.choice('truncated', 'train', truncatedModes),
    overflow: top.choice('overflow', 'skip', overflowModes),
    steps: top.integer('steps', 100, 1, 1e6),
    seed: top.integer('seed', 1, 0),
    batch: resolveBatch(errors, options.batch),
    optimizer: resolveOptimizer(errors, options.optimizer, options.lora ? 4e-5 : 1e-6),
    lora: resolveLora(errors, options.lora),
    routerReplay: top.choice('routerReplay', 'none', routerReplays),
    checkpoint: resolveCheckpoint(errors, options.checkpoint),
    rollout: resolveRollout(errors, options.rollout),
    recordEvery: top.integer('recordEvery', 0, 0, 1e6),
  };
  const evaluation = resolveEvaluation(errors, options.evaluation, source);
  throwTogether(WHERE, errors);
  return { ...source!, ...engines!, ...config, evaluation };
}

function resolveBatch(errors: unknown[], options: BatchOptions | undefined): Required<BatchOptions> {
  const batch = new Section(errors, 'batch', options, sectionKeys.batch);
  const promptsPerStep = batch.integer('promptsPerStep', 64, 1, 65536);
  const groupSize = batch.integer('groupSize', 8, 2, 65536);
  return {
    promptsPerStep,
    groupSize,
    updatesPerStep: batch.integer('updatesPerStep', 4, 1, promptsPerStep * groupSize),
    microBatchTokens: batch.integer('microBatchTokens', 4096, 1),
    recompute: batch.choice('recompute', 'none', recomputeModes),
  };
}

function resolveOptimizer(
  errors: unknown[],
  options: OptimizerOptions | undefined,
  learningRate: number,
): Required<OptimizerOptions> {
  const optimizer = new Section(errors, 'optimizer', options, sectionKeys.optimizer);
  return {
    learningRate: optimizer.number('learningRate', learningRate, 0),
    schedule: optimizer.choice('schedule', 'constant', scheduleKinds),
    warmupSteps: optimizer.integer('warmupSteps', 0, 0, 1e6),
    minRatio: optimizer.number('minRatio', 0, 0, 1),
    betas: optimizer.checked('betas', [0.9, 0.95] as const, checkBetas),
    eps: optimizer.number('eps', 1e-8, 0),
    weightDecay: optimizer.number('weightDecay', 0, 0),
    maxGradNorm: optimizer.positive('maxGradNorm', 1),
  };
}

function checkBetas(path: string, value: unknown): readonly [number, number] {
  if (!Array.isArray(value) || value.length !== 2) invalid(WHERE, `${path} to be two numbers`, value);
  const [first, second] = value.map((beta, i) => {
    const number = checkNumber(WHERE, `${path}[${i}]`, beta, 0);
    return number < 1 ? number : invalid(WHERE, `${path}[${i}] below 1`, beta);
  });
  return [first!, second!];
}

function resolveLora(errors: unknown[], options: LoraOptions | null | undefined): LoraTrainConfig | null {
  if (options === undefined || options === null) return null;
  const lora = new Section(errors, 'lora', options, sectionKeys.lora);
  const rank = lora.required('rank', (path, value) => checkInteger(WHERE, path, value, 1)) ?? 1;
  const targets = lora.checked('targets', undefined, (path, value) => {
    if (value === undefined) return undefined;
    if (!Array.isArray(value) || value.length === 0) invalid(WHERE, `${path} to be one or more`, value);
    return value.map((target) => checkChoice(WHERE, `each of ${path}`, target, loraTargets));
  });
  return {
    rank,
    alpha: lora.positive('alpha', 2 * rank),
    ...(targets !== undefined && { targets }),
    rollout: lora.choice('rollout', 'merged', loraModes),
  };
}

function resolveCheckpoint(
  errors: unknown[],
  options: CheckpointOptions | undefined,
): Required<CheckpointOptions> {
  const checkpoint = new Section(errors, 'checkpoint', options, sectionKeys.checkpoint);
  return {
    every: checkpoint.integer('every', 10, 1, 1e6),
    keepLast: checkpoint.integer('keepLast', 2, 1, 1e6),
    keepBest: checkpoint.integer('keepBest', 1, 0, 1e6),
  };
}

function resolveRollout(errors: unknown[], options: RolloutOptions | undefined): RolloutOptions {
  const rollout = new Section(errors, 'rollout', options, sectionKeys.rollout);
  const maxBatch = rollout.optionalInteger('maxBatch', 1, 65536);
  const kvPages = rollout.optionalInteger('kvPages', 1);
  return { ...(maxBatch !== undefined && { maxBatch }), ...(kvPages !== undefined && { kvPages }) };
}

function resolveEvaluation(
  errors: unknown[],
  evaluation: EvaluationOptions | null | undefined,
  training: ModelSource | undefined,
): EvaluationConfig | null {
  if (evaluation === undefined || evaluation === null) return null;
  const section = new Section(errors, 'evaluation', evaluation, evaluationKeys);
  const own = {
    every: section.integer('every', 16, 1, 1e6),
    atStart: section.boolean('atStart', true),
    samples: section.integer('samples', 32, 1, 65536),
    temperature: section.number('temperature', 0.6, 0),
    topP: section.positive('topP', 0.95, 1),
  };
  const data = isObject(evaluation) ? (evaluation as EvaluationOptions).data : undefined;
  if (data === undefined || data === null) return null;
  const { template, verifier, maxPromptLength, overlongPrompts, responseLength } = training ?? {};
  const inherited = Object.entries({ template, verifier, maxPromptLength, overlongPrompts, responseLength });
  const given = Object.fromEntries(inherited.filter(([, value]) => value !== undefined));
  const source = attempt(errors, () =>
    under('evaluation', () => resolveModelSource(WHERE, { ...given, ...evaluation, data, model: '.' })),
  );
  if (source === undefined) return null;
  const { model: _, ...problems } = source;
  return { ...problems, ...own };
}

/** Names of what is wrong within `body` get a path before them. */
function under<T>(path: string, body: () => T): T {
  try {
    return body();
  } catch (error) {
    if (!(error instanceof InvalidArgumentError)) throw error;
    const parts = Array.isArray(error.cause) ? (error.cause as InvalidArgumentError[]) : [error];
    const start = `[${WHERE}] expected `;
    throwTogether(
      WHERE,
      parts.map(({ message }) => new InvalidArgumentError(message.replace(start, `${start}${path}.`))),
    );
    throw error;
  }
}
