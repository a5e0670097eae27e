import { checkChoice, checkInteger, invalid } from '../errors.js';
import { type MismatchMetrics, mismatchMetrics } from '../mismatch/metrics.js';
import { routingFlips } from '../mismatch/routing.js';
import type { Routes, RoutesShape } from '../models/routes.js';
import type { Scores, TokenSequence } from '../models/sequences.js';
import { CounterRandom } from '../random.js';
import type { RolloutEngine } from '../rollout/engine.js';
import type { Completion } from '../rollout/generation.js';
import type { StepResult, TrainingEngine } from '../training/engine.js';
import type { RoutingRecord } from '../training/routing.js';
import {
  type Algorithm,
  batchTotals,
  checkAdvantages,
  checkPolicyLoss,
  type MiniBatch,
  type PolicyBatch,
  type Preparation,
} from './batch.js';
import { type Environment, sampleJudged } from './environment.js';
import { sequenceEss } from './ratios.js';

export interface TrainerOptions {
  readonly algorithm: Algorithm;
  /** Prompts of one step. */
  readonly promptsPerStep: number;
  /** Responses to each prompt. */
  readonly groupSize: number;
  /** Optimizer updates of one step; each takes an equal share of the responses. */
  readonly updatesPerStep: number;
  /** Of the order of prompts, of sampling and of mini-batches. */
  readonly seed: number;
  /** Responses cut off at the length limit have reward 0; they are trained on (default) or masked. */
  readonly truncated?: TruncatedMode;
  /** Of a mixture of experts; default `none`. */
  readonly routerReplay?: RouterReplay;
}

export const routerReplays = ['none', 'training', 'rollout'] as const;

/**
 * Which experts the training engine uses. `none`: each pass those that its own routers choose. `training`: the updates of
 * a step those of its first pass, which gives log pi_old ("R2", the routing replay of arXiv 2507.18071). `rollout`: all
 * passes of a step those that the rollout engine used while it sampled ("R3", rollout routing replay, arXiv 2510.11370).
 */
export type RouterReplay = (typeof routerReplays)[number];

export const truncatedModes = ['train', 'mask'] as const;
export type TruncatedMode = (typeof truncatedModes)[number];

export interface Trajectory {
  readonly prompt: Int32Array;
  /** Number of the draw of this prompt in the run; the responses of a group share it. */
  readonly promptId: number;
  readonly completion: Completion;
  /** What the environment says of it; 0 for a response that was cut off at the length limit. */
  readonly reward: number;
  /** Whether it was cut off before its end. */
  readonly truncated: boolean;
}

/** Log-probs of a step's response tokens under each policy; sequence s owns [offsets[s], offsets[s + 1]). */
export interface StepLogprobs {
  readonly offsets: Int32Array;
  /** log mu, as logged when the token was sampled. */
  readonly rollout: Float64Array;
  /** log pi_old: the training engine before the step's updates. */
  readonly old: Float64Array;
  /** log pi as each response's own update saw it. */
  readonly current: Float64Array;
  readonly mask: Uint8Array;
  /** [sequences] the update that each response was in, from 0. */
  readonly update: Int32Array;
  /** [sequences] */
  readonly advantages: Float64Array;
}

/** The routers of a mixture of experts in one step, over the tokens of prompts and responses, before its updates. */
export interface RoutingMetrics {
  /** Share of (token, mixture) pairs in which the engines used other sets of experts; 0 where the rollout's are replayed. */
  readonly flipShare: number;
  /** E sum f_e P_e of the training engine's routers, mean over the mixtures: k where all experts have the same share. */
  readonly auxiliaryLoss: number;
  /** Greatest share of its mixture's choices that an expert has; at least 1 / E. */
  readonly maxExpertShare: number;
}

export interface TrainerStep {
  readonly step: number;
  readonly trajectories: readonly Trajectory[];
  /** Mean reward of the responses sampled in this step, before its updates. */
  readonly reward: number;
  /** Rollout against training engine on the same weights, before the updates. */
  readonly mismatch: MismatchMetrics;
  /** Null for a dense model. */
  readonly routing: RoutingMetrics | null;
  /** Mean entropy per token under the training engine, in nats. */
  readonly entropy: number;
  readonly logprobs: StepLogprobs;
  readonly updates: readonly StepResult[];
  readonly seconds: { readonly rollout: number; readonly score: number; readonly train: number };
}

// Keep the draws of one purpose apart from those of another under the same seed.
const PROMPT_STREAM = 0x70726d70;
const BATCH_STREAM = 0x62617463;

/**
 * On-policy policy-gradient training: sample groups of responses with the rollout engine, score them, and update with
 * the training engine.
 *
 * A step is a pure function of (weights, optimizer and scaler state, step number), so a resumed run repeats it.
 */
export class Trainer {
  readonly #rollout: RolloutEngine;
  readonly #training: TrainingEngine;
  readonly #environment: Environment;
  readonly #options: TrainerOptions;

  /** @throws InvalidArgumentError on a bad option or an environment without prompts */
  constructor(
    rollout: RolloutEngine,
    training: TrainingEngine,
    environment: Environment,
    options: TrainerOptions,
  ) {
    const where = 'Trainer';
    if (environment.prompts.length === 0) invalid(where, 'at least one prompt', 'none');
    checkInteger(where, 'promptsPerStep', options.promptsPerStep, 1);
    checkInteger(where, 'groupSize', options.groupSize, 1);
    const responses = options.promptsPerStep * options.groupSize;
    checkInteger(where, 'updatesPerStep', options.updatesPerStep, 1, responses);
    checkInteger(where, 'seed', options.seed, 0, Number.MAX_SAFE_INTEGER);
    if (options.truncated !== undefined) checkChoice(where, 'truncated', options.truncated, truncatedModes);
    const replay = checkChoice(where, 'routerReplay', options.routerReplay ?? 'none', routerReplays);
    if (replay !== 'none' && training.routesShape === null) {
      invalid(where, 'routerReplay none for a dense model', replay);
    }
    this.#rollout = rollout;
    this.#training = training;
    this.#environment = environment;
    this.#options = options;
  }

  /** Step number `step` (from 0). */
  async step(step: number): Promise<TrainerStep> {
    const { algorithm, groupSize } = this.#options;
    const start = performance.now();
    const trajectories = await this.#sample(step);
    const sampled = performance.now();

    // The pass that algorithms with pi_old need, and the measurement of the mismatch on equal weights.
    const sequences = trajectories.map(({ prompt, completion }) => ({ prompt, response: completion.tokens }));
    const replay = this.#routerReplay;
    const { routesShape: shape } = this.#training;
    const sampledRoutes = shape && trajectories.map(({ completion }) => completion.routes!);
    const old = await this.#training.score(sequences, {
      recordRoutes: shape !== null,
      ...(replay === 'rollout' && { replay: sampledRoutes! }),
    });
    const routes = { none: null, training: old.routing?.routes ?? null, rollout: sampledRoutes }[replay];
    const logprobs = this.#stepLogprobs(trajectories, old);
    const { offsets, rollout, mask } = logprobs;
    const mismatch = mismatchMetrics({ offsets, rolloutLogprobs: rollout, logprobs: old.logprobs, mask });
    const scored = performance.now();

    const rewards = Float64Array.from(trajectories, ({ reward }) => reward);
    const advantages = algorithm.advantages(rewards, groupSize);
    logprobs.advantages.set(checkAdvantages(algorithm.name, advantages, rewards.length));
    const updates: StepResult[] = [];
    for (const [u, members] of this.#batches(step, trajectories.length).entries()) {
      for (const i of members) logprobs.update[i] = u;
      updates.push(await this.#update(sequences, logprobs, members, routes));
    }
    const trained = performance.now();
    return {
      step,
      trajectories,
      reward: mean(rewards),
      mismatch,
      routing: shape && routingMetrics(shape, sampledRoutes!, old.routing!),
      entropy: mean(old.entropy),
      logprobs,
      updates,
      seconds: {
        rollout: (sampled - start) / 1e3,
        score: (scored - sampled) / 1e3,
        train: (trained - scored) / 1e3,
      },
    };
  }

  get #routerReplay(): RouterReplay {
    return this.#options.routerReplay ?? 'none';
  }

  #stepLogprobs(trajectories: readonly Trajectory[], old: Scores): StepLogprobs {
    const rollout = new Float64Array(old.logprobs.length);
    const mask = new Uint8Array(old.logprobs.length).fill(1);
    trajectories.forEach(({ completion, truncated }, i) => {
      rollout.set(completion.logprobs, old.offsets[i]!);
      if (truncated && this.#options.truncated === 'mask') {
        mask.fill(0, old.offsets[i]!, old.offsets[i + 1]!);
      }
    });
    return {
      offsets: old.offsets,
      rollout,
      old: old.logprobs,
      current: new Float64Array(old.logprobs.length).fill(Number.NaN),
      mask,
      update: new Int32Array(trajectories.length),
      advantages: new Float64Array(trajectories.length),
    };
  }

  /**
   * One optimizer update on the responses `members`; notes log pi of their tokens. Beside the algorithm's metrics there is
   * `updateEss`, whatever the algorithm: the effective sample size of the raw weights pi(y) / mu(y) of whole responses as
   * this update saw them, as a share. It falls as pi moves within a step and as the engines part.
   */
  async #update(
    sequences: readonly TokenSequence[],
    step: StepLogprobs,
    members: readonly number[],
    routes: readonly Routes[] | null,
  ): Promise<StepResult> {
    const { algorithm } = this.#options;
    const batch = members.map((i) => sequences[i]!);
    const routing = routes ? { replay: members.map((i) => routes[i]!) } : {};
    const part = miniBatch(step, members);
    const { offsets } = part;
    let prepared: Preparation | undefined;
    if (algorithm.prepare) {
      const scores = algorithm.prepareNeedsLogprobs ? await this.#training.score(batch, routing) : undefined;
      prepared = algorithm.prepare({ ...part, ...(scores && { logprobs: scores.logprobs }) });
    }
    const totals = prepared?.totals ?? batchTotals(offsets, part.mask);
    const current = new Float64Array(part.mask.length).fill(Number.NaN);
    const microBatch = (begin: number, end: number, logprobs: Float64Array): PolicyBatch => {
      const of = <A extends Float64Array | Uint8Array>(values: A): A =>
        values.subarray(offsets[begin]!, offsets[end]!) as A;
      return {
        offsets: offsets.subarray(begin, end + 1).map((offset) => offset - offsets[begin]!),
        logprobs,
        rolloutLogprobs: of(part.rolloutLogprobs),
        oldLogprobs: of(part.oldLogprobs!),
        mask: of(prepared?.mask ?? part.mask),
        advantages: part.advantages.subarray(begin, end),
        totals,
        ...(prepared && { kept: of(prepared.kept), preparedMetrics: prepared.metrics }),
        ...(prepared?.weights && { weights: of(prepared.weights) }),
      };
    };
    let passes = 0;
    const lossOf = ({ logprobs }: Scores, begin: number, end: number) => {
      passes++;
      current.set(logprobs, offsets[begin]!);
      return checkPolicyLoss(
        algorithm.name,
        algorithm.loss(microBatch(begin, end, logprobs)),
        logprobs.length,
      );
    };
    const result = await this.#training.step(batch, lossOf, routing);
    members.forEach((i, s) => {
      step.current.set(current.subarray(offsets[s]!, offsets[s + 1]!), step.offsets[i]!);
    });
    // Where the forward pass overflowed there is nothing to measure.
    if (!current.every(Number.isFinite)) return result;
    const exact = passes > 1 ? algorithm.metrics?.(microBatch(0, members.length, current)) : undefined;
    const updateEss = sequenceEss(part, current, part.rolloutLogprobs);
    return {
      ...result,
      metrics: { ...result.metrics, ...exact, ...(!Number.isNaN(updateEss) && { updateEss }) },
    };
  }

  async #sample(step: number): Promise<Trajectory[]> {
    const { promptsPerStep, groupSize, seed } = this.#options;
    this.#rollout.syncWeights();
    const draws = Array.from({ length: promptsPerStep * groupSize }, (_, i) => {
      const promptId = step * promptsPerStep + Math.floor(i / groupSize);
      return { prompt: this.#promptIndex(promptId), promptId, sampleId: i % groupSize };
    });
    const { completions, rewards, truncated } = await sampleJudged(
      this.#rollout,
      this.#environment,
      draws,
      seed,
      { recordRoutes: this.#training.routesShape !== null },
    );
    return draws.map(({ prompt, promptId }, i) => ({
      prompt: this.#environment.prompts[prompt]!,
      promptId,
      completion: completions[i]!,
      reward: rewards[i]!,
      truncated: truncated[i] === 1,
    }));
  }

  /** Prompts come in shuffled epochs; which one is drawn n-th depends on the seed and n alone. */
  #promptIndex(n: number): number {
    const count = this.#environment.prompts.length;
    const epoch = Math.floor(n / count);
    if (this.#order.epoch !== epoch) {
      const indices = Int32Array.from({ length: count }, (_, i) => i);
      new CounterRandom(this.#options.seed, PROMPT_STREAM, epoch).shuffle(indices);
      this.#order = { epoch, indices };
    }
    return this.#order.indices[n % count]!;
  }
  #order = { epoch: -1, indices: new Int32Array(0) };

  /** The responses of a step, shuffled and dealt into mini-batches of (nearly) equal size. */
  #batches(step: number, count: number): number[][] {
    const { updatesPerStep, seed } = this.#options;
    const order = Array.from({ length: count }, (_, i) => i);
    new CounterRandom(seed, BATCH_STREAM, step).shuffle(order);
    return Array.from({ length: updatesPerStep }, (_, u) =>
      order.slice(Math.floor((u * count) / updatesPerStep), Math.floor(((u + 1) * count) / updatesPerStep)),
    );
  }
}

function routingMetrics(
  { expertsPerToken: k }: RoutesShape,
  sampled: readonly Routes[],
  { routes, load }: RoutingRecord,
): RoutingMetrics {
  return {
    flipShare: routingFlips(sampled, routes, k),
    auxiliaryLoss: mean(load.map(({ auxiliaryLoss }) => auxiliaryLoss)),
    maxExpertShare: Math.max(...load.flatMap(({ fractions }) => [...fractions])) / k,
  };
}

/** The responses `members` of a step, in their order. */
function miniBatch(step: StepLogprobs, members: readonly number[]): MiniBatch {
  const offsets = new Int32Array(members.length + 1);
  members.forEach((i, s) => {
    offsets[s + 1] = offsets[s]! + step.offsets[i + 1]! - step.offsets[i]!;
  });
  const gather = <A extends Float64Array | Uint8Array>(values: A, all: A): A => {
    members.forEach((i, s) => {
      all.set(values.subarray(step.offsets[i]!, step.offsets[i + 1]!), offsets[s]!);
    });
    return all;
  };
  const tokens = offsets[members.length]!;
  return {
    offsets,
    rolloutLogprobs: gather(step.rollout, new Float64Array(tokens)),
    oldLogprobs: gather(step.old, new Float64Array(tokens)),
    mask: gather(step.mask, new Uint8Array(tokens)),
    advantages: Float64Array.from(members, (i) => step.advantages[i]!),
  };
}

function mean(values: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i]!;
  return sum / values.length;
}
