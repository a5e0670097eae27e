import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { InvalidArgumentError } from '../../lib/errors.js';
import { batchTotals, checkBatch, countedTokens, type PolicyBatch } from '../../lib/rl/batch.js';
import { toBatch, token } from './batches.js';

function batch(): PolicyBatch {
  return toBatch([
    { tokens: [token(-1, -1, -1), token(-2, -2, -2, false), token(-3, -3, -3)], advantage: 1 },
    { tokens: [], advantage: -1 },
    { tokens: [token(-1, -1, -1)], advantage: 0.5 },
  ]);
}

function fails(change: (b: PolicyBatch) => void, message: RegExp, needsOld = true): void {
  const bad = batch();
  change(bad);
  assert.throws(
    () => checkBatch('here', bad, needsOld),
    (error: unknown) => {
      assert.ok(error instanceof InvalidArgumentError);
      assert.match(error.message, /^\[here\] expected /);
      assert.match(error.message, message);
      return true;
    },
  );
}

describe('checkBatch', () => {
  it('accepts empty sequences and NaN at masked positions', () => {
    const good = batch();
    assert.ok(Number.isNaN(good.logprobs[1]));
    checkBatch('here', good, true);
  });

  it('accepts a batch without oldLogprobs only where they are not needed', () => {
    const { oldLogprobs: _, ...rest } = batch();
    checkBatch('here', rest, false);
    assert.throws(() => checkBatch('here', rest, true), /expected oldLogprobs .* got undefined/);
  });

  it('does not look at oldLogprobs where they are not needed', () => {
    const b = batch();
    b.oldLogprobs![0] = Number.NaN;
    checkBatch('here', b, false);
  });

  it('names the argument and the index at fault', () => {
    fails((b) => {
      b.offsets[0] = 1;
    }, /offsets\[0\] to be 0, got 1/);
    fails((b) => {
      b.offsets[2] = 2;
    }, /offsets\[2\] to be at least offsets\[1\] = 3, got 2/);
    fails((b) => {
      b.offsets = new Int32Array(0);
    }, /offsets\.length to be the number of sequences \+ 1, got 0/);
    fails((b) => {
      b.mask = b.mask.subarray(1);
    }, /mask\.length to be 4 \(the last offset\), got 3/);
    fails((b) => {
      b.mask[3] = 2;
    }, /mask\[3\] to be 0 or 1, got 2/);
    fails((b) => {
      b.logprobs = new Float64Array(5);
    }, /logprobs\.length to be 4 .*got 5/);
    fails((b) => {
      b.oldLogprobs = new Float64Array(3);
    }, /oldLogprobs\.length to be 4 .*got 3/);
    fails((b) => {
      b.rolloutLogprobs[3] = -Infinity;
    }, /rolloutLogprobs\[3\] to be finite where mask is 1, got -Infinity/);
    fails((b) => {
      b.logprobs[2] = Number.NaN;
    }, / logprobs\[2\] to be finite where mask is 1, got NaN/);
    fails((b) => {
      b.oldLogprobs![0] = Infinity;
    }, /oldLogprobs\[0\] to be finite/);
    fails((b) => {
      b.advantages = new Float64Array(2);
    }, /advantages\.length to be 3 \(one per sequence\), got 2/);
    fails((b) => {
      b.advantages[1] = Number.NaN;
    }, /advantages\[1\] to be finite, got NaN/);
    fails((b) => {
      b.totals = { sequences: 1, tokens: 3 };
    }, /totals\.sequences to be an integer of at least 2, got 1/);
    fails((b) => {
      b.totals = { sequences: 2, tokens: 2 };
    }, /totals\.tokens to be an integer of at least 3, got 2/);
  });

  it('refuses arrays of another type', () => {
    fails((b) => {
      b.logprobs = new Float32Array(4) as unknown as Float64Array;
    }, /logprobs to be a Float64Array, got Float32Array/);
    fails((b) => {
      b.offsets = [0, 4] as unknown as Int32Array;
    }, /offsets to be an Int32Array, got \[0, 4\]/);
  });
});

describe('countedTokens and batchTotals', () => {
  it('count unmasked tokens, and sequences that have one', () => {
    const { offsets, mask } = batch();
    assert.deepEqual([...countedTokens(offsets, mask)], [2, 0, 1]);
    assert.deepEqual(batchTotals(offsets, mask), { sequences: 2, tokens: 3 });
  });
});
