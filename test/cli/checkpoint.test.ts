/** Commands on a checkpoint and a data set, from end to end. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { before, test } from 'node:test';
import { writeAdder } from '../sanity/checkpoint.js';
import {
  assertUsageErrors,
  isopolicy,
  type Outcome,
  start,
  temporaryFolder,
  type UsageCase,
  withoutAddon,
} from './command.js';

const folder = temporaryFolder();
const [model, data] = [path.join(folder, 'adder'), path.join(folder, 'sums.jsonl')];
const source = [
  ...['--model', model, '--data', data, '--template', 'plain', '--verifier', 'exact'],
  ...['--response-length', '4'],
];
const sanity = [
  ...['sanity', ...source, '--samples-per-problem', '10', '--steps', '3', '--prompts-per-step', '4'],
  ...['--group-size', '4', '--updates-per-step', '2', '--checkpoint-every', '2'],
];
const out = (name: string) => path.join(folder, name);
const read = (...names: string[]) => fs.readFileSync(path.join(folder, ...names), 'utf8');
const metricsOf = (name: string) =>
  read(name, 'metrics.jsonl')
    .trim()
    .split('\n')
    .map((line) => Object.entries(JSON.parse(line)).filter(([key]) => !/^(time|memory)\//.test(key)));

let reference: Outcome;
before(async () => {
  await writeAdder(folder, { count: 40 });
  reference = isopolicy([...sanity, '--precision', 'bf16', '--out', out('reference')]);
});

test('sanity tells of the model and its data, in 80 columns', () => {
  assert.equal(reference.status, 3, reference.stderr);
  assert.match(reference.stderr, /^loading .*adder$/m);
  assert.match(reference.stderr, /^selecting problems {2}40\/40 tried {2}\d+ kept$/m);
  assert.match(reference.stdout, /^NOT PASSED {2}training accuracy/);
  assert.match(reference.stdout, /^adder on sums, pg-seq-is, bf16, default numerics, seed 1$/m);
  assert.match(reference.stdout, /^\d+ of 40 problems kept \(base accuracy 0\.\d+\), no loss scaling$/m);
  for (const line of reference.stdout.split('\n')) assert.ok(line.length <= 80, line);
  const { config } = JSON.parse(read('reference', 'config.json'));
  assert.equal(config.learningRate, 1e-6);
  assert.equal(config.schedule, 'constant');
  assert.equal(config.source.model, model);
});

test('killed in the filter and resumed, it ends as the run that was not', async () => {
  const killed = await start([...sanity, '--precision', 'bf16', '--out', out('killed')], (line, child) => {
    if (/^selecting problems {2}8\/40/.test(line)) child.kill('SIGKILL');
  });
  assert.equal(killed.signal, 'SIGKILL');
  assert.ok(!fs.existsSync(out('killed/set.json')));
  const resumed = isopolicy(['sanity', '--resume', out('killed')]);
  assert.equal(resumed.status, 3, resumed.stderr);
  for (const name of ['set.json', 'filter.jsonl', 'samples.jsonl']) {
    assert.equal(read('killed', name), read('reference', name), name);
  }
  assert.deepEqual(metricsOf('killed'), metricsOf('reference'));
});

test('another precision takes the set of the first run, and another filter refuses it', () => {
  const base = ['--base', out('reference')];
  const other = isopolicy([...sanity, ...base, '--precision', 'fp16', '--json', '--out', out('fp16')]);
  assert.equal(other.status, 3, other.stderr);
  assert.doesNotMatch(other.stderr, /selecting/);
  assert.equal(read('fp16', 'set.json'), read('reference', 'set.json'));
  const summary = JSON.parse(other.stdout);
  assert.equal(summary.task, 'adder on sums');
  assert.equal(summary.steps, 3);
  const refused = isopolicy([...sanity, ...base, '--solved-at-most', '0.7', '--out', out('refused')]);
  assert.equal(refused.status, 2);
  assert.match(
    refused.stderr,
    /expected .*reference\/set\.json to be made with solvedAtMost = 0\.7, got 0\.8/,
  );
});

test('mismatch, ladder and headroom measure the checkpoint, or the run on it', () => {
  const mismatch = isopolicy(['mismatch', ...source, '--samples', '16', '--json', '--out', out('mismatch')]);
  assert.equal(mismatch.status, 0, mismatch.stderr);
  const [bf16, fp16] = JSON.parse(mismatch.stdout).points;
  assert.equal(bf16.task, 'adder on sums');
  assert.ok(bf16.metrics.meanAbsLogRatio > fp16.metrics.meanAbsLogRatio);
  assert.equal(bf16.deployment.samples, 16);

  const prompts = ['--model', model, '--prompts', data, '--template', 'plain', '--response-length', '4'];
  const unjudged = isopolicy([
    'mismatch',
    ...prompts,
    '--samples',
    '16',
    '--precisions',
    'bf16',
    '--out',
    out('prompts'),
  ]);
  assert.equal(unjudged.status, 0, unjudged.stderr);
  assert.match(unjudged.stdout, /These responses have no rewards/);

  const ladder = isopolicy([
    'ladder',
    ...prompts,
    '--samples',
    '4',
    '--precisions',
    'bf16',
    '--json',
    '--out',
    out('ladder'),
  ]);
  assert.equal(ladder.status, 0, ladder.stderr);
  assert.equal(JSON.parse(ladder.stdout).results[0].equal.meanAbsLogRatio, 0);

  const headroom = isopolicy([
    'headroom',
    '--run',
    out('reference'),
    '--samples',
    '16',
    '--json',
    '--out',
    out('headroom'),
  ]);
  assert.equal(headroom.status, 0, headroom.stderr);
  assert.equal(JSON.parse(headroom.stdout).step, 3);
  assert.equal(isopolicy(['mismatch', '--resume', out('mismatch')]).status, 0);
});

test('report draws runs on one data set together', () => {
  const page = out('report.html');
  const report = isopolicy(['report', out('reference'), out('fp16'), '--out', page]);
  assert.equal(report.status, 0, report.stderr);
  assert.match(read('report.html'), /2 sanity runs/);
});

test('options that do not go together are refused without the addon', () => {
  const cases: UsageCase[] = [
    [['sanity', ...source, '--task', 'sort:2:4', '--layers', '2'], /no --task, --layers beside --model/],
    [['sanity', '--data', data], /no --data beside a taught model/],
    [['sanity', '--filter-precision', 'bf16'], /no --filter-precision beside a taught model/],
    [['sanity', '--model', model], /expected --data beside --model/],
    [['mismatch', ...source, '--candidates', '9'], /no --candidates beside --model/],
    [['mismatch', ...source, '--prompts', data], /no --data, --verifier beside --prompts/],
    [['ladder', '--model', model, '--count', '3'], /no --count beside --model without --data/],
    [['ladder', '--run', 'x', '--model', model], /no --model beside --run/],
    [['headroom', '--verifier', 'exact'], /no --verifier beside a taught model/],
  ];
  assertUsageErrors(cases, withoutAddon);
});

test('what is wrong with model or data is one error before a folder is made', () => {
  const bare = out('bare');
  fs.cpSync(model, bare, { recursive: true });
  fs.rmSync(path.join(bare, 'tokenizer.json'));
  const unlike = out('unlike.jsonl');
  fs.writeFileSync(unlike, '{"text":"1+1="}\n');
  const cases: [string[], RegExp][] = [
    [['--data', out('missing.jsonl')], /missing\.jsonl/],
    [['--data', unlike], /expected .*column.*text/],
    [['--model', bare], /tokenizer\.json/],
    [['--model', out('nowhere')], /nowhere/],
    [['--template', 'r1'], /<｜begin▁of▁sentence｜>/],
    [['--response-length', '100'], /responseLength = 100 to be within the model's context of 64/],
    [['--max-prompt-length', '3'], /problem 0 to have at most maxPromptLength = 3 tokens/],
  ];
  const mismatch = ['mismatch', ...source, '--samples', '16'];
  assertUsageErrors(
    cases.flatMap(([changes, message], i) =>
      (i < 2 ? [sanity, mismatch] : [sanity]).map(
        (command): UsageCase => [[...command, ...changes, '--out', out('never')], message],
      ),
    ),
  );
  assert.ok(!fs.existsSync(out('never')));
  const none = isopolicy([
    ...[...sanity, '--solved-at-least', '0.95', '--solved-at-most', '0.96', '--out', out('none')],
  ]);
  assert.equal(none.status, 2);
  assert.match(none.stderr, /expected some of 40 problems to be solved 95 % to 96 % of the time, got none/);
});
