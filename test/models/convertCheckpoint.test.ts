import assert from 'node:assert/strict';
import { cp, mkdir, mkdtemp, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { InvalidArgumentError } from '../../lib/errors.js';
import { openCheckpoint } from '../../lib/io/checkpointFiles.js';
import { writeSafetensors } from '../../lib/io/safetensors.js';
import { type ConvertOptions, convertCheckpoint } from '../../lib/models/convertCheckpoint.js';
import { loadModel } from '../../lib/models/loadModel.js';
import { bf16ToNumber, floatDtypes, formatOf, fp16ToNumber } from '../../lib/tensor/dtype.js';
import { assertSameBits } from '../support/compare.js';
import { ownTensors } from '../support/owned.js';
import { roundTo } from '../support/rounding.js';

ownTensors();

const fixtures = fileURLToPath(new URL('../../../test/fixtures/models/', import.meta.url));
const pointer = `version https://git-lfs.github.com/spec/v1\noid sha256:${'0'.repeat(64)}\nsize 12345\n`;

/** The values of every float tensor of a folder, by name. */
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

describe('convertCheckpoint', () => {
  let dir: string;
  let out: string;
  beforeEach(async () => {
    const folder = await mkdtemp(join(tmpdir(), 'isopolicy-convert-'));
    [dir, out] = [join(folder, 'model'), join(folder, 'out')];
  });
  afterEach(() => rm(join(dir, '..'), { recursive: true }));

  /** A model of one tensor, without an architecture. */
  async function lay(
    values: ArrayLike<number>,
    config: object | null = { torch_dtype: 'float32' },
  ): Promise<void> {
    await mkdir(dir);
    const data = Float32Array.from(values);
    await writeSafetensors(join(dir, 'model.safetensors'), [
      { name: 'w', dtype: 'F32', shape: [data.length], data },
      { name: 'ids', dtype: 'I64', shape: [2], data: BigInt64Array.of(5n, -(2n ** 62n)) },
      { name: 'none', dtype: 'F32', shape: [0, 3], data: new Float32Array() },
    ]);
    if (config) await writeFile(join(dir, 'config.json'), JSON.stringify(config));
  }

  async function refused(options: ConvertOptions, ...patterns: RegExp[]): Promise<void> {
    await assert.rejects(convertCheckpoint(dir, out, options), (error) => {
      assert.ok(error instanceof InvalidArgumentError, String(error));
      for (const pattern of patterns) assert.match(error.message, pattern);
      return true;
    });
    await assert.rejects(readdir(out), /ENOENT/, 'no folder is made');
  }

  for (const name of ['llama3', 'qwen2-tied', 'qwen3', 'qwen3-tied']) {
    for (const dtype of floatDtypes) {
      it(`rounds ${name} to ${dtype}, to the bit, and loadModel loads it`, async () => {
        const source = join(fixtures, name);
        const { tensors, total } = await convertCheckpoint(source, out, { dtype, maxShardBytes: 20_000 });
        assert.ok((await readdir(out)).filter((file) => file.endsWith('.safetensors')).length > 1, 'shards');
        const [before, after] = [await valuesOf(source), await valuesOf(out)];
        let [error, all] = [0, 0];
        for (const [tensor, values] of before) {
          const rounded = values.map((x) => roundTo(x, dtype));
          assertSameBits(after.get(tensor)!, rounded, tensor);
          const found = tensors.find((converted) => converted.name === tensor)!;
          assert.equal(
            found.maxAbs,
            values.reduce((most, x) => Math.max(most, Math.abs(x)), 0),
            tensor,
          );
          const { minNormal } = formatOf(dtype);
          const subnormal = [...rounded].filter((x) => x !== 0 && Math.abs(x) < minNormal).length;
          assert.equal(found.subnormal, subnormal, tensor);
          const own = values.reduce((sum, x, i) => sum + (rounded[i]! - x) ** 2, 0);
          const norm = values.reduce((sum, x) => sum + x * x, 0);
          assert.ok(Math.abs(found.relativeError - Math.sqrt(own / norm)) < 1e-6, tensor);
          error += own;
          all += norm;
        }
        assert.ok(Math.abs(total.relativeError - Math.sqrt(error / all)) < 1e-6);
        assert.equal(
          total.elements,
          [...before.values()].reduce((sum, { length }) => sum + length, 0),
        );
        const { model, config } = await loadModel(out);
        model.dispose();
        assert.equal(config.dtype, dtype);
      });
    }
  }

  it('counts planted values, and refuses, clamps or takes those that overflow', async () => {
    const values = new Float32Array(3_000_000).fill(1.5);
    // Across pieces of 2^20, and at their ends.
    for (const [i, at] of [0, 1048575, 1048576, 2097152, 2999999].entries())
      values[at] = (i % 2 ? -1 : 1) * 65520;
    values.set([65519, -65519], 100);
    values.set([1e-8, -2.9e-8], 1048570);
    values.set([3.1e-8, 6e-5, -1e-6], 2097150 - 3);
    await lay(values);
    const counts = { overflow: 5, nonFinite: 0, toZero: 2, subnormal: 3 };

    const measured = await convertCheckpoint(dir, null, { dtype: 'fp16' });
    const refusal = await convertCheckpoint(dir, out, { dtype: 'fp16' });
    assert.deepEqual(refusal, measured);
    await assert.rejects(readdir(out), /ENOENT/, 'nothing is left');
    const { tensors, total } = refusal;
    const w = tensors.find(({ name }) => name === 'w')!;
    for (const [key, count] of Object.entries(counts)) {
      assert.deepEqual([w[key as 'overflow'], total[key as 'overflow']], [count, count], key);
    }
    assert.deepEqual([w.maxAbs, total.maxAbs, total.elements], [65520, 65520, 3_000_002]);
    assert.deepEqual(
      tensors
        .filter(({ name }) => name !== 'w')
        .map(({ name, from, to, overflow }) => [name, from, to, overflow]),
      [
        ['ids', 'I64', 'I64', 0],
        ['none', 'F32', 'F16', 0],
      ].sort((a, b) => tensors.findIndex((t) => t.name === a[0]) - tensors.findIndex((t) => t.name === b[0])),
    );

    for (const [overflow, largest] of [
      ['clamp', 65504],
      ['allow', Number.POSITIVE_INFINITY],
    ] as const) {
      const conversion = await convertCheckpoint(dir, out, { dtype: 'fp16', overflow });
      assert.deepEqual([conversion.out, conversion.total], [out, total]);
      await using files = await openCheckpoint(out);
      const bits = new Uint16Array(await files.read('w'));
      const wrong = values.findIndex((x, i) => {
        const rounded = roundTo(x, 'fp16');
        const wanted = Number.isFinite(rounded) ? rounded : Math.sign(x) * largest;
        return fp16ToNumber(bits[i]!) !== wanted;
      });
      assert.equal(wrong, -1);
      assert.deepEqual(new BigInt64Array(await files.read('ids')), BigInt64Array.of(5n, -(2n ** 62n)));
      assert.deepEqual(files.tensors.get('none')!.shape, [0, 3]);
      await rm(out, { recursive: true });
    }
  });

  it('carries NaN and infinite values and clamps none of them', async () => {
    await lay([1, Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, -1e39, 3.4e38, -3.4e38]);
    const { total } = await convertCheckpoint(dir, out, { dtype: 'bf16', overflow: 'clamp' });
    assert.deepEqual([total.overflow, total.nonFinite], [2, 4]);
    const { max } = formatOf('bf16');
    const infinity = Number.POSITIVE_INFINITY;
    assert.deepEqual(
      [...(await valuesOf(out)).get('w')!],
      [1, Number.NaN, infinity, -infinity, -infinity, max, -max],
    );
  });

  it('changes no bit of what is in the dtype already', async () => {
    await mkdir(dir);
    const data = Uint16Array.of(0x7fc1, 0xffff, 0x7f80, 0x0001, 0x8000, 0x3f80);
    await writeSafetensors(join(dir, 'model.safetensors'), [{ name: 'w', dtype: 'BF16', shape: [6], data }]);
    const { total } = await convertCheckpoint(dir, out, { dtype: 'bf16' });
    assert.deepEqual([total.overflow, total.nonFinite, total.subnormal], [0, 3, 1]);
    await using files = await openCheckpoint(out);
    assert.deepEqual(new Uint16Array(await files.read('w')), data);
  });

  it('takes what belongs to the model along, and says what it leaves', async () => {
    await lay([1], {
      model_type: 'of-two-parts',
      dtype: 'float32',
      text_config: { torch_dtype: 'float32', hidden_size: 4 },
      vision_config: { hidden_size: 4 },
      note: 'float32',
    });
    const files = {
      'tokenizer.json': '{}',
      'chat_template.jinja': 'é',
      'sentencepiece.bpe.model': 's',
      'modeling_two_parts.py': '#',
      'README.md': '#',
      LICENSE: 'MIT',
    };
    for (const [name, text] of Object.entries(files)) await writeFile(join(dir, name), text);
    const left = ['pytorch_model.bin', 'consolidated.safetensors', 'model.gguf', 'optimizer.pt', 'tf.h5'];
    // Of a training checkpoint, and of its user.
    left.push('training.json', 'train.yaml');
    for (const name of [...left, '.gitattributes']) await writeFile(join(dir, name), 'x');
    await mkdir(join(dir, 'onnx'));
    await mkdir(out);
    await writeFile(join(out, '.gitattributes'), 'mine');

    const { copied, leftOut } = await convertCheckpoint(dir, out, { dtype: 'bf16' });
    assert.deepEqual(copied, Object.keys(files).sort());
    assert.deepEqual(leftOut, [...left, 'onnx/'].sort());
    assert.deepEqual(
      (await readdir(out)).sort(),
      ['.gitattributes', 'config.json', 'model.safetensors', ...copied].sort(),
    );
    for (const [name, text] of Object.entries(files))
      assert.equal(await readFile(join(out, name), 'utf8'), text);
    assert.equal(await readFile(join(out, '.gitattributes'), 'utf8'), 'mine');
    assert.deepEqual(JSON.parse(await readFile(join(out, 'config.json'), 'utf8')), {
      model_type: 'of-two-parts',
      dtype: 'bfloat16',
      text_config: { torch_dtype: 'bfloat16', hidden_size: 4 },
      vision_config: { hidden_size: 4 },
      note: 'float32',
    });
  });

  it('names the dtype where config.json did not, and needs no config.json', async () => {
    await lay([1], { model_type: 'x' });
    await convertCheckpoint(dir, out, { dtype: 'fp16' });
    assert.equal(JSON.parse(await readFile(join(out, 'config.json'), 'utf8')).torch_dtype, 'float16');
    await rm(join(dir, 'config.json'));
    await rm(out, { recursive: true });
    await convertCheckpoint(dir, out, { dtype: 'fp16' });
    assert.deepEqual(await readdir(out), ['model.safetensors']);
  });

  it('refuses what it would spoil, before anything is written', async () => {
    const options = { dtype: 'fp16' } as const;
    await refused(options, /\[checkpoint\] expected a folder with a model/);
    await lay([1], { quantization_config: { quant_method: 'gptq' } });
    await refused(options, /without quantization_config, got "gptq"/);
    await writeFile(join(dir, 'config.json'), '{"torch');
    await refused(options, /config\.json to be JSON/);
    await rm(join(dir, 'config.json'));
    await refused({ dtype: 'fp61' as 'fp16' }, /dtype to be one of .*did you mean fp16\?/);
    await refused({ ...options, overflow: 'clam' as 'clamp' }, /did you mean clamp\?/);
    await refused({ ...options, maxShardBytes: 0 }, /maxShardBytes to be an integer of at least 1/);
    await writeFile(join(dir, 'tokenizer.json'), pointer);
    await refused(options, /tokenizer\.json to hold .*Git LFS pointer/);
    await truncate(join(dir, 'model.safetensors'), 100);
    await refused(options, /\[safetensors\]/);
    await writeFile(join(dir, 'model.safetensors'), pointer);
    await refused(options, /Git LFS pointer/);
    const float8 = { name: 'w', dtype: 'F8_E4M3', shape: [1], data: new Uint8Array(1) } as const;
    await writeSafetensors(join(dir, 'model.safetensors'), [float8]);
    await refused(options, /floats of .* in F32, F16 or BF16, got "w in F8_E4M3"/);
  });

  it('never mixes with what is there', async () => {
    await cp(join(fixtures, 'qwen3'), out, { recursive: true });
    const options = { dtype: 'fp16' } as const;
    const before = await readdir(out);
    await assert.rejects(
      convertCheckpoint(out, out, options),
      /to be new or empty, got "a folder with config\.json/,
    );
    await assert.rejects(
      convertCheckpoint(out, join(out, 'config.json'), options),
      /new or empty \(ENOTDIR\)/,
    );
    await assert.rejects(
      convertCheckpoint(out, join(out, 'config.json', 'x'), options),
      /out to be a folder, not \(in\) a file \(ENOTDIR\)/,
    );
    assert.deepEqual(await readdir(out), before);
  });

  it('leaves nothing when it is ended, and keeps the event loop alive', async () => {
    await lay(new Float32Array(4_000_000).fill(0.1));
    const controller = new AbortController();
    let turns = 0;
    const timer = setInterval(() => turns++, 1);
    const seen: number[] = [];
    await assert.rejects(
      convertCheckpoint(dir, out, {
        dtype: 'fp16',
        signal: controller.signal,
        report: ({ done, total }) => {
          assert.equal(total, 16_000_016);
          if (seen.push(done) === 2) controller.abort();
        },
      }),
      /aborted/i,
    );
    clearInterval(timer);
    assert.equal(seen.length, 2);
    assert.ok(turns > 0);
    await assert.rejects(readdir(out), /ENOENT/);
  });
});
