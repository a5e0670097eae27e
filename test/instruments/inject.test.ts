import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, describe, it } from 'node:test';
import { openDump } from '../../lib/diagnose/readDump.js';
import type { PlainRecord } from '../../lib/instruments/faults/fault.js';
import { faults } from '../../lib/instruments/faults/index.js';
import { type InjectOptions, injectFault, resolveInjectOptions } from '../../lib/instruments/inject.js';
import { RunDirectory } from '../../lib/io/runDirectory.js';
import { memory } from '../../lib/runtime.js';
import { resolveBaseOptions } from '../../lib/sanity/baseConfig.js';
import { assertUsageError, isopolicy, start, withoutAddon } from '../cli/command.js';
import { baseConfig } from './faultRuns.js';

const root = mkdtempSync(path.join(tmpdir(), 'isopolicy-inject-'));
after(() => rmSync(root, { recursive: true }));
const kept = path.join(root, 'base');
const files = ['rollout.jsonl', 'training.jsonl'] as const;

let runs = 0;
async function inject(options: InjectOptions, signal?: AbortSignal, report?: () => void) {
  const config = resolveInjectOptions({ samples: 40, steps: 2, ...options, subject: { base: baseConfig } });
  const folder = path.join(root, `run-${runs++}`);
  const directory = await RunDirectory.create(folder, { command: 'inject', config });
  const summary = await injectFault(config, {
    directory,
    base: kept,
    ...(signal && { signal }),
    ...(report && { report }),
  });
  return { folder, summary };
}

const textOf = (folder: string) => files.map((name) => readFileSync(path.join(folder, name), 'utf8'));
const recordsOf = (folder: string) =>
  textOf(folder).map((text) =>
    text
      .trimEnd()
      .split('\n')
      .map((line): PlainRecord => JSON.parse(line)),
  );

describe('injectFault', () => {
  it('writes two dumps that are read as plain ones, and says what it did', async () => {
    const { tensors } = memory();
    const { folder, summary } = await inject({ fault: 'zero-fill', strength: 'strong', top: 3, seed: 4 });
    assert.equal(memory().tensors, tensors, 'tensors left');
    const [rollout, training] = recordsOf(folder) as [PlainRecord[], PlainRecord[]];
    const zeros = rollout.flatMap(({ logprobs }) => logprobs.filter((logprob) => logprob === 0)).length;
    assert.deepEqual(JSON.parse(readFileSync(path.join(folder, 'summary.json'), 'utf8')), summary);
    assert.deepEqual(
      { ...summary, title: '', strengthOf: '' },
      {
        ...{ fault: 'zero-fill', title: '', strength: 0.2, strengthOf: '', level: 'strong' },
        ...{ precision: 'fp16', numerics: 'default', task: 'sort:2:4', steps: 2, samples: 40, seed: 4 },
        tokens: rollout.reduce((sum, { tokens }) => sum + tokens.length, 0),
        touched: zeros,
        files,
        interrupted: false,
      },
    );
    assert.ok(zeros > 0);
    assert.deepEqual(
      rollout.map(({ id }) => id),
      training.map(({ id }) => id),
    );
    assert.equal(new Set(rollout.map(({ id }) => id)).size, 40);
    for (const [side, name] of files.entries()) {
      const dump = await openDump(path.join(folder, name));
      const all = [rollout, training][side]!;
      let r = 0;
      for await (const record of dump) {
        const own = all[r++]!;
        assert.equal(dump.format.name, 'plain');
        assert.deepEqual(
          [record.id, record.step, record.batch, record.weightsVersion],
          [own.id, own.step, own.batch, own.weightsVersion],
        );
        assert.deepEqual([record.tokens, record.tokenTexts], [own.tokens, own.text]);
        assert.deepEqual([record.promptTokens, [...record.mask!]], [own.promptTokens, own.mask]);
        assert.deepEqual([...record.own!.logprobs], own.logprobs);
        assert.deepEqual(record.settings, { temperature: 1, topP: 1, topK: null });
        assert.deepEqual(
          record.own!.topLogprobs,
          own.topLogprobs!.map(
            (top) => top && { tokens: top.map(([id]) => id), logprobs: top.map(([, p]) => p) },
          ),
        );
        assert.ok(own.topLogprobs!.every((top) => top === null || top.length === 3));
      }
      assert.equal(r, 40);
    }
  });

  it('gives the same bytes for the same seed, others for another, and no most likely tokens where none are asked for', async () => {
    for (const fault of ['none', 'corrupted-layer', 'retokenised']) {
      const [first, again, other] = [
        await inject({ fault, precision: 'bf16', top: 0 }),
        await inject({ fault, precision: 'bf16', top: 0 }),
        await inject({ fault, precision: 'bf16', top: 0, seed: 2 }),
      ];
      assert.deepEqual(textOf(again.folder), textOf(first.folder));
      assert.notDeepEqual(textOf(other.folder), textOf(first.folder));
      assert.ok(recordsOf(first.folder).every((side) => side.every((record) => !('topLogprobs' in record))));
    }
  });

  it('deals responses into steps as evenly as they go', async () => {
    const { folder } = await inject({ fault: 'none', samples: 11, steps: 3 });
    const [rollout] = recordsOf(folder);
    const counts = [0, 1, 2].map((step) => rollout!.filter((record) => record.step === step).length);
    assert.deepEqual(counts, [3, 4, 4]);
    assert.deepEqual(
      rollout!.map(({ weightsVersion }) => weightsVersion),
      rollout!.map(({ step }) => String(8 * step)),
    );
  });

  it('leaves no files where it is interrupted', async () => {
    const controller = new AbortController();
    let reports = 0;
    const { folder, summary } = await inject({ fault: 'none' }, controller.signal, () => {
      if (++reports === 4) controller.abort();
    });
    assert.deepEqual([summary.interrupted, summary.files], [true, []]);
    assert.deepEqual(readdirSync(folder).sort(), ['config.json', 'summary.json']);
  });

  it('refuses what it does not know or what is not defined', () => {
    for (const [options, message] of [
      [{ fault: 'zerofill' }, /fault to be one of none, off-by-one, .*\(did you mean zero-fill\?\)/],
      [
        { fault: 'temperature', strength: 1 },
        /number for temperature \(.*above 0 and at most 10, but 1\), got 1/,
      ],
      [{ fault: 'none', strength: 2 }, /got 2/],
      [{ fault: 'routing-flip' }, /a mixture of experts for routing-flip, got "a dense model"/],
      [{ fault: 'bf16-head', precision: 'bf16' }, /other than bf16/],
      [{ fault: 'split-k' }, /numerics matched for split-k/],
      [{ fault: 'batch-variance' }, /numerics matched for batch-variance/],
      [{ fault: 'stale-weights', strength: 'strong', steps: 3 }, /steps of at least 4/],
      [{ fault: 'none', samples: 3, steps: 4 }, /samples to be an integer of at least 4 .*got 3/],
    ] as const) {
      assert.throws(() => resolveInjectOptions({ ...options, subject: { base: baseConfig } }), message);
    }
    const subject = { base: resolveBaseOptions('test', { numExperts: 3 }) };
    assert.equal(resolveInjectOptions({ fault: 'routing-flip', subject }).strength, 0.02);
    assert.throws(
      () => resolveBaseOptions('test', { numExperts: 2 }),
      /numExperts to be 0 or above 2, got 2/,
    );
  });
});

describe('isopolicy inject', () => {
  const taught = [
    ...['--task', 'sort:2:4', '--hidden-size', '32', '--layers', '2', '--base-accuracy', '0.15'],
    ...['--base-seed', '5', '--candidates', '20', '--samples-per-problem', '10', '--base', kept],
  ];

  it('lists the faults with their strengths, without the addon', () => {
    const { status, stdout } = isopolicy(['inject', '--help'], withoutAddon);
    assert.equal(status, 0);
    for (const { name, strengths } of faults) {
      assert.match(stdout, new RegExp(`^ {2}${name}$`, 'm'));
      if (name !== 'none')
        assert.match(stdout.replace(/\s+/g, ' '), new RegExp(`strong ${strengths.strong}`));
    }
    for (const line of stdout.split('\n')) assert.ok(line.length <= 80, line);
  });

  it('refuses bad usage in one line, before a folder is made', () => {
    const out = path.join(root, 'none');
    for (const [args, message] of [
      [[], /expected <fault>, one of none, off-by-one/],
      [['temprature'], /did you mean temperature\?/],
      [['temperature', '--strength', 'wek'], /did you mean weak\?/],
      [['temperature', '--strength', '-1'], /number for temperature/],
      [['routing-flip'], /mixture of experts/],
      [['none', '--run', 'x', '--experts', '4'], /no --experts beside --run/],
      [['none', '--experts', '2'], /numExperts/],
      [['none', '--numerics', 'mached'], /did you mean matched\?/],
    ] as const) {
      assertUsageError(isopolicy(['inject', ...args, '--out', out]), message);
      assert.ok(!existsSync(out));
    }
    assertUsageError(isopolicy(['inject', 'none', '--resume', out]), /no <fault> beside --resume/);
  });

  it('says what it did and what to do with it, is interrupted and started over', async () => {
    const out = path.join(root, 'cli');
    const args = ['inject', 'temperature', '--strength', '1.4', '--samples', '40', ...taught, '--out', out];
    const ended = await start(args, (line, child) => {
      if (line.includes('update')) child.kill('SIGINT');
    });
    assert.equal(ended.status, 130);
    assert.match(ended.stdout, /INTERRUPTED {2}start over with: isopolicy inject --resume/);
    assert.ok(!existsSync(path.join(out, files[0])));

    const { status, stdout } = isopolicy(['inject', '--resume', out, '--base', kept]);
    assert.equal(status, 0);
    assert.match(stdout, /^temperature: sampled and logged at a temperature/);
    assert.match(stdout, /strength: 1\.4 \(temperature\)/);
    assert.match(stdout, /isopolicy diagnose .*rollout\.jsonl .*training\.jsonl/);
    for (const line of stdout.split('\n').filter((text) => !text.includes(root))) {
      assert.ok(line.length <= 80, line);
    }
    const whole = path.join(root, 'whole');
    const json = isopolicy([...args.slice(0, -1), whole, '--json']);
    assert.deepEqual(textOf(whole), textOf(out));
    const { directory, ...summary } = JSON.parse(json.stdout);
    assert.equal(directory, whole);
    assert.deepEqual([summary.strength, summary.level, summary.fault], [1.4, null, 'temperature']);
  });
});
