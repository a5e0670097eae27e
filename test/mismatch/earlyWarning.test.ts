import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { EarlyWarning, earlyWarning, type WarningInput } from '../../lib/mismatch/earlyWarning.js';
import { normals } from '../support/compare.js';

const step = (meanAbsLogRatio: number, largest = 0.1): WarningInput => ({
  meanAbsLogRatio,
  maxProbDiff: largest,
  minProbDiff: -largest / 2,
});

/** A run whose mismatch is `level` times noise, of some 30 % unless told otherwise. */
function run(
  seed: number,
  steps: number,
  level: (i: number) => number,
  largest?: (i: number) => number,
  spread = 0.3,
) {
  const noise = normals(steps, seed, spread);
  return Array.from({ length: steps }, (_, i) => step(level(i) * Math.exp(noise[i]!), largest?.(i)));
}

describe('earlyWarning', () => {
  it('is quiet in 99 of 100 steady runs', () => {
    let alarms = 0;
    for (let seed = 0; seed < 1000; seed++) if (earlyWarning(run(seed, 300, () => 1e-3))) alarms++;
    assert.ok(alarms <= 10, `${alarms} of 1,000 steady runs`);
  });

  it('is quiet while the mismatch falls', () => {
    for (let seed = 0; seed < 100; seed++) {
      assert.equal(earlyWarning(run(seed, 300, (i) => 1e-2 * 0.99 ** i)), null);
    }
  });

  it('fires soon after the mismatch has doubled, and says by how much', () => {
    for (let seed = 0; seed < 100; seed++) {
      const warning = earlyWarning(run(seed, 200, (i) => (i < 100 ? 1e-3 : 2e-3), undefined, 0.15));
      assert.ok(warning !== null && warning.signal === 'growth', `seed ${seed}`);
      assert.ok(warning.step >= 100 && warning.step < 115, `seed ${seed}: step ${warning.step}`);
      assert.ok(warning.value > 1.5 && warning.value < 4);
    }
  });

  it('fires while the mismatch grows steeply, which is no noise', () => {
    for (let seed = 0; seed < 100; seed++) {
      const warning = earlyWarning(run(seed, 50, (i) => 1e-3 * 2 ** Math.max(0, i - 39), undefined, 0.15));
      assert.ok(warning !== null && warning.signal === 'growth', `seed ${seed}`);
      assert.ok(warning.step >= 40 && warning.step < 50, `seed ${seed}: step ${warning.step}`);
    }
  });

  it('fires where tokens saturate in most steps, in either direction, not at a spike', () => {
    const saturating = run(
      1,
      100,
      () => 1e-3,
      (i) => (i >= 50 ? 0.97 : 0.2),
    );
    assert.deepEqual(earlyWarning(saturating), { step: 54, signal: 'saturation', value: 0.97 });
    const downward = saturating.map((input) => ({
      ...input,
      maxProbDiff: -input.minProbDiff,
      minProbDiff: -input.maxProbDiff,
    }));
    assert.equal(earlyWarning(downward)!.step, 54);
    assert.equal(
      earlyWarning(
        run(
          1,
          100,
          () => 1e-3,
          (i) => (i % 10 === 0 ? 1 : 0.2),
        ),
      ),
      null,
    );
  });

  it('stays, and has nothing to say of engines that agree or of a short run', () => {
    const watch = new EarlyWarning();
    for (const input of run(3, 60, (i) => (i < 20 ? 1 : 10))) watch.add(input);
    const { warning } = watch;
    assert.ok(warning !== null);
    for (const input of run(4, 60, () => 1)) watch.add(input);
    assert.deepEqual(watch.warning, warning);
    assert.equal(earlyWarning(Array.from({ length: 50 }, () => step(0, 0))), null);
    assert.equal(
      earlyWarning(
        run(
          5,
          9,
          () => 1,
          () => 1,
        ),
      ),
      null,
    );
  });
});
