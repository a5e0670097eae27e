import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, describe, it } from 'node:test';

const root = path.resolve(import.meta.dirname, '../../..');
const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'isopolicy-charts-'));
after(() => fs.rmSync(folder, { recursive: true, force: true }));

function script(name: string, ...args: string[]) {
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [path.join(root, 'scripts', name), ...args],
    {
      encoding: 'utf8',
    },
  );
  return { status, stdout, stderr };
}

/** A run directory with just what a chart reads; `mismatch` is a value a step. */
function runDirectory(
  name: string,
  precision: string,
  mismatch: readonly (number | string)[],
  changes: { command?: string; numerics?: string; interrupted?: boolean } = {},
): string {
  const directory = path.join(folder, name);
  fs.mkdirSync(directory);
  const { command = 'sanity', numerics = 'default', interrupted = false } = changes;
  const config = {
    task: 'sort:4:4',
    trainingPrecision: precision,
    rolloutPrecision: precision,
    algorithm: 'grpo',
    numerics,
    seed: 3,
    numLayers: 2,
    learningRate: 0.0001,
  };
  const write = (file: string, text: string) => fs.writeFileSync(path.join(directory, file), text);
  write('config.json', JSON.stringify({ formatVersion: 1, command, version: '9.8.7', config }));
  write('summary.json', JSON.stringify({ passed: true, steps: mismatch.length, interrupted }));
  write(
    'metrics.jsonl',
    mismatch
      .map((value, step) => ({
        step,
        'train/reward_window': 0.5 + step / 7,
        'mismatch/meanAbsLogRatio': value,
      }))
      .map((record) => `${JSON.stringify(record)}\n`)
      .join(''),
  );
  return directory;
}

const bf16 = runDirectory('first', 'bf16', [0.004, 0.0031234567, 'NaN']);
const fp16 = runDirectory('second', 'fp16', [0.0004, 0.0003, 0.0002]);
const matched = runDirectory('third', 'fp16', [0, 0, 0], { numerics: 'matched' });
const results = path.join(folder, 'results.json');

describe('collect-sanity', () => {
  it('writes an object a run with what was run, the summary and a point a step', () => {
    const { status, stdout } = script('collect-sanity.mjs', results, bf16, fp16);
    assert.equal(status, 0);
    assert.equal(stdout, 'first: 3 steps, passed\nsecond: 3 steps, passed\n');
    const [run, other, ...more] = JSON.parse(fs.readFileSync(results, 'utf8'));
    assert.deepEqual(more, []);
    assert.equal(other.name, 'second');
    assert.deepEqual(run, {
      name: 'first',
      command:
        'isopolicy sanity --task sort:4:4 --training-precision bf16 --rollout-precision bf16 --algorithm grpo ' +
        '--numerics default --seed 3 --layers 2 --learning-rate 0.0001',
      version: '9.8.7',
      task: 'sort:4:4',
      precision: { training: 'bf16', rollout: 'bf16' },
      algorithm: 'grpo',
      numerics: 'default',
      seed: 3,
      summary: { passed: true, steps: 3, interrupted: false },
      points: [
        { step: 0, rewardWindow: 0.5, meanAbsLogRatio: 0.004 },
        { step: 1, rewardWindow: 0.642857, meanAbsLogRatio: 0.00312346 },
        { step: 2, rewardWindow: 0.785714, meanAbsLogRatio: null },
      ],
    });
  });

  it('refuses what is not a finished sanity run, and writes nothing', () => {
    const interrupted = runDirectory('interrupted', 'fp16', [0.1], { interrupted: true });
    const train = runDirectory('train', 'fp16', [0.1], { command: 'train' });
    const cut = runDirectory('cut', 'fp16', [0.1, 0.2]);
    fs.writeFileSync(path.join(cut, 'metrics.jsonl'), '{"step":0}\n');
    const out = path.join(folder, 'none.json');
    const cases: [string[], RegExp][] = [
      [[fp16, interrupted], /interrupted was interrupted; finish it/],
      [[train], /train is a run of "train", not of "sanity"/],
      [[cut], /metrics\.jsonl has 1 steps, summary\.json 2/],
      [[path.join(folder, 'missing')], /cannot read .*missing\/config\.json/],
      [[fp16, fp16], /two runs are named second/],
      [[], /usage: node scripts\/collect-sanity\.mjs OUT\.json RUN_DIR\.\.\./],
    ];
    for (const [directories, message] of cases) {
      const { status, stderr } = script('collect-sanity.mjs', out, ...directories);
      assert.equal(status, 1);
      assert.match(stderr, message);
    }
    assert.equal(fs.existsSync(out), false);
    const swapped = script('collect-sanity.mjs', fp16, bf16);
    assert.equal(swapped.status, 1);
    assert.match(swapped.stderr, /expected the first argument to be the \.json file to write/);
  });
});

describe('charts', () => {
  /** The committed spec, beside data of our own. */
  function copySpec(data: string): string {
    const spec = JSON.parse(fs.readFileSync(path.join(root, 'docs/charts/sanity.vl.json'), 'utf8'));
    const file = path.join(folder, 'sanity.vl.json');
    fs.writeFileSync(file, JSON.stringify({ ...spec, data: { url: data } }));
    return file;
  }
  const draw = (data: string) => script('charts.mjs', '--out', folder, copySpec(data));
  const svg = () => fs.readFileSync(path.join(folder, 'sanity.svg'), 'utf8');
  const lines = (text: string, color: string) =>
    text.match(new RegExp(`aria-roledescription="line mark"[^>]*stroke="${color}"`, 'g'))?.length ?? 0;

  it('draws the committed spec: white ground, a line a run in the colour of its precision, the same bytes again', () => {
    assert.equal(script('collect-sanity.mjs', results, bf16, fp16).status, 0);
    const { status, stderr } = draw('results.json');
    assert.equal(stderr, '');
    assert.equal(status, 0);
    const first = svg();
    assert.match(first, /^<svg [\s\S]*<rect width="\d+" height="\d+" fill="white"\/>/);
    const width = Number(/ width="(\d+)"/.exec(first)?.[1]);
    assert.ok(width > 720 && width < 800, `${width} wide`);
    for (const word of ['bf16', 'fp16', 'grpo', 'pass: 95 %'])
      assert.ok(first.includes(`>${word}</text>`), word);
    assert.equal(lines(first, '#D55E00'), 2);
    assert.equal(lines(first, '#0072B2'), 2);
    draw('results.json');
    assert.equal(svg(), first);
  });

  it('leaves runs that agree to the bit out of the log axis', () => {
    assert.equal(script('collect-sanity.mjs', results, bf16, fp16, matched).status, 0);
    const { status, stderr } = draw('results.json');
    assert.equal(stderr, '');
    assert.equal(status, 0);
    assert.ok(svg().includes('>fp16, matched</text>'));
    assert.equal(lines(svg(), '#009E73'), 1);
  });

  it('names a spec whose data are missing', () => {
    const { status, stderr } = draw('nowhere.json');
    assert.equal(status, 1);
    assert.match(stderr, /sanity\.vl\.json: cannot read its data: ENOENT/);
  });

  it('tells in one line of a spec that does not fit its data, and draws nothing', () => {
    const file = path.join(folder, 'wrong.vl.json');
    const encoding = { x: { field: 'a', type: 'quantitative', scale: { type: 'log' } } };
    const spec = { data: { url: 'wrong.json' }, width: { step: 4 }, autosize: 'fit', mark: 'bar', encoding };
    fs.writeFileSync(file, JSON.stringify(spec));
    fs.writeFileSync(path.join(folder, 'wrong.json'), '[{"a":1}]');
    for (const [args, message] of [
      [[file], /^charts: .*wrong\.vl\.json: .*a chart's spec does not fit its data: [^\n]+\n$/],
      [['--nowhere', file], /^charts: Unknown option '--nowhere'[^\n]*\n$/],
    ] as const) {
      const { status, stdout, stderr } = script('charts.mjs', '--out', folder, ...args);
      assert.equal(status, 1);
      assert.equal(stdout, '');
      assert.match(stderr, message);
    }
    assert.equal(fs.existsSync(path.join(folder, 'wrong.svg')), false);
  });
});
