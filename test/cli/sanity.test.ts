import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { defaultDirectory } from '../../lib/cli/experiment.js';
import { runName } from '../../lib/cli/sanity.js';
import { resolveSanityOptions } from '../../lib/sanity/config.js';
import { assertUsageErrors, isopolicy, temporaryFolder, type UsageCase, withoutAddon } from './command.js';

const folder = temporaryFolder();

test('help names the defaults that a run has', () => {
  const help = isopolicy(['sanity', '--help']).stdout.replace(/\s+/g, ' ');
  const config: Record<string, unknown> = { ...resolveSanityOptions() };
  const options: Record<string, string> = {
    '--precision': 'trainingPrecision',
    '--algorithm': 'algorithm',
    '--task': 'task',
    '--seed': 'seed',
    '--steps': 'steps',
    '--prompts-per-step': 'promptsPerStep',
    '--group-size': 'groupSize',
    '--updates-per-step': 'updatesPerStep',
    '--learning-rate': 'learningRate',
    '--warmup-steps': 'warmupSteps',
    '--hidden-size': 'hiddenSize',
    '--layers': 'numLayers',
    '--candidates': 'candidates',
    '--samples-per-problem': 'samplesPerProblem',
    '--base-accuracy': 'baseAccuracy',
    '--solved-at-least': 'solvedAtLeast',
    '--solved-at-most': 'solvedAtMost',
    '--teach-steps': 'teachSteps',
    '--schedule': 'schedule',
    '--checkpoint-every': 'checkpointEvery',
  };
  for (const [option, name] of Object.entries(options)) {
    const stated = new RegExp(`${option} <.*?default: ([^)\\s]+)\\)`).exec(help)?.[1];
    const value = config[name];
    assert.equal(typeof value === 'number' ? Number(stated) : stated, value, option);
  }
  assert.equal(config.numerics, 'default');
});

test('a new folder is named for the run and its time', () => {
  const now = new Date('2026-11-22T14:05:09.123Z');
  assert.equal(
    defaultDirectory(runName(resolveSanityOptions()), now),
    'runs/sanity-sort-16-10-pg-seq-is-fp16-seed1-20261122T140509Z',
  );
  const mixed = resolveSanityOptions({
    trainingPrecision: 'bf16',
    rolloutPrecision: 'fp32',
    algorithm: 'grpo',
  });
  assert.equal(
    defaultDirectory(runName(mixed), now),
    'runs/sanity-sort-16-10-grpo-bf16-fp32-seed1-20261122T140509Z',
  );
});

test('precisions that contradict each other', () => {
  for (const engine of ['training', 'rollout']) {
    const args = ['sanity', '--precision', 'fp16', `--${engine}-precision`, 'bf16'];
    const { status, stderr } = isopolicy(args, withoutAddon);
    assert.equal(status, 2);
    assert.match(stderr, new RegExp(`^isopolicy: \\[sanity\\] .*--${engine}-precision.*bf16 and fp16\\n$`));
  }
  // The same precision twice is no contradiction: this fails for want of the addon.
  const agreeing = ['sanity', '--precision', 'fp16', '--training-precision', 'fp16', '--out', folder];
  assert.equal(isopolicy(agreeing, withoutAddon).status, 1);
});

test('what the options only together get wrong is found before a folder is made', () => {
  const out = path.join(folder, 'unmade');
  const cases: UsageCase[] = [
    [['--hidden-size', '48'], /hiddenSize to be a multiple of 32/],
    [['--numerics', 'matched', '--training-precision', 'bf16', '--rollout-precision', 'fp16'], /matched/],
    [['--prompts-per-step', '1', '--group-size', '2', '--updates-per-step', '3'], /updatesPerStep/],
  ];
  assertUsageErrors(cases.map(([args, message]) => [['sanity', ...args, '--out', out], message]));
  assert.ok(!fs.existsSync(out));
});

test('an output folder that cannot be used ends the command before any work', () => {
  const file = path.join(folder, 'file');
  fs.writeFileSync(file, '');
  const taken = path.join(folder, 'taken');
  fs.mkdirSync(taken);
  fs.writeFileSync(path.join(taken, 'metrics.jsonl'), '');
  assertUsageErrors([
    [['sanity', '--out', path.join(file, 'run')], /\[run\] expected out to be a folder, not \(in\) a file/],
    [['sanity', '--out', file], /\[run\] expected out to be a folder, not \(in\) a file/],
    [['sanity', '--out', taken], /\[run\] expected out to be a folder without a run \(it has metrics\.jsonl/],
  ]);
});

test('--resume needs the folder of a sanity run', () => {
  const missing = path.join(folder, 'missing');
  const { status, stderr } = isopolicy(['sanity', '--resume', missing], withoutAddon);
  assert.equal(status, 2);
  assert.match(
    stderr,
    /^isopolicy: \[sanity\] expected --resume to be the folder of a run, [^\n]+missing"\n$/,
  );
  assert.ok(!fs.existsSync(missing));

  for (const [name, config, message] of [
    [
      'other',
      { formatVersion: 1, command: 'train', config: {} },
      /--resume to be the folder of a sanity run/,
    ],
    ['none', { formatVersion: 1, command: 'sanity' }, /--resume to be the folder of a sanity run/],
    ['future', { formatVersion: 99, command: 'sanity', config: {} }, /format version 1 .*99/],
    ['bad', { formatVersion: 1, command: 'sanity', config: { steps: 'x' } }, /steps to be an integer/],
  ] as const) {
    const dir = path.join(folder, name);
    fs.mkdirSync(dir);
    fs.writeFileSync(path.join(dir, 'config.json'), JSON.stringify(config));
    const outcome = isopolicy(['sanity', '--resume', dir]);
    assert.equal(outcome.status, 2, outcome.stderr);
    assert.match(outcome.stderr, message);
    assert.deepEqual(fs.readdirSync(dir), ['config.json'], 'nothing was written');
  }
});

test('--resume refuses options that would change the run, without looking at it', () => {
  const cases = [
    ['--steps', '5'],
    ['--precision', 'fp16'],
    ['--out', 'elsewhere'],
    ['--loss-scaler', 'none'],
  ];
  assertUsageErrors(
    cases.map((args) => [
      ['sanity', '--resume', 'runs/x', ...args],
      new RegExp(`^isopolicy: \\[sanity\\] expected no ${args[0]} beside --resume`),
    ]),
    withoutAddon,
  );
  const allowed = ['sanity', '--resume', path.join(folder, 'missing'), '--threads', '1', '--json'];
  assert.match(isopolicy(allowed, withoutAddon).stderr, /missing/);
});
