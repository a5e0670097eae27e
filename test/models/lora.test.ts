/**
 * Adapters on a model, and those in PEFT's layout that test/fixtures/models/generate.py made with reference values of its
 * own PyTorch pass: beside the weights and merged into them, log-probs and gradients.
 */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { InvalidArgumentError } from '../../lib/errors.js';
import { loadAdapter } from '../../lib/models/adapterFiles.js';
import { Decoder } from '../../lib/models/decoder.js';
import { loadModel } from '../../lib/models/loadModel.js';
import { addLora, mergeLora, removeLora } from '../../lib/models/lora.js';
import { type LoraConfig, type LoraTarget, loraTargets } from '../../lib/nn/lora.js';
import { type NumericsPreset, numerics } from '../../lib/numerics.js';
import { RolloutEngine } from '../../lib/rollout/engine.js';
import { memory } from '../../lib/runtime.js';
import { floatDtypes } from '../../lib/tensor/dtype.js';
import { TrainingEngine } from '../../lib/training/engine.js';
import { assertClose, assertSameBits, relativeError } from '../support/compare.js';
import { adaptedModel, oddLora, randomizeB } from '../support/lora.js';
import { meanLoss, readReference } from '../support/modelReference.js';
import { oddConfig, oddModel, randomTokens } from '../support/models.js';
import { ownTensors } from '../support/owned.js';

ownTensors();

const fixtures = fileURLToPath(new URL('../../../test/fixtures/models/', import.meta.url));
const presets = ['rollout', 'training', 'matched'] as const satisfies readonly NumericsPreset[];
const schedule = { kind: 'constant', learningRate: 0 } as const;
const sequences = [
  { prompt: randomTokens(9, 37, 1), response: randomTokens(30, 37, 2) },
  { prompt: randomTokens(1, 37, 3), response: randomTokens(44, 37, 4) },
];

for (const name of ['qwen2-tied', 'llama3']) {
  const dir = join(fixtures, `${name}-lora`);

  describe(`the adapter of ${name}`, () => {
    it('is scored in fp32 as PyTorch scores it, factored and merged', async () => {
      const { sequence, logprobs, logprobs32, distributions, merged } = await readReference(dir);
      const { model } = await loadModel(join(fixtures, name));
      using _model = model;
      await loadAdapter(dir, model);
      for (const preset of presets) {
        const options = { precision: 'fp32', numerics: numerics(preset), maxBatch: 2 } as const;
        using training = new TrainingEngine(model, { ...options, schedule });
        using factored = new RolloutEngine(model, { ...options, lora: 'factored' });
        using whole = new RolloutEngine(model, options);
        for (const [label, engine, expected] of [
          ['training', training, logprobs],
          ['factored', factored, logprobs],
          ['merged', whole, merged],
        ] as const) {
          const found = await engine.score([sequence]);
          assertClose(found.logprobs, expected, 'fp32', `${label}, ${preset}`);
          assertClose(found.logprobs, logprobs32, 'fp32', `${label}, ${preset}, against fp32`);
          const [all] = await engine.distributions([sequence]);
          assertClose(all!, distributions, 'fp32', `${label}, ${preset}: distributions`);
        }
      }
      mergeLora(model);
      using plain = new TrainingEngine(model, { precision: 'fp32', schedule });
      assertClose((await plain.score([sequence])).logprobs, merged, 'fp32', 'merged into the model');
    });

    // Wider than for models alone: the adapter moves a log-prob by up to 2 nats, and rounds a few times more.
    for (const [precision, limit] of [
      ['fp16', 2.5e-3],
      ['bf16', 2e-2],
    ] as const) {
      it(`is scored in ${precision} within ${limit}, factored and merged`, async () => {
        const { sequence, logprobs } = await readReference(dir);
        const { model } = await loadModel(join(fixtures, name));
        using _model = model;
        await loadAdapter(dir, model);
        using training = new TrainingEngine(model, { precision, schedule });
        using factored = new RolloutEngine(model, { precision, maxBatch: 2, lora: 'factored' });
        using whole = new RolloutEngine(model, { precision, maxBatch: 2, lora: 'merged' });
        for (const engine of [training, factored, whole]) {
          const { logprobs: found } = await engine.score([sequence]);
          assertClose(found, logprobs, precision, engine.constructor.name, limit);
          assert.ok(relativeError(found, logprobs) > limit / 100, 'rounded at all');
        }
      });
    }

    it('has the gradients of PyTorch in fp32, and no others', async () => {
      const { sequence, logprobs, gradients } = await readReference(dir);
      const { model } = await loadModel(join(fixtures, name));
      using _model = model;
      const adapter = await loadAdapter(dir, model);
      for (const preset of presets) {
        using training = new TrainingEngine(model, {
          precision: 'fp32',
          numerics: numerics(preset),
          schedule,
        });
        const before = memory().tensors;
        const found = await training.gradients([sequence], meanLoss);
        const made = memory().tensors - before;
        assert.ok(made === 0 || made === adapter.parameters.length, `${made} gradients in memory`);
        assertClose([found.loss], [meanLoss({ logprobs }).loss], 'fp32', 'loss');
        assert.deepEqual([...found.gradients.keys()].sort(), [...gradients.keys()].sort());
        for (const [key, expected] of gradients) {
          assertClose(found.gradients.get(key)!, expected, 'fp32', `${preset}: ${key}`);
        }
      }
    });
  });
}

describe('addLora', () => {
  it('begins as PEFT does: A uniform within 1 / sqrt(inputs) by the seed alone, B zeros', async () => {
    const draw = async (seed: number, modelSeed = 7) => {
      using model = oddModel({}, modelSeed);
      const adapter = addLora(model, { rank: 16, alpha: 32 }, { seed });
      const values = new Map<string, Float32Array>();
      for (const { name, master } of adapter.parameters) values.set(name, await master.floats());
      return values;
    };
    const first = await draw(5);
    assert.equal(first.size, 2 * 2 * 7);
    assert.deepEqual(first, await draw(5, 8));
    const other = await draw(6);
    for (const [name, values] of first) {
      if (name.endsWith('lora_B.weight')) {
        assert.ok(values.every((x) => Object.is(x, 0)));
        continue;
      }
      assert.notDeepEqual(values, other.get(name));
      const bound = 1 / Math.sqrt(values.length / 16);
      const mean = values.reduce((sum, x) => sum + x, 0) / values.length;
      const variance = values.reduce((sum, x) => sum + x * x, 0) / values.length;
      assert.ok(
        values.every((x) => Math.abs(x) <= bound),
        name,
      );
      // Four standard errors of some 960 uniform values.
      assert.ok(Math.abs(mean) < (4 * bound) / Math.sqrt(3 * values.length), `${name}: mean ${mean}`);
      const share = (3 * variance) / bound ** 2;
      assert.ok(Math.abs(share - 1) < 4 * Math.sqrt(0.8 / values.length), `${name}: variance ${share}`);
    }
    const [q0, q1] = [0, 1].map((i) => first.get(`model.layers.${i}.self_attn.q_proj.lora_A.weight`));
    assert.notDeepEqual(q0, q1, 'each A has draws of its own');
  });

  it('is of the projections, row blocks of merged parameters, that are named', () => {
    using model = oddModel();
    const adapter = addLora(model, { ...oddLora, targets: ['up_proj', 'v_proj'] }, { seed: 1 });
    assert.deepEqual(
      adapter.branches.map(({ name, base, row, a, b }) => [name, base.name, row, a.shape, b.shape]),
      [0, 1].flatMap((i) => [
        [
          `model.layers.${i}.self_attn.v_proj`,
          `model.layers.${i}.self_attn.qkv_proj.weight`,
          80,
          [3, 60],
          [20, 3],
        ],
        [`model.layers.${i}.mlp.up_proj`, `model.layers.${i}.mlp.gate_up_proj.weight`, 92, [3, 60], [92, 3]],
      ]),
    );
    assert.deepEqual(adapter.config.targets, ['v_proj', 'up_proj']);
    assert.equal(adapter.scaling, 8 / 3);
    assert.equal(adapter.parameterCount, 2 * 3 * (60 + 20 + 60 + 92));
    assert.equal(model.lora, adapter);
    assert.equal(model.trainable, adapter.parameters);
    assert.ok(model.parameters.every(({ frozen }) => frozen));
    removeLora(model);
    assert.equal(model.trainable, model.parameters);
    assert.ok(model.parameters.every(({ frozen }) => !frozen));
    assert.equal(addLora(model, { ...oddLora, useRslora: true }, { seed: 1 }).scaling, 8 / Math.sqrt(3));
  });

  for (const precision of floatDtypes) {
    it(`changes no bit at first in ${precision}`, async () => {
      using model = oddModel();
      const scores = async () => {
        const found: Float64Array[] = [];
        using training = new TrainingEngine(model, { precision, schedule });
        found.push((await training.score(sequences)).logprobs);
        for (const lora of ['merged', 'factored'] as const) {
          using rollout = new RolloutEngine(model, { precision, maxBatch: 2, lora });
          found.push((await rollout.score(sequences)).logprobs);
        }
        return found;
      };
      const before = await scores();
      addLora(model, oddLora, { seed: 3 });
      for (const [i, found] of (await scores()).entries()) assertSameBits(found, before[i]!, `${i}`);
      randomizeB(model, 1);
      for (const [i, found] of (await scores()).entries()) assert.notDeepEqual(found, before[i], `${i}`);
    });
  }

  it('says what is wrong', () => {
    using model = oddModel();
    const add = (config: Partial<LoraConfig>, seed: number | null = 1) =>
      addLora(model, { ...oddLora, ...config }, { seed });
    const refused: [() => void, RegExp][] = [
      [() => add({ rank: 0 }), /^\[addLora\] expected rank to be an integer of at least 1, got 0$/],
      [() => add({ alpha: Number.NaN }), /^\[addLora\] expected alpha to be a finite number/],
      [() => add({ targets: [] }), /^\[addLora\] expected targets to be one or more/],
      [() => add({ targets: ['q_prog' as LoraTarget] }), /each of targets .*did you mean q_proj\?/],
      [() => add({ useRsLora: true } as never), /each field .*got "useRsLora" \(did you mean useRslora\?\)$/],
      [() => add({ useRslora: 1 as never }), /^\[addLora\] expected useRslora to be a boolean, got 1$/],
      [() => add({ dropout: 1.5 }), /^\[addLora\] expected dropout to be a finite number between 0 and 1/],
      [() => add({}, -1), /^\[addLora\] expected seed/],
      [() => mergeLora(model), /^\[mergeLora\] expected a model with an adapter, got "one without"$/],
      [() => removeLora(model), /^\[removeLora\] expected a model with an adapter/],
    ];
    const live = memory().tensors;
    for (const [call, message] of refused) assert.throws(call, { code: 'ERR_INVALID_ARGUMENT', message });
    assert.equal(memory().tensors, live);
    assert.equal(model.lora, null);
    add({});
    assert.throws(() => add({}), /^InvalidArgumentError: \[addLora\] expected a model without an adapter/);
  });
});

describe('mergeLora', () => {
  for (const precision of floatDtypes) {
    it(`gives a plain model with the bits of a merged rollout in ${precision}`, async () => {
      using model = adaptedModel();
      const choices = { precision, maxBatch: 2 } as const;
      using merged = new RolloutEngine(model, choices);
      const expected = await merged.score(sequences);
      mergeLora(model);
      assert.equal(model.lora, null);
      using plain = new RolloutEngine(model, choices);
      assertSameBits((await plain.score(sequences)).logprobs, expected.logprobs, 'log-probs');
    });
  }

  it('adds scaling B A to its rows, in fp32', async () => {
    using model = adaptedModel({}, { targets: ['k_proj', 'down_proj'] });
    const read = async () =>
      new Map(
        await Promise.all(model.parameters.map(async (p) => [p.name, await p.master.floats()] as const)),
      );
    const before = await read();
    const changes = await Promise.all(
      model.lora!.branches.map(async ({ base, row, a, b }) => ({
        name: base.name,
        row,
        a: await a.master.floats(),
        b: await b.master.floats(),
        inputs: a.shape[1]!,
      })),
    );
    mergeLora(model);
    const after = await read();
    for (const [name, values] of before) {
      const expected = Float64Array.from(values);
      for (const { row, a, b, inputs } of changes.filter((change) => change.name === name)) {
        for (let i = 0; i < b.length / 3; i++) {
          for (let j = 0; j < inputs; j++) {
            for (let k = 0; k < 3; k++) {
              expected[(row + i) * inputs + j]! += (8 / 3) * b[i * 3 + k]! * a[k * inputs + j]!;
            }
          }
        }
      }
      if (changes.some((change) => change.name === name)) {
        assertClose(after.get(name)!, expected, 'fp32', name, 1e-7);
        assert.notDeepEqual(after.get(name), values);
      } else {
        assertSameBits(after.get(name)!, values, name);
      }
    }
  });

  it('leaves nothing behind, and engines made before it say so', async () => {
    const before = memory().tensors;
    {
      using model = adaptedModel();
      using training = new TrainingEngine(model, { precision: 'fp32', schedule });
      using rollout = new RolloutEngine(model, { precision: 'fp32', maxBatch: 2 });
      mergeLora(model);
      const message = /expected an engine made after the model's adapter/;
      const options = { seed: 1, maxNewTokens: 2 };
      const requests = [{ prompt: [1], promptId: 0, sampleId: 0 }];
      for (const used of [
        () => training.score(sequences),
        () => rollout.score(sequences),
        () => rollout.generate(requests, options),
        async () => rollout.syncWeights(),
      ]) {
        await assert.rejects(used, (error) => {
          assert.ok(error instanceof InvalidArgumentError);
          assert.match(error.message, message);
          return true;
        });
      }
      using _new = new TrainingEngine(model, { precision: 'fp32', schedule });
    }
    assert.equal(memory().tensors, before);
  });

  it('an adapter with dropout is not trained', () => {
    using model = new Decoder(oddConfig, { seed: 1 });
    addLora(model, { ...oddLora, dropout: 0.1, targets: [...loraTargets].reverse() }, { seed: 1 });
    assert.throws(
      () => new TrainingEngine(model, { precision: 'fp32', schedule }),
      /^InvalidArgumentError: \[TrainingEngine\] expected an adapter without dropout \(lora_dropout 0\), got 0\.1$/,
    );
  });
});
