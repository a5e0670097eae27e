import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { CounterRandom } from '../../lib/random.js';
import { InterleaveTask } from '../../lib/tasks/interleave.js';

/** Whether `wanted` is exactly what is left of `tokens` in the given alphabet: the definition, by filtering. */
function keepsOrder(
  tokens: readonly number[],
  wanted: readonly number[],
  first: number,
  size: number,
): boolean {
  const kept = tokens.filter((token) => token >= first && token < first + size);
  return kept.length === wanted.length && kept.every((token, i) => token === wanted[i]);
}

/** All sequences of `length` tokens below `vocabSize`. */
function* sequences(length: number, vocabSize: number): Generator<number[]> {
  for (let code = 0; code < vocabSize ** length; code++) {
    const tokens: number[] = [];
    for (let i = 0, rest = code; i < length; i++, rest = Math.floor(rest / vocabSize))
      tokens.push(rest % vocabSize);
    yield tokens;
  }
}

describe('interleave', () => {
  it('lays out prompt and text as documented', () => {
    const task = new InterleaveTask(4, 3);
    assert.equal(task.name, 'interleave:4:3');
    assert.deepEqual(task.symbols, ['a', 'b', 'c', 'A', 'B', 'C', '=', '<eos>']);
    assert.equal(task.vocabSize, 8);
    assert.equal(task.promptLength, 5);
    assert.equal(task.responseLength, 5);
    assert.equal(task.stopToken, 7);
    const prompt = Int32Array.of(2, 0, 5, 5, 6);
    assert.equal(task.format(prompt), 'caCC=');
    assert.equal(task.verify(prompt, Int32Array.of(5, 2, 0, 5, 7)), 1);
    assert.equal(task.verify(prompt, Int32Array.of(5, 0, 2, 5, 7)), 0, 'first list out of order');
    assert.equal(task.verify(prompt, Int32Array.of(5, 2, 0, 5, 6)), 0, 'no end of sequence');
    assert.equal(task.verify(prompt, Int32Array.of(5, 2, 0, 5)), 0, 'truncated');
    assert.equal(task.verify(prompt, Int32Array.of(5, 2, 7)), 0, 'ended early');
    const large = new InterleaveTask(2, 64);
    assert.equal(new Set(large.symbols).size, large.vocabSize);
    assert.equal(large.format([0, 63, 64, 127]), 'a l2 A L2');
  });

  it('accepts exactly the right answers, of which there are C(6, 3) = 20', () => {
    const task = new InterleaveTask(6, 2);
    for (const index of [0, 1, 2]) {
      const prompt = task.problem(9, index);
      const lists = [[...prompt.slice(0, 3)], [...prompt.slice(3, 6)]] as const;
      let accepted = 0;
      // Every sequence of six tokens of the whole vocabulary, and the end of sequence after it.
      for (const tokens of sequences(6, task.vocabSize)) {
        const right =
          tokens.every((token) => token < 4) &&
          keepsOrder(tokens, lists[0], 0, 2) &&
          keepsOrder(tokens, lists[1], 2, 2);
        const reward = task.verify(prompt, Int32Array.of(...tokens, task.stopToken));
        if (reward !== (right ? 1 : 0))
          assert.fail(`${tokens} is ${right ? 'right' : 'wrong'}, reward ${reward}`);
        accepted += reward;
      }
      assert.equal(accepted, 20);
    }
  });

  it('verifies every solution, and refuses it without its end', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 40 }),
        fc.integer({ min: 2, max: 64 }),
        fc.maxSafeNat(),
        fc.nat(),
        (half, symbols, seed, index) => {
          const task = new InterleaveTask(2 * half, symbols);
          const prompt = task.problem(seed, index);
          const answer = task.solution(prompt, new CounterRandom(seed, 1));
          assert.equal(task.verify(prompt, answer), 1);
          assert.ok(keepsOrder([...answer], [...prompt.slice(0, half)], 0, symbols));
          assert.ok(keepsOrder([...answer], [...prompt.slice(half, 2 * half)], symbols, symbols));
          assert.equal(task.verify(prompt, answer.slice(0, -1)), 0);
          assert.equal(task.verify(prompt, Int32Array.of(...answer, 0)), 0);
        },
      ),
      { seed: 3 },
    );
  });

  it('draws each of the 70 merges of 4 + 4 equally often', () => {
    const task = new InterleaveTask(8, 2);
    const prompt = task.problem(1, 0);
    const random = new CounterRandom(77);
    const counts = new Map<string, number>();
    for (let i = 0; i < 14000; i++) {
      const answer = task.format(task.solution(prompt, random));
      counts.set(answer, (counts.get(answer) ?? 0) + 1);
    }
    assert.equal(counts.size, 70);
    let statistic = 0;
    for (const count of counts.values()) statistic += (count - 200) ** 2 / 200;
    assert.ok(statistic < 111.1, `chi-square ${statistic} of 69 degrees, 0.1 % point 111.1`);
  });

  it('refuses a prompt that is not one of its own', () => {
    const task = new InterleaveTask(2, 2);
    const response = new Int32Array(3);
    assert.throws(() => task.verify(Int32Array.of(0, 2), response), /prompt of 3 tokens/);
    assert.throws(() => task.verify(Int32Array.of(2, 0, 4), response), /prompt\[0\]/);
    assert.throws(() => task.verify(Int32Array.of(0, 1, 4), response), /prompt\[1\]/);
  });
});
