import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { likeness, mathEqual } from '../../../lib/tasks/math/equal.js';
import { pairsOfForms } from './pairsOfForms.js';
import { pairsOfNumbers } from './pairsOfNumbers.js';

const pairs = { ...pairsOfNumbers, ...pairsOfForms };

describe('mathEqual', () => {
  for (const [topic, { same = [], value = [], different = [] }] of Object.entries(pairs)) {
    describe(topic, () => {
      for (const [a, b] of same) {
        it(`${a}  is  ${b}`, () => {
          assert.equal(mathEqual(a, b), true);
          assert.equal(mathEqual(b, a), true);
          assert.equal(mathEqual(a, b, 'value'), true);
        });
      }
      for (const [a, b] of value) {
        it(`${a}  is  ${b}  by value`, () => {
          assert.equal(mathEqual(a, b), false);
          assert.equal(likeness(a, b, 'value'), 'same value');
          assert.equal(likeness(b, a, 'value'), 'same value');
        });
      }
      for (const [a, b] of different) {
        it(`${a}  is not  ${b}`, () => {
          assert.equal(mathEqual(a, b), false);
          assert.equal(mathEqual(a, b, 'value'), false);
          assert.equal(mathEqual(b, a, 'value'), false);
        });
      }
    });
  }

  it('has a table of at least 300 pairs', () => {
    const counts = Object.values(pairs).map((p) => [p.same, p.value, p.different].flat().length);
    assert.ok(counts.reduce((a, b) => a + b) >= 300);
  });
});
