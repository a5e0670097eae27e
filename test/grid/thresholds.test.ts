import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { GridGroup, Spread } from '../../lib/grid/summary.js';
import { spreadThresholds } from '../../lib/grid/thresholds.js';

const same = (value: number): Spread => ({ mean: value, min: value, max: value });

function group(
  algorithm: string,
  precision: 'fp16' | 'bf16' | 'e8m4' | 'e8m5',
  startSpread: number,
  [min, max]: readonly [number, number],
  collapsedAt: readonly number[] = [],
): GridGroup {
  return {
    algorithm,
    training: precision,
    rollout: precision,
    seeds: [1, 2, 3],
    finished: 3,
    steps: same(9),
    finalAccuracy: same(max),
    peakAccuracy: same(max),
    passed: 0,
    collapsedAt,
    meanAbsLogRatio: same(startSpread / 10),
    startSpread: same(startSpread),
    meanAccuracy: { mean: (min + max) / 2, min, max },
  };
}

describe('spreadThresholds', () => {
  it('tells unharmed, slowed and collapsed groups of each algorithm apart, in any order', () => {
    const groups = [
      group('grpo', 'e8m4', 1.6, [0.2, 0.3], [12, 30]),
      group('grpo', 'fp16', 0.02, [0.7, 0.8]),
      group('grpo', 'e8m5', 0.8, [0.5, 0.69]),
      group('grpo', 'bf16', 0.2, [0.65, 0.75]),
      group('gspo', 'fp16', 0.02, [0.7, 0.8]),
      group('gspo', 'e8m4', 1.5, [0.72, 0.74]),
    ];
    assert.deepEqual(spreadThresholds(groups), [
      {
        algorithm: 'grpo',
        reference: 'fp16:fp16',
        unharmedUpTo: 0.2,
        slowedFrom: 0.8,
        collapsedFrom: 1.6,
      },
      {
        algorithm: 'gspo',
        reference: 'fp16:fp16',
        unharmedUpTo: 1.5,
        slowedFrom: null,
        collapsedFrom: null,
      },
    ]);
  });

  it('says nothing where the reference collapsed, has no other beside it, or nothing was measured', () => {
    assert.deepEqual(
      spreadThresholds([
        group('grpo', 'fp16', 0.02, [0.1, 0.2], [40]),
        group('grpo', 'bf16', 0.2, [0.1, 0.2], [30]),
      ]),
      [],
    );
    assert.deepEqual(spreadThresholds([group('grpo', 'fp16', 0.02, [0.7, 0.8])]), []);
    const few = { ...group('grpo', 'bf16', 0.2, [0.1, 0.2]), seeds: [1, 2] };
    assert.equal(spreadThresholds([group('grpo', 'fp16', 0.02, [0.7, 0.8]), few])[0]!.slowedFrom, null);
    assert.deepEqual(
      spreadThresholds([
        group('grpo', 'fp16', 0.02, [0.7, 0.8]),
        group('grpo', 'bf16', Number.NaN, [0.7, 0.8]),
      ]),
      [],
    );
  });
});
