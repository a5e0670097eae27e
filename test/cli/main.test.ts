import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import {
  assertUsageError,
  assertUsageErrors,
  isopolicy,
  main,
  temporaryFolder,
  withoutAddon,
} from './command.js';

const packageJson = JSON.parse(fs.readFileSync(path.resolve(main, '../../../../package.json'), 'utf8'));

test('version and help need no addon', () => {
  const version = isopolicy(['--version'], withoutAddon);
  assert.deepEqual(version, { status: 0, stdout: `${packageJson.version}\n`, stderr: '' });
  const help = isopolicy(['--help'], withoutAddon);
  assert.equal(help.status, 0, help.stderr);
  assert.equal(help.stderr, '');
  for (const word of ['sanity', 'grid', 'algorithms', 'info', 'Exit codes:', '130', 'Example:']) {
    assert.ok(help.stdout.includes(word), `help has no ${word}`);
  }
  const sanity = isopolicy(['sanity', '--help'], withoutAddon);
  assert.equal(sanity.status, 0, sanity.stderr);
  for (const word of ['--precision', '--resume', 'sort:LENGTH:SYMBOLS', 'pg-seq-is', '130 interrupted']) {
    assert.ok(sanity.stdout.includes(word), `help of sanity has no ${word}`);
  }
  const algorithms = isopolicy(['algorithms'], withoutAddon);
  assert.equal(algorithms.status, 0, algorithms.stderr);
  const settings = JSON.parse(isopolicy(['algorithms', '--json'], withoutAddon).stdout);
  for (const name of Object.keys(settings)) assert.ok(algorithms.stdout.includes(`\n${name} `), name);
  assert.equal(settings['oat:seq-mis'].config.importance.rule, 'truncate');
  for (const { stdout } of [help, sanity, algorithms, isopolicy(['info', '--help'], withoutAddon)]) {
    for (const line of stdout.split('\n')) assert.ok(line.length <= 80, `too wide: ${line}`);
  }
});

test('no command shows the help on stderr', () => {
  const { status, stdout, stderr } = isopolicy([], withoutAddon);
  assert.equal(status, 2);
  assert.equal(stdout, '');
  assert.match(stderr, /^Usage: isopolicy/);
});

test('an unknown command or option names the nearest', () => {
  assertUsageError(isopolicy(['sanit'], withoutAddon), /unknown command 'sanit'.*\bsanity\b/);
  assertUsageError(
    isopolicy(['sanity', '--precisoin', 'fp16'], withoutAddon),
    /unknown option '--precisoin'.*--precision/,
  );
  assertUsageError(isopolicy(['info', '--jsn'], withoutAddon), /unknown option '--jsn'.*--json/);
  assertUsageError(isopolicy(['sanity', 'now'], withoutAddon), /too many arguments/);
  assertUsageError(isopolicy(['sanity', '--steps'], withoutAddon), /'--steps <n>' argument missing/);
});

test('a bad value names the option, what is expected and what came', () => {
  const cases: [option: string, value: string, message: RegExp][] = [
    ['--precision', 'bf61', /--precision .*fp16, bf16, fp32, .*got "bf61" \(did you mean bf16\?\)/],
    ['--training-precision', 'fp8', /--training-precision .*got "fp8"/],
    ['--algorithm', 'dr-grop', /--algorithm .*"dr-grop" \(did you mean dr-grpo\?\)/],
    ['--numerics', 'mached', /--numerics .*"mached" \(did you mean matched\?\)/],
    ['--task', 'srt:4:4', /--task.*"srt" \(did you mean sort\?\)/],
    ['--task', 'sort:4', /--task.*sort:LENGTH:SYMBOLS.*"sort:4"/],
    ['--task', '', /--task/],
    ['--loss-scaler', 'verll', /--loss-scaler.*"verll" \(did you mean verl\?\)/],
    ['--loss-scaler', 'static:0', /--loss-scaler.*"0"/],
    ['--seed', 'x', /--seed to be an integer of at least 0, got "x"/],
    ['--seed', '-1', /--seed to be an integer of at least 0, got -1/],
    ['--seed', '1e3x', /--seed .*got "1e3x"/],
    ['--steps', '1.5', /--steps to be an integer of at least 1, got 1.5/],
    ['--steps', '0', /--steps .*got 0/],
    ['--steps', '', /--steps .*got ""/],
    ['--steps', '0x10', /--steps .*got "0x10"/],
    ['--learning-rate', 'NaN', /--learning-rate to be a finite number of at least 0, got "NaN"/],
    ['--learning-rate', '1e999', /--learning-rate .*got Infinity/],
    ['--learning-rate', '-1e-4', /--learning-rate .*got -0.0001/],
    ['--base-accuracy', '1.1', /--base-accuracy .*between 0 and 1, got 1.1/],
    ['--group-size', '1', /--group-size .*at least 2, got 1/],
    ['--threads', '257', /--threads .*at most 256, got 257/],
    ['--out', '', /--out to be a path, got ""/],
  ];
  assertUsageErrors(
    cases.map(([option, value, message]) => [['sanity', option, value], message]),
    withoutAddon,
  );
});

test('an addon that cannot be loaded says so, with exit code 1', () => {
  const folder = temporaryFolder();
  for (const args of [['info'], ['sanity', '--out', path.join(folder, 'run')]]) {
    const { status, stdout, stderr } = isopolicy(args, withoutAddon);
    assert.equal(status, 1);
    assert.equal(stdout, '');
    assert.match(stderr, /^isopolicy: ERR_INTERNAL: the native addon could not be loaded: /);
    assert.match(stderr, /npm rebuild isopolicy/);
    assert.doesNotMatch(stderr, /\n {4}at /);
  }
  assert.deepEqual(fs.readdirSync(folder), [], 'nothing was written');
  const { stderr } = isopolicy(['info'], { ...withoutAddon, ISOPOLICY_DEBUG: '1' });
  assert.match(stderr, /\n {4}at /, 'the stack on demand');
});

test('a reader that goes away ends the command quietly', async () => {
  for (const args of [['--help'], ['info', '--json']]) {
    const child = spawn(process.execPath, [main, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
    child.stdout.destroy();
    let stderr = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr += text;
    });
    const [status] = await once(child, 'close');
    assert.deepEqual({ status, stderr }, { status: 0, stderr: '' }, args.join(' '));
  }
});

test('output that cannot be written is an error', { skip: !fs.existsSync('/dev/full') }, async () => {
  const full = fs.openSync('/dev/full', 'w');
  try {
    const child = spawn(process.execPath, [main, 'info'], { stdio: ['ignore', full, 'pipe'] });
    let stderr = '';
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      stderr += text;
    });
    const [status] = await once(child, 'close');
    assert.equal(status, 1);
    assert.match(stderr, /^isopolicy: ENOSPC[^\n]*\n$/);
  } finally {
    fs.closeSync(full);
  }
});

test('info tells the machine, the build and every numeric choice', () => {
  const { status, stdout, stderr } = isopolicy(['info', '--json']);
  assert.equal(status, 0, stderr);
  assert.equal(stderr, '');
  const info = JSON.parse(stdout);
  assert.equal(info.version, packageJson.version);
  assert.equal(info.node, process.version);
  assert.ok(info.threads >= 1 && info.cpu.cores >= 1 && info.machineMemory.total > 0);
  assert.equal(info.memory.tensors, 0);
  assert.equal(typeof info.cudaCompiled, 'boolean');
  assert.ok(info.knobs.some((knob: { name: string }) => knob.name === 'rmsNormRoundings'));

  const text = isopolicy(['info']);
  assert.equal(text.status, 0, text.stderr);
  for (const { name, meaning, rollout, training, matched } of info.knobs) {
    const row = text.stdout.split('\n').find((line) => line.startsWith(`${name} `));
    assert.ok(row, `no row for ${name}`);
    assert.deepEqual(row.split(/\s+/).slice(1, 4), [rollout, training, matched].map(String));
    assert.ok(text.stdout.replace(/\s+/g, ' ').includes(meaning.split(' ').slice(0, 3).join(' ')));
  }
  for (const line of text.stdout.split('\n')) assert.ok(line.length <= 80, `too wide: ${line}`);
});
