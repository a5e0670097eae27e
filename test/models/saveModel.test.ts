import assert from 'node:assert/strict';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { openCheckpoint } from '../../lib/io/checkpointFiles.js';
import type { DecoderConfig } from '../../lib/models/config.js';
import { Decoder } from '../../lib/models/decoder.js';
import { loadModel } from '../../lib/models/loadModel.js';
import { saveModel } from '../../lib/models/saveModel.js';
import { floatDtypes } from '../../lib/tensor/dtype.js';
import { assertSameBits } from '../support/compare.js';
import { randomizeConstants } from '../support/decoderReference.js';
import { mixtureConfig, oddConfig } from '../support/models.js';
import { ownTensors } from '../support/owned.js';
import { roundTo } from '../support/rounding.js';

ownTensors();

const fixtures = fileURLToPath(new URL('../../../test/fixtures/models/', import.meta.url));

const configs: Readonly<Record<string, DecoderConfig>> = {
  Llama: { ...oddConfig, attentionOutBias: true, mlpBias: true },
  'Qwen2, tied': { ...oddConfig, tieWordEmbeddings: true },
  Qwen3: { ...oddConfig, attentionBias: false, qkNorm: true },
  'Qwen3-MoE': mixtureConfig,
  Mixtral: { ...oddConfig, attentionBias: false, numExperts: 3, numExpertsPerToken: 2 },
};

describe('saveModel', () => {
  let dir: string;
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'isopolicy-save-'));
  });
  afterEach(() => rm(dir, { recursive: true }));

  for (const [name, config] of Object.entries(configs)) {
    for (const dtype of floatDtypes) {
      it(`and loadModel: a ${name} of ours in ${dtype}`, async () => {
        using model = new Decoder(config, { seed: 3 });
        randomizeConstants(model, 5);
        await saveModel(dir, model, { dtype, maxShardBytes: 20_000 });
        const files = await readdir(dir);
        assert.ok(files.filter((file) => file.endsWith('.safetensors')).length > 2, `shards: ${files}`);
        const { model: again, config: read } = await loadModel(dir);
        using _again = again;
        assert.deepEqual([again.config, read.dtype], [model.config, dtype]);
        for (const [i, { name, master }] of model.parameters.entries()) {
          const found = await again.parameters[i]!.master.floats();
          const rounded = (await master.floats()).map((x) => roundTo(x, dtype));
          assertSameBits(found, rounded, name);
        }
      });
    }
  }

  // Rows of pieces: the 16 MiB of one read or written at once end within a block of rows.
  it('and loadModel: tensors of several pieces', async () => {
    // The projections of an expert, too: rows within those of all experts.
    const wide: DecoderConfig = {
      vocabSize: 9001,
      hiddenSize: 512,
      intermediateSize: 8400,
      numLayers: 1,
      numHeads: 8,
      numKvHeads: 1,
      maxPositionEmbeddings: 8,
      tieWordEmbeddings: true,
      numExperts: 2,
      numExpertsPerToken: 1,
    };
    using model = new Decoder(wide, { seed: 3 });
    await saveModel(dir, model, { dtype: 'fp32' });
    assert.deepEqual((await readdir(dir)).sort(), ['config.json', 'model.safetensors']);
    const { model: again } = await loadModel(dir);
    using _again = again;
    for (const [i, { name, master }] of model.parameters.entries()) {
      const [found, wanted] = [await again.parameters[i]!.master.bits(), await master.bits()];
      assert.ok(Buffer.from(found.buffer).equals(Buffer.from(wanted.buffer)), name);
    }
  });

  for (const [fixture, dtype] of [
    ['llama3', 'fp32'],
    ['llama-linear', 'bf16'],
    ['qwen2-tied', 'fp16'],
    ['qwen3', 'fp32'],
    ['qwen3-tied', 'bf16'],
    ['qwen3-moe', 'bf16'],
    ['qwen3-moe-sparse', 'fp16'],
    ['mixtral', 'bf16'],
  ] as const) {
    it(`writes ${fixture} as it was read, to the bit`, async () => {
      const { model, config } = await loadModel(join(fixtures, fixture), { maxLength: 30 });
      using _model = model;
      const made = join(dir, 'made', 'model');
      await saveModel(made, model, { dtype, config });
      const source = JSON.parse(await readFile(join(fixtures, fixture, 'config.json'), 'utf8'));
      assert.deepEqual(JSON.parse(await readFile(join(made, 'config.json'), 'utf8')), source);
      await using before = await openCheckpoint(join(fixtures, fixture));
      await using after = await openCheckpoint(made);
      const derived = (name: string) =>
        name.endsWith('inv_freq') || (fixture === 'qwen3-tied' && /lm_head/.test(name));
      assert.deepEqual(
        [...after.tensors.keys()].sort(),
        [...before.tensors.keys()].filter((name) => !derived(name)).sort(),
      );
      for (const [name, { dtype, shape }] of after.tensors) {
        const info = before.tensors.get(name)!;
        assert.deepEqual([dtype, shape], [info.dtype, info.shape]);
        assert.ok(Buffer.from(await after.read(name)).equals(Buffer.from(await before.read(name))), name);
      }
    });
  }

  it('refuses a weight that the dtype cannot hold, and then there is no model', async () => {
    using model = new Decoder({ ...oddConfig, attentionOutBias: true }, { seed: 3 });
    const { master, size } = model.layers[1]!.mlp.gateUpWeight;
    const values = new Float32Array(size).fill(1);
    values[size - 1] = 65520; // halfway between fp16's largest number and the next power of two: rounds to infinity
    master.upload(values);
    await assert.rejects(
      saveModel(dir, model, { dtype: 'fp16' }),
      /\[saveModel\] expected model\.layers\.1\.mlp\.up_proj\.weight to have finite values in fp16, got "1 NaN or infinite"/,
    );
    assert.deepEqual(await readdir(dir), ['config.json']);
    await assert.rejects(loadModel(dir), /expected model\.safetensors or/);
    values[size - 1] = 65519;
    master.upload(values);
    await saveModel(dir, model, { dtype: 'fp16' });
    const { model: again } = await loadModel(dir);
    using _again = again;
    assert.equal((await again.layers[1]!.mlp.gateUpWeight.master.floats()).at(-1), 65504);
  });

  it('refuses a folder with a model, a config of another, an unknown dtype, before anything is written', async () => {
    using model = new Decoder({ ...oddConfig, attentionOutBias: true }, { seed: 3 });
    const { model: other, config } = await loadModel(join(fixtures, 'llama3'));
    using _other = other;
    await assert.rejects(
      saveModel(dir, model, { dtype: 'fp32', config }),
      /config with the model's vocabSize = 37/,
    );
    await assert.rejects(
      saveModel(dir, model, { dtype: 'f16' as never }),
      /\[saveModel\] expected dtype to be one of fp32, fp16, bf16, got "f16" \(did you mean fp16\?\)/,
    );
    assert.deepEqual(await readdir(dir), []);
    await saveModel(dir, model, { dtype: 'fp32' });
    await writeFile(join(dir, 'config.json'), 'mine');
    await assert.rejects(saveModel(dir, model, { dtype: 'fp32' }), /a folder without model\.safetensors/);
    assert.equal(await readFile(join(dir, 'config.json'), 'utf8'), 'mine');
  });
});
