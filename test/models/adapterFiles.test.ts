import assert from 'node:assert/strict';
import { cp, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { InvalidArgumentError } from '../../lib/errors.js';
import { openSafetensors, type SafetensorsEntry, writeSafetensors } from '../../lib/io/safetensors.js';
import { loadAdapter, loadAdapterWeights, saveAdapter } from '../../lib/models/adapterFiles.js';
import type { Decoder } from '../../lib/models/decoder.js';
import { loadModel } from '../../lib/models/loadModel.js';
import { addLora, mergeLora } from '../../lib/models/lora.js';
import { composePeftConfig, parsePeftConfig } from '../../lib/models/peftConfig.js';
import { saveModel } from '../../lib/models/saveModel.js';
import { loraTargets } from '../../lib/nn/lora.js';
import { memory } from '../../lib/runtime.js';
import { bf16ToNumber, floatDtypes } from '../../lib/tensor/dtype.js';
import { assertSameBits } from '../support/compare.js';
import { adaptedModel } from '../support/lora.js';
import { oddModel } from '../support/models.js';
import { ownTensors } from '../support/owned.js';
import { roundTo } from '../support/rounding.js';

ownTensors();

const fixtures = fileURLToPath(new URL('../../../test/fixtures/models/', import.meta.url));
const gate = 'base_model.model.model.layers.1.mlp.gate_proj.lora_A.weight';

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'isopolicy-'));
});
afterEach(() => rm(dir, { recursive: true }));

async function valuesOf(model: Decoder): Promise<Map<string, Float32Array>> {
  const values = new Map<string, Float32Array>();
  for (const { name, master } of model.lora!.parameters) values.set(name, await master.floats());
  return values;
}

describe('loadAdapter', () => {
  it('brings every value to its place', async () => {
    for (const name of ['qwen2-tied', 'llama3']) {
      const { model } = await loadModel(join(fixtures, name));
      using _model = model;
      const adapter = await loadAdapter(join(fixtures, `${name}-lora`), model);
      await using file = await openSafetensors(join(fixtures, `${name}-lora`, 'adapter_model.safetensors'));
      const found = await valuesOf(model);
      assert.equal(found.size, file.tensors.size);
      for (const [key, { dtype, shape }] of file.tensors) {
        const bytes = await file.read(key);
        const stored =
          dtype === 'F32' ? new Float32Array(bytes) : Float32Array.from(new Uint16Array(bytes), bf16ToNumber);
        const plain = key.replace(/^base_model\.model\./, '');
        assertSameBits(found.get(plain)!, stored, key);
        assert.deepEqual(adapter.parameters.find((p) => p.name === plain)!.shape, shape);
      }
      const expected = { 'qwen2-tied': 2, llama3: 2.5 / Math.sqrt(3) }[name];
      assert.equal(adapter.scaling, expected);
    }
  });

  it('names files that are missing or broken', async () => {
    using model = oddModel();
    const refuses = async (message: RegExp) => {
      await assert.rejects(loadAdapter(dir, model), (error) => {
        assert.ok(error instanceof InvalidArgumentError);
        assert.match(error.message, message);
        return true;
      });
      assert.equal(model.lora, null);
      assert.ok(model.parameters.every(({ frozen }) => !frozen));
    };
    await refuses(/adapter_config\.json/);
    await writeFile(join(dir, 'adapter_config.json'), '{');
    await refuses(/adapter_config\.json to be JSON/);
    using adapted = adaptedModel();
    const saved = join(dir, 'saved');
    await saveAdapter(saved, adapted);
    await cp(join(saved, 'adapter_config.json'), join(dir, 'adapter_config.json'));
    await refuses(/adapter_model\.safetensors/);
    await writeFile(join(dir, 'adapter_model.bin'), '');
    await refuses(/\[loadAdapter\] expected adapter_model\.safetensors in .*adapter_model\.bin alone/);
    await writeFile(join(dir, 'adapter_model.safetensors'), 'no header');
    await refuses(/\[safetensors\] expected the header of .*adapter_model\.safetensors/);
  });

  it('lists tensors that are missing, extra, misshapen or of another dtype, and NaN; the model stays as it was', async () => {
    using adapted = adaptedModel();
    const saved = join(dir, 'saved');
    await saveAdapter(saved, adapted);
    const weights = join(saved, 'adapter_model.safetensors');
    const whole = new Map<string, SafetensorsEntry>();
    {
      await using file = await openSafetensors(weights);
      for (const [name, { dtype, shape }] of file.tensors) {
        whole.set(name, { name, dtype, shape, data: await file.read(name) });
      }
    }
    using model = oddModel();
    const before = memory().tensors;
    const refuses = async (
      change: (entries: Map<string, SafetensorsEntry>) => void,
      ...messages: RegExp[]
    ) => {
      const entries = new Map(whole);
      change(entries);
      await writeSafetensors(weights, entries.values());
      await assert.rejects(loadAdapter(saved, model), (error) => {
        assert.ok(error instanceof InvalidArgumentError);
        for (const message of messages) assert.match(error.message, message);
        return true;
      });
      assert.equal(model.lora, null);
      assert.ok(model.parameters.every(({ frozen }) => !frozen));
      assert.equal(memory().tensors, before);
    };
    const other = (change: Partial<SafetensorsEntry>) =>
      ({ ...whole.get(gate)!, ...change }) as SafetensorsEntry;
    await refuses(
      (entries) => {
        entries.delete(gate);
        entries.set('lm_head.lora_A.weight', other({ name: 'lm_head.lora_A.weight' }));
      },
      /^\[loadAdapter\] expected all tensors .* got "no base_model\.model\.model\.layers\.1\.mlp\.gate_proj\.lora_A\.weight"/,
      /no tensors but the model's in .* got "lm_head\.lora_A\.weight"/,
    );
    await refuses(
      (entries) => entries.set(gate, other({ shape: [60, 3] })),
      /gate_proj\.lora_A\.weight of \[60, 3\] in place of \[3, 60\]/,
    );
    await refuses(
      (entries) => entries.set(gate, other({ dtype: 'I32' })),
      /tensors in F32, F16 or BF16.*gate_proj\.lora_A\.weight in I32/,
    );
    const bad = new Float32Array((whole.get(gate)!.data as ArrayBuffer).slice(0));
    bad[7] = Number.NaN;
    await refuses(
      (entries) => entries.set(gate, other({ data: bad })),
      /^\[loadAdapter\] expected finite values in .*gate_proj\.lora_A\.weight, got "1 NaN or infinite"$/,
    );

    await writeSafetensors(weights, whole.values());
    await loadAdapter(saved, model);
    const adapter = model.lora;
    await assert.rejects(loadAdapter(saved, model), /expected a model without an adapter/);
    assert.equal(model.lora, adapter);
    using deeper = oddModel({ numLayers: 3 });
    await assert.rejects(
      loadAdapter(saved, deeper),
      /no base_model\.model\.model\.layers\.2\.self_attn\.q_proj/,
    );
  });
});

describe('loadAdapterWeights', () => {
  it('brings the values to the adapter that is there, if it has the same settings', async () => {
    using saved = adaptedModel();
    await saveAdapter(dir, saved);
    using model = oddModel();
    await assert.rejects(
      loadAdapterWeights(dir, model),
      /\[loadAdapterWeights\] expected a model with an adapter/,
    );
    for (const [change, message] of [
      [{ alpha: 9 }, /adapter_config\.json to have the adapter's alpha = 9, got 8$/],
      [{ useRslora: true }, /to have the adapter's useRslora = true, got false$/],
      [{ targets: ['q_proj'] }, /to have the adapter's targets = q_proj, got \[q_proj, k_proj, /],
    ] as const) {
      using other = adaptedModel({}, change);
      const before = await valuesOf(other);
      await assert.rejects(loadAdapterWeights(dir, other), message);
      assert.deepEqual(await valuesOf(other), before);
    }
    const { alpha, rank } = saved.lora!.config;
    const adapter = addLora(model, { rank, alpha }, { seed: 99 });
    await loadAdapterWeights(dir, model);
    assert.equal(model.lora, adapter);
    assert.deepEqual(await valuesOf(model), await valuesOf(saved));
  });
});

describe('saveAdapter', () => {
  it('is read again with the same bits, and rounded where a dtype is asked for', async () => {
    using model = adaptedModel(
      {},
      { targets: ['q_proj', 'o_proj', 'down_proj'], useRslora: true, alpha: 0.5 },
    );
    const values = await valuesOf(model);
    for (const dtype of [undefined, ...floatDtypes]) {
      const path = join(dir, String(dtype));
      await saveAdapter(path, model, { ...(dtype && { dtype }), baseModel: 'some/model' });
      using other = oddModel();
      const adapter = await loadAdapter(path, other);
      assert.deepEqual(adapter.config, model.lora!.config);
      for (const [name, found] of await valuesOf(other)) {
        const expected = values.get(name)!.map((x) => roundTo(x, dtype ?? 'fp32'));
        assertSameBits(found, expected, `${dtype}: ${name}`);
      }
      const config = JSON.parse(await readFile(join(path, 'adapter_config.json'), 'utf8'));
      assert.equal(config.base_model_name_or_path, 'some/model');
      await using file = await openSafetensors(join(path, 'adapter_model.safetensors'));
      assert.equal(file.metadata.get('format'), 'pt');
      assert.ok(
        [...file.tensors.keys()].includes('base_model.model.model.layers.1.self_attn.o_proj.lora_B.weight'),
      );
    }
  });

  it('refuses models without an adapter, folders with one, and values that do not fit', async () => {
    using plain = oddModel();
    await assert.rejects(
      saveAdapter(dir, plain),
      /\[saveAdapter\] expected a model with an adapter, got "one without"$/,
    );
    using model = adaptedModel();
    const { name, master } = model.lora!.parameters[1]!;
    master.upload((await master.floats()).fill(7e4));
    await assert.rejects(
      saveAdapter(dir, model, { dtype: 'fp16' }),
      new RegExp(`expected base_model\\.model\\.${name} to have finite values in fp16`),
    );
    await assert.rejects(
      saveAdapter(dir, model, { dtype: 'fp64' as never }),
      /\[saveAdapter\] expected dtype to be one of/,
    );
    await saveAdapter(dir, model);
    await assert.rejects(
      saveAdapter(dir, model),
      /\[saveAdapter\] expected a folder without adapter_model\.safetensors/,
    );
    await assert.rejects(
      saveModel(join(dir, 'm'), model, { dtype: 'fp32' }),
      /\[saveModel\] expected a model without an adapter/,
    );
    mergeLora(model);
    await saveModel(join(dir, 'm'), model, { dtype: 'fp32' });
    await rename(join(dir, 'm', 'model.safetensors'), join(dir, 'merged.safetensors'));
  });
});

describe('adapter_config.json', () => {
  const plain = {
    peft_type: 'LORA',
    r: 8,
    lora_alpha: 16,
    target_modules: ['q_proj', 'v_proj'],
    lora_dropout: 0.0,
  };

  it('is read as PEFT writes it', () => {
    const written = {
      alpha_pattern: {},
      auto_mapping: { base_model_class: 'Qwen2ForCausalLM', parent_library: 'transformers.models.qwen2' },
      base_model_name_or_path: 'Qwen/Qwen2.5-0.5B',
      bias: 'none',
      corda_config: null,
      eva_config: null,
      exclude_modules: null,
      fan_in_fan_out: false,
      inference_mode: true,
      init_lora_weights: true,
      layer_replication: null,
      layers_pattern: null,
      layers_to_transform: null,
      loftq_config: {},
      lora_alpha: 16,
      lora_bias: false,
      lora_dropout: 0.05,
      megatron_config: null,
      megatron_core: 'megatron.core',
      modules_to_save: null,
      peft_type: 'LORA',
      qalora_group_size: 16,
      r: 8,
      rank_pattern: {},
      revision: null,
      target_modules: ['v_proj', 'q_proj'],
      target_parameters: null,
      task_type: 'CAUSAL_LM',
      trainable_token_indices: null,
      use_dora: false,
      use_qalora: false,
      use_rslora: true,
    };
    assert.deepEqual(parsePeftConfig(written), {
      rank: 8,
      alpha: 16,
      dropout: 0.05,
      useRslora: true,
      targets: ['v_proj', 'q_proj'],
    });
    const { targets: _, ...all } = parsePeftConfig({ ...written, target_modules: 'all-linear' });
    assert.deepEqual(all, { rank: 8, alpha: 16, dropout: 0.05, useRslora: true });
    const eva = { init_lora_weights: 'eva', eva_config: { rho: 1.0, tau: 0.99 }, layers_pattern: '' };
    assert.equal(parsePeftConfig({ ...written, ...eva }).rank, 8);
    // What newer versions make of all-linear.
    const paths = [0, 1].flatMap((i) => [
      `model.layers.${i}.mlp.up_proj`,
      `model.layers.${i}.self_attn.o_proj`,
    ]);
    assert.deepEqual(parsePeftConfig({ ...written, target_modules: paths }).targets, ['up_proj', 'o_proj']);
  });

  it('is written so that it is read again', () => {
    const config = { rank: 4, alpha: 1.5, targets: loraTargets, useRslora: true, dropout: 0.25 };
    assert.deepEqual(parsePeftConfig(composePeftConfig(config, null)), config);
  });

  it('is refused by name for what is not supported, all of it at once', () => {
    for (const [name, value] of Object.entries({
      use_dora: true,
      rank_pattern: { q_proj: 4 },
      alpha_pattern: { q_proj: 4 },
      modules_to_save: ['lm_head'],
      layers_to_transform: [0],
      layers_pattern: 'layers',
      layer_replication: [[0, 2]],
      fan_in_fan_out: true,
      lora_bias: true,
      exclude_modules: ['k_proj'],
      trainable_token_indices: [3],
      target_parameters: ['experts.down_proj'],
      use_qalora: true,
      something_new: 1,
    })) {
      assert.throws(
        () => parsePeftConfig({ ...plain, [name]: value }, 'here'),
        new RegExp(`^InvalidArgumentError: \\[here\\] expected no ${name} \\(it is not supported\\), got `),
      );
    }
    for (const [change, message] of [
      [{ peft_type: 'IA3' }, /expected peft_type to be LORA, got "IA3"$/],
      [{ task_type: 'SEQ_CLS' }, /expected task_type to be CAUSAL_LM, got "SEQ_CLS"$/],
      [{ bias: 'all' }, /expected bias to be none/],
      [{ r: 0 }, /expected r to be an integer of at least 1, got 0$/],
      [{ lora_alpha: '16' }, /expected lora_alpha to be a finite number/],
      [{ lora_dropout: 2 }, /expected lora_dropout to be a finite number between 0 and 1/],
      [{ use_rslora: 'yes' }, /expected use_rslora to be true or false/],
      [
        { init_lora_weights: 'pissa_niter_16' },
        /expected init_lora_weights that leaves the base weights as they are/,
      ],
      [
        { target_modules: ['q_proj', 'lm_head'] },
        /expected each of target_modules to be one of .*, got "lm_head"/,
      ],
      [{ target_modules: '.*_proj' }, /expected target_modules to list some of q_proj, /],
      [{ target_modules: [] }, /expected target_modules to list some of/],
    ] as const) {
      assert.throws(() => parsePeftConfig({ ...plain, ...change }), message);
    }
    assert.throws(
      () => parsePeftConfig({ ...plain, r: 0, use_dora: true, bias: 'all' }),
      /expected bias .*; and no use_dora .*; and r to be an integer/,
    );
  });
});
