import assert from 'node:assert/strict';
import { cp, mkdtemp, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { InvalidArgumentError } from '../../lib/errors.js';
import { openCheckpoint } from '../../lib/io/checkpointFiles.js';
import { type SafetensorsEntry, writeSafetensors } from '../../lib/io/safetensors.js';
import { Decoder } from '../../lib/models/decoder.js';
import { publishedTensors } from '../../lib/models/huggingFaceTensors.js';
import { loadModel } from '../../lib/models/loadModel.js';
import { bf16ToNumber, fp16ToNumber } from '../../lib/tensor/dtype.js';
import { assertSameBits } from '../support/compare.js';
import { mixtureConfig, oddConfig } from '../support/models.js';
import { ownTensors } from '../support/owned.js';

ownTensors();

const fixtures = fileURLToPath(new URL('../../../test/fixtures/models/', import.meta.url));
const layer = 'model.layers.1';

/** The values of every tensor of a folder, by name. */
async function valuesOf(dir: string): Promise<Map<string, Float32Array>> {
  await using files = await openCheckpoint(dir);
  const values = new Map<string, Float32Array>();
  for (const [name, { dtype }] of files.tensors) {
    const bytes = await files.read(name);
    const widen = { F16: fp16ToNumber, BF16: bf16ToNumber }[dtype as string];
    values.set(name, widen ? Float32Array.from(new Uint16Array(bytes), widen) : new Float32Array(bytes));
  }
  return values;
}

describe('loadModel', () => {
  for (const fixture of [
    'llama3',
    'llama-linear',
    'qwen2-tied',
    'qwen3',
    'qwen3-tied',
    'qwen3-moe',
    'qwen3-moe-sparse',
    'mixtral',
  ]) {
    it(`brings every value of ${fixture} to its place`, async () => {
      const { model, config } = await loadModel(join(fixtures, fixture));
      using _model = model;
      const stored = await valuesOf(join(fixtures, fixture));
      assert.deepEqual(
        config.source,
        JSON.parse(await readFile(join(fixtures, fixture, 'config.json'), 'utf8')),
      );
      const merged = { qkv_proj: ['q_proj', 'k_proj', 'v_proj'], gate_up_proj: ['gate_proj', 'up_proj'] };
      const mixtral = fixture === 'mixtral';
      const ofExpert: Record<string, string[]> = mixtral
        ? { gate_up_proj: ['w1', 'w3'], down_proj: ['w2'] }
        : { gate_up_proj: ['gate_proj', 'up_proj'], down_proj: ['down_proj'] };
      for (const { name: own, shape, master } of model.parameters) {
        const name = mixtral ? own.replace('.mlp.', '.block_sparse_moe.') : own;
        const [, experts, projection] = /^(.*\.experts)\.(\w+)\.weight$/.exec(name) ?? [];
        if (experts) {
          const names = Array.from({ length: shape[0]! }, (_, e) =>
            ofExpert[projection!]!.map((part) => `${experts}.${e}.${part}.weight`),
          );
          const expected = names.flat().flatMap((part) => [...stored.get(part)!]);
          assertSameBits(await master.floats(), expected, name);
          continue;
        }
        const [module, parts] = Object.entries(merged).find(([key]) => name.includes(key)) ?? ['', ['']];
        const expected = parts.flatMap((part) => [...stored.get(name.replace(module, part))!]);
        assertSameBits(await master.floats(), expected, name);
      }
    });
  }

  it('knows the tensors of every parameter, each row once', () => {
    for (const change of [
      {},
      { tieWordEmbeddings: true, attentionBias: false },
      { qkNorm: true, mlpBias: true, attentionOutBias: true },
      mixtureConfig,
      { attentionBias: false, numExperts: 3, numExpertsPerToken: 2 },
    ]) {
      using model = new Decoder({ ...oddConfig, ...change }, { seed: 1 });
      const tensors = publishedTensors(model.config);
      for (const { name, shape } of model.parameters) {
        let row = 0;
        for (const tensor of tensors.filter(({ parameter }) => parameter === name)) {
          assert.equal(tensor.row, row, tensor.name);
          if (shape.length > 1) assert.equal(tensor.shape[1], shape.at(-1), tensor.name);
          row += tensor.shape[0]!;
        }
        assert.equal(row, shape.length === 1 ? shape[0] : shape.slice(0, -1).reduce((a, b) => a * b), name);
      }
      assert.deepEqual(
        [...new Set(tensors.map(({ parameter }) => parameter))],
        model.parameters.map(({ name }) => name),
      );
    }
  });

  it('has tables as long as asked', async () => {
    const { model } = await loadModel(join(fixtures, 'qwen3'), { maxLength: 20 });
    using _model = model;
    assert.equal(model.config.maxPositionEmbeddings, 20);
    for (const maxLength of [0, 129, 1.5]) {
      await assert.rejects(
        loadModel(join(fixtures, 'qwen3'), { maxLength }),
        /\[loadModel\] expected maxLength to be an integer of at least 1 and at most 128/,
      );
    }
  });

  describe('of a broken folder', () => {
    let dir: string;
    beforeEach(async () => {
      dir = await mkdtemp(join(tmpdir(), 'isopolicy-load-'));
    });
    afterEach(() => rm(dir, { recursive: true }));

    const weights = () => join(dir, 'model.safetensors');

    async function refused(...patterns: RegExp[]): Promise<void> {
      await assert.rejects(loadModel(dir), (error) => {
        assert.ok(error instanceof InvalidArgumentError, String(error));
        for (const pattern of patterns) assert.match(error.message, pattern);
        return true;
      });
    }

    /** A copy of a fixture whose tensors `change` has changed: what it returns takes a tensor's place, null removes it. */
    async function changed(
      fixture: string,
      change: (entry: SafetensorsEntry & { data: Uint8Array }) => Partial<SafetensorsEntry> | null,
      more: readonly SafetensorsEntry[] = [],
    ): Promise<void> {
      await cp(join(fixtures, fixture), dir, { recursive: true });
      await using files = await openCheckpoint(dir);
      const entries: SafetensorsEntry[] = [...more];
      for (const [name, { dtype, shape }] of files.tensors) {
        const entry = { name, dtype, shape, data: new Uint8Array(await files.read(name)) };
        const changes = change(entry);
        if (changes) entries.push({ ...entry, ...changes });
      }
      await writeSafetensors(weights(), entries);
    }

    it('says that there is none, or no config, or no weights', async () => {
      await assert.rejects(loadModel(join(dir, 'none')), /the folder of a model \(ENOENT\), got ".*none"/);
      await assert.rejects(
        loadModel(join(fixtures, 'llama3-lora')),
        /config\.json in .*llama3-lora, got "an adapter alone/,
      );
      await assert.rejects(
        loadModel(import.meta.filename),
        /\[loadModel\] expected the folder of a model, got ".*loadModel\.test\.js"/,
      );
      await refused(/\[config\.json\] expected a file that can be read \(ENOENT\), got ".*config\.json"/);
      await writeFile(join(dir, 'config.json'), '{"architectures": ');
      await refused(/config\.json to be JSON/);
      await writeFile(join(dir, 'config.json'), 'version https://git-lfs.github.com/spec/v1\n');
      await refused(/config\.json to hold its content, got "a Git LFS pointer/);
      await cp(join(fixtures, 'qwen3', 'config.json'), join(dir, 'config.json'));
      await refused(/\[checkpoint\] expected model\.safetensors or model\.safetensors\.index\.json in /);
    });

    it('names tensors that are missing and tensors that are no part of the model, together', async () => {
      await changed(
        'qwen3',
        ({ name }) => (name === 'lm_head.weight' || name.includes('q_norm') ? null : {}),
        [{ name: `${layer}.self_attn.q_proj.bias`, dtype: 'F32', shape: [1], data: new Float32Array(1) }],
      );
      await refused(
        /^\[loadModel\] expected all tensors of the model in .*, got "no model\.layers\.0\.self_attn\.q_norm\.weight, model\.layers\.1\.self_attn\.q_norm\.weight, lm_head\.weight"/,
        /; and no tensors but the model's in .*, got "model\.layers\.1\.self_attn\.q_proj\.bias"$/,
      );
    });

    it('names tensors of other shapes and dtypes, with what was expected and found', async () => {
      await changed('llama3', ({ name, data }) => {
        if (name === `${layer}.mlp.up_proj.weight`) return { shape: [36, 52] };
        if (name === 'model.norm.weight') return { shape: [36, 1] };
        if (name === `${layer}.mlp.down_proj.weight`) return { dtype: 'I32' };
        if (name === `${layer}.input_layernorm.weight`) return { dtype: 'F8_E4M3', data: data.slice(0, 36) };
        return {};
      });
      await refused(
        /shapes that the config asks for, got "model\.layers\.1\.mlp\.up_proj\.weight of \[36, 52\] in place of \[52, 36\], model\.norm\.weight of \[36, 1\] in place of \[36\]"/,
        /tensors in F32, F16 or BF16, got "model\.layers\.1\.input_layernorm\.weight in F8_E4M3, model\.layers\.1\.mlp\.down_proj\.weight in I32"/,
      );
    });

    it('names an expert that is missing, or misshapen, with what was expected and found', async () => {
      const expert = 'model.layers.2.mlp.experts.6';
      await changed('qwen3-moe', ({ name }) => {
        if (name === `${expert}.up_proj.weight`) return null;
        if (name === `${expert}.down_proj.weight`) return { shape: [20, 36] };
        return {};
      });
      await rm(join(dir, 'model.safetensors.index.json'));
      await refused(
        /all tensors of the model in .*, got "no model\.layers\.2\.mlp\.experts\.6\.up_proj\.weight"/,
        /got "model\.layers\.2\.mlp\.experts\.6\.down_proj\.weight of \[20, 36\] in place of \[36, 20\]"$/,
      );
    });

    it('names experts that the config does not have', async () => {
      await cp(join(fixtures, 'mixtral'), dir, { recursive: true });
      const path = join(dir, 'config.json');
      const config = JSON.parse(await readFile(path, 'utf8'));
      await writeFile(path, JSON.stringify({ ...config, num_local_experts: 3 }));
      await refused(
        /no tensors but the model's in .*, got "model\.layers\.0\.block_sparse_moe\.experts\.3\.w1\.weight, /,
        /block_sparse_moe\.gate\.weight of \[4, 36\] in place of \[3, 36\]/,
      );
    });

    it('lists no more than a few of many', async () => {
      await cp(join(fixtures, 'llama3'), dir, { recursive: true });
      const path = join(dir, 'config.json');
      const config = JSON.parse(await readFile(path, 'utf8'));
      await writeFile(path, JSON.stringify({ ...config, hidden_size: 40 }));
      await refused(
        /got "model\.embed_tokens\.weight of \[71, 36\] in place of \[71, 40\], .* and 16 more"$/,
      );
    });

    for (const [fixture, name, nan, what] of [
      ['qwen3', `${layer}.self_attn.k_proj.weight`, [0, 0, 0xc0, 0x7f], 'NaN in F32'],
      ['llama3', 'lm_head.weight', [0, 0, 0x80, 0xff], 'an infinite value in F32'],
      ['qwen2-tied', `${layer}.self_attn.v_proj.bias`, [0, 0x7c], 'an infinite value in F16'],
      ['llama-linear', `${layer}.mlp.gate_proj.weight`, [0xc0, 0x7f], 'NaN in BF16'],
      ['mixtral', `${layer}.block_sparse_moe.experts.3.w2.weight`, [0xc0, 0x7f], 'NaN in BF16'],
    ] as const) {
      it(`names a tensor with ${what}`, async () => {
        await changed(fixture, (entry) => {
          if (entry.name === name) entry.data.set(nan, entry.data.length - nan.length);
          return {};
        });
        await refused(
          new RegExp(`^\\[loadModel\\] expected finite values in ${name}, got "1 NaN or infinite"$`),
        );
      });
    }

    it('says that a file was cut', async () => {
      await cp(join(fixtures, 'llama3'), dir, { recursive: true });
      await truncate(weights(), (await stat(weights())).size - 1);
      await refused(/model\.safetensors to have the \d+ bytes of data .*cut short/);
      await truncate(weights(), 500);
      await refused(/header of .*model\.safetensors to have at most 492 bytes/);
    });

    it('takes the head of a tied model only where it is the embedding', async () => {
      await changed('qwen3-tied', ({ name, data }) => {
        if (name === 'lm_head.weight') data[data.length - 1]! ^= 1;
        return {};
      });
      await refused(
        /lm_head\.weight to be model\.embed_tokens\.weight, as tie_word_embeddings says, got "another tensor"/,
      );
      await changed('qwen3-tied', ({ name, data }) =>
        name === 'lm_head.weight' ? { shape: [70, 36], data: data.slice(0, 70 * 36 * 2) } : {},
      );
      await refused(/lm_head\.weight to be model\.embed_tokens\.weight/);
    });
  });
});
