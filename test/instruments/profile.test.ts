import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, describe, it } from 'node:test';
import type { EntropyProfile } from '../../lib/instruments/entropyProfile.js';
import { compareGradients, gradientBias } from '../../lib/instruments/gradientBias.js';
import { GROUP, type ProfileConfig, profileMismatch } from '../../lib/instruments/profile.js';
import { RunDirectory } from '../../lib/io/runDirectory.js';
import { bootstrap } from '../../lib/mismatch/bootstrap.js';
import { numerics } from '../../lib/numerics.js';
import { createAlgorithm } from '../../lib/rl/algorithms.js';
import type { PresetName } from '../../lib/rl/presets.js';
import { RolloutEngine } from '../../lib/rollout/engine.js';
import { memory } from '../../lib/runtime.js';
import { baseConfigOf } from '../../lib/sanity/baseConfig.js';
import { openSubject } from '../../lib/sanity/openSubject.js';
import { sampleResponses } from '../../lib/sanity/subject.js';
import { TrainingEngine } from '../../lib/training/engine.js';
import { tinyConfig } from '../sanity/tiny.js';
import { assertSameBits } from '../support/compare.js';

const root = mkdtempSync(path.join(tmpdir(), 'isopolicy-profile-'));
after(() => rmSync(root, { recursive: true }));

const base = baseConfigOf(tinyConfig());
const near = (a: number, b: number) => assert.ok(Math.abs(a / b - 1) < 1e-9, `${a}, not ${b}`);

const config: ProfileConfig = {
  subjects: [{ base }, { base: { ...base, task: 'sort:3:4' } }],
  pairs: [
    { training: 'bf16', rollout: 'bf16' },
    { training: 'fp16', rollout: 'fp16' },
    { training: 'bf16', rollout: 'fp32' },
  ],
  samples: 48,
  seed: 1,
};

describe('profileMismatch', () => {
  it('measures every pair, and resumes to the same numbers', async () => {
    const { tensors } = memory();
    const keep = (own: { task: string }) => path.join(root, own.task.replaceAll(':', '-'));
    const whole = await RunDirectory.create(path.join(root, 'whole'), { command: 'mismatch', config });
    const summary = await profileMismatch(config, { directory: whole, base: keep });
    assert.equal(memory().tensors, tensors, 'tensors left');
    assert.equal(summary.points.length, 6);
    assert.deepEqual(
      summary.groups.map((group) => `${group.training}:${group.rollout}`),
      ['bf16:bf16', 'fp16:fp16', 'bf16:fp32'],
    );
    const [bf16, fp16] = summary.groups;
    assert.equal(bf16!.responses, 96);
    assert.ok(bf16!.meanAbsLogRatio.low > fp16!.meanAbsLogRatio.high);
    for (const { value, low, high } of [bf16!.slopePer1k, bf16!.klMuPiK3, bf16!.sequenceKlMuPi]) {
      assert.ok(low <= value && value <= high);
    }
    for (const { entropy, meanAbsLogRatio, klMuPiK3, training, rollout } of summary.groups) {
      const own = summary.points.filter((p) => p.training === training && p.rollout === rollout);
      const over = (of: (bin: EntropyProfile['bins'][number]) => number) =>
        entropy!.bins.reduce((sum, bin) => sum + bin.share * of(bin), 0);
      near(
        over((bin) => bin.meanAbsLogRatio.value),
        meanAbsLogRatio.value,
      );
      near(
        over((bin) => bin.klMuPiK3.value),
        klMuPiK3.value,
      );
      const tokens = own.reduce((sum, { metrics }) => sum + metrics.tokens, 0);
      near(
        over((bin) => bin.entropy),
        own.reduce((sum, point) => sum + (point.entropy * point.metrics.tokens) / tokens, 0),
      );
    }
    const [ratio] = summary.ratios;
    assert.ok(ratio!.meanAbsLogRatio.low > 3 && ratio!.meanAbsLogRatio.high < 20);
    assert.ok(ratio!.klMuPiK3.value > 16);
    for (const point of summary.points) {
      const { metrics, divergence } = point;
      const [deployment, gradient] = [point.deployment!, point.gradient!];
      assert.equal(metrics.sequences, 48);
      assert.ok(divergence.klMuPi > 0 && divergence.klPiMu > 0 && divergence.js < divergence.klMuPi);
      assert.ok(
        Math.abs(deployment.gap.value - (deployment.trainingAccuracy - deployment.rolloutAccuracy)) < 1e-12,
      );
      for (const { cosine, relativeNorm } of gradient) {
        assert.ok(cosine > 0.98 && cosine <= 1 + 1e-9, `${cosine}`);
        assert.ok(Math.abs(relativeNorm - 1) < 0.2);
      }
    }
    const lines = readFileSync(path.join(whole.path, 'points.jsonl'), 'utf8').trim().split('\n');
    const { value } = JSON.parse(lines[0]!);
    assert.equal(value.responses.length, 48);
    const sums = (column: number) =>
      value.responses.reduce((sum: number, r: number[]) => sum + r[column]!, 0);
    assert.ok(Math.abs(sums(3) / sums(0) - value.metrics.klMuPiK3) < 1e-12);
    assert.ok(Math.abs(sums(2) / sums(0) - value.metrics.meanAbsLogRatio) < 1e-12);

    // Intervals are over prompts: each stands eight times in a row, and again when all have had their turn.
    const clusters = lines
      .map((line) => JSON.parse(line).value)
      .filter(({ training, rollout }) => training === 'bf16' && rollout === 'bf16')
      .flatMap(({ responses, prompts }: { responses: number[][]; prompts: number }) =>
        Array.from({ length: Math.min(prompts, 48 / GROUP) }, (_, p) =>
          responses.filter((_, i) => Math.floor(i / GROUP) % prompts === p),
        ),
      );
    assert.ok(clusters.length < 2 * 48);
    const absolute = bootstrap(
      clusters.length,
      (indices) => {
        const all = [...indices].flatMap((i) => clusters[i]!);
        return all.reduce((sum, r) => sum + r[2]!, 0) / all.reduce((sum, r) => sum + r[0]!, 0);
      },
      config.seed,
    );
    for (const end of ['value', 'low', 'high'] as const) {
      assert.ok(Math.abs(absolute[end] / bf16!.meanAbsLogRatio[end] - 1) < 1e-9, end);
    }

    const directory = await RunDirectory.create(path.join(root, 'stopped'), { command: 'mismatch', config });
    const controller = new AbortController();
    const stopped = await profileMismatch(config, {
      directory,
      base: keep,
      signal: controller.signal,
      report: ({ done }) => done === 2 && controller.abort(),
    });
    assert.ok(stopped.interrupted && stopped.points.length >= 2 && stopped.points.length < 6);
    assert.deepEqual(await profileMismatch(config, { directory, base: keep }), summary);
  });
});

describe('sampling from pi', () => {
  it('is sampling from the training engine: its log-probs to the bit', async () => {
    const subject = (await openSubject({ base }))!;
    const { model } = subject;
    for (const precision of ['bf16', 'fp16'] as const) {
      const own = numerics('training');
      const drawn = await sampleResponses(subject, {
        precision,
        numerics: own,
        count: 16,
        groupSize: 4,
        seed: 2,
      });
      using training = new TrainingEngine(model, {
        precision,
        schedule: { kind: 'constant', learningRate: 0 },
      });
      const { logprobs } = await training.score(drawn.sequences);
      assertSameBits(
        drawn.completions.flatMap((completion) => [...completion.logprobs]),
        logprobs,
        precision,
      );
      // Groups stand together.
      const prompts = drawn.sequences.map(({ prompt }) => Array.from(prompt).join());
      assert.equal(new Set(prompts.slice(0, 4)).size, 1);
      using rollout = new RolloutEngine(model, { precision });
      assert.notDeepEqual((await rollout.score(drawn.sequences)).logprobs, logprobs);
    }
    model.dispose();
  });
});

describe('compareGradients', () => {
  it('is cosine and ratio of norms over all parameters as one vector', () => {
    const of = (a: number[], b: number[]) =>
      new Map([
        ['a', Float32Array.from(a)],
        ['b', Float32Array.from(b)],
      ]);
    const { cosine, relativeNorm } = compareGradients(of([1, 2], [2]), of([2, 0], [-1]));
    assert.ok(Math.abs(cosine - 0 / Math.sqrt(9 * 5)) < 1e-12);
    assert.ok(Math.abs(relativeNorm - 3 / Math.sqrt(5)) < 1e-12);
    assert.equal(compareGradients(of([1], [2]), of([2], [4])).cosine, 1);
  });
});

describe('gradientBias', () => {
  it('is measured at a lower scale where the one that runs begin with overflows', async () => {
    const subject = (await openSubject({ base }))!;
    const sample = await sampleResponses(subject, { precision: 'fp16', count: 32, groupSize: 8, seed: 1 });
    const engine = (lossScaler: string) =>
      new TrainingEngine(subject.model, {
        ...{ precision: 'fp16', lossScaler, schedule: { kind: 'constant', learningRate: 0 } },
      });
    const of = (name: PresetName) => createAlgorithm(name, { constantLength: 4 });
    using high = engine('torch');
    high.scaler.load({ ...high.scaler.state(), scale: 2 ** 40 });
    const biasOf = (training: TrainingEngine) =>
      gradientBias(training, sample, 8, of('reinforce'), [of('pg-seq-is')]);
    const found = await biasOf(high);
    assert.ok(found[0]!.cosine > 0.99 && high.scaler.scale < 2 ** 40);
    using low = engine(`static:${high.scaler.scale}`);
    assert.deepEqual(found, await biasOf(low));
    subject.model.dispose();
  });
});
