import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { addSums, entropyProfile, sumByEntropy } from '../../lib/instruments/entropyProfile.js';
import { CounterRandom } from '../../lib/random.js';

const near = (a: number, b: number, tolerance = 1e-12) =>
  assert.ok(Math.abs(a - b) <= tolerance * Math.abs(b), `${a}, not ${b}`);

describe('sumByEntropy', () => {
  it('puts each token in its bin, worked out by hand', () => {
    const entropy = [0, 2 ** -11, 2 ** -10, 0.9, 1, 1.99, 5, 100];
    const rollout = [-1, -1, -1, -1, -1, -1, -1, -1];
    const logprobs = [-1, -1.5, -0.5, -1, -1.25, -0.75, -2, -1];
    const sums = sumByEntropy({ entropy, rollout, logprobs }, 0, 8);
    assert.equal(sums.length, 14);
    assert.deepEqual(
      sums.map(([tokens]) => tokens),
      [2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 0, 2],
    );
    // log pi - log mu of -0.25 and 0.25: k3 = e^d - 1 - d.
    const [, total, absolute, k3] = sums[11]!;
    near(total, 2.99);
    near(absolute, 0.5);
    near(k3, Math.exp(-0.25) + Math.exp(0.25) - 2);
    // Of other tokens nothing.
    assert.deepEqual(
      sumByEntropy({ entropy, rollout, logprobs }, 3, 4).map(([tokens]) => tokens),
      [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0],
    );
    assert.deepEqual(addSums([1, 2, 3, 4], [10, 20, 30, 40]), [11, 22, 33, 44]);
  });
});

describe('entropyProfile', () => {
  /** Prompts whose tokens have a mismatch of 0.01 entropy^power, with noise. */
  function prompts(power: number, count: number, tokens: number) {
    return Array.from({ length: count }, (_, p) => {
      const random = new CounterRandom(3, 0x74657374, p);
      const entropy = Array.from({ length: tokens }, () => 2 ** (-8 + 9 * random.uniform()));
      const rollout = entropy.map(() => -1);
      const logprobs = entropy.map(
        (h) => -1 + 0.01 * h ** power * (random.uniform() < 0.5 ? -1 : 1) * 2 * random.uniform(),
      );
      return sumByEntropy({ entropy, rollout, logprobs }, 0, tokens);
    });
  }

  it('finds the power, in an interval that holds it', () => {
    for (const power of [0.5, 1]) {
      const { exponent, bins } = entropyProfile(prompts(power, 40, 400), 1);
      near(exponent.value, power, 0.05);
      assert.ok(exponent.low < power && power < exponent.high && exponent.high - exponent.low < 0.1);
      assert.equal(bins.length, 9);
      near(
        bins.reduce((sum, { share }) => sum + share, 0),
        1,
      );
      near(
        bins.reduce((sum, { shareOfK3 }) => sum + shareOfK3, 0),
        1,
      );
      for (const { low, high, entropy, meanAbsLogRatio, klMuPiK3 } of bins) {
        assert.equal(high, 2 * low);
        assert.ok(low <= entropy && entropy < high);
        // Noise of mean 1 about the power; its square has a mean of 4/3, half of which is k3.
        near(meanAbsLogRatio.value, 0.01 * entropy ** power, 0.15);
        near(klMuPiK3.value, (2 / 3) * (0.01 * entropy ** power) ** 2, 0.3);
      }
    }
  });

  it('has bins without a tie to a prompt that lacks them, and no power of one bin', () => {
    const one = sumByEntropy({ entropy: [1, 1], rollout: [-1, -1], logprobs: [-1.1, -1] }, 0, 2);
    const none = sumByEntropy({ entropy: [], rollout: [], logprobs: [] }, 0, 0);
    const { bins, exponent } = entropyProfile([one, none], 1);
    assert.equal(bins.length, 1);
    near(bins[0]!.meanAbsLogRatio.value, 0.05);
    near(bins[0]!.meanAbsLogRatio.low, 0.05);
    assert.ok(Number.isNaN(exponent.value));
  });
});
