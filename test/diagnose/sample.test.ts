import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { clusteredMean, countedTokens, errorsAbove } from '../../lib/diagnose/countedTokens.js';
import type { Pair } from '../../lib/diagnose/record.js';
import { drawResponses, SampleCollector, sampleOf, type TokenSample } from '../../lib/diagnose/sample.js';
import { CounterRandom } from '../../lib/random.js';
import { normal, pairOf } from './support.js';
import { synthetic } from './synthetic.js';

const without = ({ tops: _, ...sample }: TokenSample) => sample;

/** Pairs with everything that a sample keeps. */
function pairs(count: number, seed = 1): Pair[] {
  const { pairs } = synthetic({
    seed,
    responses: count,
    length: (r) => 1 + ((5 * r) % 7),
    noise: 0.1,
    top: 4,
    more: (r) => ({
      step: r % 3 === 0 ? null : r >> 2,
      batch: r % 4 === 0 ? null : `b${r % 5}`,
    }),
  });
  return pairs.map((pair, r) => ({
    ...pair,
    mask: pair.mask.map((_, t) => Number((r + t) % 3 > 0)),
    weightsVersions: { rollout: [...pair.mask].map((_, t) => `${t % 2}`), training: r % 2 ? '1' : null },
  }));
}

describe('sampleOf', () => {
  it('has the tokens of all responses, one after another', () => {
    const all = pairs(30);
    const sample = sampleOf(all);
    let at = 0;
    all.forEach((pair, s) => {
      assert.equal(sample.offsets[s], at);
      for (let t = 0; t < pair.mask.length; t++, at++) {
        const own = [sample.mu[at], sample.pi[at], sample.mask[at]];
        assert.deepEqual(own, [pair.rollout[t], pair.training[t], pair.mask[t]]);
        assert.equal(sample.older[at], Number(pair.weightsVersions.training !== null && t % 2 === 0));
      }
      assert.equal(sample.order[s], pair.index);
      assert.equal(sample.steps[s], pair.step ?? Number.NaN);
      for (let other = 0; other < s; other++) {
        const same = pair.batch !== null && pair.batch === all[other]!.batch;
        assert.equal(sample.batches[s] === sample.batches[other] && sample.batches[s] !== -1, same);
      }
      assert.equal(sample.batches[s] === -1, pair.batch === null);
    });
    assert.equal(sample.offsets[all.length], at);
  });

  it('has the lists of the most likely tokens as they are', () => {
    const all = pairs(10);
    for (const side of ['rollout', 'training'] as const) {
      const { offsets, ids, logprobs } = sampleOf(all).tops[side]!;
      const lists = all.flatMap((pair) => pair.topLogprobs[side]!);
      lists.forEach((list, t) => {
        assert.deepEqual([...ids.subarray(offsets[t], offsets[t + 1])], list!.tokens);
        assert.deepEqual([...logprobs.subarray(offsets[t], offsets[t + 1])], list!.logprobs);
      });
      assert.equal(offsets.length, lists.length + 1);
    }
    const bare = all.map((pair) => ({ ...pair, topLogprobs: { rollout: null, training: null } }));
    assert.deepEqual(sampleOf(bare).tops, { rollout: null, training: null });
  });

  it('has gaps between candidates that both sides know, of tokens that count', () => {
    const lists = (...tokens: (readonly [number | string, number])[]) => ({
      tokens: tokens.map(([token]) => token),
      logprobs: tokens.map(([, logprob]) => logprob),
    });
    const pair = (rollout: ReturnType<typeof lists> | null, training: ReturnType<typeof lists> | null) =>
      pairOf(0, [-1, -1], [-1, -1], {
        mask: Uint8Array.of(1, 0),
        topLogprobs: { rollout: [rollout, rollout], training: [training, training] },
      });
    const gapsOf = (...all: Pair[]) => {
      const { offsets, mu, pi } = sampleOf(all).gaps;
      return { offsets: [...offsets], mu: [...mu], pi: [...pi] };
    };
    // In any order; token 9 is known of one side alone, 8 has no finite log-prob on the other.
    const a = lists([5, -2], [7, -0.5], [9, -1], [8, -3]);
    const b = lists([8, -Infinity], [7, -0.25], [5, -4], [6, -1]);
    assert.deepEqual(gapsOf(pair(a, b), pair(b, a)), {
      offsets: [0, 1, 2],
      mu: [1.5, 3.75],
      pi: [3.75, 1.5],
    });
    assert.deepEqual(gapsOf(pair(a, null), pair(lists([5, -1]), lists([5, -2]))).mu, []);
    // Texts are themselves, not ids, and an id is no text.
    const words = lists(['x', -1], ['y', -3]);
    assert.deepEqual(gapsOf(pair(words, lists(['y', -2], ['x', -1]))), { offsets: [0, 1], mu: [2], pi: [1] });
    assert.deepEqual(gapsOf(pair(lists(['5', -1], ['7', -2]), a)).mu, []);
  });
});

describe('drawResponses', () => {
  it('is the sample of the pairs that were drawn, the lists aside', () => {
    const all = pairs(40);
    const sample = sampleOf(all);
    const random = new CounterRandom(3);
    for (let draw = 0; draw < 20; draw++) {
      const indices = Int32Array.from({ length: draw }, () => random.integer(all.length));
      // Names of batches that are drawn last keep their numbers.
      const numbers = { batches: indices.map((s) => sample.batches[s]!) };
      assert.deepEqual(
        without(drawResponses(sample, indices)),
        without({ ...sampleOf(Array.from(indices, (s) => all[s]!)), ...numbers }),
      );
    }
  });
});

describe('SampleCollector', () => {
  const short = (index: number, length: number) =>
    pairOf(index, new Float64Array(length).fill(-1 - index), new Float64Array(length).fill(-1));

  it('keeps everything up to its capacity, and then every second, fourth, ... response', () => {
    for (const count of [1, 10, 100, 101, 1000]) {
      const collector = new SampleCollector(200);
      for (let r = 0; r < count; r++) collector.add(short(r, 2));
      const { order, mu } = collector.result();
      const stride = order.length < 2 ? 1 : order[1]! - order[0]!;
      assert.ok([1, 2, 4, 8, 16].includes(stride));
      assert.deepEqual(
        [...order],
        Array.from({ length: Math.ceil(count / stride) }, (_, i) => i * stride),
      );
      assert.ok(mu.length <= 200, `${mu.length}`);
      assert.ok(stride === 1 || mu.length > 90, `${mu.length}`);
      assert.equal(stride === 1, count <= 100);
    }
  });

  it('is bounded whatever the lengths are, and depends on nothing but the stream', () => {
    const collected = (seed: number) => {
      const collector = new SampleCollector(500);
      const random = new CounterRandom(seed);
      for (let r = 0; r < 2000; r++) {
        collector.add(short(r, random.integer(60)));
        if (r % 97 === 0) assert.ok(collector.result().mu.length <= 500);
      }
      return collector.result();
    };
    assert.deepEqual(collected(1), collected(1));
    assert.notDeepEqual(collected(1), collected(2));
  });

  it('keeps a response that alone is beyond its capacity', () => {
    const collector = new SampleCollector(10);
    collector.add(short(0, 50));
    assert.equal(collector.result().mu.length, 50);
    collector.add(short(1, 50));
    assert.deepEqual([...collector.result().order], [0]);
  });

  it('keeps lists of the most likely tokens of the first 65,536 tokens alone', () => {
    const list = { tokens: [1, 2], logprobs: [-1, -2] };
    const collector = new SampleCollector();
    for (let r = 0; r < 70; r++) {
      const lists = new Array(1024).fill(list);
      collector.add({ ...short(r, 1024), topLogprobs: { rollout: lists, training: lists } });
    }
    const { tops, gaps } = collector.result();
    assert.equal(tops.rollout!.ids.length, 2 * 65_536);
    assert.equal(gaps.mu.length, 65_536);
    assert.equal(tops.rollout!.offsets[70 * 1024], 2 * 65_536);
  });
});

describe('countedTokens', () => {
  it('has the tokens that count, and the sizes of plain arithmetic', () => {
    const all = pairs(30);
    const tokens = countedTokens(sampleOf(all));
    const own = all.flatMap(({ rollout, training, mask, index }) =>
      [...rollout].flatMap((mu, t) =>
        mask[t] === 1 ? [{ mu, pi: training[t]!, index, d: mu - training[t]! }] : [],
      ),
    );
    assert.equal(tokens.count, own.length);
    assert.equal(tokens.responses, 30);
    own.forEach(({ mu, pi, index, d }, i) => {
      assert.deepEqual([tokens.mu[i], tokens.pi[i], tokens.response[i], tokens.d[i]], [mu, pi, index, d]);
      assert.equal(tokens.sample.mu[tokens.token[i]!], mu);
      assert.ok(Math.abs(tokens.openness[i]! - (1 - (Math.exp(mu) + Math.exp(pi)) / 2)) < 1e-12);
    });
    const total = (of: (token: (typeof own)[number]) => number) => own.reduce((a, token) => a + of(token), 0);
    const absolute = total(({ d }) => Math.abs(d));
    const open = total(({ mu, pi }) => 1 - (Math.exp(mu) + Math.exp(pi)) / 2);
    for (const [actual, expected] of [
      [tokens.meanAbs, absolute / own.length],
      [tokens.meanOpenness, open / own.length],
      [tokens.logitNoise, absolute / open],
      [tokens.spread, absolute ** 2 / total(({ d }) => d ** 2)],
    ] as const) {
      assert.ok(Math.abs(actual / expected - 1) < 1e-9, `${actual}, ${expected}`);
    }
  });

  it('has a spread of as many tokens as share the mismatch', () => {
    const spread = (pi: readonly number[]) =>
      countedTokens(sampleOf([pairOf(0, new Float64Array(pi.length).fill(-1), pi)])).spread;
    assert.equal(spread([-1, -1, -1]), 0);
    assert.equal(spread([-1, -3, -1]), 1);
    assert.equal(spread([-2, 0, -2, -1]), 3);
  });
});

describe('clusteredMean', () => {
  const tokensOf = (responses: number, length: number) =>
    countedTokens(
      sampleOf(
        Array.from({ length: responses }, (_, r) =>
          pairOf(r, new Array(length).fill(-1), new Array(length).fill(-1)),
        ),
      ),
    );

  it('has the standard error of the mean of numbers that responses share', () => {
    // One number a response: its five tokens are not five.
    const values = [3, -1, 4, 1, -5, 9, 2, 6, -5, 3];
    const { mean, error } = clusteredMean(tokensOf(10, 5), (i) => values[Math.floor(i / 5)]!);
    const expected = values.reduce((a, b) => a + b, 0) / 10;
    const squares = values.reduce((sum, x) => sum + (x - expected) ** 2, 0);
    assert.ok(Math.abs(mean - expected) < 1e-12);
    assert.ok(Math.abs(error - Math.sqrt(squares) / 10) < 1e-12);
    assert.equal(errorsAbove({ mean, error }, 1), (mean - 1) / error);
    assert.equal(errorsAbove({ mean: 1, error: 0 }, 1), 0);
  });

  it('leaves out what is NaN', () => {
    const values = [3, Number.NaN, 4, 1, -5, 9, 2, 6, -5, 3];
    const of = (skip: boolean) => {
      const kept = values.filter((x) => !skip || !Number.isNaN(x));
      return clusteredMean(tokensOf(kept.length, 1), (i) => kept[i]!);
    };
    assert.deepEqual(of(false), of(true));
  });

  it('does not believe few responses, whose error is near 0 by chance', () => {
    const random = new CounterRandom(2);
    const values = Array.from({ length: 400 }, () => normal(random));
    const single = clusteredMean(tokensOf(1, 400), (i) => values[i]!);
    assert.ok(Math.abs(single.error * Math.sqrt(400) - 1) < 0.1, `${single.error}`);
    // Tokens of two responses that are alike in each of them.
    const two = clusteredMean(tokensOf(2, 200), (i) => (i < 200 ? 1 : -1));
    assert.ok(two.error > 0.7, `${two.error}`);
    assert.equal(clusteredMean(tokensOf(2, 10), (i) => i).error, Infinity);
    assert.equal(clusteredMean(tokensOf(1, 1), () => 5).error, Infinity);
    assert.equal(
      errorsAbove(
        clusteredMean(tokensOf(1, 1), () => 5),
        0,
      ),
      0,
    );
  });
});
