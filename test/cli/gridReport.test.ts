/** The text of a grid, from summaries made by hand. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { gridReport } from '../../lib/cli/gridReport.js';
import { resolveGridOptions } from '../../lib/grid/config.js';
import type { GridGroup, GridSummary, Spread } from '../../lib/grid/summary.js';
import { spreadThresholds } from '../../lib/grid/thresholds.js';

const about = (mean: number): Spread => ({ mean, min: mean - 0.01, max: mean + 0.01 });

function group(
  algorithm: string,
  training: 'fp16' | 'bf16',
  collapsedAt: readonly number[],
  recovered?: number,
): GridGroup {
  return {
    algorithm,
    training,
    rollout: training,
    seeds: [1, 2, 3],
    finished: 3,
    steps: { mean: 9, min: 9, max: 9 },
    finalAccuracy: about(0.5),
    peakAccuracy: about(0.6),
    passed: 0,
    collapsedAt,
    ...(recovered !== undefined && { recovered }),
    meanAbsLogRatio: about(0.02),
    startSpread: about(training === 'fp16' ? 0.1 : 0.8),
    meanAccuracy: about(0.4),
  };
}

function report(groups: readonly GridGroup[]): string {
  const summary: GridSummary = {
    task: 'sort:4:4',
    steps: 9,
    cells: [],
    groups,
    costs: {
      oldPassShare: 0.3,
      oldPassShareOfStep: 0.2,
      rolloutSecondsPerToken: {},
      fp32RolloutCost: null,
    },
    thresholds: spreadThresholds(groups),
    interrupted: false,
    failed: 0,
  };
  return gridReport(summary, resolveGridOptions({}), 'runs/x', false);
}

const LONG = 'verl:decoupled_geo_rs_token_tis';

test('fits 80 columns with the longest names, and names an algorithm once', () => {
  const text = report([
    group(LONG, 'bf16', [3]),
    group('./deep/my-algorithm.ts', 'fp16', []),
    group(LONG, 'fp16', []),
  ]);
  for (const line of text.split('\n')) assert.ok(line.length <= 80, line);
  assert.match(
    text,
    /\nverl:decoupled_geo_rs_token_tis\nbf16:bf16 .*\nfp16:fp16 .*\nmy-algorithm\.ts\nfp16:fp16 /,
  );
  assert.match(text, /verl:decoupled_geo_rs_token_tis +0\.10 +- +0\.80\n/);
});

test('runs that fell and came back are told from those that stayed down', () => {
  const text = report([group('grpo', 'fp16', [4, 5], 1), group('grpo', 'bf16', [4, 5, 6], 0)]);
  assert.match(text, /\nfp16:fp16 .* 2 of 3, 1 back /);
  assert.match(text, /\nbf16:bf16 .* 3 of 3 /);
  assert.match(
    text.replace(/\s+/g, ' '),
    /grpo in fp16:fp16 \(2 of 3, 1 back\), grpo in bf16:bf16 \(3 of 3\)\./,
  );
  assert.match(text, /Back: above 80 % of its peak/);
  for (const line of text.split('\n')) assert.ok(line.length <= 80, line);
});

test('a collapse is put down to precision only where the twin holds', () => {
  const blame = /learning rate\s+may be to blame/;
  const held = report([group('grpo', 'fp16', []), group('grpo', 'bf16', [4])]);
  assert.match(held, /Collapsed: grpo in bf16:bf16 \(1 of 3\)\./);
  assert.doesNotMatch(held, blame);
  const both = report([group('grpo', 'bf16', [4]), group('grpo', 'fp16', [5, 6])]);
  assert.match(both, blame);
  assert.match(both, /grpo in\s+fp16:fp16, its least\s+mismatch/);
  assert.match(report([group('grpo', 'bf16', [4])]), /no twin/);
  assert.match(report([group('grpo', 'bf16', [])]), /No run collapsed\./);
});
