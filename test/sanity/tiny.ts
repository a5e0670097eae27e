/** A task and a model that are taught in a fraction of a second. */
import { Decoder } from '../../lib/models/decoder.js';
import { decoderConfig } from '../../lib/sanity/baseConfig.js';
import { resolveSanityOptions, type TaskSanityConfig } from '../../lib/sanity/config.js';
import { createTask } from '../../lib/tasks/index.js';

export const tinyTask = createTask('sort:2:4');

export function tinyConfig(overrides: Partial<TaskSanityConfig> = {}): TaskSanityConfig {
  return resolveSanityOptions({
    task: tinyTask.name,
    hiddenSize: 32,
    numLayers: 1,
    seed: 5,
    steps: 12,
    promptsPerStep: 4,
    groupSize: 4,
    updatesPerStep: 2,
    // Too small to learn from, so that no run passes early.
    learningRate: 1e-6,
    candidates: 20,
    samplesPerProblem: 10,
    baseAccuracy: 0.15,
    checkpointEvery: 5,
    ...overrides,
  });
}

export function tinyModel(seed = 5): Decoder {
  return new Decoder(decoderConfig(tinyConfig()), { seed });
}
