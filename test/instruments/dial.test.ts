import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, describe, it } from 'node:test';
import { dialReport } from '../../lib/cli/dial.js';
import { type DialConfig, turnDial } from '../../lib/instruments/dial.js';
import { fitLaw, solveLaw } from '../../lib/instruments/law.js';
import { RunDirectory } from '../../lib/io/runDirectory.js';
import { memory } from '../../lib/runtime.js';
import { baseConfigOf } from '../../lib/sanity/baseConfig.js';
import { tinyConfig } from '../sanity/tiny.js';
import { normals } from '../support/compare.js';

const root = mkdtempSync(path.join(tmpdir(), 'isopolicy-dial-'));
after(() => rmSync(root, { recursive: true }));

const base = baseConfigOf(tinyConfig());
const config: DialConfig = {
  bases: [base, { ...base, task: 'sort:4:4', baseAccuracy: 0.1 }, { ...base, baseSeed: 6 }],
  formats: ['e8m10', 'e8m8', 'e8m6', 'bf16', 'e4m3'],
  samples: 32,
  seed: 1,
  fitFrom: 5,
  spreads: [0.5],
};
const keep = (own: { task: string; baseSeed: number }) =>
  path.join(root, `${own.task}-${own.baseSeed}`.replaceAll(':', '-'));

describe('turnDial', () => {
  it('a format that cannot hold the model is told, and the others are measured', async () => {
    const { tensors } = memory();
    const narrow = { ...config, bases: [base], formats: ['e2m1', 'bf16'] } as const;
    const directory = await RunDirectory.create(path.join(root, 'narrow'), { command: 'dial' });
    const summary = await turnDial(narrow, { directory, base: keep });
    assert.equal(memory().tensors, tensors, 'tensors left');
    assert.deepEqual(
      summary.points.map(({ format }) => format),
      ['bf16'],
    );
    const [failure] = summary.failures!;
    assert.deepEqual([failure!.format, failure!.baseSeed], ['e2m1', base.baseSeed]);
    assert.match(failure!.failure, /logits/);
    assert.match(dialReport(summary, 'there'), /e2m1 \(emulated\) is too narrow for 1 of the bases/);
    const again = await turnDial(narrow, { directory, base: () => path.join(root, 'not looked for') });
    assert.deepEqual(again, summary);
  });

  it('measures each format on each base, fits the law, and resumes to the same numbers', async () => {
    const { tensors } = memory();
    const whole = await RunDirectory.create(path.join(root, 'whole'), { command: 'dial', config });
    const summary = await turnDial(config, { directory: whole, base: keep });
    assert.equal(memory().tensors, tensors, 'tensors left');
    assert.equal(summary.points.length, 15);
    for (const point of summary.points) {
      assert.ok(point.meanAbsLogRatio > 0 && point.klMuPiK3 > 0 && point.ess <= 1);
      assert.ok(point.length >= 2 && point.length <= 5);
    }
    const bf16 = summary.points.find(({ format }) => format === 'bf16')!;
    assert.deepEqual([bf16.exponentBits, bf16.mantissaBits], [8, 7]);
    const law = summary.laws.meanAbsLogRatio!;
    assert.equal(law.observations, 12, 'e4m3 is not fitted');
    assert.equal(law.groups, 3);
    // A bit less is about twice the mismatch.
    assert.ok(Math.abs(law.coefficients.mantissaBits!.value + 1) < 0.25, JSON.stringify(law.coefficients));
    assert.ok(Math.abs(summary.laws.klMuPiK3!.coefficients.mantissaBits!.value + 2) < 0.5);
    assert.equal(law.coefficients.log2Width, undefined, 'what does not vary explains nothing');
    assert.equal(law.coefficients.baseAccuracy, undefined, 'each length has an accuracy of its own');
    assert.deepEqual(
      summary.predictions.map(({ format, spread }) => [format, spread]),
      [
        ['bf16', 0.5],
        ['fp16', 0.5],
      ],
    );

    const directory = await RunDirectory.create(path.join(root, 'stopped'), { command: 'dial', config });
    const controller = new AbortController();
    const stopped = await turnDial(config, {
      directory,
      base: keep,
      signal: controller.signal,
      report: ({ done }) => done === 4 && controller.abort(),
    });
    assert.ok(stopped.interrupted && stopped.points.length >= 4 && stopped.points.length < 15);
    assert.deepEqual(await turnDial(config, { directory, base: keep }), summary);
  });
});

describe('fitLaw', () => {
  it('finds planted coefficients within its intervals', () => {
    const noise = normals(400, 3, 0.1);
    const observations = Array.from({ length: 400 }, (_, i) => {
      const x = { bits: i % 7, length: Math.floor(i / 7) % 5, constant: 3 };
      return { group: `${i % 20}`, y: 4 - x.bits + 0.5 * x.length + noise[i]!, x };
    });
    const { intercept, coefficients, r2, groups } = fitLaw(observations, 1)!;
    assert.deepEqual(Object.keys(coefficients), ['bits', 'length']);
    for (const [found, planted] of [
      [intercept, 4],
      [coefficients.bits!, -1],
      [coefficients.length!, 0.5],
    ] as const) {
      assert.ok(Math.abs(found.value - planted) < 0.03);
      assert.ok(found.low - 0.02 < planted && planted < found.high + 0.02 && found.high - found.low < 0.1);
    }
    assert.ok(r2 > 0.99 && groups === 20);
  });

  it('is solved for a predictor, the others given', () => {
    const noise = normals(400, 3, 0.1);
    const observations = Array.from({ length: 400 }, (_, i) => {
      const x = { bits: i % 7, length: Math.floor(i / 7) % 5 };
      return { group: `${i % 20}`, y: 4 - x.bits + 0.5 * x.length + noise[i]!, x };
    });
    // 4 - 3 + 0.5 length = 8 at 14, far beyond what was observed.
    const { value, low, high } = solveLaw(observations, 'length', 8, { bits: 3 }, 1)!;
    assert.ok(Math.abs(value - 14) < 0.5 && low < 14 && 14 < high && high - low < 1);
    assert.equal(solveLaw(observations, 'width', 8, { bits: 3 }, 1), null);
    assert.equal(solveLaw([], 'length', 8, {}, 1), null);
  });

  it('is null where there is too little to fit', () => {
    assert.equal(fitLaw([], 1), null);
    assert.equal(fitLaw([{ group: 'a', y: 1, x: { b: 1 } }], 1), null);
  });
});
