import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { CorrectionEffect, LearningEffect } from '../../lib/diagnose/diagnosis.js';
import { EffectAccumulator } from '../../lib/diagnose/effect.js';
import { GroupedHistogram } from '../../lib/diagnose/groupedHistogram.js';
import type { Pair } from '../../lib/diagnose/record.js';
import type { Interval } from '../../lib/mismatch/bootstrap.js';
import { CounterRandom } from '../../lib/random.js';
import { normal, normalPairs, pairOf } from './support.js';

async function effectOf(pairs: readonly Pair[], seed = 1): Promise<LearningEffect> {
  const accumulator = new EffectAccumulator();
  for (const pair of pairs) accumulator.add(pair);
  return (await accumulator.result(seed)) ?? assert.fail('nothing was compared');
}

function close(actual: number, expected: number, tolerance = 1e-9): void {
  assert.ok(
    Math.abs(actual - expected) <= tolerance * Math.max(1, Math.abs(expected)),
    `${actual} is not ${expected}`,
  );
}

const sum = (values: readonly number[]) => values.reduce((a, b) => a + b, 0);
const mean = (values: readonly number[]) => sum(values) / values.length;
const essOf = (weights: readonly number[]) =>
  sum(weights) ** 2 / sum(weights.map((w) => w * w)) / weights.length;
/** Between two neighbours by their distance. */
function quantile(values: readonly number[], q: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  const place = q * (sorted.length - 1);
  const below = sorted[Math.floor(place)]!;
  return below + (sorted[Math.ceil(place)]! - below) * (place % 1);
}

/** [responses][tokens] log pi - log mu of the tokens that count. */
const logRatios = (pairs: readonly Pair[]) =>
  pairs.map(({ rollout, training, mask }) =>
    [...training].map((logPi, t) => logPi - rollout[t]!).filter((_, t) => mask[t] === 1),
  );

describe('EffectAccumulator', () => {
  it('has the values of plain arithmetic over all tokens, with fewer and with more responses than groups', async () => {
    for (const [count, sigma] of [
      [1, 0.3],
      [61, 0.4],
      [600, 0.15],
    ] as const) {
      const pairs = normalPairs(count, (i) => 1 + ((13 * i) % 29), sigma, count).map((pair, i) => ({
        ...pair,
        mask: pair.mask.map((_, t) => ((t + i) % 5 === 4 ? 0 : 1)),
      }));
      const effect = await effectOf(pairs);
      const ls = logRatios(pairs).filter(({ length }) => length > 0);
      const tokens = ls.flat();
      const sequences = ls.map(sum);
      close(effect.klMuPiK1.value, -mean(tokens));
      close(effect.klMuPiK3.value, mean(tokens.map((l) => Math.exp(l) - 1 - l)));
      close(effect.chi2Token.value, mean(tokens.map((l) => Math.exp(2 * l) - 1)));
      close(effect.chi2Sequence.value, mean(sequences.map((l) => Math.exp(2 * l) - 1)));
      close(effect.essToken.value, essOf(tokens.map(Math.exp)));
      close(effect.essSequence.value, essOf(sequences.map(Math.exp)));
      for (const { q, value } of effect.ratioQuantiles) close(value, Math.exp(quantile(tokens, q)));
      for (const { q, value } of effect.seqLogRatioQuantiles) close(value, quantile(sequences, q));
      const lengths = ls.map(({ length }) => length);
      assert.deepEqual(effect.lengths, {
        min: Math.min(...lengths),
        median: quantile(lengths, 0.5),
        max: Math.max(...lengths),
      });

      const weights: Record<
        CorrectionEffect['correction'],
        (l: number, tokens: readonly number[]) => number
      > = {
        none: () => 1,
        'Token-TIS': (l) => Math.min(Math.exp(l), 2),
        'Seq-TIS': (_, all) => Math.min(Math.exp(sum(all)), 3),
        'Seq-MIS': (_, all) => (Math.exp(sum(all)) <= 3 ? Math.exp(sum(all)) : 0),
        geometric: (_, all) => {
          const inverse = Math.exp(-mean(all));
          return inverse >= 0.999 && inverse <= 1.001 ? 1 : 0;
        },
      };
      assert.deepEqual(
        effect.corrections.map(({ correction }) => correction),
        Object.keys(weights),
      );
      for (const { correction, keptTokens, keptResponses, signalShare, ess, frozen } of effect.corrections) {
        const left = ls.map((all) => all.map((l) => weights[correction](l, all)));
        close(keptTokens, mean(left.flat().map((w) => (w > 0 ? 1 : 0))));
        close(keptResponses, mean(left.map((ws) => (ws.some((w) => w > 0) ? 1 : 0))));
        close(signalShare, mean(left.flat().map((w) => Math.min(w, 1))));
        assert.equal(frozen, signalShare < 0.05 || keptResponses < 0.05);
        const raw = {
          'Token-TIS': effect.essToken,
          'Seq-TIS': effect.essSequence,
          'Seq-MIS': effect.essSequence,
        };
        assert.equal(ess, correction in raw ? raw[correction as keyof typeof raw].value : Number.NaN);
      }
      assert.ok(
        effect.corrections.some(({ frozen }) => frozen) === effect.corrections[4]!.keptResponses < 0.05,
      );
    }
  });

  it('has exact numbers and no width where the engines agree', async () => {
    const same = normalPairs(300, () => 5, 0);
    const effect = await effectOf(same);
    for (const name of ['klMuPiK1', 'klMuPiK3', 'chi2Token', 'chi2Sequence'] as const) {
      assert.deepEqual(effect[name], { value: 0, low: 0, high: 0 }, name);
    }
    for (const name of ['essToken', 'essSequence'] as const) {
      assert.deepEqual(effect[name], { value: 1, low: 1, high: 1 }, name);
    }
    for (const { value, low, high } of effect.ratioQuantiles) assert.deepEqual([value, low, high], [1, 1, 1]);
    for (const c of effect.corrections) {
      assert.deepEqual([c.keptTokens, c.keptResponses, c.signalShare, c.frozen], [1, 1, 1, false]);
    }
  });

  it('covers the truth with its intervals about as often as they say', async () => {
    const sigma = 0.2;
    let covered = 0;
    let of = 0;
    const count = (interval: Interval, truth: number) => {
      of++;
      if (interval.low <= truth && truth <= interval.high) covered++;
    };
    for (let seed = 1; seed <= 12; seed++) {
      // More responses than groups, of unequal length, whose tokens share an offset: tokens alone would be too sure.
      const random = new CounterRandom(seed, 7);
      const pairs = normalPairs(400, (i) => 2 + (i % 9), sigma, seed).map((pair) => {
        const offset = sigma * normal(random) - sigma ** 2 / 2;
        return { ...pair, training: pair.training.map((logPi) => logPi + offset) };
      });
      const effect = await effectOf(pairs, seed);
      count(effect.klMuPiK1, sigma ** 2);
      count(effect.klMuPiK3, sigma ** 2);
      // A median of normal numbers is their mean.
      count(effect.ratioQuantiles.find(({ q }) => q === 0.5)!, Math.exp(-(sigma ** 2)));
      count(effect.essToken, Math.exp(-2 * sigma ** 2));
    }
    const share = covered / of;
    assert.ok(share > 0.86 && share < 1, `${covered} of ${of}`);
  });

  it('widens an interval as tokens of a response depend on one another', async () => {
    const random = new CounterRandom(5);
    const alone = normalPairs(200, () => 50, 0.1);
    const together = alone.map((pair) => {
      const offset = 0.1 * normal(random);
      return { ...pair, training: pair.rollout.map((logMu) => logMu + offset) };
    });
    const width = ({ klMuPiK1: { low, high } }: LearningEffect) => high - low;
    const ratio = width(await effectOf(together)) / width(await effectOf(alone));
    // The square root of 50.
    assert.ok(ratio > 5.5 && ratio < 9, String(ratio));
  });

  it('says that a policy is frozen, and where it is not', async () => {
    // L is about normal with a standard deviation of 0.3 sqrt(2000) = 13: hardly a response is left.
    const long = await effectOf(normalPairs(150, () => 2000, 0.3));
    assert.deepEqual(
      long.corrections.map(({ correction, frozen }) => [correction, frozen]),
      [
        ['none', false],
        ['Token-TIS', false],
        ['Seq-TIS', true],
        ['Seq-MIS', true],
        ['geometric', true],
      ],
    );
    assert.ok(long.corrections[3]!.keptResponses > 0.9, 'weights of next to nothing are no signal');
    const short = await effectOf(normalPairs(150, () => 3, 1e-5));
    assert.ok(short.corrections.every(({ frozen }) => !frozen));
  });

  it('leaves out what is not finite, holds ratios beyond fp64, and is null of nothing', async () => {
    const accumulator = new EffectAccumulator();
    assert.equal(await accumulator.result(1), null);
    accumulator.add(pairOf(0, [Number.NaN, -1], [-1, -Infinity]));
    accumulator.add(pairOf(1, [-1, -2], [-1, -2], { mask: Uint8Array.of(0, 0) }));
    assert.equal(await accumulator.result(1), null);
    for (let i = 0; i < 300; i++) accumulator.add(pairOf(i, [-1, Number.NaN, -2], [-1, -1, -2]));
    accumulator.add(pairOf(300, [-1e30, -1], [-1, -1e30]));
    const effect = (await accumulator.result(1))!;
    assert.equal(effect.lengths.max, 2);
    // One token has all the weight of 602.
    close(effect.essToken.value, 1 / 602);
    assert.equal(effect.chi2Token.value, Infinity);
    assert.equal(effect.corrections[1]!.keptTokens, 601 / 602);
  });

  it('gives the same for the same seed, and goes on after a result', async () => {
    const pairs = normalPairs(300, (i) => 1 + (i % 4), 0.3);
    const accumulator = new EffectAccumulator();
    for (const pair of pairs.slice(0, 150)) accumulator.add(pair);
    await accumulator.result(2);
    for (const pair of pairs.slice(150)) accumulator.add(pair);
    assert.deepEqual(await accumulator.result(1), await effectOf(pairs, 1));
    assert.notDeepEqual(await accumulator.result(2), await effectOf(pairs, 1));
  });

  it('keeps its memory bounded over millions of tokens', async () => {
    const [pair] = normalPairs(1, () => 1000, 0.1);
    const accumulator = new EffectAccumulator();
    const held = () => process.memoryUsage().arrayBuffers;
    const before = held();
    for (let i = 0; i < 1500; i++) accumulator.add({ ...pair!, index: i });
    const first = held();
    for (let i = 0; i < 1500; i++) accumulator.add({ ...pair!, index: i });
    assert.ok(held() - before < 150e6, `${held() - before}`);
    assert.ok(held() - first < 60e6, `${held() - first}`);
    const { ratioQuantiles } = (await accumulator.result(1))!;
    const ls = logRatios([pair!])[0]!;
    for (const { q, value, low, high } of ratioQuantiles) {
      // Every response is the same: no draw differs.
      assert.ok(Math.abs(Math.log(low / high)) < 0.011 * Math.abs(Math.log(value)) + 1e-9);
      assert.ok(Math.abs(Math.log(value) - quantile(ls, q)) < 0.02, `${q}`);
    }
  });
});

describe('GroupedHistogram', () => {
  it('has the quantiles of any draw of its groups within 1.1 %', () => {
    const random = new CounterRandom(9);
    const values = Array.from({ length: 40 }, (_, g) =>
      Array.from(
        { length: 50 },
        () => normal(random) * 10 ** (random.integer(12) - 8) * (g % 3 === 0 ? 0 : 1),
      ),
    );
    const histogram = new GroupedHistogram();
    for (const [g, own] of values.entries()) for (const value of own) histogram.add(g, value);
    const qs = [0, 0.01, 0.3, 0.5, 0.77, 0.999, 1];
    const quantiles = histogram.quantiles(qs);
    for (let k = 0; k < 200; k++) {
      const indices = Array.from({ length: 40 }, () => random.integer(40));
      const drawn = indices.flatMap((g) => values[g]!).sort((a, b) => a - b);
      const found = quantiles(indices);
      for (const [i, q] of qs.entries()) {
        const place = q * (drawn.length - 1);
        const [low, high] = [drawn[Math.floor(place)]!, drawn[Math.ceil(place)]!];
        const expected = low + (high - low) * (place % 1);
        const slack = 0.0111 * Math.max(Math.abs(low), Math.abs(high)) + 1e-9;
        const value = found[i]!;
        assert.ok(Math.abs(value - expected) <= slack, `${q}: ${value} is not ${expected}`);
      }
    }
  });
});
