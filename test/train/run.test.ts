import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { cpSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, describe, it } from 'node:test';
import { RunDirectory, readMetrics } from '../../lib/io/runDirectory.js';
import { loadLanguageModel } from '../../lib/models/languageModel.js';
import { loadModel } from '../../lib/models/loadModel.js';
import { resolveTrainOptions, type TrainConfig, type TrainOptions } from '../../lib/train/config.js';
import { runTrain, type TrainEvent, type TrainSummary } from '../../lib/train/run.js';
import { parseYaml } from '../../lib/train/yaml.js';
import { ownTensors } from '../support/owned.js';
import { type Tiny, tinyTraining } from './tiny.js';

ownTensors();

let tiny: Tiny;
before(async () => {
  tiny = await tinyTraining();
});

let made = 0;
async function newRun(config: TrainConfig): Promise<RunDirectory> {
  return RunDirectory.create(join(tiny.root, `run-${made++}`), { command: 'train', version: 'test', config });
}

/** Metrics without what differs from run to run. */
async function metricsOf(path: string): Promise<object[]> {
  return (await readMetrics(path)).map((record) =>
    Object.fromEntries(Object.entries(record).filter(([key]) => !/^(time|memory)\//.test(key))),
  );
}

/** The files of a checkpoint, but for times. */
function filesOf(run: RunDirectory, step: number): Record<string, string> {
  const path = run.checkpointPath(step);
  return Object.fromEntries(
    readdirSync(path).map((name) => [
      name,
      readFileSync(join(path, name), 'latin1').replace(/"time\/eval_s": [\d.e-]+/, ''),
    ]),
  );
}

const lora: TrainOptions['lora'] = { rank: 2, rollout: 'factored' };

for (const [kind, changes] of [
  ['all weights in fp16', {}],
  ['an adapter in bf16', { lora, trainingPrecision: 'bf16', numerics: 'matched' }],
] as const) {
  describe(`runTrain, ${kind}`, () => {
    let config: TrainConfig;
    let whole: { run: RunDirectory; summary: TrainSummary; events: TrainEvent[] };
    before(async () => {
      config = resolveTrainOptions({ ...tiny.options, ...changes });
      const run = await newRun(config);
      const events: TrainEvent[] = [];
      const summary = await runTrain(config, { directory: run, report: (event) => events.push(event) });
      whole = { run, summary, events };
    });

    it('trains, evaluates and records', async () => {
      const { run, summary, events } = whole;
      assert.deepEqual(
        events.map((event) => event.kind + ('step' in event ? event.step : '')),
        [
          'load',
          'evaluate0',
          'step',
          'step',
          'evaluate2',
          'step',
          'step',
          'evaluate4',
          'step',
          'step',
          'evaluate6',
        ],
      );
      const records = await readMetrics(run.path);
      const evaluated = records.filter((record) => 'eval/avg@3' in record);
      assert.deepEqual(
        evaluated.map(({ step }) => step),
        [0, 2, 4, 6],
      );
      assert.deepEqual(
        Object.keys(records[6]!).filter((key) => key.startsWith('train/')),
        [],
      );
      assert.ok(records.slice(0, 6).some((record) => Number(record['train/grad_norm']) > 0));
      if (config.numerics === 'matched')
        assert.ok(records.slice(0, 6).every((r) => r['mismatch/maxProbDiff'] === 0));
      assert.deepEqual([summary.steps, summary.interrupted, summary.divergence], [6, false, undefined]);
      const at = (record: (typeof records)[number]) => ({
        step: record.step,
        average: record['eval/avg@3'],
        pass: record['eval/pass@3'],
      });
      assert.deepEqual(summary.evaluation?.first, at(records[0]!));
      assert.deepEqual(summary.evaluation?.last, at(records[6]!));
      assert.equal(
        summary.evaluation?.best.average,
        Math.max(...evaluated.map((record) => Number(record['eval/avg@3']))),
      );
      assert.equal(summary.reward?.last, records[5]!['train/reward_window']);
      assert.deepEqual(parseYaml(readFileSync(join(run.path, 'config.yaml'), 'utf8'), 'config.yaml'), config);
    });

    it('leaves model folders that load to the bits that were trained', async () => {
      const { run } = whole;
      const files = filesOf(run, 6);
      const own = config.lora
        ? ['adapter_config.json', 'adapter_model.safetensors']
        : ['config.json', 'model.safetensors'];
      const text = [
        'chat_template.jinja',
        'generation_config.json',
        'tokenizer.json',
        'tokenizer_config.json',
      ];
      const state = ['optimizer.safetensors', 'score.json', 'trainer.json', 'training.json'];
      assert.deepEqual(Object.keys(files).sort(), [...own, ...text, ...state].sort());
      for (const name of text) assert.equal(files[name], readFileSync(join(config.model, name), 'latin1'));
      assert.equal(JSON.parse(files['trainer.json']!.replace(/,\s*}/, '}')).promptsDrawn, 24);
      if (config.lora) return;
      using again = await loadLanguageModel(run.checkpointPath(6));
      const { model: before } = await loadModel(config.model);
      using _before = before;
      assert.deepEqual([again.config.dtype, again.config.modelType], ['fp32', 'qwen2']);
      const [now, then] = [
        await again.model.embedding.master.floats(),
        await before.embedding.master.floats(),
      ];
      assert.notDeepEqual(now, then);
      // Any other reader of the format finds them under their own names.
      assert.ok(files['model.safetensors']!.includes('"model.layers.1.self_attn.k_proj.bias"'));
    });

    it('interrupted and resumed is as uninterrupted, to the bit', async () => {
      const run = await newRun(config);
      const controller = new AbortController();
      const report = (event: TrainEvent) => {
        if (event.kind === 'step' && event.record.step === 3) controller.abort();
      };
      const first = await runTrain(config, { directory: run, signal: controller.signal, report });
      assert.deepEqual([first.steps, first.interrupted], [4, true]);
      const events: TrainEvent[] = [];
      const directory = await RunDirectory.open(run.path);
      const second = await runTrain(config, { directory, report: (event) => events.push(event) });
      // What the interruption left out is made up for.
      assert.ok(events.some((event) => event.kind === 'evaluate' && event.step === 4));
      assert.deepEqual(await metricsOf(run.path), await metricsOf(whole.run.path));
      const { seconds, ...rest } = second;
      const { seconds: _, ...expected } = whole.summary;
      assert.deepEqual({ ...rest, checkpoints: null }, { ...expected, checkpoints: null });
      assert.deepEqual(filesOf(run, 6), filesOf(whole.run, 6));
      // And again, with nothing left to do.
      const third = await runTrain(config, { directory: await RunDirectory.open(run.path) });
      assert.deepEqual({ ...third, seconds: 0 }, { ...second, seconds: 0 });
      assert.deepEqual(await metricsOf(run.path), await metricsOf(whole.run.path));
    });
  });
}

describe('runTrain', () => {
  it('keeps the last checkpoints and the best, by evaluation or by reward', async () => {
    for (const evaluation of [tiny.options.evaluation, null] as const) {
      const checkpoint = { every: 1, keepLast: 1, keepBest: 1 };
      const config = resolveTrainOptions({ ...tiny.options, evaluation: evaluation ?? null, checkpoint });
      const run = await newRun(config);
      const { checkpoints, evaluation: judged } = await runTrain(config, { directory: run });
      const kept = readdirSync(join(run.path, 'checkpoint')).map((name) => `checkpoint/${name}`);
      assert.equal(checkpoints.last, 'checkpoint/step-000006');
      assert.deepEqual(new Set(kept), new Set([checkpoints.last, checkpoints.best]));
      const records = await readMetrics(run.path);
      const of = (step: number) =>
        evaluation ? records[step]?.['eval/avg@3'] : records[step - 1]?.['train/reward_window'];
      const scores = [1, 2, 3, 4, 5, 6].map((step) => Number(of(step) ?? Number.NEGATIVE_INFINITY));
      const best = scores.lastIndexOf(Math.max(...scores)) + 1;
      assert.equal(checkpoints.best, `checkpoint/step-00000${best}`);
      assert.equal(judged === null, evaluation === null);
    }
  });

  it('killed at any moment goes on from the last whole checkpoint, to the same bits', async () => {
    const checkpoint = { every: 1 };
    const config = resolveTrainOptions({ ...tiny.options, evaluation: null, steps: 8, checkpoint });
    const [reference, run] = [await newRun(config), await newRun(config)];
    await runTrain(config, { directory: reference });
    const module = (name: string) => JSON.stringify(new URL(`../../lib/${name}.js`, import.meta.url).href);
    const program = `
      const { RunDirectory } = await import(${module('io/runDirectory')});
      const { runTrain } = await import(${module('train/run')});
      const directory = await RunDirectory.open(${JSON.stringify(run.path)});
      const report = ({ kind }) => process.stdout.write(kind === 'step' ? '.' : '');
      await runTrain(${JSON.stringify(config)}, { directory, report });
      process.stdout.write('!');`;
    let reached = 0;
    let ended = false;
    for (let round = 0; round < 12 && !ended; round++) {
      const child = spawn(process.execPath, ['--input-type=module', '-e', program]);
      let output = '';
      child.stdout.on('data', (chunk) => {
        output += chunk;
        // Within a step's saving, a little later each round.
        if (round < 4) setTimeout(() => child.kill('SIGKILL'), 3 * round);
      });
      await new Promise((resolve) => child.on('close', resolve));
      ended = output.endsWith('!');
      const latest = await (await RunDirectory.open(run.path)).latestCheckpoint();
      if (latest === undefined) continue;
      const { model } = await loadModel(latest.path);
      model.dispose();
      assert.ok(latest.step >= reached, `round ${round}`);
      reached = latest.step;
    }
    assert.ok(ended);
    assert.deepEqual(await metricsOf(run.path), await metricsOf(reference.path));
    assert.deepEqual(filesOf(run, 8), filesOf(reference, 8));
  });

  it('an interruption ends an evaluation at once, which is made up for, and its checkpoint gets the score', async () => {
    const config = resolveTrainOptions({ ...tiny.options, steps: 4 });
    const whole = await newRun(config);
    const expected = await runTrain(config, { directory: whole });
    for (const at of [0, 2, 4]) {
      const run = await newRun(config);
      const controller = new AbortController();
      const report = (event: TrainEvent) => {
        if (event.kind === 'evaluate' && event.step === at) controller.abort();
      };
      const { steps, interrupted, evaluation } = await runTrain(config, {
        directory: run,
        signal: controller.signal,
        report,
      });
      assert.deepEqual(
        [steps, interrupted, evaluation?.last.step],
        [at, true, at === 0 ? undefined : at - 2],
      );
      const summary = await runTrain(config, { directory: await RunDirectory.open(run.path) });
      assert.deepEqual({ ...summary, seconds: 0 }, { ...expected, seconds: 0 });
      assert.deepEqual(await metricsOf(run.path), await metricsOf(whole.path));
      assert.deepEqual(filesOf(run, 4), filesOf(whole, 4));
    }
  });

  it('an adapter goes on only on the model that it was trained on', async () => {
    const base = join(tiny.root, 'base');
    cpSync(tiny.options.model, base, { recursive: true });
    const config = resolveTrainOptions({ ...tiny.options, model: base, lora, steps: 2, evaluation: null });
    const run = await newRun(config);
    await runTrain(config, { directory: run });
    const open = () => RunDirectory.open(run.path);
    const weights = join(base, 'model.safetensors');
    const bytes = readFileSync(weights);
    writeFileSync(weights, bytes); // The same, of another time.
    await runTrain({ ...config, steps: 3 }, { directory: await open() });
    bytes[bytes.length - 1]! ^= 1;
    writeFileSync(weights, bytes);
    await assert.rejects(
      runTrain({ ...config, steps: 4 }, { directory: await open() }),
      /base to be the model that the run's adapter was trained on, got "another"/,
    );
  });

  it('refuses other problems than it began with, and what does not fit, before weights are read', async () => {
    const config = resolveTrainOptions({
      ...tiny.options,
      evaluation: { ...tiny.options.evaluation, atStart: false },
      steps: 1,
    });
    const run = await newRun(config);
    await assert.rejects(
      runTrain(config, { directory: run, availableMemory: 1e5 }),
      /\[memory\] expected a run within .* got one that takes .* \(most of it: /,
    );
    await runTrain(config, { directory: run });
    const text = readFileSync(config.data, 'utf8');
    writeFileSync(config.data, text.replace('"answer":"3"', '"answer":"4"'));
    await assert.rejects(
      runTrain(config, { directory: await RunDirectory.open(run.path) }),
      /train\.jsonl to have the problems that the run began with, by the same verifier, got "others"/,
    );
    writeFileSync(config.data, text);
    const evaluated = config.evaluation!.data;
    const rows = readFileSync(evaluated, 'utf8');
    writeFileSync(evaluated, rows.slice(0, rows.indexOf('\n') + 1));
    await assert.rejects(
      runTrain(config, { directory: await RunDirectory.open(run.path) }),
      /test\.jsonl to have the problems that the run began with/,
    );
    writeFileSync(evaluated, rows);
    await assert.rejects(
      runTrain({ ...config, responseLength: 95 }, { directory: await newRun(config) }),
      /within the model's context of 96/,
    );
  });
});
