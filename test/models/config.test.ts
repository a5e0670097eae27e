import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { InvalidArgumentError } from '../../lib/errors.js';
import { type DecoderConfig, resolveDecoderConfig } from '../../lib/models/config.js';

const least: DecoderConfig = {
  vocabSize: 10,
  hiddenSize: 24,
  intermediateSize: 5,
  numLayers: 2,
  numHeads: 6,
  maxPositionEmbeddings: 7,
};

/** What a dense model has in the fields of a mixture. */
const dense = {
  numExperts: 0,
  numExpertsPerToken: 0,
  moeIntermediateSize: 0,
  normalizeRouterWeights: false,
  denseLayers: [],
};

describe('resolveDecoderConfig', () => {
  it('fills in the defaults', () => {
    assert.deepEqual(resolveDecoderConfig(least), {
      ...least,
      numKvHeads: 6,
      headDim: 4,
      ropeTheta: 10000,
      ropeScaling: null,
      rmsNormEps: 1e-6,
      tieWordEmbeddings: false,
      attentionBias: false,
      attentionOutBias: false,
      mlpBias: false,
      qkNorm: false,
      numExperts: 0,
      numExpertsPerToken: 0,
      moeIntermediateSize: 0,
      normalizeRouterWeights: false,
      denseLayers: [],
    });
    const mixture = { ...least, numExperts: 4, numExpertsPerToken: 2 };
    const { moeIntermediateSize, normalizeRouterWeights, denseLayers } = resolveDecoderConfig(mixture);
    assert.deepEqual([moeIntermediateSize, normalizeRouterWeights, denseLayers], [5, true, []]);
  });

  it('keeps what is given, and resolves to itself', () => {
    const given: DecoderConfig = {
      ...least,
      numKvHeads: 2,
      headDim: 256,
      ropeTheta: 1,
      ropeScaling: { type: 'linear', factor: 1 },
      rmsNormEps: 0,
      tieWordEmbeddings: true,
      attentionBias: true,
      attentionOutBias: true,
      mlpBias: true,
      qkNorm: true,
      ...dense,
    };
    assert.deepEqual(resolveDecoderConfig(given), given);
    const mixture: DecoderConfig = {
      ...given,
      mlpBias: false,
      numExperts: 65536,
      numExpertsPerToken: 65536,
      moeIntermediateSize: 1,
      normalizeRouterWeights: false,
      denseLayers: [1],
    };
    assert.deepEqual(resolveDecoderConfig(mixture), mixture);
    assert.deepEqual(resolveDecoderConfig({ ...mixture, ...dense, mlpBias: true }), given);
    assert.deepEqual(resolveDecoderConfig(resolveDecoderConfig(least)), resolveDecoderConfig(least));
  });

  const bad: readonly (readonly [object, RegExp])[] = [
    ...(
      [
        'vocabSize',
        'hiddenSize',
        'intermediateSize',
        'numLayers',
        'numHeads',
        'maxPositionEmbeddings',
      ] as const
    ).flatMap((field) =>
      [0, -1, 1.5, '8', undefined, Number.NaN, 2 ** 31].map(
        (value) =>
          [
            { [field]: value },
            new RegExp(`^\\[DecoderConfig\\] expected ${field} to be an integer of at least 1`),
          ] as const,
      ),
    ),
    [{ numKvHeads: 0 }, /expected numKvHeads to be an integer of at least 1 and at most 6, got 0/],
    [{ numKvHeads: 7 }, /expected numKvHeads .* at most 6, got 7/],
    [{ numKvHeads: 4 }, /expected numKvHeads to divide numHeads = 6, got 4/],
    [{ headDim: 5 }, /expected headDim to be even \(rotary positions turn pairs\), got 5/],
    [{ headDim: 258 }, /expected headDim to be an integer of at least 2 and at most 256, got 258/],
    [{ headDim: 0 }, /expected headDim .* got 0/],
    [{ hiddenSize: 25 }, /expected headDim to be an integer .* got 4\.1666/],
    [{ hiddenSize: 18 }, /expected headDim to be even .* got 3/],
    [{ ropeTheta: 0.5 }, /expected ropeTheta to be a finite number of at least 1, got 0\.5/],
    [{ ropeTheta: Infinity }, /expected ropeTheta to be a finite number/],
    [{ rmsNormEps: -1e-9 }, /expected rmsNormEps to be a finite number of at least 0/],
    [{ rmsNormEps: Number.NaN }, /expected rmsNormEps .* got NaN/],
    [{ numExperts: -1 }, /expected numExperts to be an integer of at least 0 and at most 65536, got -1/],
    [{ numExperts: 65537 }, /expected numExperts .* at most 65536, got 65537/],
    [{ numExpertsPerToken: 2 }, /expected numExpertsPerToken only beside numExperts above 0, got 2/],
    [{ moeIntermediateSize: 8, numExperts: 0 }, /expected moeIntermediateSize only beside numExperts/],
    [{ denseLayers: [0] }, /expected denseLayers only beside numExperts above 0, got \[0\]/],
    [{ normalizeRouterWeights: true }, /expected normalizeRouterWeights only beside numExperts above 0/],
    ...(
      [
        [{ numExpertsPerToken: undefined }, /numExpertsPerToken to be an integer .*at most 4, got undefined/],
        [{ numExpertsPerToken: 5 }, /numExpertsPerToken .* at most 4, got 5/],
        [{ moeIntermediateSize: 0 }, /moeIntermediateSize to be an integer of at least 1, got 0/],
        [{ normalizeRouterWeights: 1 }, /normalizeRouterWeights to be true or false, got 1/],
        [{ denseLayers: 1 }, /denseLayers to be an array, got 1/],
        [{ denseLayers: [2] }, /denseLayers\[0\] to be an integer of at least 0 and at most 1, got 2/],
        [{ denseLayers: [1, 0] }, /denseLayers\[1\] to be an integer of at least 2 .*, got 0/],
        [{ denseLayers: [0, 1] }, /a layer that is not among denseLayers, got \[0, 1\]/],
        [{ mlpBias: true }, /mlpBias to be false in a mixture of experts, got true/],
      ] as const
    ).map(
      ([change, message]) =>
        [{ ...change, numExperts: 4, numExpertsPerToken: 2, ...change }, message] as const,
    ),
  ];
  const llama3 = {
    type: 'llama3',
    factor: 8,
    lowFreqFactor: 1,
    highFreqFactor: 4,
    originalMaxPositionEmbeddings: 8192,
  };
  for (const [scaling, message] of [
    [{ type: 'yarn', factor: 2 }, /ropeScaling\.type to be one of linear, llama3, got "yarn"/],
    [{ type: 'linear' }, /ropeScaling\.factor to be a finite number of at least 1, got undefined/],
    [{ type: 'linear', factor: 0.5 }, /ropeScaling\.factor .*got 0\.5/],
    [{ ...llama3, lowFreqFactor: 0 }, /ropeScaling\.lowFreqFactor above 0, got 0/],
    [{ ...llama3, highFreqFactor: 1 }, /ropeScaling\.highFreqFactor above lowFreqFactor = 1, got 1/],
    [{ ...llama3, originalMaxPositionEmbeddings: 0.5 }, /ropeScaling\.originalMaxPositionEmbeddings .*0\.5/],
  ] as const) {
    it(`refuses ropeScaling ${JSON.stringify(scaling)}`, () => {
      const config = { ...least, ropeScaling: scaling } as unknown as DecoderConfig;
      assert.throws(() => resolveDecoderConfig(config), message);
    });
  }

  for (const [change, message] of bad) {
    const [[field, value]] = Object.entries(change) as [[string, unknown]];
    it(`refuses ${field} ${typeof value === 'string' ? `'${value}'` : value}`, () => {
      assert.throws(
        () => resolveDecoderConfig({ ...least, ...change } as DecoderConfig),
        (error) => {
          assert.ok(error instanceof InvalidArgumentError);
          assert.match(error.message, message);
          return true;
        },
      );
    });
  }

  for (const field of ['tieWordEmbeddings', 'attentionBias', 'attentionOutBias', 'mlpBias', 'qkNorm']) {
    it(`refuses a ${field} that is not a boolean`, () => {
      assert.throws(
        () => resolveDecoderConfig({ ...least, [field]: 'no' } as unknown as DecoderConfig),
        new RegExp(`\\[DecoderConfig\\] expected ${field} to be true or false, got "no"`),
      );
    });
  }
});
