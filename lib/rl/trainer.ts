import { checkInteger, invalid } from '../errors.js';
import { type MismatchMetrics, mismatchMetrics } from '../mismatch/metrics.js';
import { CounterRandom } from '../random.js';
import type { RolloutEngine } from '../rollout/engine.js';
import type { Completion } from '../rollout/generation.js';
import type { Task } from '../tasks/task.js';
import type { StepResult, TrainingEngine } from '../training/engine.js';
import { type Algorithm, batchTotals } from './batch.js';

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
}

export interface Trajectory {
  readonly prompt: Int32Array;
  readonly completion: Completion;
  /** 1 or 0; a response that was cut off at the length limit gets 0. */
  readonly reward: number;
}

export interface TrainerStep {
  readonly step: number;
  readonly trajectories: readonly Trajectory[];
  /** Mean reward of the responses sampled in this step, before its updates. */
  readonly reward: number;
  /** Rollout against training engine on the same weights, before the updates. */
  readonly mismatch: MismatchMetrics;
  /** Mean entropy per token under the training engine, in nats. */
  readonly entropy: number;
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
  readonly #task: Task;
  readonly #prompts: readonly Int32Array[];
  readonly #options: TrainerOptions;

  /** @throws InvalidArgumentError on a bad option or an empty set of prompts */
  constructor(
    rollout: RolloutEngine,
    training: TrainingEngine,
    task: Task,
    prompts: readonly Int32Array[],
    options: TrainerOptions,
  ) {
    const where = 'Trainer';
    if (prompts.length === 0) invalid(where, 'at least one prompt', 'none');
    checkInteger(where, 'promptsPerStep', options.promptsPerStep, 1);
    checkInteger(where, 'groupSize', options.groupSize, 1);
    const responses = options.promptsPerStep * options.groupSize;
    checkInteger(where, 'updatesPerStep', options.updatesPerStep, 1, responses);
    checkInteger(where, 'seed', options.seed, 0, Number.MAX_SAFE_INTEGER);
    this.#rollout = rollout;
    this.#training = training;
    this.#task = task;
    this.#prompts = prompts;
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
    const old = await this.#training.score(sequences);
    const rolloutLogprobs = new Float64Array(old.logprobs.length);
    trajectories.forEach(({ completion }, i) => {
      rolloutLogprobs.set(completion.logprobs, old.offsets[i]!);
    });
    const mask = new Uint8Array(old.logprobs.length).fill(1);
    const mismatch = mismatchMetrics({ offsets: old.offsets, rolloutLogprobs, logprobs: old.logprobs, mask });
    const scored = performance.now();

    const rewards = Float64Array.from(trajectories, ({ reward }) => reward);
    const advantages = algorithm.advantages(rewards, groupSize);
    const updates: StepResult[] = [];
    for (const batch of this.#batches(step, trajectories.length)) {
      const slices = batch.map((i) => [old.offsets[i]!, old.offsets[i + 1]!] as const);
      const gather = (values: Float64Array, begin: number, end: number) =>
        concatenate(slices.slice(begin, end).map(([from, to]) => values.subarray(from, to)));
      const counts = slices.map(([from, to]) => to - from);
      const all = offsetsOf(counts);
      const totals = batchTotals(all, new Uint8Array(all.at(-1)!).fill(1));
      updates.push(
        await this.#training.step(
          batch.map((i) => sequences[i]!),
          ({ offsets, logprobs }, begin, end) =>
            algorithm.loss({
              offsets,
              logprobs,
              rolloutLogprobs: gather(rolloutLogprobs, begin, end),
              oldLogprobs: gather(old.logprobs, begin, end),
              mask: new Uint8Array(logprobs.length).fill(1),
              advantages: Float64Array.from(batch.slice(begin, end), (i) => advantages[i]!),
              totals,
            }),
        ),
      );
    }
    const trained = performance.now();
    return {
      step,
      trajectories,
      reward: mean(rewards),
      mismatch,
      entropy: mean(old.entropy),
      updates,
      seconds: {
        rollout: (sampled - start) / 1e3,
        score: (scored - sampled) / 1e3,
        train: (trained - scored) / 1e3,
      },
    };
  }

  async #sample(step: number): Promise<Trajectory[]> {
    const { promptsPerStep, groupSize, seed } = this.#options;
    this.#rollout.syncWeights();
    const requests: { prompt: Int32Array; promptId: number; sampleId: number }[] = [];
    for (let i = 0; i < promptsPerStep; i++) {
      const promptId = step * promptsPerStep + i;
      const prompt = this.#prompts[this.#promptIndex(promptId)]!;
      for (let sampleId = 0; sampleId < groupSize; sampleId++) requests.push({ prompt, promptId, sampleId });
    }
    const { responseLength, stopToken } = this.#task;
    const completions = await this.#rollout.generate(requests, {
      seed,
      temperature: 1,
      maxNewTokens: responseLength,
      stopTokens: stopToken === undefined ? [] : [stopToken],
    });
    return completions.map((completion, i) => {
      const { prompt } = requests[i]!;
      const cut = stopToken !== undefined && completion.finishReason === 'length';
      return { prompt, completion, reward: cut ? 0 : this.#task.verify(prompt, completion.tokens) };
    });
  }

  /** Prompts come in shuffled epochs; which one is drawn n-th depends on the seed and n alone. */
  #promptIndex(n: number): number {
    const count = this.#prompts.length;
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

function offsetsOf(counts: readonly number[]): Int32Array {
  const offsets = new Int32Array(counts.length + 1);
  counts.forEach((count, i) => {
    offsets[i + 1] = offsets[i]! + count;
  });
  return offsets;
}

function concatenate(parts: readonly Float64Array[]): Float64Array {
  const all = new Float64Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

function mean(values: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i]!;
  return sum / values.length;
}
