import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { InvalidArgumentError } from '../../lib/errors.js';
import { resolveDecoderConfig } from '../../lib/models/config.js';
import { numerics } from '../../lib/numerics.js';
import { engineNumerics } from '../../lib/rl/engineChoices.js';
import { decoderConfig } from '../../lib/sanity/baseConfig.js';
import { resolveSanityOptions, type SanityOptions } from '../../lib/sanity/config.js';
import { createTask } from '../../lib/tasks/index.js';

describe('resolveSanityOptions', () => {
  it('fills in the defaults', () => {
    assert.deepEqual(resolveSanityOptions(), {
      task: 'sort:16:10',
      trainingPrecision: 'fp16',
      rolloutPrecision: 'fp16',
      algorithm: 'pg-seq-is',
      algorithmParameters: {},
      truncated: 'train',
      numerics: 'default',
      seed: 1,
      baseSeed: 1,
      steps: 160,
      promptsPerStep: 32,
      groupSize: 8,
      updatesPerStep: 4,
      learningRate: 1e-4,
      warmupSteps: 5,
      schedule: 'linear',
      stopWhenPassed: true,
      lossScaler: 'verl',
      hiddenSize: 64,
      numLayers: 4,
      candidates: 400,
      samplesPerProblem: 40,
      baseAccuracy: 0.55,
      solvedAtLeast: 0.2,
      solvedAtMost: 0.8,
      teachSteps: 4000,
      overflow: 'skip',
      checkpointEvery: 10,
      recordEvery: 10,
    });
    const resolved = resolveSanityOptions({ trainingPrecision: 'bf16', algorithm: 'grpo' });
    assert.equal(resolved.rolloutPrecision, 'bf16', 'the training precision');
    assert.equal(resolved.lossScaler, 'none', 'fp16 alone needs scaling');
    assert.deepEqual(resolveSanityOptions(resolved), resolved, 'resolves to itself');
    assert.equal(resolveSanityOptions({ seed: 7 }).baseSeed, 7, 'the seed');
    const mixed = resolveSanityOptions({ trainingPrecision: 'fp32', rolloutPrecision: 'bf16' });
    assert.equal(mixed.rolloutPrecision, 'bf16');
    assert.equal(resolveSanityOptions({ lossScaler: 'static:1024' }).lossScaler, 'static:1024');
  });

  const bad: readonly (readonly [object, RegExp])[] = [
    [{ task: 'sorte:4:4' }, /\[task\] expected task to be one of .*did you mean sort\?/],
    [{ task: 'sort:4' }, /sort:LENGTH:SYMBOLS with two whole numbers, got "sort:4"/],
    [{ task: 'interleave:5:3' }, /LENGTH to be even/],
    [{ solvedAtLeast: 0.9 }, /solvedAtLeast to be at most solvedAtMost = 0\.8, got 0\.9/],
    [
      { trainingPrecision: 'fp8' },
      /\[sanity\] expected trainingPrecision to be fp16, bf16, fp32, tf32 or an emulated eXmY .*, got "fp8"/,
    ],
    [{ rolloutPrecision: 'int32' }, /\[sanity\] expected rolloutPrecision .* got "int32"/],
    [{ algorithm: 'gprо' }, /\[sanity\] expected algorithm to be one of reinforce, pg-seq-is, /],
    [{ algorithm: 'pg-seq' }, /did you mean pg-seq-is\?/],
    [
      { numerics: 'match' },
      /\[sanity\] expected numerics to be one of default, matched, got "match" \(did you mean matched\?\)/,
    ],
    [
      { numerics: 'matched', trainingPrecision: 'bf16', rolloutPrecision: 'fp16' },
      /\[sanity\] expected one precision for both engines with numerics matched, got "bf16 and fp16"/,
    ],
    [{ seed: -1 }, /\[sanity\] expected seed to be an integer of at least 0, got -1/],
    [{ seed: 2 ** 31 }, /\[sanity\] expected seed/],
    [{ steps: 0 }, /\[sanity\] expected steps to be an integer of at least 1 and at most 1000000, got 0/],
    [{ steps: 1e7 }, /\[sanity\] expected steps/],
    [{ promptsPerStep: 0 }, /\[sanity\] expected promptsPerStep .* at least 1/],
    [{ groupSize: 1 }, /\[sanity\] expected groupSize to be an integer of at least 2/],
    [
      { promptsPerStep: 3, groupSize: 2, updatesPerStep: 7 },
      /\[sanity\] expected updatesPerStep .* at most 6, got 7/,
    ],
    [{ updatesPerStep: 0 }, /\[sanity\] expected updatesPerStep/],
    [{ learningRate: -1e-9 }, /\[sanity\] expected learningRate to be a finite number of at least 0/],
    [{ learningRate: Number.NaN }, /\[sanity\] expected learningRate/],
    [{ warmupSteps: 0.5 }, /\[sanity\] expected warmupSteps/],
    [{ lossScaler: 'tourch' }, /did you mean torch/],
    [{ lossScaler: 'static:0' }, /N of static:N to be a finite fp32 number above 0/],
    [{ hiddenSize: 48 }, /\[sanity\] expected hiddenSize to be a multiple of 32, the size of a head, got 48/],
    [{ hiddenSize: 0 }, /\[sanity\] expected hiddenSize to be an integer of at least 32/],
    [{ numLayers: 0 }, /\[sanity\] expected numLayers/],
    [{ candidates: 0 }, /\[sanity\] expected candidates/],
    [{ samplesPerProblem: 0 }, /\[sanity\] expected samplesPerProblem/],
    [
      { baseAccuracy: 1.01 },
      /\[sanity\] expected baseAccuracy to be a finite number between 0 and 1, got 1\.01/,
    ],
    [{ baseAccuracy: '0.5' }, /\[sanity\] expected baseAccuracy .* got "0\.5"/],
    [{ checkpointEvery: 0 }, /\[sanity\] expected checkpointEvery/],
  ];
  for (const [options, message] of bad) {
    it(`refuses ${JSON.stringify(options)}`, () => {
      assert.throws(
        () => resolveSanityOptions(options as SanityOptions),
        (error) => {
          assert.ok(error instanceof InvalidArgumentError);
          assert.equal(error.code, 'ERR_INVALID_ARGUMENT');
          assert.match(error.message, message);
          return true;
        },
      );
    });
  }

  it('refuses one sample a problem, of which no share lies between 20 % and 80 %', () => {
    assert.throws(
      () => resolveSanityOptions({ samplesPerProblem: 1 }),
      /\[sanity\] expected samplesPerProblem to be an integer of at least 2/,
    );
  });
});

describe('the setup of a run', () => {
  it('has a decoder that every task fits in to the token', () => {
    for (const task of ['sort:16:10', 'interleave:8:5', 'add:2:3']) {
      const config = decoderConfig(resolveSanityOptions({ task, hiddenSize: 96, numLayers: 2 }));
      const { vocabSize, promptLength, responseLength } = createTask(task);
      const resolved = resolveDecoderConfig(config);
      assert.equal(resolved.vocabSize, vocabSize);
      assert.equal(resolved.maxPositionEmbeddings, promptLength + responseLength);
      assert.equal(resolved.headDim, 32);
      assert.equal(resolved.numHeads, 3);
      assert.equal(resolved.intermediateSize, 288);
    }
  });

  it('has presets of their own for the engines, or one for both', () => {
    assert.deepEqual(engineNumerics('default'), {
      rollout: numerics('rollout'),
      training: numerics('training'),
    });
    assert.deepEqual(engineNumerics('matched'), {
      rollout: numerics('matched'),
      training: numerics('matched'),
    });
  });
});
