import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { routingFlips } from '../../lib/mismatch/routing.js';

const routes = (...values: number[]) => Uint16Array.from(values);

describe('routingFlips', () => {
  it('counts the pairs with other sets of experts, whatever their order', () => {
    const a = [routes(1, 2, 3, 4), routes(5, 6)];
    assert.equal(routingFlips(a, a, 2), 0);
    assert.equal(routingFlips(a, [routes(2, 1, 4, 3), routes(6, 5)], 2), 0, 'another order');
    assert.equal(routingFlips(a, [routes(1, 2, 3, 9), routes(5, 6)], 2), 1 / 3);
    assert.equal(routingFlips(a, [routes(3, 4, 1, 2), routes(6, 7)], 2), 1, 'of another token');
    assert.equal(routingFlips(a, [routes(1, 2, 4, 3), routes(5, 6)], 1), 2 / 6, 'one expert a token');
    assert.ok(Number.isNaN(routingFlips([], [], 2)));
  });

  it('refuses passes of other sequences', () => {
    const a = [routes(1, 2, 3, 4)];
    assert.throws(() => routingFlips(a, [], 2), /\[routingFlips\] expected b of 1 sequences, as a, got 0/);
    assert.throws(() => routingFlips(a, [routes(1, 2)], 2), /b\[0\] of length 4, as a, got 2/);
    assert.throws(() => routingFlips(a, a, 3), /a\[0\]\.length to be a multiple of 3, got 4/);
    assert.throws(() => routingFlips(a, a, 0), /expertsPerToken to be an integer of at least 1/);
  });
});
