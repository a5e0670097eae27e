/** Adapters in both engines: factored and merged rollouts, training, checkpoints. */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, it } from 'node:test';
import { addLowRank, linear } from '../../lib/autograd/functions.js';
import { Parameter } from '../../lib/autograd/parameter.js';
import { Weights } from '../../lib/autograd/weights.js';
import type { Decoder } from '../../lib/models/decoder.js';
import { addLora, mergeLora } from '../../lib/models/lora.js';
import type { TokenSequence } from '../../lib/models/sequences.js';
import { numerics } from '../../lib/numerics.js';
import { add, scale } from '../../lib/ops/elementwise.js';
import { linear as linearOp } from '../../lib/ops/linear.js';
import { type LoraMode, RolloutEngine } from '../../lib/rollout/engine.js';
import { info, memory, profile, setThreads, setVectorLevel } from '../../lib/runtime.js';
import { measureMismatch } from '../../lib/sanity/effect.js';
import { type FloatDType, floatDtypes } from '../../lib/tensor/dtype.js';
import { keep, tidy } from '../../lib/tensor/scope.js';
import { cast, type Tensor, tensor } from '../../lib/tensor/tensor.js';
import { loadCheckpoint, saveCheckpoint } from '../../lib/training/checkpoint.js';
import { type LossFunction, TrainingEngine, type TrainingOptions } from '../../lib/training/engine.js';
import { assertSameBits, normals } from '../support/compare.js';
import { onDevice } from '../support/dtypes.js';
import { vectorLevels } from '../support/levels.js';
import { adaptedModel, oddLora, randomizeB } from '../support/lora.js';
import { meanLoss } from '../support/modelReference.js';
import { oddModel, randomTokens } from '../support/models.js';

const schedule = { kind: 'constant', learningRate: 1e-2 } as const;
const matched = numerics('matched');
const { threads, vectorLevel } = info();
afterEach(() => {
  setThreads(threads);
  setVectorLevel(vectorLevel);
});

const lengths = [
  [1, 15],
  [17, 47],
  [100, 157],
  [64, 1],
] as const;

function sequencesFor({ config }: Decoder): TokenSequence[] {
  return lengths.map(([prompt, response], i) => ({
    prompt: randomTokens(prompt, config.vocabSize, 100 + i),
    response: randomTokens(response, config.vocabSize, 200 + i),
  }));
}

async function mastersOf(parameters: readonly Parameter[]): Promise<Map<string, Float32Array>> {
  const values = new Map<string, Float32Array>();
  for (const { name, master } of parameters) values.set(name, await master.floats());
  return values;
}

describe('the roundings of an adapter', () => {
  for (const dtype of onDevice('fp16', 'bf16', 'e8m4')) {
    it(`in ${dtype} are those of PEFT's separate ops, or of a scale in fp32`, async () => {
      const [w, a, b] = [
        [40, 48],
        [4, 48],
        [24, 4],
      ].map((shape, i) => new Parameter(`p${i}`, shape, { kind: 'normal', std: 0.3 }, 1, i));
      using weights = new Weights([w!, a!, b!], dtype);
      using x = tensor(normals(48 * 9, 1), [9, 48], dtype);
      const options = { family: 'training', splitK: 0, column: 0 } as const;
      const base = () => linear(null, x, weights.of(w!), null, { ...options, blocks: [40] });
      const found = (scaling: number, scaleFirst: boolean) =>
        tidy(() =>
          addLowRank(null, base(), x, weights.of(a!), weights.of(b!), {
            ...options,
            scaling,
            scaleFirst,
            column: 16,
          }),
        );
      /** By whole-tensor ops on the 24 columns alone. */
      const expected = (scaling: number, scaleFirst: boolean) =>
        tidy(() => {
          const rows = weights.of(w!).value.rows(16, 40);
          const part = linearOp(x, [rows]);
          const inner = (outDtype: FloatDType) => linearOp(x, [weights.of(a!).value], { outDtype });
          const h = scaleFirst ? cast(scale(inner('fp32'), scaling), dtype) : inner(dtype);
          const outer = linearOp(h, [weights.of(b!).value]);
          return add(part, scaleFirst ? outer : scale(outer, scaling));
        });
      const values = async (t: Tensor) => {
        using owned = keep(t);
        return owned.floats();
      };
      const columns = async (t: Tensor) => (await values(t)).filter((_, i) => i % 40 >= 16);
      const all: string[] = [];
      for (const scaling of [8 / 3, 4]) {
        for (const scaleFirst of [false, true]) {
          const bits = await columns(found(scaling, scaleFirst));
          assertSameBits(bits, await values(expected(scaling, scaleFirst)), `${scaling}, ${scaleFirst}`);
          all.push(String(bits));
        }
      }
      assert.notEqual(all[0], all[1], 'a scale that is no power of two rounds elsewhere');
      assert.equal(all[2], all[3], 'a power of two does not');
      const untouched = (await values(found(4, true))).filter((_, i) => i % 40 < 16);
      const plain = (await values(tidy(base))).filter((_, i) => i % 40 < 16);
      assertSameBits(untouched, plain, 'other columns');
      for (const parameter of [w!, a!, b!]) parameter.dispose();
    });
  }
});

describe('a factored rollout with matched numerics', () => {
  for (const precision of onDevice(...floatDtypes, 'e8m4')) {
    for (const level of precision === 'e8m4' ? [vectorLevel] : vectorLevels()) {
      it(`has the training engine's bits in ${precision} at ${level}`, async () => {
        setVectorLevel(level);
        using model = adaptedModel({ qkNorm: precision !== 'fp16', tieWordEmbeddings: precision === 'bf16' });
        const sequences = sequencesFor(model);
        for (const choices of [matched, { ...matched, loraScaleFirst: 1, mergedProjections: 1 }]) {
          using rollout = new RolloutEngine(model, {
            precision,
            numerics: choices,
            maxBatch: 3,
            lora: 'factored',
          });
          using training = new TrainingEngine(model, {
            precision,
            numerics: choices,
            schedule,
            microBatchTokens: 99,
          });
          setThreads(1);
          const mu = await rollout.score(sequences);
          setThreads(3);
          const pi = await training.score(sequences);
          assertSameBits(mu.logprobs, pi.logprobs, 'log-probs');
          assertSameBits(mu.entropy, pi.entropy, 'entropies');
        }
      });
    }
  }

  it('goes on doing so while the adapter is trained', async () => {
    using model = adaptedModel();
    const sequences = sequencesFor(model);
    using rollout = new RolloutEngine(model, {
      precision: 'bf16',
      numerics: matched,
      maxBatch: 3,
      lora: 'factored',
    });
    using training = new TrainingEngine(model, { precision: 'bf16', numerics: matched, schedule });
    let last = await rollout.score(sequences);
    for (let i = 0; i < 3; i++) {
      await training.step(sequences, meanLoss);
      rollout.syncWeights();
      const mu = await rollout.score(sequences);
      assert.notDeepEqual(mu.logprobs, last.logprobs);
      assertSameBits(mu.logprobs, (await training.score(sequences)).logprobs, `step ${i}`);
      last = mu;
    }
  });
});

describe('decoding with an adapter', () => {
  for (const lora of ['factored', 'merged'] satisfies LoraMode[]) {
    for (const precision of floatDtypes) {
      it(`${lora}, through the cache, has the bits of whole sequences in ${precision}`, async () => {
        using model = adaptedModel({ qkNorm: precision === 'bf16' });
        using rollout = new RolloutEngine(model, { precision, maxBatch: 3, lora });
        const requests = Array.from({ length: 7 }, (_, i) => ({
          prompt: randomTokens(1 + 5 * i, model.config.vocabSize, i),
          promptId: i,
          sampleId: 0,
        }));
        const generate = () => rollout.generate(requests, { seed: 5, maxNewTokens: 40, stopTokens: [4] });
        const check = async () => {
          const completions = await generate();
          const sampled = completions.map(({ tokens }, i) => ({
            prompt: requests[i]!.prompt,
            response: tokens,
          }));
          const drawn = Float64Array.from(completions.flatMap(({ logprobs }) => [...logprobs]));
          assertSameBits(drawn, (await rollout.score(sampled)).logprobs, 'log-probs');
          return drawn;
        };
        const first = await check();
        // What was recorded goes on reading the weights as they are brought up to date.
        randomizeB(model, 77);
        assertSameBits(await check(), first, 'before the sync');
        rollout.syncWeights();
        assert.notDeepEqual(await check(), first);
      });
    }
  }
});

describe('merged and factored rollouts of the same tokens', () => {
  it('differ from the training engine by rounding alone; merged, by that of W + scaling B A too', async () => {
    using model = adaptedModel({}, { alpha: 6 });
    const sequences = sequencesFor(model);
    const measured = new Map<string, number>();
    for (const precision of floatDtypes) {
      for (const numerics of ['default', 'matched'] as const) {
        for (const lora of ['merged', 'factored'] satisfies LoraMode[]) {
          const { meanAbsLogRatio } = await measureMismatch(model, sequences, { precision, numerics, lora });
          measured.set(`${precision} ${numerics} ${lora}`, meanAbsLogRatio);
        }
      }
    }
    const of = (name: string) => measured.get(name)!;
    for (const precision of floatDtypes) assert.equal(of(`${precision} matched factored`), 0);
    for (const precision of ['fp16', 'bf16']) {
      // Nothing but where the adapter is rounded is left between the two.
      assert.ok(of(`${precision} matched merged`) > 100 * of('fp32 matched merged'), precision);
      assert.ok(of(`${precision} default merged`) > of(`${precision} default factored`), precision);
    }
    assert.ok(of('fp32 default merged') < 1e-6 && of('fp32 matched merged') < 1e-6);
    const ratio = of('bf16 matched merged') / of('fp16 matched merged');
    assert.ok(ratio > 5 && ratio < 13, `bf16 / fp16 is ${ratio}`);
  });

  it('a rollout without an adapter takes either mode', async () => {
    using model = oddModel();
    const sequences = sequencesFor(model);
    using merged = new RolloutEngine(model, { precision: 'bf16', maxBatch: 2 });
    using factored = new RolloutEngine(model, { precision: 'bf16', maxBatch: 2, lora: 'factored' });
    assertSameBits(
      (await merged.score(sequences)).logprobs,
      (await factored.score(sequences)).logprobs,
      'bits',
    );
    assert.throws(
      () => new RolloutEngine(model, { precision: 'bf16', lora: 'merge' as LoraMode }),
      /\[RolloutEngine\] expected lora to be one of merged, factored, got "merge" \(did you mean merged\?\)$/,
    );
  });
});

describe('training an adapter', () => {
  const options: TrainingOptions = { precision: 'bf16', schedule, optimizer: { weightDecay: 0.1 } };

  it('changes the adapter alone, and takes memory and products for it alone', async () => {
    using model = oddModel({ qkNorm: true, attentionOutBias: true, mlpBias: true });
    const adapter = addLora(model, oddLora, { seed: 3 });
    const sequences = sequencesFor(model);
    using training = new TrainingEngine(model, options);
    assert.equal(training.optimizer.parameters, adapter.parameters);
    const [base, before] = [await mastersOf(model.parameters), await mastersOf(adapter.parameters)];
    const { tensors } = memory();
    const { result: first, profile: timed } = await profile(() => training.step(sequences, meanLoss));
    const ops = new Map(timed.ops.map(({ op, calls }) => [op, calls]));
    const each = 'a gradient and two moments for each of A and B';
    assert.equal(memory().tensors - tensors, 3 * adapter.parameters.length, each);
    assert.equal(ops.get('linearWeightGradient'), adapter.parameters.length);
    assert.equal(ops.get('adamw'), adapter.parameters.length);
    assert.equal(ops.get('embeddingBackward'), undefined);
    assert.equal(ops.get('columnSum'), undefined);
    let { loss } = first;
    for (let i = 0; i < 5; i++) {
      const step = await training.step(sequences, meanLoss);
      assert.ok(step.loss < loss, `${step.loss} after ${loss}`);
      loss = step.loss;
    }
    for (const [name, values] of await mastersOf(model.parameters))
      assertSameBits(values, base.get(name)!, name);
    for (const [name, values] of await mastersOf(adapter.parameters)) {
      assert.notDeepEqual(values, before.get(name), name);
    }
  });

  it('gives the gradients that the merged weights imply', async () => {
    // dA = scaling B^T dW and dB = scaling dW A^T, dW being the gradient of a plain model with the merged weights.
    using model = adaptedModel();
    const sequences = sequencesFor(model);
    const { branches, scaling } = model.lora!;
    const places = await Promise.all(
      branches.map(async ({ base, row, a, b }) => ({
        names: [a.name, b.name] as const,
        base: base.name,
        row,
        a: await a.master.floats(),
        b: await b.master.floats(),
        inputs: a.shape[1]!,
        outputs: b.shape[0]!,
      })),
    );
    const gradientsOf = async () => {
      using training = new TrainingEngine(model, { precision: 'fp32', schedule });
      return (await training.gradients(sequences, meanLoss)).gradients;
    };
    const found = await gradientsOf();
    mergeLora(model);
    const whole = await gradientsOf();
    for (const { names, base, row, a, b, inputs, outputs } of places) {
      const dW = whole.get(base)!;
      const [dA, dB] = [new Float64Array(a.length), new Float64Array(b.length)];
      for (let i = 0; i < outputs; i++) {
        for (let j = 0; j < inputs; j++) {
          for (let k = 0; k < oddLora.rank; k++) {
            const d = scaling * dW[(row + i) * inputs + j]!;
            dA[k * inputs + j]! += b[i * oddLora.rank + k]! * d;
            dB[i * oddLora.rank + k]! += d * a[k * inputs + j]!;
          }
        }
      }
      for (const [name, expected] of [
        [names[0], dA],
        [names[1], dB],
      ] as const) {
        const values = found.get(name)!;
        const norm = Math.hypot(...expected);
        const error = Math.hypot(...expected.map((x, i) => x - values[i]!));
        assert.ok(error < 2e-5 * norm, `${name}: ${error / norm}`);
      }
    }
  });

  it('goes on from a checkpoint, which has the adapter alone, to the same bits', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'isopolicy-'));
    try {
      const make = (seed: number) => {
        const model = oddModel();
        addLora(model, oddLora, { seed });
        return model;
      };
      const settings: TrainingOptions = { ...options, precision: 'fp16', lossScaler: 'deepspeed' };
      const steps = async (engine: TrainingEngine, count: number, lossOf: LossFunction = meanLoss) => {
        const results = [];
        for (let i = 0; i < count; i++) results.push(await engine.step(sequences, lossOf));
        return results;
      };
      using model = make(3);
      const sequences = sequencesFor(model);
      using engine = new TrainingEngine(model, settings);
      await steps(engine, 3);
      await saveCheckpoint(dir, model, engine);
      const expected = await steps(engine, 3);

      using other = make(4);
      using resumed = new TrainingEngine(other, settings);
      await loadCheckpoint(dir, other, resumed);
      assert.deepEqual(await steps(resumed, 3), expected);
      const trained = await mastersOf(model.trainable);
      for (const [name, values] of await mastersOf(other.trainable))
        assertSameBits(values, trained.get(name)!, name);

      using plain = oddModel();
      using whole = new TrainingEngine(plain, settings);
      await assert.rejects(loadCheckpoint(dir, plain, whole), /model\.safetensors/);
      using wider = oddModel();
      addLora(wider, { ...oddLora, rank: 5 }, { seed: 3 });
      using unlike = new TrainingEngine(wider, settings);
      await assert.rejects(loadCheckpoint(dir, wider, unlike), /to have the adapter's rank = 5, got 3$/);
    } finally {
      await rm(dir, { recursive: true });
    }
  });
});
