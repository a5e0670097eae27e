import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { PlotPoints } from '../../lib/diagnose/diagnosis.js';
import { PointCollector } from '../../lib/diagnose/points.js';
import type { Pair } from '../../lib/diagnose/record.js';
import { normalPairs, pairOf } from './support.js';

function pointsOf(pairs: Iterable<Pair>): PlotPoints {
  const collector = new PointCollector();
  for (const pair of pairs) collector.add(pair);
  return collector.result();
}

describe('PointCollector', () => {
  it('has every token and response while there are few', () => {
    const pairs = normalPairs(10, (i) => 1 + i, 0.1);
    const { tokens, responses } = pointsOf(pairs);
    assert.deepEqual(
      tokens,
      pairs.flatMap(({ index, rollout, training }) =>
        [...rollout].map((logMu, t) => [logMu, training[t]!, t, index]),
      ),
    );
    assert.deepEqual(
      responses,
      pairs.map(({ rollout, training }) => [
        rollout.length,
        training.reduce((sum, logPi, t) => sum + (logPi - rollout[t]!), 0),
      ]),
    );
  });

  it('spreads a bounded number over positions and responses, even of one length that is a power of 2', () => {
    const count = 3000;
    const { tokens, responses } = pointsOf(normalPairs(count, () => 256, 0.1));
    assert.ok(tokens.length > 900 && tokens.length <= 2000, String(tokens.length));
    assert.ok(responses.length > 180 && responses.length <= 400, String(responses.length));
    for (const [of, size] of [
      [2, 256],
      [3, count],
    ] as const) {
      const eighths = new Array<number>(8).fill(0);
      for (const token of tokens) eighths[Math.floor((8 * token[of]!) / size)]!++;
      for (const eighth of eighths) {
        assert.ok(Math.abs(eighth / tokens.length - 1 / 8) < 0.02, `${eighths} of ${tokens.length}`);
      }
    }
    assert.ok(new Set(tokens.map(([, , position]) => position)).size > 200);
  });

  it('has the mean difference of every token in its bin', () => {
    const pairs = normalPairs(50, (i) => 1 + ((11 * i) % 90), 0.3);
    const { byPosition, bySurprise } = pointsOf(pairs);
    const all = pairs.flatMap(({ rollout, training }) =>
      [...rollout].map((logMu, t) => ({
        position: t,
        surprise: -logMu,
        distance: Math.abs(training[t]! - logMu),
      })),
    );
    assert.deepEqual(
      byPosition.slice(0, 8).map(({ from, to }) => [from, to]),
      [
        [0, 1],
        [1, 2],
        [2, 3],
        [3, 4],
        [4, 6],
        [6, 8],
        [8, 12],
        [12, 16],
      ],
    );
    for (const [bins, of] of [
      [byPosition, 'position'],
      [bySurprise, 'surprise'],
    ] as const) {
      assert.equal(
        bins.reduce((sum, { tokens }) => sum + tokens, 0),
        all.length,
      );
      for (const { from, to, tokens, meanAbs } of bins) {
        const own = all.filter((token) => token[of] >= from && token[of] < to);
        // The first bin has what is below it, too.
        if (of === 'surprise' && from === 2 ** -20) continue;
        assert.equal(own.length, tokens);
        assert.ok(Math.abs(own.reduce((sum, { distance }) => sum + distance, 0) / tokens - meanAbs) < 1e-12);
      }
    }
  });

  it('takes what lies beyond the bins into the outermost, and nothing that does not count', () => {
    const { tokens, bySurprise, responses } = pointsOf([
      pairOf(0, [0, 0.5, -1e9, -1, Number.NaN], [0, 0, -1e9, -2, -1], { mask: Uint8Array.of(1, 1, 1, 0, 1) }),
      pairOf(1, [-1], [-2], { mask: Uint8Array.of(0) }),
    ]);
    assert.equal(tokens.length, 3);
    assert.deepEqual(responses, [[3, -0.5]]);
    assert.deepEqual(
      bySurprise.map(({ from, tokens }) => [from, tokens]),
      [
        [2 ** -20, 2],
        [2 ** 6, 1],
      ],
    );
  });
});
