import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createSchedule, type ScheduleKind } from '../../lib/training/schedule.js';

const steps = (count: number) => Array.from({ length: count }, (_, step) => step);

describe('createSchedule', () => {
  it('constant stays at the peak', () => {
    assert.deepEqual(
      steps(3).map(createSchedule({ kind: 'constant', learningRate: 1e-6 })),
      [1e-6, 1e-6, 1e-6],
    );
  });

  it('warms up from 1 / w to the peak', () => {
    const rate = createSchedule({ kind: 'constant', learningRate: 8, warmupSteps: 4 });
    assert.deepEqual(steps(6).map(rate), [2, 4, 6, 8, 8, 8]);
  });

  it('linear falls to the minimum at totalSteps and stays there', () => {
    const rate = createSchedule({ kind: 'linear', learningRate: 8, totalSteps: 4, minRatio: 0.5 });
    assert.deepEqual(steps(7).map(rate), [8, 7, 6, 5, 4, 4, 4]);
    const zero = createSchedule({ kind: 'linear', learningRate: 8, totalSteps: 6, warmupSteps: 2 });
    assert.deepEqual(steps(8).map(zero), [4, 8, 8, 6, 4, 2, 0, 0]);
  });

  it('cosine goes through its half and its quarters', () => {
    const rate = createSchedule({
      kind: 'cosine',
      learningRate: 2,
      totalSteps: 6,
      warmupSteps: 2,
      minRatio: 0.1,
    });
    // 0.1 + 0.9 (1 + cos) / 2 at 0, pi/4, pi/2, 3pi/4, pi
    const expected = [1, 2, 2, 0.2 + 0.9 * (1 + Math.SQRT1_2), 1.1, 0.2 + 0.9 * (1 - Math.SQRT1_2), 0.2, 0.2];
    steps(8).forEach((step) => {
      assert.ok(Math.abs(rate(step) - expected[step]!) < 1e-14, `step ${step}: ${rate(step)}`);
    });
  });

  it('refuses a bad spec or step', () => {
    const spec = { kind: 'linear' as ScheduleKind, learningRate: 1, totalSteps: 10 };
    assert.throws(() => createSchedule({ ...spec, kind: 'cosin' as 'cosine' }), /did you mean cosine\?/);
    assert.throws(() => createSchedule({ ...spec, learningRate: Number.NaN }), /learningRate .*got NaN/);
    assert.throws(
      () => createSchedule({ ...spec, warmupSteps: 10 }),
      /totalSteps to be an integer of at least 11/,
    );
    assert.throws(() => createSchedule({ kind: 'linear', learningRate: 1 }), /totalSteps .*got undefined/);
    assert.throws(() => createSchedule({ ...spec, minRatio: 2 }), /minRatio .*between 0 and 1, got 2/);
    assert.throws(() => createSchedule(spec)(-1), /\[schedule\] expected step/);
    assert.throws(() => createSchedule(spec)(0.5), /\[schedule\] expected step/);
  });
});
