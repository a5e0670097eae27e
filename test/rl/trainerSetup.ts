/** A tiny model, a task of its own and algorithms that write down what they are given, for tests of the trainer. */
import assert from 'node:assert/strict';
import { Decoder } from '../../lib/models/decoder.js';
import { numerics } from '../../lib/numerics.js';
import type { Algorithm, PolicyBatch } from '../../lib/rl/batch.js';
import type { TrainerOptions } from '../../lib/rl/trainer.js';
import { RolloutEngine } from '../../lib/rollout/engine.js';
import type { Task } from '../../lib/tasks/task.js';
import type { NativeFloatDType } from '../../lib/tensor/dtype.js';
import { TrainingEngine } from '../../lib/training/engine.js';
import { randomTokens } from '../support/models.js';

export const STOP = 10;
export const GROUP = 4;

/** Right is a response whose first token is even, whether it stops or not: so a cut one would earn 1 too. */
export const task: Task = {
  name: 'even',
  vocabSize: 11,
  symbols: [...'0123456789', '<eos>'],
  promptLength: 3,
  responseLength: 9,
  stopToken: STOP,
  problem: (seed, index) => randomTokens(3, 10, seed * 1000 + index),
  solution: () => Int32Array.of(2, STOP),
  verify: (_prompt, response) => (response[0]! % 2 === 0 ? 1 : 0),
  format: (tokens) => Array.from(tokens).join(' '),
};

export const options: Omit<TrainerOptions, 'algorithm'> = {
  promptsPerStep: 6,
  groupSize: GROUP,
  updatesPerStep: 3,
  seed: 9,
};

interface SetupOptions {
  precision?: NativeFloatDType;
  preset?: 'matched';
  learningRate?: number;
  microBatchTokens?: number;
  modelSeed?: number;
  /** Six experts a layer, two a token. */
  experts?: boolean;
}

export function setup(setupOptions: SetupOptions = {}) {
  const {
    precision = 'bf16',
    preset,
    learningRate = 3e-3,
    microBatchTokens = 4096,
    modelSeed = 1,
    experts = false,
  } = setupOptions;
  const model = new Decoder(
    {
      vocabSize: task.vocabSize,
      hiddenSize: 16,
      intermediateSize: 24,
      numLayers: 2,
      numHeads: 2,
      maxPositionEmbeddings: task.promptLength + task.responseLength,
      ...(experts && { numExperts: 6, numExpertsPerToken: 2 }),
    },
    { seed: modelSeed },
  );
  const rollout = new RolloutEngine(model, {
    precision,
    maxBatch: 16,
    ...(preset && { numerics: numerics(preset) }),
  });
  const training = new TrainingEngine(model, {
    precision,
    microBatchTokens,
    schedule: { kind: 'constant', learningRate },
    ...(preset && { numerics: numerics(preset) }),
  });
  return {
    model,
    rollout,
    training,
    [Symbol.dispose]() {
      training[Symbol.dispose]();
      rollout[Symbol.dispose]();
      model[Symbol.dispose]();
    },
  };
}

/** Distinct prompts. */
export function prompts(count: number): Int32Array[] {
  return Array.from({ length: count }, (_, i) => Int32Array.of(i % 10, Math.floor(i / 10), 7));
}

/** Plain REINFORCE: what a user would write. */
export const reinforce: Algorithm = {
  name: 'reinforce',
  needsOldLogprobs: false,
  advantages: (rewards) => rewards.map((reward) => reward - 0.5),
  loss: ({ offsets, logprobs, advantages, totals }) => {
    const gradient = new Float64Array(logprobs.length);
    for (let s = 0; s < advantages.length; s++)
      gradient.fill(-advantages[s]! / totals.sequences, offsets[s], offsets[s + 1]);
    return {
      loss: gradient.reduce((sum, g, t) => sum + g * logprobs[t]!, 0),
      gradient,
      metrics: { seen: 1 },
    };
  },
};

/** The same, keeping every batch and every vector of rewards. */
export function spy() {
  const batches: PolicyBatch[] = [];
  const rewards: Float64Array[] = [];
  const algorithm: Algorithm = {
    ...reinforce,
    advantages: (values, groupSize) => {
      assert.equal(groupSize, GROUP);
      rewards.push(values);
      return values.map((reward, i) => reward - 0.5 + i / 1024);
    },
    loss: (batch) => {
      batches.push(batch);
      return reinforce.loss(batch);
    },
  };
  return { algorithm, batches, rewards };
}

/** The sequence that {@link spy} gave this advantage. */
export function sequenceOf(advantage: number): number {
  return ((advantage + 0.5) * 1024) % 1024;
}
