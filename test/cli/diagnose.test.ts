import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { gunzipSync, gzipSync } from 'node:zlib';
import { diagnose } from '../../lib/diagnose/diagnose.js';
import type { Pair, Side } from '../../lib/diagnose/record.js';
import { synthetic, usualNoise, withSeries } from '../diagnose/synthetic.js';
import { layOut, readFixture } from '../text/fixtures.js';
import {
  assertUsageError,
  assertUsageErrors,
  isopolicy,
  isopolicyEach,
  start,
  temporaryFolder,
  type UsageCase,
  withoutAddon,
} from './command.js';

const folder = temporaryFolder();

function write(name: string, all: readonly Pair[], side: Side): string {
  const file = path.join(folder, name);
  const rows = all.map(({ id, tokens, [side]: logprobs }) => ({ id, tokens, logprobs: [...logprobs] }));
  fs.writeFileSync(file, rows.map((row) => `${JSON.stringify(row)}\n`).join(''));
  return file;
}

const { pairs } = synthetic({ responses: 40, length: 12, noise: usualNoise('bf16') });
const rollout = write('rollout.jsonl', pairs, 'rollout');
const training = {
  clean: write('clean.jsonl', pairs, 'training'),
  // One response that training lacks.
  suspicious: write('suspicious.jsonl', pairs.slice(1), 'training'),
  broken: write(
    'broken.jsonl',
    withSeries(pairs, 'training', (own) => own.map((_, t) => own[t - 1] ?? -0.5)),
    'training',
  ),
};

/** Runs without the addon, which nothing here needs. */
const run = (...args: readonly string[]) => isopolicy(['diagnose', ...args], withoutAddon);
const refused = (cases: readonly UsageCase[]) =>
  assertUsageErrors(
    cases.map(([args, message]) => [['diagnose', ...args], message]),
    withoutAddon,
  );

const isGone = (name: string) => !fs.existsSync(path.join(folder, name));

test('the exit code is the verdict, from the one on that is to fail', () => {
  const verdicts = { clean: 'NOISE FLOOR', suspicious: 'SUSPICIOUS', broken: 'BROKEN' } as const;
  const cases = (
    [
      ['clean', { '': 0, suspicious: 0, broken: 0, never: 0 }],
      ['suspicious', { '': 1, suspicious: 1, broken: 0, never: 0 }],
      ['broken', { '': 2, suspicious: 2, broken: 2, never: 0 }],
    ] as const
  ).flatMap(([name, codes]) =>
    Object.entries(codes).map(([least, code]) => {
      const failOn = least === '' ? [] : ['--fail-on', least];
      return { name, code, args: ['diagnose', rollout, training[name], '--dtype', 'bf16', ...failOn] };
    }),
  );
  const outcomes = isopolicyEach(
    cases.map(({ args }) => args),
    withoutAddon,
  );
  for (const [i, { name, code, args }] of cases.entries()) {
    const { status, stdout, stderr } = outcomes[i]!;
    assert.equal(status, code, `${args.join(' ')}: ${stderr}`);
    assert.ok(stdout.startsWith(verdicts[name]), stdout);
    assert.equal(stderr, '');
  }
});

test('JSON is what the function gives', async () => {
  const { status, stdout } = run(rollout, training.broken, '--json', '--dtype', 'bf16', '--layers', '4');
  assert.equal(status, 2);
  assert.match(stdout, /^\{[^\n]*\}\n$/, 'one line');
  const found = JSON.parse(stdout);
  const expected = await diagnose(rollout, training.broken, {
    dtype: 'bf16',
    numLayers: 4,
    command: found.provenance.command,
  });
  // What JSON has no name for is text there.
  const text = JSON.stringify(expected, (_, x) =>
    typeof x === 'number' && !Number.isFinite(x) ? String(x) : x,
  );
  assert.equal(stdout, `${text}\n`);
  assert.equal(
    found.provenance.command,
    `isopolicy diagnose ${rollout} ${training.broken} --json --dtype bf16 --layers 4`,
  );
  assert.equal(run(rollout, training.broken, '--json', '--dtype', 'bf16', '--layers', '4').stdout, stdout);
});

test('text and Markdown have the verdict first and no colour where nobody looks', () => {
  for (const [flags, start] of [
    [[], 'BROKEN'],
    [['--markdown'], '#'],
  ] as const) {
    const { stdout } = isopolicy(['diagnose', rollout, training.broken, ...flags], {
      ...withoutAddon,
      TERM: 'xterm-256color',
    });
    assert.ok(stdout.startsWith(start), stdout.slice(0, 80));
    assert.match(stdout.slice(0, 200), /BROKEN/);
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must not be there
    assert.doesNotMatch(stdout, /\u001b/);
    assert.ok(stdout.endsWith('\n') && !stdout.endsWith('\n\n'));
  }
});

test('one file with both series, packed, and the plain format by name', () => {
  const both = path.join(folder, 'both.jsonl.gz');
  const rows = pairs.map((pair) => ({
    id: pair.id,
    rolloutLogprobs: [...pair.rollout],
    trainingLogprobs: [...pair.training],
  }));
  fs.writeFileSync(both, gzipSync(rows.map((row) => `${JSON.stringify(row)}\n`).join('')));
  assert.equal(gunzipSync(fs.readFileSync(both)).toString().split('\n').length, 41);
  for (const format of [[], ['--format', 'plain']]) {
    const { status, stdout, stderr } = run(both, ...format);
    assert.equal(status, 0, stderr);
    assert.match(stdout, /^NOISE FLOOR/);
  }
});

test('--out has JSON, Markdown and a page, and is a run that can be reported', () => {
  const dir = path.join(folder, 'out', 'a');
  const { status, stdout, stderr } = run(rollout, training.broken, '--dtype', 'bf16', '--out', dir);
  assert.equal(status, 2, stderr);
  assert.match(stdout, /^BROKEN/);
  assert.equal(stderr, `isopolicy: written to ${dir}\n`);
  const files = ['config.json', 'diagnosis.md', 'report.html', 'summary.json'];
  assert.deepEqual(fs.readdirSync(dir).sort(), files);
  const read = (name: string) => fs.readFileSync(path.join(dir, name), 'utf8');
  const config = JSON.parse(read('config.json'));
  assert.equal(config.command, 'diagnose');
  assert.deepEqual(config.config, { rollout, training: training.broken, dtype: 'bf16' });
  const json = JSON.parse(run(rollout, training.broken, '--dtype', 'bf16', '--json').stdout);
  const summary = JSON.parse(read('summary.json'));
  const { provenance: _, ...rest } = json;
  const { provenance, ...same } = summary;
  assert.deepEqual(same, rest);
  assert.equal(
    provenance.command,
    `isopolicy diagnose ${rollout} ${training.broken} --dtype bf16 --out ${dir}`,
  );
  assert.match(read('diagnosis.md'), /^#+ BROKEN\n/);
  assert.match(read('report.html'), /^<!doctype html>[\s\S]*BROKEN/i);

  const page = path.join(folder, 'page.html');
  const report = isopolicy(['report', dir, '--out', page], withoutAddon);
  assert.equal(report.status, 0, report.stderr);
  assert.match(fs.readFileSync(page, 'utf8'), /BROKEN/);
});

test('a folder that is taken fails before anything is read', () => {
  const taken = path.join(folder, 'taken');
  fs.mkdirSync(taken);
  fs.writeFileSync(path.join(taken, 'config.json'), '{}');
  assertUsageError(
    run('/nonexistent/rollout.jsonl', '--out', taken),
    /expected out to be a folder without a run/,
  );
  assert.equal(fs.readFileSync(path.join(taken, 'config.json'), 'utf8'), '{}');
  assertUsageError(run(rollout, training.clean, '--out', rollout), /expected out to be a folder/);
});

test('nothing is left of bad input, and nothing is taken that was there before', () => {
  const truncated = path.join(folder, 'truncated.jsonl');
  const text = fs.readFileSync(training.clean, 'utf8');
  fs.writeFileSync(truncated, text.slice(0, text.length - 30));
  const mine = path.join(folder, 'mine');
  fs.mkdirSync(mine);
  const empty = path.join(folder, 'empty');
  fs.mkdirSync(empty);
  for (const name of ['report.html', 'notes.txt']) fs.writeFileSync(path.join(mine, name), 'mine');
  for (const args of [
    [rollout, truncated],
    [path.join(folder, 'missing.jsonl'), training.clean],
    [rollout],
  ]) {
    const outs = [path.join(folder, 'deep', 'er', 'out'), mine, empty];
    refused(outs.map((out) => [[...args, '--out', out], /\[diagnose\] expected /]));
    assert.ok(isGone('deep'));
    assert.deepEqual(fs.readdirSync(mine).sort(), ['notes.txt', 'report.html']);
    assert.deepEqual(fs.readdirSync(empty), []);
  }
  assert.equal(fs.readFileSync(path.join(mine, 'report.html'), 'utf8'), 'mine');
  assertUsageError(run(rollout, truncated), /truncated\.jsonl:40/);
});

test('wrong flags, and files that are none, are usage errors with nothing on stdout', () => {
  const cases: UsageCase[] = [
    [[], /missing required argument 'rollout'/],
    [[rollout, training.clean, rollout], /too many arguments/],
    [['/nonexistent/rollout.jsonl'], /\/nonexistent\/rollout\.jsonl/],
    [[folder, training.clean], /to be a file/],
    [[rollout, training.clean, '--dtype', 'bf61'], /--dtype .*got "bf61" \(did you mean bf16\?\)/],
    [[rollout, training.clean, '--layers', '0'], /--layers to be an integer of at least 1, got 0/],
    [[rollout, training.clean, '--hidden-size', 'x'], /--hidden-size to be an integer.*got "x"/],
    [[rollout, training.clean, '--format', 'verll'], /--format .*"verll" \(did you mean verl\?\)/],
    [[rollout, training.clean, '--fail-on', 'brokn'], /--fail-on .*"brokn" \(did you mean broken\?\)/],
    [[rollout, training.clean, '--out', ''], /--out to be a path, got ""/],
    [[rollout, training.clean, '--jsn'], /unknown option '--jsn'.*--json/],
    [[rollout, training.clean, '--json', '--markdown'], /'--markdown' cannot be used with option '--json'/],
    [[rollout, training.clean, '--tokenizer', '/nonexistent'], /\/nonexistent/],
    [[rollout, training.clean, '--format', 'verl'], /rollout\.jsonl:1/],
  ];
  refused(cases);
});

test('a tokenizer gives the worst tokens their text', async () => {
  const { files } = await readFixture('qwen2');
  const { stdout, stderr, status } = run(
    rollout,
    training.broken,
    '--json',
    '--tokenizer',
    await layOut(files),
  );
  assert.equal(status, 2, stderr);
  const { worst } = JSON.parse(stdout);
  assert.equal(worst.length, 20);
  for (const { text, token } of worst) assert.equal(typeof text, 'string', String(token));
});

test('SIGINT and SIGTERM end it with 130 and leave nothing', async () => {
  const big = path.join(folder, 'big.jsonl');
  const row = `${JSON.stringify({ tokens: new Array(200).fill(7), logprobs: new Array(200).fill(-0.123456789) })}\n`;
  fs.writeFileSync(big, row.repeat(40_000));
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    const dir = path.join(folder, 'interrupted');
    let reports = 0;
    const outcome = await start(['diagnose', big, big, '--out', dir], (line, child) => {
      if (/^[\d.]+k responses$/.test(line) && reports++ === 1) child.kill(signal);
    });
    assert.equal(outcome.signal, null);
    assert.equal(outcome.status, 130, outcome.stderr);
    assert.equal(outcome.stdout, '');
    assert.match(outcome.stderr, /^stopping \(again to stop at once\)$/m);
    assert.ok(reports >= 2 && reports < 39, `${signal}: ${reports}`);
    assert.ok(isGone('interrupted'));
  }
  fs.rmSync(big);
});

test('its help says what it reads and what its exit codes are', () => {
  const { status, stdout } = isopolicy(['diagnose', '--help'], withoutAddon);
  assert.equal(status, 0);
  for (const word of [
    '--dtype',
    '--fail-on',
    'Exit codes: 0 NOISE FLOOR, 1 SUSPICIOUS, 2 BROKEN',
    'verl, TRL',
  ]) {
    assert.ok(stdout.includes(word), `help has no ${word}`);
  }
  for (const line of stdout.split('\n')) assert.ok(line.length <= 80, `too wide: ${line}`);
});
