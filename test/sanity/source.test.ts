/** Sanity runs on a checkpoint and a data set. */
import assert from 'node:assert/strict';
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { RunDirectory } from '../../lib/io/runDirectory.js';
import { loadLanguageModel } from '../../lib/models/languageModel.js';
import { loadModel } from '../../lib/models/loadModel.js';
import { RolloutEngine } from '../../lib/rollout/engine.js';
import { memory } from '../../lib/runtime.js';
import type { SanityConfig, SourceSanityConfig, SourceSanityOptions } from '../../lib/sanity/config.js';
import { resolveSanityOptions } from '../../lib/sanity/config.js';
import { openSubject } from '../../lib/sanity/openSubject.js';
import type { ProblemSelection } from '../../lib/sanity/problemFilter.js';
import { runSanity, type SanityEvent, type SanitySummary } from '../../lib/sanity/run.js';
import { sampleResponses } from '../../lib/sanity/subject.js';
import { adderOptions, writeAdder } from './checkpoint.js';
import { tinyConfig } from './tiny.js';

const root = mkdtempSync(path.join(tmpdir(), 'isopolicy-source-'));
after(() => rmSync(root, { recursive: true }));
let files: { model: string; data: string };

let made = 0;
async function newRun(config: SanityConfig): Promise<RunDirectory> {
  return RunDirectory.create(path.join(root, `run-${made++}`), { command: 'sanity', config });
}

function options(overrides: Partial<SourceSanityOptions> = {}): SourceSanityConfig {
  return adderOptions(files, overrides) as SourceSanityConfig;
}

async function run(
  config: SanityConfig,
  more: { base?: string; signal?: AbortSignal; report?: (event: SanityEvent) => void } = {},
): Promise<{ directory: RunDirectory; summary: SanitySummary }> {
  const directory = await newRun(config);
  return { directory, summary: await runSanity(config, { directory, ...more }) };
}

const text = ({ path: folder }: RunDirectory, name: string) => readFileSync(path.join(folder, name), 'utf8');
const setOf = (directory: RunDirectory): ProblemSelection => JSON.parse(text(directory, 'set.json'));
const metricsOf = (directory: RunDirectory) =>
  text(directory, 'metrics.jsonl')
    .trim()
    .split('\n')
    .map((line) => Object.entries(JSON.parse(line)).filter(([key]) => !/^(time|memory)\//.test(key)));
const withoutSeconds = ({ seconds: _, ...summary }: SanitySummary) => summary;

/** The run that others are compared with. */
let whole: { directory: RunDirectory; summary: SanitySummary; tensorsLeft: number };
before(async () => {
  files = await writeAdder(root, { count: 30 });
  const { tensors } = memory();
  const done = await run(options());
  whole = { ...done, tensorsLeft: memory().tensors - tensors };
});

describe('a sanity run on a checkpoint', () => {
  it('trains on exactly the problems that a recount finds between 20 % and 80 %', async () => {
    using language = await loadLanguageModel(files.model, { maxLength: 8 });
    const { model, tokenizer } = language;
    using rollout = new RolloutEngine(model, { precision: 'fp32', maxBatch: 7 });
    const rows = readFileSync(files.data, 'utf8')
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    const requests = rows.flatMap(({ question }, promptId) =>
      Array.from({ length: 10 }, (_, sampleId) => ({
        prompt: tokenizer.encode(question),
        promptId,
        sampleId,
      })),
    );
    const completions = await rollout.generate(requests, {
      seed: 1,
      maxNewTokens: 4,
      stopTokens: tokenizer.eosIds,
    });
    const right = new Array<number>(rows.length).fill(0);
    completions.forEach(({ tokens }, i) => {
      const problem = Math.floor(i / 10);
      if (tokenizer.decode(tokens) === `${rows[problem].answer}<eos>`) right[problem]!++;
    });
    const set = setOf(whole.directory);
    assert.deepEqual(
      set.indices,
      right.flatMap((n, i) => (n >= 2 && n <= 8 ? [i] : [])),
    );
    assert.ok(set.indices.length > 4 && set.indices.length < 30);
    assert.deepEqual(
      set.problems,
      set.indices.map((i) => ({ id: String(i), solveRate: right[i]! / 10 })),
    );
    assert.equal(set.tried, 30);
    assert.equal(set.accuracy, right.reduce((a, b) => a + b) / 300);
    const { verifier, template, responseLength, filterPrecision, baseSeed } = set.origin;
    assert.deepEqual(
      { verifier, template, responseLength, filterPrecision, baseSeed },
      { verifier: 'exact-1', template: 'plain', responseLength: 4, filterPrecision: 'fp32', baseSeed: 1 },
    );
    assert.deepEqual([set.modelName, set.dataName], ['adder', 'sums.jsonl']);
  });

  it('leaves files that agree, a checkpoint that is a model, and no tensors', async () => {
    const { directory, summary, tensorsLeft } = whole;
    assert.equal(tensorsLeft, 0);
    assert.equal(summary.steps, 4);
    assert.equal(summary.task, 'adder on sums');
    assert.equal(summary.effect.length, 3);
    assert.ok(summary.effect[0]!.meanAbsLogRatio > 0 && summary.effect[2]!.meanAbsLogRatio === 0);
    const set = setOf(directory);
    assert.deepEqual(summary.set, {
      problems: set.indices.length,
      tried: 30,
      baseAccuracy: set.accuracy,
    });
    const rows = readFileSync(files.data, 'utf8').trim().split('\n');
    const kept = new Set(set.indices.map((i) => JSON.parse(rows[i]!).question));
    const samples = text(directory, 'samples.jsonl').trim().split('\n');
    for (const line of samples) {
      const { prompt, response, reward, finishReason } = JSON.parse(line);
      assert.ok(kept.has(prompt), prompt);
      const [a, b] = prompt.slice(0, -1).split('+').map(Number);
      assert.equal(reward, response === `${a + b}<eos>` ? 1 : 0);
      assert.equal(finishReason, response.endsWith('<eos>') ? 'stop' : 'length');
    }
    const checkpoint = await directory.latestCheckpoint();
    using trained = await loadLanguageModel(checkpoint!.path);
    assert.equal(trained.tokenizer.decode(trained.tokenizer.encode('1+2=')), '1+2=');
  });

  it('stopped in its filter or in its steps and gone on with, ends with the same bits', async () => {
    const { tensors } = memory();
    for (const kind of ['select', 'step'] as const) {
      const config = options();
      const controller = new AbortController();
      const events: SanityEvent[] = [];
      const { directory, summary } = await run(config, {
        signal: controller.signal,
        report: (event) => {
          events.push(event);
          if (event.kind === kind) controller.abort();
        },
      });
      assert.equal(summary.interrupted, true);
      assert.equal(summary.steps, kind === 'step' ? 1 : 0);
      if (kind === 'select') {
        assert.equal(events.filter((event) => event.kind === 'select').length, 1);
        assert.throws(() => setOf(directory), /ENOENT/);
        assert.equal(await directory.latestCheckpoint(), undefined);
      }
      const more: SanityEvent[] = [];
      const done = await runSanity(config, {
        directory: await RunDirectory.open(directory.path),
        report: (event) => more.push(event),
      });
      assert.deepEqual(withoutSeconds(done), withoutSeconds(whole.summary));
      assert.deepEqual(setOf(directory), setOf(whole.directory));
      assert.deepEqual(metricsOf(directory), metricsOf(whole.directory));
      assert.equal(text(directory, 'samples.jsonl'), text(whole.directory, 'samples.jsonl'));
      assert.equal(text(directory, 'filter.jsonl'), text(whole.directory, 'filter.jsonl'));
      assert.equal(more[0]!.kind, kind === 'step' ? 'resume' : 'load');
    }
    assert.equal(memory().tensors, tensors);
  });

  it('takes the set of another run, or of a folder that it leaves it in', async () => {
    const kept = path.join(root, 'kept');
    for (const base of [whole.directory.path, kept, kept]) {
      const events: string[] = [];
      const { directory } = await run(options({ trainingPrecision: 'bf16', seed: 2, steps: 1 }), {
        base,
        report: ({ kind }) => events.push(kind),
      });
      assert.deepEqual(setOf(directory), setOf(whole.directory));
      assert.equal(events.includes('select'), made === 5, 'filtered where the folder was empty');
    }
    // A filter that was stopped in the folder goes on there.
    const shared = path.join(root, 'shared');
    const controller = new AbortController();
    const events: SanityEvent[] = [];
    const report = (event: SanityEvent) => void events.push(event);
    await run(options(), {
      base: shared,
      signal: controller.signal,
      report: (event) => event.kind === 'select' && controller.abort(),
    });
    // As a run that was told so when it was begun.
    const { directory } = await run(options({ steps: 1, base: shared }), { report });
    assert.deepEqual(setOf(directory), setOf(whole.directory));
    assert.equal(
      readFileSync(path.join(shared, 'filter.jsonl'), 'utf8'),
      text(whole.directory, 'filter.jsonl'),
    );
  });

  it('refuses a set that was made otherwise, naming all that differs', async () => {
    const base = whole.directory.path;
    const other = path.join(root, 'other');
    cpSync(files.model, path.join(other, 'adder'), { recursive: true });
    writeFileSync(path.join(other, 'adder', 'generation_config.json'), '{"eos_token_id": 84}');
    writeFileSync(
      path.join(other, 'sums.jsonl'),
      readFileSync(files.data, 'utf8').replace(/"answer":"(\d)"/, '"answer":"9$1"'),
    );
    const { source } = options();
    const set = path.join(base, 'set.json');
    const refused = (config: SanityConfig, message: RegExp) =>
      assert.rejects(run(config, { base }), (error: Error) => {
        assert.match(error.message, message);
        assert.ok(error.message.includes(set));
        return true;
      });
    await refused(
      options({ source: { ...source, model: path.join(other, 'adder') } }),
      /to be made with model = sha256-\w{32}, got sha256-/,
    );
    await refused(
      options({ source: { ...source, data: path.join(other, 'sums.jsonl') } }),
      /made with data = sha256-\w{32}, got sha256-/,
    );
    await refused(
      options({ source: { ...source, verifier: 'math-stated' }, samplesPerProblem: 12 }),
      /made with verifier = .*\/math-stated, got exact-1; and .*made with samplesPerProblem = 12, got 10$/,
    );
    await refused(options({ source: { ...source, template: 'chat' } }), /template = chat, got plain/);
    await refused(options({ filterPrecision: 'bf16' }), /filterPrecision = bf16, got fp32/);

    const task = await run(tinyConfig({ steps: 1 }));
    await assert.rejects(
      run(options(), { base: task.directory.path }),
      /set\.json to be the set of a checkpoint and a data set, got another/,
    );
  });

  it('refuses to go on where the data has changed', async () => {
    const data = path.join(root, 'changing.jsonl');
    cpSync(files.data, data);
    const config = options({ source: { ...options().source, data }, steps: 1 });
    const controller = new AbortController();
    const stopped = await run(config, {
      signal: controller.signal,
      report: (event) => event.kind === 'select' && controller.abort(),
    });
    const { directory } = await run(config);
    writeFileSync(data, readFileSync(data, 'utf8').split('\n').slice(1).join('\n'));
    for (const [name, at] of [
      ['filter.jsonl', stopped.directory],
      ['set.json', directory],
    ] as const) {
      const again = await RunDirectory.open(at.path);
      await assert.rejects(
        runSanity(config, { directory: again }),
        (error: Error) =>
          error.message.includes(path.join(at.path, name)) && /data = sha256/.test(error.message),
      );
    }
  });

  it('says where no problem qualifies, and keeps how often each was solved', async () => {
    const directory = await newRun(options());
    const config = options({ solvedAtLeast: 0.99, solvedAtMost: 0.995 });
    const { tensors } = memory();
    await assert.rejects(
      runSanity(config, { directory }),
      /^InvalidArgumentError: \[sanity\] expected some of 30 problems to be solved 99 % to 99\.5 % of the time, got none \(the model is right \d+\.\d % of the time\)/,
    );
    assert.equal(memory().tensors, tensors);
    // The origin, and 30 problems of 8 a line.
    assert.equal(text(directory, 'filter.jsonl').trim().split('\n').length, 1 + 4);
  });
});

describe('resolveSanityOptions of a checkpoint', () => {
  it("has the paper's settings where nothing else is asked for", () => {
    const config = resolveSanityOptions({ source: files });
    const { steps, promptsPerStep, groupSize, updatesPerStep, learningRate, schedule, warmupSteps } = config;
    assert.deepEqual(
      { steps, promptsPerStep, groupSize, updatesPerStep, learningRate, schedule, warmupSteps },
      {
        ...{ steps: 2000, promptsPerStep: 64, groupSize: 8, updatesPerStep: 4 },
        ...{ learningRate: 1e-6, schedule: 'constant', warmupSteps: 0 },
      },
    );
    assert.deepEqual(resolveSanityOptions({ ...config }), config, 'what is stored resolves to itself');
    assert.equal(resolveSanityOptions({ source: files, seed: 7 }).baseSeed, 1);
  });

  it('lists all that is wrong', () => {
    assert.throws(
      () =>
        resolveSanityOptions({
          ...{ source: { ...files, responseLength: 0 }, task: 'sort:2:4', solvedAtMost: 2 },
          groupSize: 1,
        } as SourceSanityOptions),
      /no task beside a model; and responseLength .*; and solvedAtMost .*; and groupSize/,
    );
  });
});

describe('openSubject', () => {
  it('opens the newest weights of a run on its set', async () => {
    await using subject = await openSubject({ run: whole.directory.path });
    const { model, environment, judged, task, step, baseSeed } = subject!;
    assert.deepEqual([judged, task, step, baseSeed], [true, 'adder on sums', 4, undefined]);
    assert.equal(environment.prompts.length, setOf(whole.directory).indices.length);
    const checkpoint = await whole.directory.latestCheckpoint();
    const { model: loaded } = await loadModel(checkpoint!.path);
    try {
      for (const [i, { master }] of model.parameters.entries()) {
        assert.deepEqual(await master.floats(), await loaded.parameters[i]!.master.floats());
      }
    } finally {
      loaded.dispose();
    }
    assert.equal(model.config.maxPositionEmbeddings, 8, 'four tokens of prompt and four of response');
  });

  it('opens a checkpoint on all problems, and on prompts that nobody judges', async () => {
    const { tensors } = memory();
    const { source } = options();
    const sampled = [];
    for (const judged of [true, false]) {
      const { verifier, ...prompts } = source;
      await using subject = await openSubject({ source: judged ? source : prompts });
      assert.equal(subject!.environment.prompts.length, 30);
      assert.equal(subject!.judged, judged);
      assert.equal(subject!.format(subject!.environment.prompts[0]!).length, 4);
      sampled.push(await sampleResponses(subject!, { precision: 'bf16', count: 40, seed: 1 }));
    }
    assert.equal(memory().tensors, tensors);
    const [judged, unjudged] = sampled;
    assert.deepEqual(unjudged!.completions, judged!.completions);
    assert.ok(judged!.rewards.every((reward) => reward === 0 || reward === 1));
    assert.ok(judged!.rewards.includes(1));
    assert.ok(unjudged!.rewards.every(Number.isNaN));
  });
});
