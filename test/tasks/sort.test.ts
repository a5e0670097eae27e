import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { SortTask } from '../../lib/tasks/sort.js';

describe('sort', () => {
  it('lays out prompt, answer and text as documented', () => {
    const task = new SortTask(4, 10);
    assert.equal(task.name, 'sort:4:10');
    assert.equal(task.vocabSize, 12);
    assert.equal(task.symbols.length, 12);
    assert.equal(task.promptLength, 5);
    assert.equal(task.responseLength, 5);
    assert.equal(task.stopToken, 11);
    const prompt = Int32Array.of(3, 1, 3, 0, 10);
    const answer = task.solution(prompt);
    assert.deepEqual([...answer], [0, 1, 3, 3, 11]);
    assert.equal(task.format(prompt), '3130=');
    assert.equal(task.format(answer), '0133<eos>');
    assert.equal(task.format([0, 99, -1]), '0<99><-1>');
    assert.deepEqual([...prompt], [3, 1, 3, 0, 10], 'the prompt is left alone');
  });

  it('verifies every solution and refuses every change of one token', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 12 }),
        fc.integer({ min: 2, max: 64 }),
        fc.maxSafeNat(),
        fc.nat(),
        (length, symbols, seed, index) => {
          const task = new SortTask(length, symbols);
          const prompt = task.problem(seed, index);
          const answer = task.solution(prompt);
          assert.equal(task.verify(prompt, answer), 1);
          const expected = [...prompt.slice(0, length)].sort((a, b) => a - b);
          assert.deepEqual([...answer], [...expected, task.stopToken]);
          for (let i = 0; i < answer.length; i++) {
            for (let token = -1; token <= task.vocabSize; token++) {
              if (token === answer[i]) continue;
              const corrupt = answer.slice();
              corrupt[i] = token;
              assert.equal(task.verify(prompt, corrupt), 0, `token ${token} at ${i}`);
            }
          }
          assert.equal(task.verify(prompt, answer.slice(0, -1)), 0, 'truncated');
          assert.equal(task.verify(prompt, Int32Array.of(...answer, task.stopToken)), 0, 'too long');
          assert.equal(task.verify(prompt, new Int32Array(0)), 0, 'empty');
        },
      ),
      { seed: 1, numRuns: 40 },
    );
  });

  it('gives every symbol equally often', () => {
    const task = new SortTask(16, 10);
    const counts = new Array<number>(10).fill(0);
    for (let index = 0; index < 1000; index++) {
      for (const token of task.problem(5, index).subarray(0, 16)) counts[token]!++;
    }
    const statistic = counts.reduce((sum, count) => sum + (count - 1600) ** 2 / 1600, 0);
    assert.ok(statistic < 27.9, `chi-square ${statistic} of 9 degrees, 0.1 % point 27.9`);
  });

  it('refuses a prompt that is not one of its own', () => {
    const task = new SortTask(2, 3);
    assert.throws(() => task.verify(Int32Array.of(0, 1), new Int32Array(3)), /prompt of 3 tokens/);
    assert.throws(() => task.verify(Int32Array.of(0, 1, 2), new Int32Array(3)), /end in token 3/);
    assert.throws(() => task.solution(Int32Array.of(0, 3, 3)), /prompt\[1\]/);
  });
});
