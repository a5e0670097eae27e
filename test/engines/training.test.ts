import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, it } from 'node:test';
import type { Decoder } from '../../lib/models/decoder.js';
import { loadModel } from '../../lib/models/loadModel.js';
import type { TokenSequence } from '../../lib/models/sequences.js';
import { numerics } from '../../lib/numerics.js';
import type { PolicyLoss } from '../../lib/rl/batch.js';
import { memory, setThreads } from '../../lib/runtime.js';
import { fill } from '../../lib/tensor/tensor.js';
import { loadCheckpoint, saveCheckpoint } from '../../lib/training/checkpoint.js';
import { TrainingEngine, type TrainingOptions } from '../../lib/training/engine.js';
import { assertSameBits, relativeError } from '../support/compare.js';
import { mixtureFields, oddModel, randomTokens } from '../support/models.js';

const schedule = { kind: 'constant', learningRate: 1e-2 } as const;

function batchOf(model: Decoder, lengths: readonly (readonly [number, number])[]): TokenSequence[] {
  return lengths.map(([prompt, response], i) => ({
    prompt: randomTokens(prompt, model.config.vocabSize, i),
    response: randomTokens(response, model.config.vocabSize, 50 + i),
  }));
}

const lengths = [
  [3, 9],
  [1, 17],
  [12, 1],
  [7, 21],
] as const;

/** A loss with a different coefficient for each token, linear in the log-probs. */
function weightedLoss(total: number): (scores: { logprobs: Float64Array }, begin: number) => PolicyLoss {
  return ({ logprobs }, begin) => {
    const gradient = logprobs.map((_, t) => Math.sin(1 + 7 * begin + t) / total);
    return {
      loss: logprobs.reduce((sum, lp, t) => sum + gradient[t]! * lp, 0),
      gradient,
      metrics: { tokens: logprobs.length },
    };
  };
}

async function gradientsOf(model: Decoder): Promise<Map<string, Float32Array>> {
  const all = new Map<string, Float32Array>();
  for (const parameter of model.parameters) all.set(parameter.name, await parameter.gradient.floats());
  return all;
}

const still: Partial<TrainingOptions> = { schedule: { kind: 'constant', learningRate: 0 } };

describe('TrainingEngine', () => {
  for (const tied of [false, true]) {
    for (const fused of [0, 1]) {
      it(`gradients agree with finite differences (head ${tied ? 'tied' : 'separate'}, residual ${fused ? 'fused' : 'separate'})`, async () => {
        using model = oddModel({
          tieWordEmbeddings: tied,
          numLayers: 1,
          hiddenSize: 20,
          intermediateSize: 24,
          numHeads: 2,
          numKvHeads: 1,
          headDim: 10,
        });
        const batch = batchOf(model, lengths);
        const choices = numerics('training', { residualFused: fused });
        using engine = new TrainingEngine(model, {
          precision: 'fp32',
          numerics: choices,
          ...still,
          schedule: still.schedule!,
        });
        const loss = weightedLoss(4);
        await engine.step(batch, loss);
        const gradients = await gradientsOf(model);
        for (const parameter of model.parameters) {
          // Along one random direction a parameter: central difference of the loss, fp64 sums of fp32 log-probs.
          const master = await parameter.master.floats();
          const direction = randomTokens(master.length, 2001, 3).map((x) => x - 1000);
          const norm = Math.sqrt(direction.reduce((sum, d) => sum + d * d, 0));
          const step = 0.02;
          const lossAt = async (sign: number) => {
            parameter.master.upload(master.map((x, i) => x + (sign * step * direction[i]!) / norm));
            engine.syncWeights();
            return loss(await engine.score(batch), 0).loss;
          };
          const difference = ((await lossAt(1)) - (await lossAt(-1))) / (2 * step);
          parameter.master.upload(master);
          const gradient = gradients.get(parameter.name)!;
          const expected = gradient.reduce((sum, g, i) => sum + (g * direction[i]!) / norm, 0);
          const size = Math.sqrt(gradient.reduce((sum, g) => sum + g * g, 0));
          assert.ok(size > 0, `${parameter.name} has a gradient`);
          assert.ok(
            Math.abs(difference - expected) < 3e-3 * size + 2e-5,
            `${parameter.name}: ${difference} and ${expected} (norm ${size})`,
          );
        }
        engine.syncWeights();
      });
    }
  }

  it('16-bit gradients are near the fp32 ones, with and without loss scaling', async () => {
    using model = oddModel();
    const batch = batchOf(model, lengths);
    const run = async (precision: 'fp32' | 'fp16' | 'bf16', lossScaler: string) => {
      using engine = new TrainingEngine(model, {
        precision,
        lossScaler,
        ...still,
        schedule: still.schedule!,
      });
      const result = await engine.step(batch, weightedLoss(4));
      assert.equal(result.skipped, false);
      const scale = result.lossScale;
      return {
        norm: result.gradNorm,
        gradients: [...(await gradientsOf(model)).values()].map((g) => g.map((x) => x / scale)),
      };
    };
    const reference = await run('fp32', 'none');
    for (const [precision, scaler, limit] of [
      ['fp16', 'none', 0.02],
      ['fp16', 'static:1024', 0.01],
      ['bf16', 'none', 0.05],
      ['fp32', 'static:4096', 1e-5],
    ] as const) {
      const { gradients, norm } = await run(precision, scaler);
      gradients.forEach((g, i) => {
        const error = relativeError(g, reference.gradients[i]!);
        assert.ok(error < limit, `${precision} ${scaler} ${model.parameters[i]!.name}: ${error}`);
      });
      assert.ok(Math.abs(norm / reference.norm - 1) < limit);
    }
  });

  it('micro-batches add up to the whole batch', async () => {
    using model = oddModel();
    const batch = batchOf(model, lengths);
    // Coefficients by token position only, so that they do not depend on how the batch is cut.
    const loss = ({ logprobs, offsets }: { logprobs: Float64Array; offsets: Int32Array }): PolicyLoss => {
      const gradient = new Float64Array(logprobs.length);
      for (let s = 1; s < offsets.length; s++) {
        for (let t = offsets[s - 1]!; t < offsets[s]!; t++) gradient[t] = Math.cos(t - offsets[s - 1]!);
      }
      return { loss: logprobs.reduce((sum, lp, t) => sum + gradient[t]! * lp, 0), gradient, metrics: {} };
    };
    const results = [];
    for (const microBatchTokens of [1, 30, 4096]) {
      using engine = new TrainingEngine(model, {
        precision: 'fp32',
        microBatchTokens,
        ...still,
        schedule: still.schedule!,
      });
      const { loss: value } = await engine.step(batch, loss);
      results.push({ value, gradients: await gradientsOf(model) });
    }
    for (const { value, gradients } of results.slice(1)) {
      assert.ok(Math.abs(value - results[0]!.value) < 1e-12 * Math.abs(value) + 1e-12);
      for (const [name, g] of gradients) {
        assert.ok(relativeError(g, results[0]!.gradients.get(name)!) < 1e-5, name);
      }
    }
  });

  it('an overflow skips the step, lowers the scale, names the tensor, and the batch can be given again', async () => {
    using model = oddModel();
    const batch = batchOf(model, lengths);
    using engine = new TrainingEngine(model, { precision: 'fp16', lossScaler: 'torch', schedule });
    const scaler = engine.scaler;
    scaler.load({ ...scaler.state(), scale: 2 ** 30 });
    const before = await model.head.master.floats();
    const first = await engine.step(batch, weightedLoss(0.01));
    assert.equal(first.skipped, true);
    assert.ok(Number.isNaN(first.gradNorm));
    assert.equal(first.lossScale, 2 ** 30);
    assert.ok(
      model.parameters.some(({ name }) => name === first.overflowed),
      `named ${first.overflowed}`,
    );
    const gradients = await gradientsOf(model);
    const firstBad = model.parameters.find(({ name }) =>
      gradients.get(name)!.some((g) => !Number.isFinite(g)),
    );
    assert.equal(first.overflowed, firstBad!.name);
    assertSameBits(await model.head.master.floats(), before, 'weights');
    assert.equal(engine.optimizer.step, 0);
    let result = first;
    for (let i = 0; i < 30 && result.skipped; i++) result = await engine.step(batch, weightedLoss(0.01));
    assert.equal(result.skipped, false);
    assert.equal(engine.optimizer.step, 1);
    assert.ok(engine.scaler.scale < 2 ** 30);
    assert.notDeepEqual(await model.head.master.floats(), before);
  });

  it('with retry the batch is run again until it is finite, to the bits of a run that began at that scale', async () => {
    for (const lossScaler of ['torch', 'deepspeed']) {
      using model = oddModel();
      const batch = batchOf(model, lengths);
      using engine = new TrainingEngine(model, {
        precision: 'fp16',
        lossScaler,
        schedule,
        overflow: 'retry',
      });
      const { scaler } = engine;
      scaler.load({ ...scaler.state(), scale: 2 ** 30 });
      const result = await engine.step(batch, weightedLoss(0.01));
      assert.equal(result.skipped, false);
      assert.ok(result.retries > 0 && Number.isFinite(result.gradNorm));
      assert.ok(
        model.parameters.some(({ name }) => name === result.overflowed),
        'the first offender is named',
      );
      assert.equal(scaler.state().overflows, result.retries, 'every failed try is told');
      // DeepSpeed's hysteresis spends one try before the scale falls.
      const halvings = result.retries - (lossScaler === 'deepspeed' ? 1 : 0);
      assert.equal(result.lossScale, 2 ** (30 - halvings));
      assert.equal(engine.optimizer.step, 1);

      using twin = oddModel();
      using calm = new TrainingEngine(twin, { precision: 'fp16', lossScaler: 'torch', schedule });
      calm.scaler.load({ ...calm.scaler.state(), scale: result.lossScale });
      const { retries, overflowed, ...one } = await calm.step(batch, weightedLoss(0.01));
      assert.deepEqual([retries, overflowed], [0, undefined]);
      assert.equal(one.gradNorm, result.gradNorm);
      for (const [i, { master }] of model.parameters.entries()) {
        assertSameBits(await twin.parameters[i]!.master.floats(), await master.floats(), lossScaler);
      }
    }
  });

  it('does not retry what no lower scale mends', async () => {
    using model = oddModel();
    const batch = batchOf(model, lengths);
    using fixed = new TrainingEngine(model, {
      precision: 'fp16',
      lossScaler: `static:${2 ** 30}`,
      schedule,
      overflow: 'retry',
    });
    const { skipped, retries } = await fixed.step(batch, weightedLoss(0.01));
    assert.deepEqual([skipped, retries], [true, 0]);
    using engine = new TrainingEngine(model, { precision: 'fp16', schedule, overflow: 'retry' });
    const { master } = model.layers[1]!.mlp.downWeight;
    master.upload((await master.floats()).map((w) => w * 1e6));
    engine.syncWeights();
    const lost = await engine.step(batch, () => assert.fail('a loss of log-probs that are not finite'));
    assert.deepEqual([lost.skipped, lost.retries, lost.overflowed], [true, 0, 'log-probs']);
    assert.throws(
      () => new TrainingEngine(model, { precision: 'fp16', schedule, overflow: 'retyr' as 'retry' }),
      /did you mean retry\?/,
    );
  });

  it('gives the gradients of a step without taking it', async () => {
    using model = oddModel();
    const batch = batchOf(model, lengths);
    using engine = new TrainingEngine(model, { precision: 'fp16', schedule, microBatchTokens: 20 });
    const before = await model.head.master.floats();
    const state = engine.scaler.state();
    const { gradients, gradNorm, overflowed, loss } = await engine.gradients(batch, weightedLoss(4));
    assert.equal(overflowed, undefined);
    assertSameBits(await model.head.master.floats(), before, 'weights');
    assert.deepEqual([engine.scaler.state(), engine.optimizer.step], [state, 0]);
    assert.equal(gradients.size, model.parameters.length);
    const squares = [...gradients.values()].flatMap((g) => [...g]).reduce((sum, g) => sum + g * g, 0);
    assert.ok(Math.abs(Math.sqrt(squares) / gradNorm - 1) < 1e-5);
    const step = await engine.step(batch, weightedLoss(4));
    assert.deepEqual([step.gradNorm, step.loss], [gradNorm, loss]);
    const scaled = await gradientsOf(model);
    for (const [name, g] of gradients) {
      assertSameBits(
        g.map((x) => x * step.lossScale),
        scaled.get(name)!,
        name,
      );
    }
  });

  it('a NaN weight reaches the log-probs and is reported, not hidden', async () => {
    for (const overrides of [{}, mixtureFields]) {
      using model = oddModel(overrides);
      using engine = new TrainingEngine(model, { precision: 'bf16', schedule });
      const { master } = model.layers[0]!.attentionNorm.weight;
      master.upload(new Float32Array(master.size).fill(Number.NaN));
      engine.syncWeights();
      const { logprobs } = await engine.score(batchOf(model, [[3, 4]]));
      assert.ok(logprobs.every((lp) => Number.isNaN(lp)));
    }
  });

  it('an overflow of the forward pass skips the step, too', async () => {
    using model = oddModel();
    using engine = new TrainingEngine(model, { precision: 'fp16', schedule });
    const batch = batchOf(model, lengths);
    const { master } = model.layers[1]!.mlp.downWeight;
    const weights = await master.floats();
    master.upload(weights.map((w) => w * 1e6));
    engine.syncWeights();
    const result = await engine.step(batch, () => assert.fail('a loss of log-probs that are not finite'));
    assert.equal(result.skipped, true);
    assert.equal(result.overflowed, 'log-probs');
    assert.equal(engine.scaler.scale, 32768);
    master.upload(weights);
    engine.syncWeights();
    assert.equal((await engine.step(batch, weightedLoss(4))).skipped, false);
  });

  it('two steps at once take turns', async () => {
    const run = async (together: boolean) => {
      using model = oddModel();
      using engine = new TrainingEngine(model, { precision: 'fp16', schedule, microBatchTokens: 20 });
      const batch = batchOf(model, lengths);
      const first = engine.step(batch, weightedLoss(4));
      if (!together) await first;
      const second = engine.step(batch, weightedLoss(2));
      return await Promise.all([first, second]);
    };
    assert.deepEqual(await run(true), await run(false));
  });

  it('learns: the likelihood of a batch rises, in every precision, to the same bits on any threads', async () => {
    for (const [precision, overrides] of [
      ['fp32', {}],
      ['fp16', {}],
      ['bf16', {}],
      ['bf16', mixtureFields],
    ] as const) {
      const train = async (threads: number) => {
        setThreads(threads);
        using model = oddModel(overrides);
        using engine = new TrainingEngine(model, {
          precision,
          schedule,
          microBatchTokens: 40,
          optimizer: { weightDecay: 0.01 },
        });
        const batch = batchOf(model, lengths);
        const tokens = lengths.reduce((sum, [, response]) => sum + response, 0);
        const losses = [];
        for (let i = 0; i < 12; i++) {
          const { loss } = await engine.step(batch, ({ logprobs }) => ({
            loss: logprobs.reduce((sum, lp) => sum - lp / tokens, 0),
            gradient: new Float64Array(logprobs.length).fill(-1 / tokens),
            metrics: {},
          }));
          losses.push(loss);
        }
        return losses;
      };
      const [one, three] = [await train(1), await train(3)];
      setThreads(2);
      assert.deepEqual(one, three);
      assert.ok(one.at(-1)! < 0.5 * one[0]!, `${precision}: ${one[0]} -> ${one.at(-1)}`);
    }
  });

  for (const [kind, overrides] of [
    ['a dense model', {}],
    ['a mixture of experts', { ...mixtureFields, attentionBias: false, qkNorm: true }],
  ] as const)
    it(`a checkpoint of ${kind} continues to the same bits`, async () => {
      const dir = await mkdtemp(path.join(tmpdir(), 'isopolicy-'));
      const step = (engine: TrainingEngine, batch: TokenSequence[]) => engine.step(batch, weightedLoss(3));
      try {
        using model = oddModel(overrides);
        using engine = new TrainingEngine(model, { precision: 'fp16', lossScaler: 'deepspeed', schedule });
        const batch = batchOf(model, lengths);
        for (let i = 0; i < 3; i++) await step(engine, batch);
        await saveCheckpoint(dir, model, engine);
        const expected = [];
        for (let i = 0; i < 3; i++) expected.push(await step(engine, batch));

        using other = oddModel(overrides, 99);
        using resumed = new TrainingEngine(other, { precision: 'fp16', lossScaler: 'deepspeed', schedule });
        await loadCheckpoint(dir, other, resumed);
        const found = [];
        for (let i = 0; i < 3; i++) found.push(await step(resumed, batch));
        assert.deepEqual(found, expected);
        assert.deepEqual(resumed.scaler.state(), engine.scaler.state());
        for (let i = 0; i < model.parameters.length; i++) {
          assertSameBits(
            await other.parameters[i]!.master.floats(),
            await model.parameters[i]!.master.floats(),
            model.parameters[i]!.name,
          );
        }

        const { model: read, config } = await loadModel(dir);
        using _read = read;
        assert.deepEqual([read.config, config.dtype], [model.config, 'fp32']);
        using smaller = oddModel({ ...overrides, numLayers: 1, denseLayers: [] });
        await assert.rejects(loadCheckpoint(dir, smaller, engine), /expected no tensors but the model's/);
        using wider = oddModel({ ...overrides, vocabSize: 38 });
        await assert.rejects(
          loadCheckpoint(dir, wider, engine),
          /embed_tokens\.weight of \[37, 60\] in place of \[38, 60\]/,
        );
        using deeper = oddModel({ ...overrides, numLayers: model.config.numLayers + 1 });
        using deeperEngine = new TrainingEngine(deeper, { precision: 'fp16', schedule });
        await assert.rejects(
          loadCheckpoint(dir, model, deeperEngine),
          /model\.layers\.\d.*first to be F32 .*got no such tensor/,
        );
        const state = await readFile(path.join(dir, 'training.json'), 'utf8');
        await writeFile(path.join(dir, 'training.json'), state.slice(0, -9));
        await assert.rejects(loadCheckpoint(dir, other, resumed), /training\.json to be JSON/);
      } finally {
        await rm(dir, { recursive: true });
      }
    });

  it('a thousand steps leave no tensor and no byte behind', async () => {
    using model = oddModel({
      numLayers: 1,
      hiddenSize: 16,
      intermediateSize: 16,
      numHeads: 2,
      numKvHeads: 1,
      headDim: 8,
    });
    const start = memory();
    {
      using engine = new TrainingEngine(model, { precision: 'fp16', schedule });
      const batch = batchOf(model, [[2, 3]]);
      // The allocator's cache settles in the first rounds.
      for (let i = 0; i < 5; i++) {
        await engine.step(batch, weightedLoss(1));
        await engine.score(batch);
      }
      const steady = memory();
      for (let i = 0; i < 1000; i++) await engine.step(batch, weightedLoss(1));
      await engine.score(batch);
      assert.equal(memory().tensors, steady.tensors);
      assert.equal(memory().bytes, steady.bytes);
      assert.equal(memory().cachedBytes, steady.cachedBytes);
    }
    for (const parameter of model.parameters) parameter.gradient.dispose();
    assert.equal(memory().tensors, start.tensors);
  });

  it('a loss function that throws loses nothing', async () => {
    using model = oddModel();
    using engine = new TrainingEngine(model, { precision: 'fp16', schedule });
    const batch = batchOf(model, lengths);
    await engine.step(batch, weightedLoss(1));
    const before = memory();
    await assert.rejects(
      engine.step(batch, () => {
        throw new Error('mine');
      }),
      /mine/,
    );
    assert.equal(memory().tensors, before.tensors);
  });

  it('names the argument at fault', async () => {
    using model = oddModel();
    const make = (options: object) => () =>
      new TrainingEngine(model, { precision: 'fp16', schedule, ...options } as never);
    assert.throws(make({ precision: 'fp8' }), /precision/);
    assert.throws(make({ maxGradNorm: 0 }), /maxGradNorm above 0/);
    assert.throws(make({ temperature: Number.NaN }), /temperature/);
    assert.throws(make({ microBatchTokens: 0.5 }), /microBatchTokens/);
    assert.throws(make({ lossScaler: 'tourch' }), /did you mean torch/);
    assert.throws(make({ optimizer: { betas: [0.9, 1] } }), /betas\[1\] below 1/);
    using engine = new TrainingEngine(model, { precision: 'fp16', schedule });
    await assert.rejects(engine.score([]), /at least one sequence/);
    await assert.rejects(
      engine.score([{ prompt: [0], response: [37] }]),
      /sequences\[0\]\.response\[0\].*at most 36, got 37/,
    );
    await assert.rejects(
      engine.score([{ prompt: [], response: [3] }]),
      /sequences\[0\]\.prompt of at least one token/,
    );
    await assert.rejects(
      engine.step([{ prompt: new Array(700).fill(0), response: [3] }], weightedLoss(1)),
      /sequences\[0\] within the context of 700 tokens, got "701 tokens"/,
    );
  });

  it('a poisoned gradient buffer is zeroed before it is added to', async () => {
    using model = oddModel();
    using engine = new TrainingEngine(model, { precision: 'fp32', ...still, schedule: still.schedule! });
    const batch = batchOf(model, lengths);
    await engine.step(batch, weightedLoss(1));
    const clean = await gradientsOf(model);
    for (const parameter of model.parameters) fill(parameter.gradient, 1e9);
    await engine.step(batch, weightedLoss(1));
    for (const [name, g] of await gradientsOf(model)) assertSameBits(g, clean.get(name)!, name);
  });
});
