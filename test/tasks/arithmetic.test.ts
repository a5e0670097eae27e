import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { ArithmeticTask } from '../../lib/tasks/arithmetic.js';

function reverse(text: string): string {
  return [...text].reverse().join('');
}

describe('add', () => {
  it('writes the example of its documentation', () => {
    const task = new ArithmeticTask(2, 3);
    assert.equal(task.name, 'add:2:3');
    assert.equal(task.vocabSize, 13);
    assert.equal(task.symbols.length, 13);
    assert.equal(task.promptLength, 9);
    assert.equal(task.responseLength, 8);
    assert.equal(task.stopToken, 12);
    const prompt = Int32Array.of(7, 1, 10, 5, 2, 10, 0, 9, 11);
    assert.equal(task.format(prompt), '71+52+09=');
    assert.equal(task.format(task.solution(prompt)), '240=231<eos>');
  });

  it('writes the running sums that BigInt finds', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 64 }),
        fc.integer({ min: 2, max: 64 }),
        fc.maxSafeNat(),
        fc.nat(),
        (digits, numbers, seed, index) => {
          const task = new ArithmeticTask(digits, numbers);
          const prompt = task.problem(seed, index);
          const text = task.format(prompt);
          assert.match(text, /^[\d+]+=$/);
          const values = text
            .slice(0, -1)
            .split('+')
            .map((number) => BigInt(reverse(number)));
          assert.equal(values.length, numbers);

          const answer = task.solution(prompt);
          assert.equal(answer.length, task.responseLength);
          assert.equal(task.verify(prompt, answer), 1);
          const written = task.format(answer);
          assert.ok(written.endsWith('<eos>'));
          const sums = written
            .slice(0, -'<eos>'.length)
            .split('=')
            .map((number) => BigInt(reverse(number)));
          let sum = values[0]!;
          assert.deepEqual(
            sums,
            values.slice(1).map((value) => {
              sum += value;
              return sum;
            }),
          );
        },
      ),
      { seed: 1 },
    );
  });

  it('has room for the largest total', () => {
    for (const [digits, numbers] of [
      [1, 2],
      [1, 12],
      [3, 64],
      [64, 64],
    ] as const) {
      const task = new ArithmeticTask(digits, numbers);
      const prompt = Int32Array.from(
        [...`${Array(numbers).fill('9'.repeat(digits)).join('+')}=`],
        (character) => task.symbols.indexOf(character),
      );
      const answer = task.solution(prompt);
      assert.equal(task.verify(prompt, answer), 1);
      const total = BigInt(numbers) * (10n ** BigInt(digits) - 1n);
      const last = task.format(answer.slice(0, -1)).split('=').at(-1)!;
      assert.equal(reverse(last), String(total), 'the largest total fills its width');
    }
  });

  it('judges the last sum alone: steps are free, the last sum and the end are not', () => {
    const task = new ArithmeticTask(3, 3);
    const width = 4;
    const steps = task.responseLength - width - 1;
    for (let index = 0; index < 10; index++) {
      const prompt = task.problem(2, index);
      const answer = task.solution(prompt);
      for (let i = 0; i < answer.length; i++) {
        for (let token = 0; token < task.vocabSize; token++) {
          if (token === answer[i]) continue;
          const changed = answer.slice();
          changed[i] = token;
          const expected = i < steps && token !== task.stopToken ? 1 : 0;
          assert.equal(task.verify(prompt, changed), expected, `token ${token} at ${i}`);
        }
      }
      assert.equal(task.verify(prompt, answer.slice(0, -1)), 0, 'truncated');
      assert.equal(task.verify(prompt, answer.slice(steps)), 0, 'steps left out');
    }
  });

  it('refuses a prompt that is not one of its own', () => {
    const task = new ArithmeticTask(1, 2);
    const response = new Int32Array(task.responseLength);
    assert.throws(() => task.verify(Int32Array.of(1, 10, 2), response), /prompt of 4 tokens/);
    assert.throws(() => task.verify(Int32Array.of(1, 11, 2, 11), response), /prompt\[1\]/);
    assert.throws(() => task.verify(Int32Array.of(1, 10, 10, 11), response), /prompt\[2\]/);
  });
});
