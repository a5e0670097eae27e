import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { WorstTokens } from '../../lib/diagnose/worst.js';
import { CounterRandom } from '../../lib/random.js';
import { normalPairs, pairOf } from './support.js';

describe('WorstTokens', () => {
  it('has the twenty of a full sort, greatest first and ties in order', () => {
    const random = new CounterRandom(3);
    const pairs = normalPairs(37, (i) => 1 + ((7 * i) % 53), 0.5).map((pair) => ({
      ...pair,
      // Coarse numbers, so that there are ties.
      rollout: pair.rollout.map(() => -random.integer(8)),
      training: pair.training.map(() => -random.integer(8)),
    }));
    const worst = new WorstTokens();
    for (const pair of pairs) worst.add(pair);
    const all = pairs.flatMap(({ id, rollout, training }) =>
      [...rollout].map((logMu, position) => ({
        id,
        position,
        distance: Math.abs(training[position]! - logMu),
      })),
    );
    const expected = all
      .map((token, order) => ({ ...token, order }))
      .sort((a, b) => b.distance - a.distance || a.order - b.order)
      .slice(0, 20);
    const result = worst.result();
    assert.deepEqual(
      result.map(({ id, position }) => [id, position]),
      expected.map(({ id, position }) => [id, position]),
    );
    assert.equal(result[0]!.text, ` word${result[0]!.position}`);
    assert.equal(result[0]!.token, result[0]!.position);
    assert.match(result[0]!.places.training, /^training\.jsonl:\d+$/);
  });

  it('leaves out what does not count, is not finite, or is equal', () => {
    const worst = new WorstTokens();
    worst.add(
      pairOf(4, [-1, -2, -3, -4, Number.NaN, -1], [-1, -9, -3.5, -Infinity, -1, -1.25], {
        mask: Uint8Array.of(1, 0, 1, 1, 1, 1),
      }),
    );
    assert.deepEqual(worst.result(), [
      {
        id: 'sample-4',
        position: 2,
        length: 6,
        token: null,
        text: null,
        logMu: -3,
        logPi: -3.5,
        places: { rollout: 'rollout.jsonl:5', training: 'training.jsonl:5' },
      },
      {
        id: 'sample-4',
        position: 5,
        length: 6,
        token: null,
        text: null,
        logMu: -1,
        logPi: -1.25,
        places: { rollout: 'rollout.jsonl:5', training: 'training.jsonl:5' },
      },
    ]);
  });
});
