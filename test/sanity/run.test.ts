/** Whole sanity runs of a second or less. */
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, describe, it } from 'node:test';
import { InvalidArgumentError } from '../../lib/errors.js';
import { RunDirectory } from '../../lib/io/runDirectory.js';
import { windowMean } from '../../lib/rl/record.js';
import { memory } from '../../lib/runtime.js';
import type { TaskSanityConfig } from '../../lib/sanity/config.js';
import { runSanity, type SanityEvent, type SanitySummary } from '../../lib/sanity/run.js';
import { SET_PROBLEMS } from '../../lib/sanity/supervised.js';
import { judge } from '../../lib/sanity/verdict.js';
import { createTask } from '../../lib/tasks/index.js';
import { tinyConfig } from './tiny.js';

const root = mkdtempSync(path.join(tmpdir(), 'isopolicy-sanity-'));
after(() => rmSync(root, { recursive: true }));
let made = 0;

async function newRun(config: TaskSanityConfig): Promise<RunDirectory> {
  return RunDirectory.create(path.join(root, `run-${made++}`), { command: 'sanity', config });
}

type Line = Record<string, number>;

function lines(directory: RunDirectory, name: string): Line[] {
  const text = readFileSync(path.join(directory.path, name), 'utf8').trim();
  return text === '' ? [] : text.split('\n').map((line) => JSON.parse(line));
}

function stored(directory: RunDirectory, name: string) {
  return JSON.parse(readFileSync(path.join(directory.path, name), 'utf8'));
}

/** Metrics without those that differ from run to run. */
function metricsOf(directory: RunDirectory): Line[] {
  return lines(directory, 'metrics.jsonl').map((record) =>
    Object.fromEntries(Object.entries(record).filter(([key]) => !/^(time|memory)\//.test(key))),
  );
}

function withoutSeconds({ seconds, ...rest }: SanitySummary) {
  assert.ok(seconds > 0);
  return rest;
}

const mean = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / values.length;

async function run(
  overrides: Partial<TaskSanityConfig>,
  signal?: AbortSignal,
  onEvent?: (e: SanityEvent) => void,
) {
  const config = tinyConfig(overrides);
  const directory = await newRun(config);
  const events: SanityEvent[] = [];
  const summary = await runSanity(config, {
    directory,
    ...(signal && { signal }),
    report: (event) => {
      events.push(event);
      onEvent?.(event);
    },
  });
  return { config, directory, events, summary };
}

describe('overflow', () => {
  it('loses updates when it is skipped, and none when it is retried', async () => {
    const settings = { learningRate: 1e-4, steps: 4, lossScaler: 'torch' } as const;
    const scaled = (overflow: 'skip' | 'retry') => run({ ...settings, overflow, lossScaler: 'static:1e30' });
    const lost = (await scaled('skip')).summary.lossScale;
    assert.deepEqual([lost.lostUpdates, lost.savedUpdates], [8, 0]);
    // A static scale is not lowered, so that a retry can't help, either.
    assert.equal((await scaled('retry')).summary.lossScale.lostUpdates, 8);
    const { config, directory, summary } = await run({
      ...settings,
      trainingPrecision: 'e4m3',
      rolloutPrecision: 'fp16',
      overflow: 'retry',
    });
    assert.equal(summary.lossScale.lostUpdates, 0);
    assert.ok(summary.lossScale.savedUpdates > 0, 'e4m3 overflows at the first scale');
    const saved = lines(directory, 'metrics.jsonl').reduce((sum, r) => sum + r['train/saved_updates']!, 0);
    assert.equal(summary.lossScale.savedUpdates, saved);
    const responses = (config.promptsPerStep * config.groupSize) / config.updatesPerStep;
    assert.equal(summary.lossScale.savedResponses, saved * responses);
  });
});

describe('runSanity', () => {
  for (const overrides of [
    { trainingPrecision: 'fp16', rolloutPrecision: 'fp16' },
    { trainingPrecision: 'bf16', rolloutPrecision: 'bf16', algorithm: 'dr-grpo' },
    { trainingPrecision: 'bf16', rolloutPrecision: 'fp32', algorithm: 'grpo' },
    { trainingPrecision: 'fp16', rolloutPrecision: 'fp16', numerics: 'matched' },
  ] as const) {
    it(`leaves files that agree with one another: ${Object.values(overrides).join(', ')}`, async () => {
      const { tensors } = memory();
      const { config, directory, events, summary } = await run(overrides);
      assert.equal(memory().tensors, tensors, 'tensors left');

      const metrics = lines(directory, 'metrics.jsonl');
      assert.deepEqual(
        metrics.map(({ step }) => step),
        Array.from({ length: 12 }, (_, i) => i),
      );
      const rewards = metrics.map((record) => record['train/reward']!);
      assert.ok(rewards.some((reward) => reward > 0 && reward < 1));
      metrics.forEach((record, step) => {
        assert.equal(record['train/reward_window'], windowMean(rewards, step));
        assert.equal(record['train/reward']! * 16, Math.round(record['train/reward']! * 16));
        for (const [key, value] of Object.entries(record)) assert.equal(typeof value, 'number', key);
        const { 'time/rollout_s': a, 'time/score_s': b, 'time/train_s': c, 'time/step_s': all } = record;
        assert.ok(Math.abs(a! + b! + c! - all!) < 1e-9 && all! > 0);
        if (step > 0) assert.ok(record['time/total_s']! > metrics[step - 1]!['time/total_s']!);
        assert.equal(record['train/skipped_updates'], 0);
      });
      // Two updates a step, 5 steps of warm-up of 12, then down to 2 %.
      assert.ok(Math.abs(metrics[0]!['train/learning_rate']! - 0.2e-6) < 1e-12);
      assert.ok(Math.abs(metrics[4]!['train/learning_rate']! - 1e-6) < 1e-12);
      assert.ok(metrics[11]!['train/learning_rate']! < 0.1e-6);

      assert.deepEqual(stored(directory, 'summary.json'), summary);
      assert.deepEqual(
        { ...judge(rewards, 16) },
        {
          passed: summary.passed,
          finalAccuracy: summary.finalAccuracy,
          peakAccuracy: summary.peakAccuracy,
          collapsedAtStep: summary.collapsedAtStep,
          recovered: summary.recovered,
        },
      );
      assert.equal(summary.finalAccuracy, mean(rewards.slice(-10)));
      assert.equal(summary.steps, 12);
      assert.equal(summary.interrupted, false);
      assert.equal(summary.task, 'sort:2:4');
      assert.equal(summary.algorithm, config.algorithm);
      assert.equal(summary.numerics, config.numerics);
      assert.deepEqual(summary.precision, {
        training: config.trainingPrecision,
        rollout: config.rolloutPrecision,
      });
      const last = metrics.slice(-10);
      const mismatch = summary.mismatch!;
      for (const name of ['klMuPiK1', 'klMuPiK3', 'meanAbsLogRatio', 'seqLogRatioPer1k'] as const) {
        const expected = mean(last.map((record) => record[`mismatch/${name}`]!));
        assert.ok(Math.abs(mismatch[name] - expected) <= 1e-12 * Math.abs(expected), name);
      }
      const extremes = last.flatMap((r) => [r['mismatch/maxProbDiff']!, -r['mismatch/minProbDiff']!]);
      assert.equal(mismatch.maxProbDiff, Math.max(...extremes));
      if (config.numerics === 'matched') {
        assert.ok(metrics.every((record) => record['mismatch/maxAbsLogRatio'] === 0));
        assert.equal(mismatch.meanAbsLogRatio, 0);
      } else {
        assert.ok(mismatch.meanAbsLogRatio > 0);
      }
      assert.equal(summary.lossScale.final, metrics.at(-1)!['scaler/scale']);
      assert.equal(summary.lossScale.overflows, 0);
      if (config.trainingPrecision !== 'fp16') assert.equal(summary.lossScale.final, 1);

      const set = stored(directory, 'set.json');
      assert.deepEqual(summary.set, {
        problems: set.indices.length,
        tried: 20,
        baseAccuracy: set.accuracy,
      });
      assert.ok(set.indices.length > 0 && set.indices.length < 20);
      for (const index of set.indices) assert.ok(index >= SET_PROBLEMS && index < SET_PROBLEMS + 20);

      const task = createTask(config.task);
      const shown = set.indices.map((index: number) => task.format(task.problem(5, index)));
      const samples = lines(directory, 'samples.jsonl') as unknown as Record<string, string | number>[];
      assert.equal(samples.length, 24);
      samples.forEach(({ step, prompt, response, reward, finishReason }, i) => {
        assert.equal(step, Math.floor(i / 2));
        assert.ok(shown.includes(prompt), `${prompt} is of the set`);
        const answer = [...String(prompt).slice(0, 2)].sort().join('');
        assert.equal(reward, response === `${answer}<eos>` ? 1 : 0);
        assert.equal(finishReason, String(response).endsWith('<eos>') ? 'stop' : 'length');
      });

      assert.equal((await directory.latestCheckpoint())?.step, 12);
      assert.deepEqual(
        summary.effect.map(({ precision, numerics }) => `${precision} ${numerics}`),
        ['bf16 default', 'fp16 default', 'fp16 matched'],
      );
      const [bf16, fp16, matched] = summary.effect;
      assert.ok(bf16!.meanAbsLogRatio > 3 * fp16!.meanAbsLogRatio);
      assert.ok(fp16!.meanAbsLogRatio > 0);
      for (const name of [
        'klMuPiK1',
        'klMuPiK3',
        'maxProbDiff',
        'meanAbsLogRatio',
        'seqLogRatioPer1k',
      ] as const) {
        assert.ok(Object.is(matched![name], 0), `${name}: ${matched![name]}`);
      }

      const kinds = events.map(({ kind }) => kind);
      const order = kinds.filter((kind, i) => kind !== kinds[i - 1]);
      assert.deepEqual(order, ['teach', 'select', 'step', 'effect']);
      assert.equal(kinds.filter((kind) => kind === 'step').length, 12);
      const told = events.flatMap((event) => (event.kind === 'step' ? [event.record] : []));
      assert.deepEqual(JSON.parse(JSON.stringify(told)), metrics);
    });
  }

  it('runs of different precisions train on the same set; the same run has the same bits', async () => {
    const [a, b] = [await run({ steps: 3 }), await run({ steps: 3 })];
    const c = await run({
      steps: 3,
      trainingPrecision: 'bf16',
      rolloutPrecision: 'bf16',
      lossScaler: 'none',
    });
    assert.deepEqual(metricsOf(a.directory), metricsOf(b.directory));
    assert.deepEqual(withoutSeconds(a.summary), withoutSeconds(b.summary));
    assert.deepEqual(stored(c.directory, 'set.json'), stored(a.directory, 'set.json'));
    assert.notDeepEqual(metricsOf(c.directory), metricsOf(a.directory));
  });

  it('stops when it passes', async () => {
    const { summary, directory } = await run({
      learningRate: 3e-3,
      steps: 100,
      promptsPerStep: 4,
      groupSize: 16,
      candidates: 6,
      checkpointEvery: 100,
      warmupSteps: 0,
    });
    assert.equal(summary.passed, true);
    assert.ok(summary.finalAccuracy > 0.95);
    assert.ok(summary.steps >= 19 && summary.steps < 100, `${summary.steps} steps`);
    assert.equal(summary.interrupted, false);
    const rewards = lines(directory, 'metrics.jsonl').map((record) => record['train/reward']!);
    assert.equal(rewards.length, summary.steps);
    assert.equal(judge(rewards.slice(0, -1), 64).passed, false, 'not a step later than it could');
    assert.equal((await directory.latestCheckpoint())?.step, summary.steps);
    assert.equal(summary.effect.length, 3);
  });

  it('one step of one update is a run', async () => {
    const { summary, directory } = await run({
      steps: 1,
      updatesPerStep: 1,
      promptsPerStep: 1,
      groupSize: 2,
    });
    assert.equal(summary.steps, 1);
    assert.equal(summary.passed, false);
    const [record] = lines(directory, 'metrics.jsonl');
    assert.equal(record!['train/learning_rate'], 1e-6);
  });

  it('ends as diverged where logits are not finite, has a summary, and resumes to the same', async () => {
    const config = tinyConfig({ learningRate: 1000, warmupSteps: 0 });
    const directory = await newRun(config);
    const summary = await runSanity(config, { directory });
    assert.match(summary.divergence!, /^\[sample\] expected logits below infinity/);
    assert.ok(summary.steps < config.steps && !summary.passed && !summary.interrupted);
    assert.equal(summary.collapsedAtStep, summary.steps);
    assert.deepEqual(summary.effect, []);
    const { seconds, ...again } = await runSanity(config, { directory });
    const { seconds: before, ...first } = summary;
    assert.deepEqual(again, first);
  });

  it('a set without a problem is an error that says why, before any step', async () => {
    const config = tinyConfig({ task: 'sort:12:20', baseAccuracy: 0 });
    const directory = await newRun(config);
    const { tensors } = memory();
    await assert.rejects(runSanity(config, { directory }), (error) => {
      assert.ok(error instanceof InvalidArgumentError);
      assert.match(
        error.message,
        /^\[sanity\] expected some of 20 problems to be solved 20 % to 80 % of the time, got none \(the base is right 0\.0 % of the time\); try another baseAccuracy or more candidates$/,
      );
      return true;
    });
    assert.equal(memory().tensors, tensors);
    const files = readdirSync(directory.path);
    for (const name of ['set.json', 'summary.json', 'checkpoint']) assert.ok(!files.includes(name), name);
  });

  describe('interrupted', () => {
    const steps = { steps: 8, checkpointEvery: 3 };
    const reference = (() => {
      let once: ReturnType<typeof run> | undefined;
      return () => {
        once ??= run(steps);
        return once;
      };
    })();

    /** The run in `directory`, gone on with. */
    async function resume(config: TaskSanityConfig, directory: RunDirectory) {
      const events: SanityEvent[] = [];
      const again = await RunDirectory.open(directory.path);
      const summary = await runSanity(config, { directory: again, report: (event) => events.push(event) });
      const whole = await reference();
      assert.deepEqual(metricsOf(directory), metricsOf(whole.directory));
      assert.deepEqual(lines(directory, 'samples.jsonl'), lines(whole.directory, 'samples.jsonl'));
      assert.deepEqual(withoutSeconds(summary), withoutSeconds(whole.summary));
      return events.map(({ kind }) => kind);
    }

    it('before the start does nothing, and the run can still be made', async () => {
      const { tensors } = memory();
      const { config, directory, events, summary } = await run(steps, AbortSignal.abort());
      assert.equal(memory().tensors, tensors);
      assert.deepEqual(events, []);
      assert.equal(summary.interrupted, true);
      assert.equal(summary.steps, 0);
      assert.equal(summary.passed, false);
      assert.equal(summary.mismatch, null);
      assert.deepEqual(summary.effect, []);
      assert.deepEqual(summary.set, { problems: 0, tried: 0, baseAccuracy: 0 });
      assert.deepEqual(stored(directory, 'summary.json'), summary);
      assert.equal(await directory.latestCheckpoint(), undefined);
      assert.ok(!readdirSync(directory.path).includes('set.json'));
      assert.ok(!(await resume(config, directory)).includes('resume'), 'from the beginning');
    });

    for (const kind of ['teach', 'select'] as const) {
      it(`at the first event of kind ${kind} leaves nothing to go on from, and the run can still be made`, async () => {
        const controller = new AbortController();
        const { config, directory, events, summary } = await run(steps, controller.signal, (event) => {
          if (event.kind === kind) controller.abort();
        });
        assert.equal(events.at(-1)!.kind, kind);
        assert.equal(events.filter((event) => event.kind === kind).length, 1);
        assert.equal(summary.interrupted, true);
        assert.equal(summary.steps, 0);
        assert.equal(await directory.latestCheckpoint(), undefined);
        await resume(config, directory);
      });
    }

    it('in the middle finishes the step and saves, and the rest gives the same bits', async () => {
      const controller = new AbortController();
      const { config, directory, events, summary } = await run(steps, controller.signal, (event) => {
        if (event.kind === 'step' && event.record.step === 4) controller.abort();
      });
      assert.equal(summary.interrupted, true);
      assert.equal(summary.steps, 5);
      assert.deepEqual(summary.effect, []);
      assert.equal(events.at(-1)!.kind, 'step');
      assert.equal(lines(directory, 'metrics.jsonl').length, 5);
      assert.equal((await directory.latestCheckpoint())?.step, 5);
      assert.ok(summary.mismatch!.meanAbsLogRatio > 0);

      // Resumed and interrupted at once, nothing changes.
      const before = metricsOf(directory);
      const again = await runSanity(config, {
        directory: await RunDirectory.open(directory.path),
        signal: AbortSignal.abort(),
      });
      assert.equal(again.steps, 5);
      assert.equal(again.interrupted, true);
      assert.deepEqual(metricsOf(directory), before);
      assert.equal((await directory.latestCheckpoint())?.step, 5);

      const kinds = await resume(config, directory);
      assert.equal(kinds[0], 'resume');
      assert.equal(kinds.filter((kind) => kind === 'step').length, 3);
    });

    it('names a log that lacks a step before the newest checkpoint, changes nothing, and goes on from the one before', async () => {
      const controller = new AbortController();
      const { config, directory } = await run(steps, controller.signal, (event) => {
        if (event.kind === 'step' && event.record.step === 4) controller.abort();
      });
      const log = path.join(directory.path, 'metrics.jsonl');
      const torn = readFileSync(log, 'utf8').slice(0, -20);
      writeFileSync(log, torn);
      const newest = path.join(directory.path, 'checkpoint', 'step-000005');
      await assert.rejects(runSanity(config, { directory: await RunDirectory.open(directory.path) }), {
        code: 'ERR_INVALID_ARGUMENT',
        message:
          '[sanity] expected metrics.jsonl to have the 5 steps before the newest checkpoint, got 4 of them, in ' +
          `${directory.path}: remove ${newest} to go on from the checkpoint before it`,
      });
      assert.equal(readFileSync(log, 'utf8'), torn);
      rmSync(newest, { recursive: true });
      assert.equal((await resume(config, directory))[0], 'resume');
    });

    it('after the last step is not interrupted', async () => {
      const controller = new AbortController();
      const { summary } = await run(steps, controller.signal, (event) => {
        if (event.kind === 'step' && event.record.step === 7) controller.abort();
      });
      assert.equal(summary.interrupted, false);
      assert.equal(summary.effect.length, 3);
      assert.deepEqual(withoutSeconds(summary), withoutSeconds((await reference()).summary));
    });
  });

  it('a set.json that cannot be read is named', async () => {
    const { config, directory } = await run({ steps: 1 });
    writeFileSync(path.join(directory.path, 'set.json'), '{"indices":[');
    const again = await RunDirectory.open(directory.path);
    await assert.rejects(
      runSanity(config, { directory: again }),
      /\[sanity\] expected .*set\.json to be readable JSON/,
    );
  });
});
