import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import {
  checkSequences,
  concatenateScores,
  packSequences,
  passTokens,
  scoresOf,
  splitByTokens,
} from '../../lib/models/sequences.js';

const ints = (...values: number[]) => Int32Array.from(values);
const ofLength = (tokens: number) => ({ prompt: [1], response: new Array<number>(tokens).fill(2) });

describe('packSequences', () => {
  it('packs by hand', () => {
    const packed = packSequences([
      { prompt: [5, 6, 7], response: [8, 9] },
      { prompt: [1], response: [2] },
      { prompt: ints(3), response: ints(4, 5, 6) },
    ]);
    assert.deepEqual(packed, {
      // 9, 2 and 6 are predicted only, so they do not pass through the model.
      ids: ints(5, 6, 7, 8, 1, 3, 4, 5),
      positions: ints(0, 1, 2, 3, 0, 0, 1, 2),
      cuSeqlens: ints(0, 4, 5, 8),
      rows: ints(2, 3, 4, 5, 6, 7),
      targets: ints(8, 9, 2, 4, 5, 6),
    });
  });

  it('packs nothing', () => {
    const packed = packSequences([]);
    assert.deepEqual(packed.cuSeqlens, ints(0));
    assert.equal(packed.ids.length + packed.rows.length + packed.targets.length, 0);
  });

  it('each target follows the token of its row', () => {
    const sequence = fc.record({
      prompt: fc.array(fc.nat(50), { minLength: 1, maxLength: 9 }),
      response: fc.array(fc.nat(50), { minLength: 1, maxLength: 9 }),
    });
    fc.assert(
      fc.property(fc.array(sequence, { maxLength: 6 }), (sequences) => {
        const { ids, positions, cuSeqlens, rows, targets } = packSequences(sequences);
        assert.equal(
          ids.length,
          sequences.reduce((sum, s) => sum + passTokens(s), 0),
        );
        assert.deepEqual(
          [...targets],
          sequences.flatMap((s) => s.response),
        );
        let target = 0;
        sequences.forEach(({ prompt, response }, s) => {
          const whole = [...prompt, ...response];
          const own = [...ids.subarray(cuSeqlens[s], cuSeqlens[s + 1])];
          assert.deepEqual(own, whole.slice(0, -1));
          for (let i = 0; i < response.length; i++, target++) {
            const row = rows[target]!;
            assert.ok(row >= cuSeqlens[s]! && row < cuSeqlens[s + 1]!);
            assert.equal(whole[positions[row]! + 1], targets[target]);
            assert.equal(positions[row], prompt.length - 1 + i);
          }
        });
      }),
    );
  });
});

describe('splitByTokens', () => {
  // A prompt of one token and n response tokens: n tokens pass through the model.
  const split = (lengths: readonly number[], limit: number) => splitByTokens(lengths.map(ofLength), limit);

  it('cuts where the next sequence would not fit', () => {
    assert.deepEqual(split([3, 3, 3, 3], 6), [0, 2, 4]);
    assert.deepEqual(split([3, 3, 3, 3], 7), [0, 2, 4]);
    assert.deepEqual(split([3, 3, 3, 3], 5), [0, 1, 2, 3, 4]);
    assert.deepEqual(split([3, 3, 3, 3], 12), [0, 4]);
  });

  it('a sequence above the limit is a run of its own', () => {
    assert.deepEqual(split([2, 9, 2, 1], 4), [0, 1, 2, 4]);
    assert.deepEqual(split([9], 4), [0, 1]);
    assert.deepEqual(split([9, 9], 1), [0, 1, 2]);
  });

  it('of none there is no run', () => {
    assert.deepEqual(split([], 4), [0]);
  });

  it('covers all in order, and no two neighbouring runs would fit in one', () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 1, max: 12 }), { minLength: 1, maxLength: 30 }),
        fc.integer({ min: 1, max: 40 }),
        (lengths, limit) => {
          const bounds = split(lengths, limit);
          assert.equal(bounds[0], 0);
          assert.equal(bounds.at(-1), lengths.length);
          for (let i = 1; i < bounds.length; i++) {
            const run = lengths.slice(bounds[i - 1], bounds[i]);
            const tokens = run.reduce((a, b) => a + b, 0);
            assert.ok(run.length > 0 && (tokens <= limit || run.length === 1));
            if (i + 1 < bounds.length) assert.ok(tokens + lengths[bounds[i]!]! > limit);
          }
        },
      ),
    );
  });
});

describe('Scores', () => {
  it('of parts join to the scores of the whole', () => {
    const sequences = [2, 1, 4].map(ofLength);
    const whole = scoresOf(sequences, [1, 2, 3, 4, 5, 6, 7], [10, 20, 30, 40, 50, 60, 70]);
    assert.deepEqual([...whole.offsets], [0, 2, 3, 7]);
    const parts = [
      scoresOf(sequences.slice(0, 1), [1, 2], [10, 20]),
      scoresOf(sequences.slice(1), [3, 4, 5, 6, 7], [30, 40, 50, 60, 70]),
    ];
    assert.deepEqual(concatenateScores(parts), whole);
    assert.deepEqual(concatenateScores([whole]), whole);
    assert.deepEqual([...concatenateScores([]).offsets], [0]);
  });
});

describe('checkSequences', () => {
  const limits = { vocabSize: 10, maxLength: 6 };
  const check = (...sequences: { prompt: unknown; response: unknown }[]) =>
    checkSequences('here', sequences as never, limits);
  const good = { prompt: [0, 9], response: ints(1, 2, 3, 4) };

  it('passes what fits', () => {
    check(good, { prompt: [1], response: [1] });
  });

  it('names the sequence and the token at fault', () => {
    assert.throws(
      () => check(),
      /^InvalidArgumentError: \[here\] expected at least one sequence, got "none"/,
    );
    assert.throws(
      () => check(good, { prompt: [], response: [1] }),
      /\[here\] expected sequences\[1\]\.prompt of at least one token/,
    );
    assert.throws(
      () => check({ prompt: [1], response: [] }),
      /sequences\[0\]\.response of at least one token/,
    );
    assert.throws(
      () => check(good, { prompt: [1, 10], response: [1] }),
      /sequences\[1\]\.prompt\[1\] to be an integer of at least 0 and at most 9, got 10/,
    );
    assert.throws(() => check({ prompt: [1], response: [1, -1] }), /sequences\[0\]\.response\[1\] .* got -1/);
    assert.throws(() => check({ prompt: [0.5], response: [1] }), /sequences\[0\]\.prompt\[0\] .* got 0\.5/);
    assert.throws(() => check({ prompt: [1], response: [Number.NaN] }), /response\[0\] .* got NaN/);
    assert.throws(
      () => check(good, { prompt: [1, 2], response: [1, 2, 3, 4, 5] }),
      /sequences\[1\] within the context of 6 tokens, got "7 tokens"/,
    );
  });
});
