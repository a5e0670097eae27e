import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { groupNames, helpText, parseBenchArguments } from '../../bench/arguments.js';
import { peersOf } from '../../bench/peers/list.js';
import { initialDevice } from '../../lib/device.js';
import { InvalidArgumentError } from '../../lib/errors.js';
import { floatDtypes } from '../../lib/tensor/dtype.js';

test('no arguments: every group, dtype and family, quick shapes', () => {
  const options = parseBenchArguments([]);
  assert.deepEqual(options.only, groupNames);
  assert.deepEqual(options.dtypes, floatDtypes);
  assert.deepEqual(options.families, ['rollout', 'training', 'shared']);
  assert.equal(options.shapes, 'quick');
  assert.deepEqual(options.threads, []);
  assert.equal(options.time, 100);
  assert.equal(options.sets, null);
  assert.equal(options.out, null);
  assert.deepEqual([options.rows, options.peers, options.peersDir], [[], [], null]);
  assert.deepEqual([options.pinPeers, options.scaling], [false, false]);
  assert.equal(options.device, initialDevice());
  assert.equal(options.help, false);
});

test('each option is read, with = or a blank', () => {
  const options = parseBenchArguments([
    '--only=gemm,log-softmax',
    '--dtype',
    'bf16',
    '--family',
    'training,shared',
    '--shapes=full',
    '--device',
    'cpu',
    '--threads',
    '1,2',
    '--sets',
    '1',
    '--out',
    'a.json',
  ]);
  assert.deepEqual(options.only, ['gemm', 'log-softmax']);
  assert.deepEqual(options.dtypes, ['bf16']);
  assert.deepEqual(options.families, ['training', 'shared']);
  assert.equal(options.shapes, 'full');
  assert.deepEqual(options.threads, [1, 2]);
  assert.equal(options.time, 400);
  assert.equal(options.sets, 1);
  assert.equal(options.out, 'a.json');
  assert.equal(parseBenchArguments(['--shapes', 'full', '--time', '7']).time, 7);
  assert.equal(parseBenchArguments(['--help']).help, true);
});

test('--peers alone means all of them, wherever it stands', () => {
  const onCpu = (...argv: string[]) => parseBenchArguments([...argv, '--device', 'cpu']);
  assert.deepEqual(onCpu('--peers').peers, peersOf('cpu'));
  const between = onCpu('--peers', '--only', 'gemm', '--pin-peers');
  assert.deepEqual([between.peers, between.only, between.pinPeers], [peersOf('cpu'), ['gemm'], true]);
  assert.deepEqual(onCpu('--peers', 'ggml,onednn').peers, ['ggml', 'onednn']);
  assert.deepEqual(onCpu('--peers=ggml', '--peers-dir', '/a').peersDir, '/a');
  assert.deepEqual(parseBenchArguments(['--rows', 'x1536x,gemm rollout']).rows, ['x1536x', 'gemm rollout']);
  assert.equal(onCpu('--scaling').scaling, true);
});

test('a GPU has peers of its own; tiny shapes take a moment', () => {
  const options = parseBenchArguments(['--device', 'cuda', '--peers', '--shapes', 'tiny']);
  assert.deepEqual([options.device, options.peers], ['cuda', ['torch-cuda']]);
  assert.deepEqual([options.shapes, options.time, options.sets], ['tiny', 1, 2]);
});

const wrong: readonly [string[], RegExp][] = [
  [['--shape', 'full'], /did you mean --shapes\?/],
  [['--dtypes=fp16'], /did you mean --dtype\?/],
  [['-t', '2'], /expected each option/],
  [['--only', 'gem'], /--only .* got "gem" \(did you mean gemm\?\)/],
  [['--only', 'gemm,'], /--only .* got ""/],
  [['--dtype', 'int32'], /--dtype .* fp32, fp16, bf16, got "int32"/],
  [['--family', 'train'], /--family .* got "train"/],
  [['--shapes', 'fast'], /--shapes .* tiny, quick, full, got "fast"/],
  [['--device', 'gpu'], /--device .* cpu, cuda, got "gpu"/],
  [['--device', 'cuda', '--threads', '2'], /--device cpu where --threads is given, got cuda/],
  [['--device', 'cuda', '--peers', 'ggml'], /--peers .* torch-cuda, got "ggml"/],
  [['--device', 'cpu', '--threads', '0'], /--threads .* got 0/],
  [['--device', 'cpu', '--threads', '1,'], /--threads .* got NaN/],
  [['--device', 'cpu', '--threads', '2.5'], /--threads .* got 2\.5/],
  [['--time', 'soon'], /--time .* got NaN/],
  [['--time', '0'], /--time .* got 0/],
  [['--sets', '65'], /--sets .* got 65/],
  [['--device', 'cpu', '--peers', 'one-dnn'], /--peers .* got "one-dnn" \(did you mean onednn\?\)/],
  [['--out'], /a value after --out, got none/],
  [['--out', '--help'], /a value after --out, got none/],
  [['gemm'], /options only, got "gemm" \(did you mean --only gemm\?\)/],
];
for (const [argv, message] of wrong) {
  test(`rejected: ${argv.join(' ')}`, () => {
    assert.throws(
      () => parseBenchArguments(argv),
      (error) => error instanceof InvalidArgumentError && message.test(error.message),
      `for ${argv.join(' ')}`,
    );
  });
}

const script = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../../bench/main.js');
const bench = (...argv: string[]) => spawnSync(process.execPath, [script, ...argv], { encoding: 'utf8' });

test('an unknown option ends with exit code 2 and the nearest name on stderr', () => {
  const { status, stdout, stderr } = bench('--thread', '1');
  assert.equal(status, 2);
  assert.equal(stdout, '');
  assert.match(stderr, /did you mean --threads\?/);
});

test('--help prints the options within 80 columns and ends with 0', () => {
  const { status, stdout } = bench('--help');
  assert.equal(status, 0);
  assert.equal(stdout.trimEnd(), helpText);
  for (const line of stdout.split('\n')) assert.ok(line.length <= 80, `${line.length} columns: ${line}`);
});
