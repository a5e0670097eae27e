import assert from 'node:assert/strict';
import { chmod, cp, mkdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { writeSafetensors } from '../../lib/io/safetensors.js';
import { inspectModel } from '../../lib/models/inspectModel.js';
import { loadModel } from '../../lib/models/loadModel.js';
import { EOS, tokenizerFiles, writeCheckpointFolder } from '../support/checkpoint.js';
import { ownTensors } from '../support/owned.js';
import { temporaryFolder } from '../text/fixtures.js';

ownTensors();

const fixtures = fileURLToPath(new URL('../../../test/fixtures/models/', import.meta.url));
const pointer = (size: number) =>
  `version https://git-lfs.github.com/spec/v1\noid sha256:${'0'.repeat(64)}\nsize ${size}\n`;

async function copied(name: string): Promise<string> {
  const dir = join(await temporaryFolder(), 'model');
  await cp(join(fixtures, name), dir, { recursive: true });
  return dir;
}

describe('inspectModel', () => {
  for (const name of ['llama3', 'llama-linear', 'qwen2-tied', 'qwen3', 'qwen3-tied']) {
    it(`tells of ${name} what loading it shows`, async () => {
      const info = await inspectModel(join(fixtures, name));
      const { model, config } = await loadModel(join(fixtures, name));
      using _model = model;
      const count = model.parameters.reduce((sum, { size }) => sum + size, 0);
      const { vocabSize, hiddenSize, numLayers, numKvHeads, headDim } = model.config;
      const embedding = vocabSize * hiddenSize * (model.config.tieWordEmbeddings ? 1 : 2);
      assert.deepEqual(info.parameters, { total: count, embedding, active: count, from: 'weights' });
      for (const [size, value] of Object.entries(info.sizes)) {
        const known = (model.config as unknown as Record<string, unknown>)[size] ?? null;
        assert.equal(value, size.startsWith('numExperts') ? null : known, size);
      }
      assert.equal(info.modelType, config.modelType);
      assert.equal(info.architecture, (config.source.architectures as string[])[0]);
      assert.equal(info.tieWordEmbeddings, model.config.tieWordEmbeddings);
      assert.equal(info.ropeTheta, model.config.ropeTheta);
      const { ropeScaling } = model.config;
      assert.equal(info.ropeScaling?.factor ?? null, ropeScaling?.factor ?? null);
      assert.deepEqual(info.memory, {
        masters: model.parameters.reduce((sum, { master }) => sum + master.bytes, 0),
        snapshot: 2 * count,
        cachePerToken: 4 * numLayers * numKvHeads * headDim,
      });
      assert.deepEqual(info.modelProblems, []);
      const dtype = { fp32: 'F32', fp16: 'F16', bf16: 'BF16' }[config.dtype!];
      assert.deepEqual(info.weights.dtypes, {
        // One has a head stored that is its embedding, one the frequencies of its rotary positions.
        [dtype]: name === 'qwen3-tied' ? count + embedding : count,
        ...(name === 'llama-linear' && { F32: 12 }),
      });
      assert.equal(info.weights.files.length, name === 'qwen3' ? 3 : 1);
      assert.deepEqual([info.tokenizer, info.chatTemplate], [null, null]);
      assert.match(info.textProblems.join('\n'), /^expected .* to have a tokenizer\.json/);
    });
  }

  it('tells of tokenizer, ends and chat template', async () => {
    const dir = await writeCheckpointFolder(join(await temporaryFolder(), 'model'));
    const info = await inspectModel(dir);
    assert.deepEqual([info.modelProblems, info.textProblems], [[], []]);
    assert.equal(info.chatTemplate, 'chat_template.jinja');
    assert.deepEqual(info.tokenizer, {
      kind: 'BPE',
      vocabSize: EOS + 3,
      specialTokens: 3,
      bos: null,
      pad: null,
      eos: [{ id: EOS, token: '<eos>' }],
    });
    await writeFile(join(dir, 'chat_template.jinja'), '{% for %}');
    await writeFile(join(dir, 'generation_config.json'), '{"eos_token_id": 900}');
    const broken = await inspectModel(dir);
    assert.equal(broken.chatTemplate, null);
    assert.match(broken.textProblems.join('\n'), /eos_token_id of .* below .*\nexpected .* Jinja template/);
    assert.deepEqual(broken.modelProblems, []);
  });

  it('lists every problem of a config at once, and still tells what it can', async () => {
    const dir = await copied('llama3');
    const config = JSON.parse(await readFile(join(dir, 'config.json'), 'utf8'));
    const changes = { hidden_act: 'gelu', rope_scaling: { rope_type: 'yarn' }, quantization_config: {} };
    await writeFile(join(dir, 'config.json'), JSON.stringify({ ...config, ...changes }));
    const info = await inspectModel(dir);
    assert.equal(info.modelProblems.length, 3, info.modelProblems.join('\n'));
    for (const [i, word] of ['rope_type', 'hidden_act', 'quantised'].entries()) {
      assert.match(info.modelProblems[i]!, new RegExp(`^expected .*${word}`));
    }
    assert.deepEqual([info.sizes.headDim, info.sizes.numKvHeads, info.parameters?.total], [10, 2, 28044]);
    assert.deepEqual(info.ropeScaling, { rope_type: 'yarn' });
  });

  it('lists tensors that are missing, misshapen or no part of the model', async () => {
    const dir = await copied('qwen2-tied');
    const config = JSON.parse(await readFile(join(dir, 'config.json'), 'utf8'));
    await writeFile(
      join(dir, 'config.json'),
      JSON.stringify({ ...config, intermediate_size: 53, num_hidden_layers: 1 }),
    );
    const { modelProblems } = await inspectModel(dir);
    assert.match(modelProblems.join('\n'), /no tensors but the model's .*layers\.1/);
    assert.match(
      modelProblems.join('\n'),
      /shapes that the config asks for.*\[52, 36\] in place of \[53, 36\]/,
    );
  });

  it('counts by config.json where the weights are Git LFS pointers', async () => {
    const dir = await copied('qwen3');
    for (const [i, size] of [1000, 200].entries()) {
      await writeFile(join(dir, `model-0000${i + 1}-of-00003.safetensors`), pointer(size));
    }
    await rm(join(dir, 'model-00003-of-00003.safetensors'));
    const { parameters, weights, modelProblems } = await inspectModel(dir);
    assert.deepEqual(parameters, { total: 30412, embedding: 5112, active: 30412, from: 'config' });
    assert.deepEqual(
      weights.files.map(({ bytes, state }) => [bytes, state]),
      [
        [1000, 'Git LFS pointer'],
        [200, 'Git LFS pointer'],
        [0, 'missing'],
      ],
    );
    assert.deepEqual([weights.bytes, weights.dtypes], [1200, {}]);
    assert.match(modelProblems.join('\n'), /no model-00003-of-00003\.safetensors/);
    await writeFile(join(dir, 'model-00003-of-00003.safetensors'), pointer(7));
    assert.match((await inspectModel(dir)).modelProblems.join('\n'), /Git LFS pointer/);
  });

  it('counts the parameters that a token meets in a mixture of any architecture', async () => {
    const dir = join(await temporaryFolder(), 'model');
    await mkdir(dir);
    const f16 = (name: string, ...shape: number[]) =>
      ({ name, dtype: 'F16', shape, data: new Uint16Array(shape.reduce((a, b) => a * b, 1)) }) as const;
    await writeSafetensors(join(dir, 'model.safetensors'), [
      f16('model.embed_tokens.weight', 7, 4),
      f16('lm_head.weight', 7, 4),
      ...[0, 1, 2, 3].map((e) => f16(`model.layers.0.mlp.experts.${e}.up_proj.weight`, 5, 4)),
      f16('model.layers.0.mlp.gate.weight', 4, 4),
      { name: 'model.position_ids', dtype: 'I64', shape: [9], data: new BigInt64Array(9) },
    ]);
    const source = { model_type: 'unheard_of', num_experts: 4, num_experts_per_tok: 1, vocab_size: 7 };
    await writeFile(join(dir, 'config.json'), JSON.stringify(source));
    const { parameters, sizes, modelProblems, weights } = await inspectModel(dir);
    assert.deepEqual(parameters, { total: 152, embedding: 56, active: 152 - 60, from: 'weights' });
    assert.deepEqual([sizes.numExperts, sizes.numExpertsPerToken, sizes.numLayers], [4, 1, null]);
    assert.deepEqual(weights.dtypes, { F16: 152, I64: 9 });
    assert.match(modelProblems.join('\n'), /model_type.*"unheard_of"/);
  });

  it('finds broken files, and none at all', async () => {
    const dir = await copied('llama3');
    await truncate(join(dir, 'model.safetensors'), 5000);
    const cut = await inspectModel(dir);
    assert.match(cut.modelProblems.join('\n'), /model\.safetensors/);
    assert.deepEqual([cut.weights.bytes, cut.parameters?.from], [5000, 'config']);
    await rm(join(dir, 'model.safetensors'));
    await rm(join(dir, 'config.json'));
    await writeFile(join(dir, 'tokenizer.json'), JSON.stringify(tokenizerFiles['tokenizer.json']));
    const none = await inspectModel(dir);
    assert.deepEqual([none.parameters, none.memory, none.weights.files], [null, null, []]);
    assert.match(none.modelProblems.join('\n'), /config\.json.*\nexpected model\.safetensors or/);
    await assert.rejects(
      inspectModel(join(dir, 'nowhere')),
      /\[inspectModel\] expected the folder of a model/,
    );
  });

  it('lists weights that it may not read', { skip: process.platform === 'win32' }, async () => {
    const dir = await copied('llama3');
    await chmod(join(dir, '..'), 0o755);
    await chmod(join(dir, 'model.safetensors'), 0o000);
    const isRoot = process.geteuid!() === 0;
    // Root may read everything, nobody may not.
    if (isRoot) process.seteuid!(65534);
    try {
      const { modelProblems, weights } = await inspectModel(dir);
      assert.match(
        modelProblems.join('\n'),
        /^expected a file that can be read \(EACCES\), got ".*model\.safetensors"$/,
      );
      assert.deepEqual(
        weights.files.map(({ state }) => state),
        ['present'],
      );
    } finally {
      if (isRoot) process.seteuid!(0);
    }
  });
});
