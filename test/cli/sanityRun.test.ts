/** Runs of a tiny task from end to end: output, interruption, kill and resume. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { before, test } from 'node:test';
import { isopolicy, type Outcome, start, temporaryFolder } from './command.js';

const STEPS = 40;
const folder = temporaryFolder();
const reference = path.join(folder, 'reference');

/** A run of a second or two. The learning rate is too small to pass early. */
const tiny = [
  'sanity',
  ...['--task', 'sort:4:4', '--hidden-size', '32', '--layers', '1'],
  ...['--base-accuracy', '0.3', '--candidates', '20', '--samples-per-problem', '10'],
  ...['--prompts-per-step', '4', '--group-size', '4', '--updates-per-step', '2'],
  ...['--steps', String(STEPS), '--checkpoint-every', '7', '--learning-rate', '1e-5', '--seed', '5'],
];

type Line = Record<string, unknown>;

function readLog(dir: string, name: string): Line[] {
  const lines = fs.readFileSync(path.join(dir, name), 'utf8').trimEnd().split('\n');
  return lines.map((line) => JSON.parse(line));
}

/** The metrics of a run without those that may differ from run to run. */
function metricsOf(dir: string): Line[] {
  return readLog(dir, 'metrics.jsonl').map((record) =>
    Object.fromEntries(Object.entries(record).filter(([key]) => !/^(time|memory)\//.test(key))),
  );
}

function summaryOf(dir: string): Line {
  const { seconds, ...rest } = JSON.parse(fs.readFileSync(path.join(dir, 'summary.json'), 'utf8'));
  assert.ok(seconds > 0);
  return rest;
}

/** Every file of the newest checkpoint, by name. */
function checkpointOf(dir: string): Map<string, Buffer> {
  const newest = path.join(dir, 'checkpoint', fs.readdirSync(path.join(dir, 'checkpoint')).sort().at(-1)!);
  return new Map(fs.readdirSync(newest).map((name) => [name, fs.readFileSync(path.join(newest, name))]));
}

/** Both runs have the same metrics, samples, outcome and final weights, to the bit. */
function assertSameRun(dir: string): void {
  assert.deepEqual(metricsOf(dir), metricsOf(reference));
  assert.deepEqual(readLog(dir, 'samples.jsonl'), readLog(reference, 'samples.jsonl'));
  assert.deepEqual(summaryOf(dir), summaryOf(reference));
  const [files, expected] = [checkpointOf(dir), checkpointOf(reference)];
  assert.deepEqual([...files.keys()], [...expected.keys()]);
  assert.ok(files.size > 0);
  for (const [name, bytes] of files) assert.ok(bytes.equals(expected.get(name)!), `${name} differs`);
}

let referenceRun: Outcome;
before(() => {
  referenceRun = isopolicy([...tiny, '--out', reference, '--json', '--threads', '1']);
});

test('--json prints the summary alone; progress is plain lines', () => {
  const { status, stdout, stderr } = referenceRun;
  assert.equal(status, 3, stderr);
  assert.match(stdout, /^\{[^\n]*\}\n$/);
  const summary = JSON.parse(stdout);
  assert.deepEqual(Object.keys(summary).sort(), [
    'algorithm',
    'collapsedAtStep',
    'directory',
    'effect',
    'finalAccuracy',
    'interrupted',
    'lossScale',
    'mismatch',
    'numerics',
    'passed',
    'peakAccuracy',
    'precision',
    'recovered',
    'seconds',
    'seed',
    'set',
    'steps',
    'task',
    'warning',
  ]);
  const { directory, ...stored } = summary;
  assert.equal(directory, reference);
  assert.deepEqual(stored, JSON.parse(fs.readFileSync(path.join(reference, 'summary.json'), 'utf8')));
  assert.equal(summary.steps, STEPS);
  assert.equal(summary.interrupted, false);
  assert.deepEqual(
    summary.effect.map((row: Line) => `${row.precision} ${row.numerics}`),
    ['bf16 default', 'fp16 default', 'fp16 matched'],
  );
  const [bf16, fp16, matched] = summary.effect;
  assert.ok(bf16.meanAbsLogRatio > fp16.meanAbsLogRatio && fp16.meanAbsLogRatio > 0);
  assert.equal(matched.meanAbsLogRatio, 0);

  const lines = stderr.trimEnd().split('\n');
  const steps = lines.filter((line) => line.startsWith('step '));
  assert.equal(steps.length, STEPS);
  steps.forEach((line, i) => {
    assert.match(
      line,
      new RegExp(
        `^step ${i + 1}/${STEPS} {2}reward [01]\\.\\d{3} {2}KL \\S+ {2}scale 65536 {2}\\S+ tok/s {2}at most \\d+:\\d\\d left$`,
      ),
    );
  });
  assert.ok(lines.some((line) => /^teaching {2}step \d+ {2}loss \S+ {2}accuracy [01]\.\d{3}$/.test(line)));
  assert.ok(lines.some((line) => /^selecting problems {2}20\/20 tried {2}\d+ kept$/.test(line)));
  assert.ok(/^[\n -~]*$/.test(stderr), 'no control characters');

  const config = JSON.parse(fs.readFileSync(path.join(reference, 'config.json'), 'utf8'));
  assert.equal(config.command, 'sanity');
  assert.equal(config.config.hiddenSize, 32);
  assert.equal(config.config.seed, 5);
});

test('a run that is resumed after its end tells its verdict again', () => {
  const copy = path.join(folder, 'finished');
  fs.cpSync(reference, copy, { recursive: true });
  const { status, stdout, stderr } = isopolicy(['sanity', '--resume', copy]);
  assert.equal(status, 3, stderr);
  assert.match(
    stdout,
    /^NOT PASSED {2}training accuracy 0\.\d{3} over the last 10 steps \(peak 0\.\d{3}\) after 40\nsteps, /,
  );
  assert.match(stdout, /^sort:4:4, pg-seq-is, fp16, default numerics, seed 5$/m);
  assert.match(stdout, /^fp16 matched +0 +0 +0 +0 +0$/m);
  assert.ok(stdout.endsWith(`run directory: ${copy}\n`));
  assert.doesNotMatch(stderr, /^step \d/m);
  assertSameRun(copy);
});

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  test(`${signal} finishes the step and saves; the resumed run ends with the same bits`, async () => {
    const dir = path.join(folder, signal);
    const outcome = await start([...tiny, '--out', dir], (line, child) => {
      if (line.startsWith('step 2/')) child.kill(signal);
    });
    assert.equal(outcome.status, 130, outcome.stderr);
    assert.match(outcome.stderr, /^finishing this step, then saving \(again to stop at once\)$/m);
    assert.match(outcome.stdout, /^INTERRUPTED {2}after \d+ steps?, /);
    assert.ok(outcome.stdout.includes(`; resume with:\nisopolicy sanity --resume ${dir}\n`));
    const { steps } = summaryOf(dir) as { steps: number };
    assert.ok(steps >= 2 && steps < STEPS, `stopped after ${steps} steps`);
    const newest = `step-${String(steps).padStart(6, '0')}`;
    assert.ok(fs.readdirSync(path.join(dir, 'checkpoint')).includes(newest));
    assert.equal(metricsOf(dir).length, steps);

    const resumed = isopolicy(['sanity', '--resume', dir, '--threads', '2', '--json']);
    assert.equal(resumed.status, 3, resumed.stderr);
    assert.match(resumed.stderr, new RegExp(`^resuming after step ${steps}\\nstep ${steps + 1}/`));
    assert.equal(JSON.parse(resumed.stdout).interrupted, false);
    assertSameRun(dir);
  });
}

test('SIGINT while teaching leaves a run that starts again', async () => {
  const dir = path.join(folder, 'teaching');
  const outcome = await start([...tiny, '--out', dir, '--json'], (line, child) => {
    if (line.startsWith('teaching  step 10 ')) child.kill('SIGINT');
  });
  assert.equal(outcome.status, 130, outcome.stderr);
  const summary = JSON.parse(outcome.stdout);
  assert.equal(summary.interrupted, true);
  assert.equal(summary.steps, 0);
  const resumed = isopolicy(['sanity', '--resume', dir, '--json']);
  assert.equal(resumed.status, 3, resumed.stderr);
  assertSameRun(dir);
});

test('a second SIGINT stops at once, without a verdict', async () => {
  // Steps of several seconds, so that the run is still in one of them.
  const large = ['--prompts-per-step', '512', '--group-size', '64', '--out', path.join(folder, 'second')];
  const outcome = await start([...tiny, ...large], (line, child) => {
    if (line.startsWith('selecting problems  20/20')) child.kill('SIGINT');
    if (line.startsWith('finishing this step')) child.kill('SIGINT');
  });
  assert.equal(outcome.signal, null);
  assert.equal(outcome.status, 130, outcome.stderr);
  assert.equal(outcome.stdout, '');
});

test('a run killed at any moment resumes to the same bits', async () => {
  const dir = path.join(folder, 'killed');
  const lines = referenceRun.stderr.trimEnd().split('\n').length;
  const moments: string[] = [];
  for (let kill = 0; kill < 3; kill++) {
    const args = fs.existsSync(path.join(dir, 'config.json'))
      ? ['sanity', '--resume', dir]
      : [...tiny, '--out', dir];
    let left = 1 + Math.floor((Math.random() * lines) / 2);
    const delay = Math.random() * 40;
    moments.push(`line ${left} and ${delay.toFixed(1)} ms`);
    await start(args, (_line, child) => {
      if (--left === 0) setTimeout(() => child.kill('SIGKILL'), delay);
    });
  }
  const resumed = isopolicy(['sanity', '--resume', dir, '--json']);
  assert.equal(resumed.status, 3, `killed at ${moments.join(', ')}: ${resumed.stderr}`);
  assertSameRun(dir);
});
