/** Instruments on a checkpoint, with rewards and without. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { mismatchReport } from '../../lib/cli/mismatch.js';
import { measureHeadroom } from '../../lib/instruments/headroom.js';
import { climbLadder } from '../../lib/instruments/ladder.js';
import { type ProfileConfig, profileMismatch } from '../../lib/instruments/profile.js';
import { divergenceOf } from '../../lib/instruments/wholeDivergence.js';
import { RunDirectory } from '../../lib/io/runDirectory.js';
import { meanDivergence } from '../../lib/mismatch/divergence.js';
import type { ModelSource, PromptSource } from '../../lib/rl/modelSource.js';
import { RolloutEngine } from '../../lib/rollout/engine.js';
import { memory } from '../../lib/runtime.js';
import type { SourceSanityConfig } from '../../lib/sanity/config.js';
import { openSubject } from '../../lib/sanity/openSubject.js';
import { sampleResponses } from '../../lib/sanity/subject.js';
import { TrainingEngine } from '../../lib/training/engine.js';
import { adderOptions, writeAdder } from '../sanity/checkpoint.js';
import { writeCheckpointFolder } from '../support/checkpoint.js';

const root = mkdtempSync(path.join(tmpdir(), 'isopolicy-source-'));
after(() => rmSync(root, { recursive: true }));
let source: ModelSource;
let prompts: PromptSource;
before(async () => {
  ({ source } = adderOptions(await writeAdder(root, { count: 20 })) as SourceSanityConfig);
  const { verifier, ...rest } = source;
  prompts = rest;
});
const open = (name: string, config: object) =>
  RunDirectory.create(path.join(root, name), { command: 'test', config });
const training = (model: ConstructorParameters<typeof TrainingEngine>[0]) =>
  new TrainingEngine(model, { precision: 'bf16', schedule: { kind: 'constant', learningRate: 0 } });

describe('profileMismatch of a mixture of experts', () => {
  it('tells how often routers part, and the mismatch without', async () => {
    const mixture = { numExperts: 8, numExpertsPerToken: 2, attentionBias: false, qkNorm: true };
    const model = await writeCheckpointFolder(path.join(root, 'mixture'), { config: mixture });
    const config: ProfileConfig = {
      subjects: [{ source: { ...prompts, model, responseLength: 24 } }],
      pairs: [{ training: 'bf16', rollout: 'bf16' }],
      samples: 64,
      seed: 1,
    };
    const summary = await profileMismatch(config, { directory: await open('mixture-run', config) });
    const { routing, metrics } = summary.points[0]!;
    assert.ok(routing!.flipShare > 0 && routing!.flipShare < 0.1, `${routing!.flipShare}`);
    const { meanAbsLogRatio } = routing!.replayed;
    assert.ok(meanAbsLogRatio > 0 && meanAbsLogRatio < metrics.meanAbsLogRatio, `${meanAbsLogRatio}`);
    assert.match(mismatchReport(summary, 'run'), /the routers chose other experts for\s+0?\.?\d/);
  });
});

describe('profileMismatch of a checkpoint', () => {
  it('measures the same with rewards and without, but for what needs them', async () => {
    const { tensors } = memory();
    const summaries = [];
    for (const own of [source, prompts]) {
      const config: ProfileConfig = {
        subjects: [{ source: own }],
        pairs: [{ training: 'bf16', rollout: 'bf16' }],
        samples: 48,
        seed: 1,
      };
      const directory = await open(`mismatch-${summaries.length}`, config);
      const summary = await profileMismatch(config, { directory });
      const again = await profileMismatch(config, { directory });
      assert.deepEqual(again, summary, 'what is logged is not measured anew');
      summaries.push(summary);
    }
    assert.equal(memory().tensors, tensors);
    const [judged, unjudged] = summaries;
    assert.deepEqual(unjudged!.groups, judged!.groups);
    const { accuracy, deployment, gradient, ...rest } = judged!.points[0]!;
    assert.deepEqual(unjudged!.points[0], rest);
    assert.equal(rest.routing, undefined);
    assert.equal(rest.task, 'adder on sums');
    assert.equal(rest.prompts, 20);
    assert.ok(!('baseSeed' in rest));
    assert.ok(accuracy! > 0 && accuracy! < 1);
    assert.equal(gradient!.length, 4);
    assert.equal(deployment!.samples, 48);

    const [with_, without] = summaries.map((summary) => mismatchReport(summary, 'runs/x'));
    assert.match(with_!, /\nadder on sums, accuracy 0\.\d+, entropy /);
    assert.match(with_!, /the corrected gradient/);
    assert.doesNotMatch(with_!, /have no rewards|NaN/);
    assert.match(without!, /\nadder on sums, entropy /);
    assert.match(without!, /have no rewards: no accuracy/);
    assert.doesNotMatch(without!, /NaN|corrected gradient/);
    for (const line of `${with_}\n${without}`.split('\n')) assert.ok(line.length <= 80, line);
  });
});

describe('divergenceOf', () => {
  it('reads distributions in parts, at most so many, and then says of how many tokens', async () => {
    await using subject = await openSubject({ source: prompts });
    const { model } = subject!;
    const { vocabSize } = model.config;
    const { sequences } = await sampleResponses(subject!, { precision: 'bf16', count: 12, seed: 1 });
    using rollout = new RolloutEngine(model, { precision: 'bf16' });
    using engine = training(model);
    const mu = await rollout.distributions(sequences);
    const pi = await engine.distributions(sequences);
    const whole = meanDivergence(mu, pi, vocabSize);
    assert.ok(whole.klMuPi > 0);
    const of = (atOnce: number, most: number) =>
      divergenceOf(model, 'bf16', engine, sequences, {
        atOnce: atOnce * vocabSize,
        most: most * vocabSize,
      });
    assert.deepEqual(await of(1000, 1000), whole);
    assert.deepEqual(await of(4, 1000), whole);
    // 7 tokens, from the beginning of the responses on.
    let left = 7;
    const first = (parts: Float32Array[]) => {
      left = 7;
      return parts.map((values) => {
        const kept = Math.min(left, values.length / vocabSize);
        left -= kept;
        return values.subarray(0, kept * vocabSize);
      });
    };
    assert.deepEqual(await of(4, 7), {
      ...meanDivergence(first(mu), first(pi), vocabSize),
      tokens: 7,
    });
  });
});

describe('ladder and headroom of a checkpoint', () => {
  it('the ladder goes down to an exact 0', async () => {
    const config = { subject: { source: prompts }, precisions: ['bf16' as const], samples: 16, seed: 1 };
    const { tensors } = memory();
    const { results } = await climbLadder(config, { directory: await open('ladder', config) });
    assert.equal(memory().tensors, tensors);
    assert.ok(results[0]!.apart.meanAbsLogRatio > 0);
    assert.equal(results[0]!.equal.meanAbsLogRatio, 0);
  });

  it('headroom is measured with rewards, and refused without', async () => {
    const common = { precision: 'fp16', lossScaler: 'verl', samples: 32, seed: 1 } as const;
    const config = { ...common, subject: { source } };
    const { tensors } = memory();
    const summary = await measureHeadroom(config, { directory: await open('headroom', config) });
    assert.ok(summary!.places.length > 0 && Number.isFinite(summary!.suggestedScale));
    const other = { ...common, subject: { source: prompts } };
    await assert.rejects(
      measureHeadroom(other, { directory: await open('headroom-2', other) }),
      /\[headroom\] expected a subject whose responses have rewards, got "adder on sums"/,
    );
    assert.equal(memory().tensors, tensors);
  });
});
