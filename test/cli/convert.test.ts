import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import path from 'node:path';
import { before, test } from 'node:test';
import { writeCheckpoint } from '../../lib/io/checkpointFiles.js';
import { writeCheckpointFolder } from '../support/checkpoint.js';
import {
  assertUsageError,
  assertUsageErrors,
  isopolicy,
  main,
  temporaryFolder,
  withoutAddon,
} from './command.js';

const folder = temporaryFolder();
const model = path.join(folder, 'model');
const large = path.join(folder, 'large');
before(async () => {
  await writeCheckpointFolder(model, { dtype: 'fp32' });
  const data = new Float32Array(60).fill(0.5);
  data[3] = 1e6;
  data[7] = -1e-9;
  await writeCheckpoint(large, [
    { name: 'model.layers.0.mlp.down_proj.weight', dtype: 'F32', shape: [6, 10], data },
    { name: 'model.layers.1.mlp.down_proj.weight', dtype: 'F32', shape: [60], data: data.slice().fill(2) },
  ]);
});

const out = (name: string) => path.join(folder, name);

test('a model is converted, with a report of 80 columns, and generates', () => {
  const args = ['convert', model, out('fp16'), '--dtype', 'fp16', '--max-shard-size', '8KiB'];
  const { status, stdout, stderr } = isopolicy(args);
  assert.equal(status, 0, stderr);
  for (const line of stdout.split('\n')) assert.ok(line.length <= 80 || line.includes(folder), line);
  assert.match(stdout, /^from +.*model \(F32\)\nto +fp16, .*\n/);
  assert.match(stdout, /\noverflow +0; largest \|x\| /);
  assert.match(
    stdout,
    /\nwritten to .*fp16\ncopied: chat_template\.jinja, generation_config\.json, tokenizer/,
  );
  assert.match(stderr, /KiB of .* KiB read\n$/);
  const files = fs.readdirSync(out('fp16'));
  assert.ok(files.filter((name) => name.endsWith('.safetensors')).length > 2);
  assert.ok(!files.some((name) => name.startsWith('.')), 'nothing temporary');
  const text = isopolicy(['generate', out('fp16'), '--prompt', '1+1', '--max-new-tokens', '3']);
  assert.equal(text.status, 0, text.stderr);
  assertUsageError(isopolicy(args), /fp16 to be new or empty, got "a folder with /);
});

test('overflow is refused, with the report, unless it is chosen', () => {
  const { status, stdout } = isopolicy(['convert', large, out('no'), '--dtype', 'fp16']);
  assert.equal(status, 1);
  assert.match(stdout, /\noverflow +1 of 120 \(0\.83 %\); largest \|x\| 1\.000e6\nbecome 0 +1 of 120/);
  assert.match(stdout, / 1 +1\.00e6 +1 +0 +\S+ model\.layers\.0\.mlp\.down_proj\.weight\n/);
  assert.doesNotMatch(stdout, /layers\.1/, 'a tensor that loses nothing');
  assert.match(stdout, /OVERFLOW {2}nothing was written: 1 value beyond fp16; --clamp/);
  assert.ok(!fs.existsSync(out('no')));

  const refused = isopolicy(['convert', large, '--dtype', 'fp16', '--json']);
  assert.equal(refused.status, 1);
  const report = JSON.parse(refused.stdout);
  assert.deepEqual([report.out, report.refused, report.total.overflow], [null, true, 1]);
  assert.deepEqual(
    report.tensors.map(({ name, overflow, toZero }: Record<string, unknown>) => [name, overflow, toZero]),
    [
      ['model.layers.0.mlp.down_proj.weight', 1, 1],
      ['model.layers.1.mlp.down_proj.weight', 0, 0],
    ],
  );
  for (const [option, words] of [
    ['--clamp', /with the largest finite value where values overflow/],
    ['--allow-overflow', /with infinity where values overflow/],
  ] as const) {
    const chosen = isopolicy(['convert', large, out(option), '--dtype', 'fp16', option]);
    assert.equal(chosen.status, 0, chosen.stderr);
    assert.match(chosen.stdout.replaceAll('\n', ' '), words);
    assert.ok(fs.existsSync(path.join(out(option), 'model.safetensors')));
  }
  const bf16 = isopolicy(['convert', large, '--dtype', 'bf16']);
  assert.equal(bf16.status, 0);
  assert.match(bf16.stdout, /\nNothing was written: no <out> was given\.\n$/);
});

test('what is wrong is one line, and writes nothing', () => {
  const cases: [args: string[], message: RegExp][] = [
    [[model, out('x')], /required option '--dtype <type>' not specified/],
    [[model, out('x'), '--dtype', 'fp61'], /did you mean fp16\?/],
    [
      [model, out('x'), '--dtype', 'fp16', '--clamp', '--allow-overflow'],
      /either --clamp or --allow-overflow/,
    ],
    [[model, out('x'), '--dtype', 'fp16', '--max-shard-size', '5 apples'], /--max-shard-size .*"5 apples"/],
    [[model, out('x'), '--dtype', 'fp16', '--max-shard-size', '0.5B'], /--max-shard-size .*"0\.5B"/],
    [[out('none'), out('x'), '--dtype', 'fp16'], /\[checkpoint\] expected a folder with a model/],
    [[folder, out('x'), '--dtype', 'fp16'], /expected model\.safetensors or /],
  ];
  assertUsageErrors(cases.map(([args, message]) => [['convert', ...args], message]));
  assert.ok(!fs.existsSync(out('x')));
  const help = isopolicy(['convert', '--help'], withoutAddon);
  assert.equal(help.status, 0);
  for (const line of help.stdout.split('\n')) assert.ok(line.length <= 80, line);
});

test('ended in the middle it leaves no model', async () => {
  const many = out('many');
  const data = new Float32Array(2 ** 20).fill(0.1);
  await writeCheckpoint(
    many,
    Array.from({ length: 40 }, (_, i) => ({ name: `w${i}`, dtype: 'F32', shape: [2 ** 20], data })),
  );
  for (const [signal, code] of [
    ['SIGINT', 130],
    ['SIGKILL', null],
  ] as const) {
    const target = out(signal);
    const args = [main, 'convert', many, target, '--dtype', 'fp16', '--max-shard-size', '4MB'];
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    const closed = once(child, 'close');
    let [stdout, stderr] = ['', ''];
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      stdout += text;
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr += text;
    });
    const begun = () => {
      // Not the file that is written on trial, which is gone the next moment.
      const entries = fs.existsSync(target) ? fs.readdirSync(target, { withFileTypes: true }) : [];
      const staging = entries.find((entry) => entry.isDirectory());
      return staging !== undefined && fs.readdirSync(path.join(target, staging.name)).length > 1;
    };
    while (child.exitCode === null && !begun()) await new Promise((resolve) => setTimeout(resolve, 2));
    child.kill(signal);
    const [status] = await closed;
    assert.deepEqual([status, stdout], [code, ''], stderr);
    if (signal === 'SIGINT') {
      assert.match(stderr, /isopolicy: interrupted, nothing was written\n$/);
      assert.ok(!fs.existsSync(target));
    } else {
      assertUsageError(
        isopolicy(['convert', target, '--dtype', 'bf16']),
        /expected model\.safetensors or model\.safetensors\.index\.json/,
      );
    }
  }
});
