import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { WINDOW, windowMean } from '../../lib/rl/record.js';
import { HOLD, judge } from '../../lib/sanity/verdict.js';

/** Enough responses that no fall worth the name is chance. */
const MANY = 100_000;
const times = (count: number, reward: number): number[] => new Array<number>(count).fill(reward);

/** Uniform numbers from a generator of its own (mulberry32). */
function uniforms(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** Share of 200 runs of 160 steps that are judged to have collapsed, given the accuracy at each step. */
function collapsedShare(responses: number, accuracyAt: (step: number) => number): number {
  const uniform = uniforms(responses * 977 + Math.round(1000 * accuracyAt(0)));
  let collapsed = 0;
  for (let run = 0; run < 200; run++) {
    const rewards = Array.from({ length: 160 }, (_, step) => {
      let right = 0;
      for (let i = 0; i < responses; i++) if (uniform() < accuracyAt(step)) right++;
      return right / responses;
    });
    if (judge(rewards, responses).collapsedAtStep !== null) collapsed++;
  }
  return collapsed / 200;
}

describe('windowMean', () => {
  it('is of the last ten steps, of fewer at the beginning', () => {
    assert.equal(WINDOW, 10);
    const rewards = Array.from({ length: 15 }, (_, i) => i);
    assert.equal(windowMean(rewards, 0), 0);
    assert.equal(windowMean(rewards, 3), 1.5);
    assert.equal(windowMean(rewards, 9), 4.5);
    assert.equal(windowMean(rewards, 14), 9.5);
    assert.equal(windowMean([], 0), 0);
  });
});

describe('judge', () => {
  it('passes as soon as ten windows in a row are above 95 %', () => {
    assert.equal(HOLD, 10);
    assert.equal(judge(times(18, 1), MANY).passed, false);
    assert.equal(judge(times(19, 1), MANY).passed, true);
    // Ten steps at 0.5, then 1: the mean of the window is above 0.95 from the tenth 1 on (9 ones: 0.95 itself).
    assert.equal(judge([...times(10, 0.5), ...times(18, 1)], MANY).passed, false);
    assert.equal(judge([...times(10, 0.5), ...times(19, 1)], MANY).passed, true);
  });

  it('95 % itself does not pass, a little more does', () => {
    assert.equal(judge(times(60, 0.95), MANY).passed, false);
    assert.equal(judge([...times(30, 0.9375), ...times(30, 0.95)], MANY).passed, false);
    assert.equal(judge(times(60, 0.951), MANY).passed, true);
  });

  it('a window at or below the bar starts the count again', () => {
    const dip = [...times(18, 1), 0.25, ...times(9, 1)]; // windows 9 to 17 above, 18 to 27 at 0.925
    assert.equal(judge(dip, MANY).passed, false);
    assert.equal(judge([...dip, ...times(9, 1)], MANY).passed, false);
    assert.equal(judge([...dip, ...times(10, 1)], MANY).passed, true);
  });

  it('what passed once and fell back has not passed', () => {
    const rewards = times(40, 1);
    assert.equal(judge(rewards, MANY).passed, true);
    assert.equal(judge([...rewards, 0], MANY).passed, false);
    assert.equal(judge([...rewards, ...times(3, 0.875)], MANY).passed, true);
    assert.equal(judge([...rewards, ...times(4, 0.875)], MANY).passed, false, '95 % itself');
  });

  it('final and peak accuracy are of windows', () => {
    const { finalAccuracy, peakAccuracy } = judge(
      [...times(10, 0), ...times(5, 1), ...times(10, 0.25)],
      MANY,
    );
    assert.equal(finalAccuracy, 0.25);
    // Five ones and five quarters.
    assert.equal(peakAccuracy, 0.625);
    assert.equal(judge([...times(10, 0), ...times(3, 1)], MANY).peakAccuracy, 0.3);
  });

  it('of fewer steps than a window, both are the mean of what there is', () => {
    const verdict = { passed: false, collapsedAtStep: null, recovered: false };
    assert.deepEqual(judge([], 8), { ...verdict, finalAccuracy: 0, peakAccuracy: 0 });
    assert.deepEqual(judge([0.5], 8), { ...verdict, finalAccuracy: 0.5, peakAccuracy: 0.5 });
    assert.deepEqual(judge([1, 1, 0.5, 0.5], 8), { ...verdict, finalAccuracy: 0.75, peakAccuracy: 0.75 });
    assert.deepEqual(judge([1, ...times(8, 0)], MANY), {
      ...verdict,
      finalAccuracy: 1 / 9,
      peakAccuracy: 1 / 9,
    });
  });

  it('a collapse is the first window below 80 % of the peak before it', () => {
    // Of 0.9: below 0.72 with the fifth 0.5 (0.70), not yet with the fourth (0.74).
    const rewards = [...times(20, 0.9), ...times(10, 0.5)];
    assert.equal(judge(rewards, MANY).collapsedAtStep, 24);
    assert.equal(judge(rewards.slice(0, 24), MANY).collapsedAtStep, null);
    assert.equal(judge(rewards.slice(0, 25), MANY).collapsedAtStep, 24);
    assert.equal(judge([...times(20, 0.9), ...times(40, 0.73)], MANY).collapsedAtStep, null);
    assert.equal(judge([...times(20, 0.9), ...times(40, 0.71)], MANY).collapsedAtStep, 29);
  });

  it('a collapse stays, even of a run that recovers and passes', () => {
    const verdict = judge([...times(20, 0.9), ...times(10, 0.1), ...times(30, 1)], MANY);
    assert.equal(verdict.collapsedAtStep, 22);
    assert.equal(verdict.recovered, true);
    assert.equal(judge([...times(20, 0.9), ...times(40, 0.71)], MANY).recovered, false, 'still below');
    assert.equal(judge([...times(20, 0.9), ...times(30, 0.1), ...times(10, 0.73)], MANY).recovered, true);
    assert.equal(judge(times(40, 0.9), MANY).recovered, false, 'never fell');
    assert.equal(verdict.passed, true);
    assert.equal(verdict.peakAccuracy, 1);
  });

  it('a slow rise, or a run that never gets anywhere, is none', () => {
    const rising = Array.from({ length: 200 }, (_, i) => i / 200);
    assert.equal(judge(rising, MANY).collapsedAtStep, null);
    assert.equal(judge(times(100, 0), MANY).collapsedAtStep, null);
    assert.equal(judge([1, ...times(100, 0.5)], MANY).collapsedAtStep, null);
  });

  it('noise at a constant accuracy is none, however few the responses of a step', () => {
    for (const responses of [2, 4, 8, 16, 32, 256]) {
      for (const accuracy of [0.1, 0.3, 0.5, 0.7, 0.9, 0.95]) {
        const share = collapsedShare(responses, () => accuracy);
        assert.ok(share <= 0.02, `${responses} responses at ${accuracy}: ${share} of the runs`);
      }
    }
  });

  it('a fall to a third of the peak is one, however few the responses of a step', () => {
    for (const responses of [4, 8, 16, 32, 256]) {
      const share = collapsedShare(responses, (step) => (step < 80 ? 0.9 : 0.3));
      assert.ok(share >= 0.98, `${responses} responses: ${share} of the runs`);
    }
  });
});
