import assert from 'node:assert/strict';
import { cpSync, mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { RunDirectory } from '../../lib/io/runDirectory.js';
import { writeSafetensors } from '../../lib/io/safetensors.js';
import { writeCheckpointFolder } from '../support/checkpoint.js';
import { assertUsageErrors, isopolicy, temporaryFolder } from './command.js';

const fixtures = fileURLToPath(new URL('../../../test/fixtures/models/', import.meta.url));
const folder = temporaryFolder();
const model = path.join(folder, 'model');
before(async () => {
  await writeCheckpointFolder(model, { dtype: 'bf16' });
});

/** The report of a path: every name with its value, lines joined. */
function report(at: string): Map<string, string> {
  const { status, stdout, stderr } = isopolicy(['info', at]);
  assert.equal(status, 0, stderr);
  assert.equal(stderr, '');
  const facts = new Map<string, string>();
  let last = '';
  for (const line of stdout.trimEnd().split('\n')) {
    // Paths are as long as they are.
    assert.ok(line.length <= 80 || line.includes(folder) || line.includes(at), line);
    const [name, value] = [line.slice(0, 15).trim(), line.slice(15)];
    if (name !== '') last = name;
    facts.set(last, `${facts.has(last) ? `${facts.get(last)} ` : ''}${value}`);
  }
  return facts;
}

test('a model, as text and as JSON', () => {
  const facts = report(model);
  for (const [name, value] of Object.entries({
    model,
    architecture: 'Qwen2ForCausalLM (qwen2)',
    parameters: '21,088 (21.1k), 5,440 in the embedding and the head',
    layers: '2 of width 32, MLP 48',
    attention: '2 heads of 16, 1 for keys and values',
    vocabulary: '85',
    context: '96 tokens',
    rope: 'theta 10000, not scaled',
    memory: '82.4 KiB as fp32 masters, 41.2 KiB in 16 bits, 128 B of cache a token in 16 bits',
    tokenizer: 'BPE of 83 tokens, 3 special',
    'ends with': '80 <eos>',
    'chat template': 'chat_template.jinja',
    isopolicy: 'can load it',
  })) {
    assert.equal(facts.get(name), value, name);
  }
  assert.match(facts.get('weights')!, /^BF16, \d+\.\d KiB in 1 file$/);
  const { status, stdout } = isopolicy(['info', model, '--json']);
  assert.equal(status, 0);
  const { kind, sizes, parameters, modelProblems } = JSON.parse(stdout);
  assert.deepEqual([kind, sizes.numLayers, parameters.total, modelProblems], ['model', 2, 21088, []]);
});

test('what keeps a model from being loaded is listed', () => {
  const dir = path.join(folder, 'pointers');
  cpSync(path.join(fixtures, 'qwen2-tied'), dir, { recursive: true });
  const pointer = `version https://git-lfs.github.com/spec/v1\noid sha256:${'0'.repeat(64)}\nsize 3000000\n`;
  writeFileSync(path.join(dir, 'model.safetensors'), pointer);
  const { status, stdout } = isopolicy(['info', dir]);
  assert.equal(status, 0);
  assert.match(stdout, /\nweights +float16 by config\.json, 2\.9 MiB in 1 file, 1 Git LFS pointer/);
  assert.match(stdout, /\nvocabulary +71, the head is the embedding\n/);
  assert.match(stdout, /\nparameters .* by config\.json\n/);
  assert.match(stdout, /\nisopolicy cannot load it:\n- expected .*Git\s+LFS\s+pointer/s);
  assert.match(stdout, /\nNo text goes in or out:\n- expected .*tokenizer\.json/s);
  assert.doesNotMatch(stdout, /can load it\n/);
});

test('an adapter, a file of tensors, a run and a data set', async () => {
  const adapter = path.join(folder, 'adapter');
  mkdirSync(adapter);
  writeFileSync(
    path.join(adapter, 'adapter_config.json'),
    JSON.stringify({
      peft_type: 'LORA',
      base_model_name_or_path: 'some/model',
      r: 8,
      lora_alpha: 16,
      target_modules: ['q_proj', 'v_proj'],
    }),
  );
  await writeSafetensors(path.join(adapter, 'adapter_model.safetensors'), [
    { name: 'a', dtype: 'F32', shape: [2, 3], data: new Float32Array(6) },
  ]);
  const facts = report(adapter);
  assert.deepEqual(
    ['type', 'of model', 'rank', 'targets', 'parameters', 'weights', 'isopolicy'].map((name) =>
      facts.get(name),
    ),
    ['LORA', 'some/model', '8, alpha 16', 'q_proj, v_proj', '6', 'F32, 24 B', 'can load it'],
  );
  writeFileSync(
    path.join(adapter, 'adapter_config.json'),
    JSON.stringify({ peft_type: 'LORA', r: 8, lora_alpha: 16, target_modules: ['q_proj'], use_dora: true }),
  );
  assert.match(isopolicy(['info', adapter]).stdout, /\nisopolicy cannot load it:\n- expected no use_dora/);

  const file = path.join(adapter, 'adapter_model.safetensors');
  const { stdout } = isopolicy(['info', file]);
  assert.match(
    stdout,
    /\nsize +1 tensor, 6 values, \d+ B\n\ndtype {2}shape {3}tensor\n.*\nF32 {4}\[2, 3\] {2}a\n$/,
  );
  assert.deepEqual(JSON.parse(isopolicy(['info', file, '--json']).stdout).tensors, [
    { name: 'a', dtype: 'F32', shape: [2, 3] },
  ]);

  const run = path.join(folder, 'run');
  await RunDirectory.create(run, { command: 'sanity', version: '0.3.0', config: {} });
  const started = report(run);
  assert.equal(started.get('command'), 'isopolicy sanity, version 0.3.0');
  assert.match(started.get('state')!, /not finished; go on with: isopolicy sanity --resume/);
  assert.equal(started.get('checkpoint'), 'none');

  const data = path.join(folder, 'data.jsonl');
  const rows = [
    { question: 'x'.repeat(500), answer: 7, big: 2 ** 40 },
    { question: 'b', answer: 8, big: 1 },
  ];
  writeFileSync(data, rows.map((row) => `${JSON.stringify(row)}\n`).join(''));
  const table = report(data);
  assert.deepEqual([table.get('rows'), table.get('columns')], ['2', 'question, answer, big']);
  const first = table.get('first row')!.replaceAll(/x x/g, 'xx');
  assert.match(first, /^question: +"x{196}\.\.\. answer: 7 big: 1099511627776$/);
  assert.deepEqual(JSON.parse(isopolicy(['info', data, '--json']).stdout).first, rows[0]);
  const wide = path.join(fixtures, '../text/tables/zstd.parquet');
  assert.equal(report(wide).get('rows'), '6');
});

test('what is not there, or nothing that is known, is one line', () => {
  const empty = path.join(folder, 'empty');
  mkdirSync(empty);
  const several = path.join(folder, 'several');
  for (const step of ['step-000010', 'step-000020']) mkdirSync(path.join(several, step), { recursive: true });
  assertUsageErrors([
    [['info', several], /\[info\] expected one of the checkpoints, such as .*several\/step-000020, got "/],
    [['info', path.join(folder, 'nowhere')], /\[info\] expected a file or folder \(ENOENT\), got "/],
    [['info', empty], /files of data .*, got "an empty folder"/],
  ]);
});
