/** The knobs: their presets, their checks, and what each alone does to the log-probs of either engine. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { Parameter } from '../lib/autograd/parameter.js';
import { Weights } from '../lib/autograd/weights.js';
import { InvalidArgumentError } from '../lib/errors.js';
import type { Decoder } from '../lib/models/decoder.js';
import type { TokenSequence } from '../lib/models/sequences.js';
import { addon } from '../lib/native.js';
import type { Forward } from '../lib/nn/forward.js';
import { MoeMlp } from '../lib/nn/moeMlp.js';
import { RmsNorm } from '../lib/nn/rmsNorm.js';
import { SelfAttention } from '../lib/nn/selfAttention.js';
import { SwigluMlp } from '../lib/nn/swigluMlp.js';
import {
  familyNumber,
  gemmFamilyOf,
  type KnobName,
  knobs,
  type Numerics,
  numerics,
  numericsPresets,
} from '../lib/numerics.js';
import { combineExperts } from '../lib/ops/combineExperts.js';
import { add } from '../lib/ops/elementwise.js';
import { gatherRows } from '../lib/ops/embedding.js';
import { groupByExpert } from '../lib/ops/groupByExpert.js';
import { groupedLinear } from '../lib/ops/groupedLinear.js';
import { linear } from '../lib/ops/linear.js';
import { addRmsNorm, rmsNorm } from '../lib/ops/rmsNorm.js';
import { type RopeOptions, rope, ropeTable } from '../lib/ops/rope.js';
import { route } from '../lib/ops/route.js';
import { swiglu } from '../lib/ops/swiglu.js';
import { RolloutEngine } from '../lib/rollout/engine.js';
import { floatDtypes, type NativeFloatDType } from '../lib/tensor/dtype.js';
import { tidy } from '../lib/tensor/scope.js';
import { copy, type Tensor, tensor } from '../lib/tensor/tensor.js';
import { TrainingEngine } from '../lib/training/engine.js';
import { assertSameBits, normals } from './support/compare.js';
import { randomizeConstants } from './support/decoderReference.js';
import { adaptedModel } from './support/lora.js';
import { oddModel, randomTokens } from './support/models.js';

describe('numerics', () => {
  it('presets are the columns of the addon’s table', () => {
    assert.equal(knobs, addon.knobs);
    for (const preset of numericsPresets) {
      const values = numerics(preset);
      assert.deepEqual(
        Object.keys(values),
        addon.knobs.map(({ name }) => name),
      );
      for (const knob of addon.knobs) assert.equal(values[knob.name as KnobName], knob[preset], knob.name);
    }
    for (const { name, meaning } of knobs) assert.ok(meaning.length > 10, name);
  });

  it('rollout and training have the habits of the two kinds of framework', () => {
    assert.deepEqual(numerics('rollout'), {
      gemmFamily: 1,
      gemmSplitK: 512,
      mergedProjections: 1,
      residualFused: 1,
      rmsNormRoundings: 1,
      ropeTable16: 0,
      ropeRoundings: 1,
      swigluRoundings: 1,
      combineRoundings: 1,
      loraScaleFirst: 1,
      attentionChunk: 256,
      attentionTile: 32,
      logits16: 1,
      logSoftmaxChunk: 0,
      weightsSnapshot: 1,
    });
    assert.deepEqual(numerics('training'), {
      gemmFamily: 2,
      gemmSplitK: 0,
      mergedProjections: 0,
      residualFused: 0,
      rmsNormRoundings: 2,
      ropeTable16: 1,
      ropeRoundings: 3,
      swigluRoundings: 2,
      combineRoundings: 3,
      loraScaleFirst: 0,
      attentionChunk: 0,
      attentionTile: 128,
      logits16: 0,
      logSoftmaxChunk: 4096,
      weightsSnapshot: 0,
    });
  });

  it('overrides change their knobs and no others, and no preset', () => {
    const before = numerics('training');
    const changed = numerics('training', { attentionTile: 48, residualFused: 1 });
    assert.deepEqual(changed, { ...before, attentionTile: 48, residualFused: 1 });
    assert.deepEqual(numerics('training'), before);
    assert.deepEqual(numerics('matched', {}), numerics('matched'));
  });

  it('names the nearest preset or knob', () => {
    const throws = (body: () => unknown, message: RegExp) =>
      assert.throws(body, (error) => {
        assert.ok(error instanceof InvalidArgumentError);
        assert.match(error.message, message);
        return true;
      });
    throws(() => numerics('rolout' as never), /\[numerics\] expected preset .* \(did you mean rollout\?\)/);
    throws(() => numerics('other' as never), /one of rollout, training, matched, got "other"$/);
    const override = (values: object) => () => numerics('matched', values as Partial<Numerics>);
    throws(override({ gemFamily: 1 }), /each knob .*got "gemFamily" \(did you mean gemmFamily\?\)/);
    throws(override({ logits: 1 }), /did you mean logits16\?/);
    throws(override({ ropeRounding: 1 }), /did you mean ropeRoundings\?/);
    throws(override({ zzz: 1 }), /expected each knob to be one of gemmFamily, .*got "zzz"$/);
  });

  it('a knob has one of its values, a count is a whole number', () => {
    const allowed: Partial<Record<KnobName, readonly number[]>> = {
      gemmFamily: [1, 2],
      mergedProjections: [0, 1],
      residualFused: [0, 1],
      rmsNormRoundings: [1, 2],
      ropeTable16: [0, 1],
      ropeRoundings: [1, 3],
      swigluRoundings: [1, 2],
      combineRoundings: [1, 3],
      loraScaleFirst: [0, 1],
      logits16: [0, 1],
      weightsSnapshot: [0, 1],
    };
    for (const { name } of knobs) {
      for (let value = 0; value <= 4; value++) {
        const make = () => numerics('matched', { [name]: value });
        if (allowed[name as KnobName]?.includes(value) ?? true) {
          assert.equal(make()[name as KnobName], value);
        } else {
          const values = allowed[name as KnobName]!.join(' or ');
          assert.throws(make, new RegExp(`\\[numerics\\] expected ${name} to be ${values}, got ${value}$`));
        }
      }
      for (const value of [-1, 0.5, Number.NaN, '1', undefined, true]) {
        assert.throws(
          () => numerics('matched', { [name]: value } as never),
          new RegExp(`\\[numerics\\] expected ${name} to be an integer of at least 0`),
        );
      }
    }
  });

  it('families by number and name', () => {
    assert.equal(familyNumber('here', 'family', 'rollout'), 1);
    assert.equal(familyNumber('here', 'family', 'training'), 2);
    assert.throws(
      () => familyNumber('here', 'family', 'trainig' as never),
      /\[here\] expected family .*did you mean/,
    );
    assert.equal(gemmFamilyOf(numerics('rollout')), 'rollout');
    assert.equal(gemmFamilyOf(numerics('training')), 'training');
  });

  it('counts that no kernel can honour are refused by the pass, with the knob’s op named', async () => {
    using model = oddModel();
    const batch = [{ prompt: [1, 2], response: [3] }];
    for (const change of [{ attentionTile: 24 }, { attentionTile: 0 }, { attentionChunk: 100 }]) {
      const choices = numerics('matched', change);
      using rollout = new RolloutEngine(model, { precision: 'bf16', numerics: choices, maxBatch: 2 });
      using training = new TrainingEngine(model, { precision: 'bf16', numerics: choices, schedule });
      await assert.rejects(rollout.score(batch), /\[pagedAttention\] expected (tile|chunk)/);
      await assert.rejects(training.score(batch), /\[attention\] expected (tile|chunk)/);
    }
  });
});

const schedule = { kind: 'constant', learningRate: 0 } as const;

/** The modules in bf16 against the ops that each value of a knob stands for: the same bits, and other bits else. */
describe('a knob of a module', () => {
  const parameter = (shape: readonly number[], stream: number) =>
    new Parameter(`p${stream}`, shape, { kind: 'normal', std: 0.5 }, 3, stream);

  /** What `module` gives for each value of `knob`, and what `expected` does. */
  async function compare(
    knob: KnobName,
    values: readonly number[],
    module: (pass: Forward) => Tensor,
    expected: (value: number, weights: Weights) => Tensor,
    parameters: readonly Parameter[],
    positions: Tensor,
    table: Tensor,
  ) {
    using weights = new Weights(parameters, 'bf16');
    const results: string[] = [];
    for (const value of values) {
      const pass: Forward = {
        tape: null,
        numerics: numerics('matched', { [knob]: value }),
        positions,
        ropeTable: table,
        weight: (p) => weights.of(p),
        attend: (_layer, qkv) => copy(qkv),
      };
      const [found, reference] = tidy(() => [module(pass), expected(value, weights)]) as [Tensor, Tensor];
      const bits = await found.bits();
      assert.deepEqual(bits, await reference.bits(), `${knob} ${value}`);
      results.push(String(bits));
      found.dispose();
      reference.dispose();
    }
    assert.equal(new Set(results).size, values.length, `${knob}: each value has bits of its own`);
  }

  it('decides which op the norm is, and how often it rounds', async () => {
    const weight = parameter([48], 0);
    using x = tensor(normals(960, 1), [20, 48], 'bf16');
    using delta = tensor(normals(960, 2), [20, 48], 'bf16');
    using none = tensor([0], [1], 'int32');
    const norm = new RmsNorm(weight, 1e-6);
    const module = (pass: Forward) => norm.forward(pass, { x, delta }).out;
    await compare(
      'residualFused',
      [0, 1],
      module,
      (fused, weights) =>
        fused
          ? addRmsNorm(x, delta, weights.of(weight).value, 1e-6, 1).y
          : rmsNorm(add(x, delta), weights.of(weight).value, 1e-6, 1),
      [weight],
      none,
      none,
    );
    await compare(
      'rmsNormRoundings',
      [1, 2],
      module,
      (count, weights) => rmsNorm(add(x, delta), weights.of(weight).value, 1e-6, count as 1 | 2),
      [weight],
      none,
      none,
    );
    weight.dispose();
  });

  it('decides how heads are turned', async () => {
    const weights = [parameter([64, 32], 0), parameter([32, 64], 1)] as const;
    using x = tensor(normals(640, 3), [20, 32], 'bf16');
    using positions = tensor(
      Array.from({ length: 20 }, (_, i) => 3 * i),
      [20],
      'int32',
    );
    using table = ropeTable(60, 16, 100);
    const attention = new SelfAttention(
      { numHeads: 2, numKvHeads: 1, headDim: 16 },
      weights[0],
      null,
      weights[1],
      0,
    );
    const captured = (pass: Forward) => {
      let seen: Tensor | undefined;
      const zero = (qkv: Tensor) => {
        seen = qkv;
        return qkv.reshape(20, 64);
      };
      attention.forward({ ...pass, attend: (_layer, qkv) => zero(qkv) }, x);
      return seen!;
    };
    const turned = (choices: RopeOptions, own: Weights) =>
      rope(linear(x, [own.of(weights[0]).value]).reshape(20, 4, 16), table, positions, {
        rotatedHeads: 3,
        ...choices,
      });
    await compare(
      'ropeTable16',
      [0, 1],
      captured,
      (table16, own) => turned({ table16: table16 === 1 }, own),
      weights,
      positions,
      table,
    );
    await compare(
      'ropeRoundings',
      [1, 3],
      captured,
      (roundings, own) => turned({ roundings: roundings as 1 | 3 }, own),
      weights,
      positions,
      table,
    );
    for (const weight of weights) weight.dispose();
  });

  it('decides how often the gate rounds', async () => {
    const weights = [parameter([64, 32], 0), parameter([32, 32], 1)] as const;
    using x = tensor(normals(640, 3), [20, 32], 'bf16');
    using none = tensor([0], [1], 'int32');
    const mlp = new SwigluMlp(weights[0], weights[1], 0);
    await compare(
      'swigluRoundings',
      [1, 2],
      (pass) => mlp.forward(pass, x),
      (count, own) =>
        linear(swiglu(linear(x, [own.of(weights[0]).value]), count as 1 | 2), [own.of(weights[1]).value]),
      weights,
      none,
      none,
    );
    for (const weight of weights) weight.dispose();
  });

  it('decides how often the sum of a token’s experts rounds', async () => {
    const weights = [parameter([5, 32], 0), parameter([5, 64, 32], 1), parameter([5, 32, 32], 2)] as const;
    using x = tensor(normals(640, 3), [20, 32], 'bf16');
    using none = tensor([0], [1], 'int32');
    const mlp = new MoeMlp({ expertsPerToken: 3, normalize: true }, ...weights, 0);
    const expected = (count: number, own: Weights) => {
      const [router, gateUp, down] = weights.map((weight) => own.of(weight).value);
      const { ids, weights: shares } = route(linear(x, [router!]), 3, true);
      const { rows, tokens, offsets } = groupByExpert(ids, 5);
      const gated = swiglu(groupedLinear(gatherRows(x, tokens), gateUp!, offsets), 1);
      return combineExperts(groupedLinear(gated, down!, offsets), shares, rows, count as 1 | 3);
    };
    await compare('combineRoundings', [1, 3], (pass) => mlp.forward(pass, x), expected, weights, none, none);
    for (const weight of weights) weight.dispose();
  });
});

/** How far one knob moves a log-prob, in nats: nothing, the order of fp32 sums, or 16-bit rounding. */
type Effect = 'none' | 'order' | 'rounding';

/** One knob off the matched preset: its effect in 16 bits and in fp32. */
const changes: readonly (readonly [Partial<Numerics>, Effect, Effect])[] = [
  // Another order of fp32 sums; in 16 bits it shows where a sum is rounded the other way.
  [{ gemmFamily: 1 }, 'rounding', 'order'],
  [{ gemmSplitK: 16 }, 'rounding', 'order'],
  [{ attentionTile: 32 }, 'rounding', 'order'],
  [{ attentionTile: 128 }, 'rounding', 'order'],
  [{ attentionChunk: 0 }, 'rounding', 'order'],
  [{ attentionChunk: 128 }, 'rounding', 'order'],
  // Other roundings to 16 bits, of which fp32 knows nothing.
  [{ residualFused: 1 }, 'rounding', 'none'],
  [{ rmsNormRoundings: 2 }, 'rounding', 'none'],
  [{ ropeTable16: 1 }, 'rounding', 'none'],
  [{ ropeRoundings: 3 }, 'rounding', 'none'],
  [{ swigluRoundings: 2 }, 'rounding', 'none'],
  [{ combineRoundings: 3 }, 'rounding', 'none'],
  [{ loraScaleFirst: 1 }, 'rounding', 'order'],
  [{ logits16: 1 }, 'rounding', 'none'],
  // fp32 in every precision: the log-sum-exp alone.
  [{ logSoftmaxChunk: 16 }, 'order', 'order'],
  // No bit: an element's sum does not know what is computed beside it, no sum here is longer than 512, no
  // vocabulary than 4096, and weights that do not change are cast to the same bits whenever they are.
  [{ mergedProjections: 1 }, 'none', 'none'],
  [{ gemmSplitK: 512 }, 'none', 'none'],
  [{ logSoftmaxChunk: 0 }, 'none', 'none'],
  [{ weightsSnapshot: 0 }, 'none', 'none'],
];

describe('each knob alone', () => {
  let model: Decoder;
  let batch: TokenSequence[];
  before(() => {
    // Sums of several steps of 32 k, so that their order has an effect on tiles, too.
    // A mixture whose tokens go to every expert, since with a choice among them a rounding could change the choice.
    const mixture = { numExperts: 3, numExpertsPerToken: 3, denseLayers: [0] };
    model = adaptedModel({ hiddenSize: 140, intermediateSize: 300, ...mixture });
    randomizeConstants(model, 1000);
    // 256 keys and more, which attentionChunk needs to have an effect.
    batch = [
      [3, 60],
      [300, 120],
    ].map(([prompt, response], i) => ({
      prompt: randomTokens(prompt!, model.config.vocabSize, 1 + i),
      response: randomTokens(response!, model.config.vocabSize, 50 + i),
    }));
  });
  after(() => model[Symbol.dispose]());

  async function score(precision: NativeFloatDType, choices: Numerics, sequences = batch) {
    using rollout = new RolloutEngine(model, {
      precision,
      numerics: choices,
      maxBatch: 2,
      lora: 'factored',
    });
    using training = new TrainingEngine(model, { precision, numerics: choices, schedule });
    const [mu, pi] = [await rollout.score(sequences), await training.score(sequences)];
    return { mu: mu.logprobs, pi: pi.logprobs };
  }

  const meanAbs = (a: Float64Array, b: Float64Array) =>
    a.reduce((sum, x, i) => sum + Math.abs(x - b[i]!), 0) / a.length;

  it('is in the list below', () => {
    const listed = new Set(changes.flatMap(([change]) => Object.keys(change)));
    assert.deepEqual([...listed].sort(), knobs.map(({ name }) => name).sort());
  });

  for (const precision of floatDtypes) {
    it(`has its effect in ${precision} on the engine that it is switched on, and none on both`, async () => {
      const matched = await score(precision, numerics('matched'));
      assertSameBits(matched.mu, matched.pi, 'matched');
      for (const [change, in16Bits, inFp32] of changes) {
        const label = JSON.stringify(change);
        const { mu, pi } = await score(precision, numerics('matched', change));
        assertSameBits(mu, pi, `${label} on both engines`);
        // Both engines make the same choices and so move by the same: one side against the other as it was.
        const moved = meanAbs(mu, matched.pi);
        const effect = precision === 'fp32' ? inFp32 : in16Bits;
        if (effect === 'none') assert.equal(moved, 0, label);
        if (effect === 'order') assert.ok(moved > 0 && moved < 1e-6, `${label}: ${moved}`);
        if (effect === 'rounding') assert.ok(moved > 2e-6 && moved < 0.01, `${label}: ${moved}`);
      }
    });
  }

  it('of roundings, has eight times the effect in bf16 that it has in fp16', async () => {
    const matched = {
      fp16: await score('fp16', numerics('matched')),
      bf16: await score('bf16', numerics('matched')),
    };
    for (const name of [
      'residualFused',
      'rmsNormRoundings',
      'ropeTable16',
      'ropeRoundings',
      'swigluRoundings',
      'combineRoundings',
    ] as const) {
      const change = changes.find(([knob]) => name in knob)![0];
      const moved = async (precision: 'fp16' | 'bf16') =>
        meanAbs((await score(precision, numerics('matched', change))).mu, matched[precision].mu);
      const ratio = (await moved('bf16')) / (await moved('fp16'));
      assert.ok(ratio > 5 && ratio < 13, `${name}: ${ratio}`);
    }
  });

  it('attentionChunk has none as long as all keys are in one chunk', async () => {
    const { prompt, response } = batch[1]!;
    const moved = async (tokens: number) => {
      const sequences = [
        {
          prompt: Array.from(prompt).slice(0, 200),
          response: Array.from(response).slice(0, tokens - 199),
        },
      ];
      const chunked = await score('bf16', numerics('matched'), sequences);
      const whole = await score('bf16', numerics('matched', { attentionChunk: 0 }), sequences);
      return meanAbs(chunked.mu, whole.mu);
    };
    assert.equal(await moved(256), 0);
    assert.ok((await moved(300)) > 0);
  });

  it('weightsSnapshot decides whether a pass sees masters that changed', async () => {
    using own = oddModel();
    using frozen = new TrainingEngine(own, { precision: 'bf16', numerics: numerics('matched'), schedule });
    using live = new TrainingEngine(own, {
      precision: 'bf16',
      numerics: numerics('matched', { weightsSnapshot: 0 }),
      schedule,
    });
    using rollout = new RolloutEngine(own, { precision: 'bf16', numerics: numerics('matched'), maxBatch: 2 });
    const first = (await frozen.score(batch)).logprobs;
    const { master } = own.head;
    master.upload((await master.floats()).map((x) => 1.25 * x));
    assertSameBits((await frozen.score(batch)).logprobs, first, 'the snapshot');
    assertSameBits((await rollout.score(batch)).logprobs, first, 'the rollout snapshot');
    const second = (await live.score(batch)).logprobs;
    assert.ok(meanAbs(first, second) > 1e-3);
    frozen.syncWeights();
    rollout.syncWeights();
    assertSameBits((await frozen.score(batch)).logprobs, second, 'a new snapshot');
    assertSameBits((await rollout.score(batch)).logprobs, second, 'a new rollout snapshot');
  });

  it('weightsSnapshot 0 is honoured by a rollout engine’s score too', async () => {
    using own = oddModel();
    const choices = numerics('matched', { weightsSnapshot: 0 });
    using rollout = new RolloutEngine(own, { precision: 'bf16', numerics: choices, maxBatch: 2 });
    using training = new TrainingEngine(own, { precision: 'bf16', numerics: choices, schedule });
    const first = (await rollout.score(batch)).logprobs;
    const { master } = own.head;
    master.upload((await master.floats()).map((x) => 1.25 * x));
    const second = (await rollout.score(batch)).logprobs;
    assert.ok(meanAbs(first, second) > 1e-3, 'the masters are cast before each pass');
    assertSameBits(second, (await training.score(batch)).logprobs, 'both engines');
  });
});
