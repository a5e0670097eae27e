import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, describe, it } from 'node:test';
import { InvalidArgumentError } from '../../lib/errors.js';
import { RunDirectory } from '../../lib/io/runDirectory.js';
import type { Decoder } from '../../lib/models/decoder.js';
import { type Base, loadBase, prepareBase } from '../../lib/sanity/base.js';
import { baseConfigOf } from '../../lib/sanity/baseConfig.js';
import { openSubject } from '../../lib/sanity/openSubject.js';
import { runSanity } from '../../lib/sanity/run.js';

import { tinyConfig } from './tiny.js';

const root = mkdtempSync(path.join(tmpdir(), 'isopolicy-base-'));
after(() => rmSync(root, { recursive: true }));
const config = baseConfigOf(tinyConfig());

async function weights(model: Decoder): Promise<Float32Array[]> {
  return Promise.all(model.parameters.map(({ master }) => master.floats()));
}

async function contents({ model, set }: Pick<Base, 'model' | 'set'>) {
  const all = await weights(model);
  model.dispose();
  return { all, set };
}

describe('prepareBase', () => {
  it('makes the same base with a folder, without one, and from the folder', async () => {
    const directory = path.join(root, 'deep', 'kept');
    const made = await contents((await prepareBase(config))!);
    const left = await contents((await prepareBase(config, { directory }))!);
    const events: unknown[] = [];
    const taken = await contents((await prepareBase(config, { directory, report: (e) => events.push(e) }))!);
    assert.deepEqual(left, made);
    assert.deepEqual(taken, made);
    assert.deepEqual(events, [], 'nothing is made anew');
    assert.deepEqual(await contents(await loadBase(directory)), made);
  });

  it('refuses a folder with another base, or a damaged one', async () => {
    const directory = path.join(root, 'kept');
    await contents((await prepareBase(config, { directory }))!);
    await assert.rejects(
      prepareBase({ ...config, baseSeed: 6 }, { directory }),
      (error: Error) =>
        error instanceof InvalidArgumentError &&
        /to hold a base with baseSeed = 6, got one with 5/.test(error.message),
    );
    const file = path.join(directory, 'base.json');
    const text = readFileSync(file, 'utf8');
    for (const [damaged, message] of [
      [text.slice(0, 20), /base\.json to be readable JSON/],
      [text.replace('"formatVersion":2', '"formatVersion":9'), /format version 2, got 9/],
      ['null', /format version 2, got undefined/],
    ] as const) {
      writeFileSync(file, damaged);
      await assert.rejects(prepareBase(config, { directory }), message);
      assert.equal(readFileSync(file, 'utf8'), damaged, 'left as it is');
    }
    await assert.rejects(loadBase(path.join(root, 'missing')), /the folder of a base, with a base\.json/);
  });

  it('keeps a mixture of experts apart from a dense base, whose configuration is what it was before there were any', async () => {
    assert.ok(!('numExperts' in config));
    const mixture = baseConfigOf({ ...config, numExperts: 4 });
    const directory = path.join(root, 'mixture');
    const made = (await prepareBase(mixture, { directory }))!;
    const { numExperts, numExpertsPerToken, intermediateSize, moeIntermediateSize } = made.model.config;
    assert.deepEqual([numExperts, numExpertsPerToken], [4, 2]);
    assert.deepEqual([intermediateSize, moeIntermediateSize], [48, 48], 'half of a dense block');
    const kept = await contents(made);
    assert.deepEqual(await contents((await prepareBase(mixture, { directory }))!), kept);
    await assert.rejects(prepareBase(config, { directory }), /numExperts = undefined, got one with 4/);
    const dense = path.join(root, 'dense');
    await contents((await prepareBase(config, { directory: dense }))!);
    await assert.rejects(
      prepareBase(mixture, { directory: dense }),
      /numExperts = 4, got one with undefined/,
    );
  });

  it('leaves nothing behind when it is interrupted', async () => {
    const directory = path.join(root, 'interrupted');
    const controller = new AbortController();
    const base = await prepareBase(config, {
      directory,
      signal: controller.signal,
      report: () => controller.abort(),
    });
    assert.equal(base, null);
    assert.ok(!existsSync(directory));
  });
});

describe('a sanity run from a kept base', () => {
  it('is the run that makes its own', async () => {
    const kept = path.join(root, 'for-runs');
    const summaries = [];
    for (const base of [undefined, kept, kept]) {
      const full = tinyConfig({ steps: 3 });
      const directory = await RunDirectory.create(path.join(root, `run-${summaries.length}`), {
        command: 'sanity',
        config: full,
      });
      const { seconds, ...summary } = await runSanity(full, { directory, ...(base && { base }) });
      assert.ok(seconds > 0);
      summaries.push(summary);
    }
    assert.deepEqual(summaries[1], summaries[0]);
    assert.deepEqual(summaries[2], summaries[0]);
  });

  it('has another course with the same base and another seed', async () => {
    const rewards = [];
    for (const seed of [5, 6]) {
      const full = tinyConfig({ steps: 3, seed, baseSeed: 5 });
      const directory = await RunDirectory.create(path.join(root, `seed-${seed}`), {
        command: 'sanity',
        config: full,
      });
      const { set } = await runSanity(full, { directory, base: path.join(root, 'for-runs') });
      const metrics = readFileSync(path.join(directory.path, 'metrics.jsonl'), 'utf8');
      rewards.push({ set, first: JSON.parse(metrics.split('\n')[0]!)['train/loss'] });
    }
    assert.deepEqual(rewards[1]!.set, rewards[0]!.set);
    assert.notEqual(rewards[1]!.first, rewards[0]!.first);
  });
});

describe('openSubject', () => {
  it('opens the newest weights of a run', async () => {
    const subject = (await openSubject({ run: path.join(root, 'run-0') }))!;
    const base = await loadBase(path.join(root, 'for-runs'));
    assert.equal(subject.step, 3);
    assert.equal(subject.task, config.task);
    assert.equal(subject.baseSeed, config.baseSeed);
    assert.deepEqual(subject.environment.prompts, base.environment.prompts);
    assert.equal(subject.environment.prompts.length, base.set.indices.length);
    assert.equal(subject.judged, true);
    const { set } = base;
    assert.notDeepEqual(await contents({ ...subject, set }), await contents(base), 'trained');
  });

  it('makes a base, and names what is no run', async () => {
    const subject = (await openSubject({ base: config }))!;
    assert.equal(subject.step, 0);
    subject.model.dispose();
    await assert.rejects(openSubject({ run: path.join(root, 'nowhere') }), /the folder of a run/);
    await RunDirectory.create(path.join(root, 'grid'), { command: 'grid', config: {} });
    await assert.rejects(openSubject({ run: path.join(root, 'grid') }), /a sanity run, got one of "grid"/);
    await RunDirectory.create(path.join(root, 'fresh'), { command: 'sanity', config });
    await assert.rejects(openSubject({ run: path.join(root, 'fresh') }), /with a checkpoint/);
  });
});
