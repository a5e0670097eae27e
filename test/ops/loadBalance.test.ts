import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { loadBalance } from '../../lib/ops/loadBalance.js';

describe('loadBalance', () => {
  it('has the values of four tokens worked out by hand', () => {
    // Two of three experts for each of four tokens: 0 and 1 three times each, 2 twice.
    const { fractions, meanProbabilities, auxiliaryLoss } = loadBalance([3, 3, 2], [2, 1, 1], 4);
    assert.deepEqual([...fractions], [0.75, 0.75, 0.5]);
    assert.deepEqual([...meanProbabilities], [0.5, 0.25, 0.25]);
    assert.equal(auxiliaryLoss, 3 * (0.75 * 0.5 + 0.75 * 0.25 + 0.5 * 0.25));
  });

  it('is k where all experts share alike, and E where one has everything', () => {
    const even = loadBalance(new Int32Array(8).fill(25), new Float32Array(8).fill(12.5), 100);
    assert.equal(even.auxiliaryLoss, 2);
    assert.equal(loadBalance([0, 100, 0, 0], [0, 100, 0, 0], 100).auxiliaryLoss, 4);
  });

  it('names what is wrong with its arguments', () => {
    const fails = (body: () => unknown, message: RegExp) =>
      assert.throws(body, { code: 'ERR_INVALID_ARGUMENT', message });
    fails(() => loadBalance([], [], 1), /^\[loadBalance\] expected counts of at least 1 expert, got 0$/);
    fails(() => loadBalance([1, 2], [1], 3), /probabilities of 2 experts, as counts, got 1/);
    fails(() => loadBalance([1, 2], [1, 2], 0), /tokens to be an integer of at least 1, got 0/);
  });
});
