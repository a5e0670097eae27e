import assert from 'node:assert/strict';
import { test } from 'node:test';
import { sanityReport } from '../../lib/cli/sanityReport.js';
import { resolveSanityOptions } from '../../lib/sanity/config.js';
import type { SanitySummary } from '../../lib/sanity/run.js';

const mismatch = {
  klMuPiK1: 0,
  klMuPiK3: 1.5e-6,
  maxProbDiff: 0.0123,
  meanAbsLogRatio: 4e-4,
  seqLogRatioPer1k: -0.2,
};

const passed: SanitySummary = {
  passed: true,
  finalAccuracy: 0.9632,
  peakAccuracy: 0.9671,
  collapsedAtStep: null,
  recovered: false,
  steps: 112,
  seconds: 58.3,
  precision: { training: 'fp16', rollout: 'fp16' },
  algorithm: 'pg-seq-is',
  numerics: 'default',
  task: 'sort:16:10',
  seed: 1,
  interrupted: false,
  mismatch,
  lossScale: { final: 65536, overflows: 1, lostUpdates: 0, savedUpdates: 0 },
  warning: null,
  set: { problems: 163, tried: 400, baseAccuracy: 0.5514 },
  effect: [
    { precision: 'bf16', numerics: 'default', ...mismatch, meanAbsLogRatio: 3.6e-3 },
    { precision: 'fp16', numerics: 'default', ...mismatch },
    {
      precision: 'fp16',
      numerics: 'matched',
      klMuPiK1: 0,
      klMuPiK3: 0,
      maxProbDiff: 0,
      meanAbsLogRatio: 0,
      seqLogRatioPer1k: 0,
    },
  ],
};
const config = resolveSanityOptions();

test('the report of a run that passed', () => {
  assert.equal(
    sanityReport(passed, config, 'runs/one'),
    `PASSED  training accuracy 0.963 over the last 10 steps (peak 0.967) after 112
steps, 58 s
sort:16:10, pg-seq-is, fp16, default numerics, seed 1
163 of 400 problems kept (base accuracy 0.551), verl loss scale 65536, 1
overflow

The final weights on the same tokens, scored by both engines:
setting                    mean  KL[mu||pi]        max      nats per  times
              |log pi - log mu|          k3  |pi - mu|  1,000 tokens   fp16
------------  -----------------  ----------  ---------  ------------  -----
bf16                    0.00360     1.50e-6     0.0123        -0.200   9.00
fp16                    4.00e-4     1.50e-6     0.0123        -0.200   1.00
fp16 matched                  0           0          0             0      0

In bf16 the two engines are 9.00 times as far apart as in fp16. With matched
numerics they agree to the bit.
pi: probability of a token in the training engine; mu: in the rollout engine.

run directory: runs/one`,
  );
});

test('an early warning stands beside the collapse', () => {
  const warned = { ...passed, warning: { step: 40, signal: 'growth', value: 1.83 } as const };
  assert.match(
    sanityReport(warned, config, 'runs/one'),
    /\nearly warning at step 41: the mismatch was 1\.8 times what it was at the start;\nno collapse followed\n/,
  );
  const collapsed = { ...warned, passed: false, collapsedAtStep: 70 };
  assert.match(sanityReport(collapsed, config, 'runs/one'), /30 steps before the collapse/);
  const saturated = { ...warned, warning: { step: 40, signal: 'saturation', value: 0.97 } as const };
  assert.match(sanityReport(saturated, config, 'x'), /single tokens differed by 0\.97 in probability/);
});

test('a run that did not pass tells of its collapse and both precisions', () => {
  const summary = {
    ...passed,
    passed: false,
    finalAccuracy: 0.1,
    steps: 30,
    collapsedAtStep: 24,
    seconds: 4000,
  };
  const mixed = resolveSanityOptions({ trainingPrecision: 'bf16', rolloutPrecision: 'fp32' });
  const [verdict, more, settings, ...outcome] = sanityReport(summary, mixed, 'x').split('\n');
  assert.equal(verdict, 'NOT PASSED  training accuracy 0.100 over the last 10 steps (peak 0.967) after 30');
  assert.equal(more, 'steps, 1 h 7 min; collapsed at step 25');
  assert.equal(settings, 'sort:16:10, pg-seq-is, bf16 training, fp32 rollout, default numerics, seed 1');
  assert.match(outcome.join(' '), /no loss scaling, 1 overflow /);
  const back = sanityReport({ ...summary, finalAccuracy: 0.9, recovered: true }, mixed, 'x');
  assert.match(back, /; collapsed at step 25, and\s+recovered\n/);
});

test('a run whose logits overflowed has diverged', () => {
  const text = sanityReport(
    { ...passed, passed: false, collapsedAtStep: 112, divergence: '[sample] expected logits below infinity' },
    config,
    'x',
  );
  assert.match(
    text,
    /^DIVERGED {2}training accuracy 0\.963 .*\nsteps, 58 s; then there was nothing to sample from: /,
  );
  for (const line of text.split('\n')) assert.ok(line.length <= 80, line);
});

test('one step is a step', () => {
  const text = sanityReport({ ...passed, passed: false, steps: 1, seconds: 0.5 }, config, 'x');
  assert.match(text, /over the last 1 step \(peak 0.967\) after 1\nstep, 0.50 s\n/);
});

test('an interrupted run says how to go on, as a shell takes it, and has no table', () => {
  const summary = { ...passed, passed: false, interrupted: true, effect: [] };
  const text = sanityReport(summary, config, "runs/my run's");
  assert.deepEqual(text.split('\n').slice(0, 2), [
    'INTERRUPTED  after 112 steps, 58 s; resume with:',
    "isopolicy sanity --resume 'runs/my run'\\''s'",
  ]);
  assert.doesNotMatch(text, /setting/);
});

test('numbers of any size leave the table within 80 columns', () => {
  const wild = {
    klMuPiK1: -1e-300,
    klMuPiK3: -1.234e-300,
    maxProbDiff: Number.NEGATIVE_INFINITY,
    meanAbsLogRatio: 1.2345e-300,
    seqLogRatioPer1k: -1.2345e-300,
  };
  const effect = [
    { precision: 'bf16' as const, numerics: 'default' as const, ...wild, meanAbsLogRatio: Number.NaN },
    { precision: 'fp16' as const, numerics: 'default' as const, ...wild },
    { precision: 'fp16' as const, numerics: 'matched' as const, ...wild, meanAbsLogRatio: 1e-307 },
  ];
  const text = sanityReport({ ...passed, effect }, config, 'x');
  for (const line of text.slice(text.indexOf('The final')).split('\n')) assert.ok(line.length <= 80, line);
  assert.match(text.replace(/\s+/g, ' '), /With matched numerics fp16 has 8\.10e-8 times its own mismatch\./);
});

test('no ratio to an fp16 without mismatch', () => {
  const effect = passed.effect.map((row) => ({ ...row, meanAbsLogRatio: 0 }));
  const text = sanityReport({ ...passed, effect }, config, 'x');
  assert.doesNotMatch(text, /NaN|Infinity|times as far|to the bit/);
  assert.match(text, /^bf16 .* -$/m);
});

test('the verdict is green, red or plain', () => {
  const report = (summary: SanitySummary, color: boolean) => sanityReport(summary, config, 'x', color);
  assert.ok(report(passed, true).startsWith('\x1b[32mPASSED\x1b[39m  training'));
  assert.ok(report({ ...passed, passed: false }, true).startsWith('\x1b[31mNOT PASSED\x1b[39m  training'));
  assert.equal(report(passed, true).split('\x1b').length, 3, 'nothing else has a colour');
  assert.ok(!report(passed, false).includes('\x1b'));
});

test('updates that a retry saved stand with their rollouts', () => {
  const lossScale = { final: 4096, overflows: 4, lostUpdates: 1, savedUpdates: 2, savedResponses: 32 };
  assert.match(
    sanityReport({ ...passed, lossScale }, config, 'runs/one').replaceAll('\n', ' '),
    /4 overflows \(updates: 2 saved by a retry, with 32 rollouts, 1 lost\)/,
  );
});
