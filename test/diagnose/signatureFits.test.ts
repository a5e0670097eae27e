/** Signatures that fit a law to the log-probs: what they find, with the right number, and in words. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Pair } from '../../lib/diagnose/record.js';
import {
  findings,
  foundIn,
  logSoftmax,
  type SyntheticOptions,
  synthetic,
  topPFiltered,
  withSeries,
} from './synthetic.js';

const NOISE = 0.02;

/** Within `tolerance` of what it should be, relative. */
function near(actual: number | undefined, expected: number, tolerance: number): void {
  assert.ok(
    actual !== undefined && Math.abs(actual - expected) <= tolerance * Math.abs(expected),
    `${actual} is not within ${100 * tolerance} % of ${expected}`,
  );
}

/** A number as evidence has it. */
const said = (x: number) => String(Number(x.toPrecision(3)));

const mean = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / values.length;

describe('shift', () => {
  /** The training series, `by` tokens later: pi[t + by] stands for token t. What comes in at the edge is a new token's. */
  const shifted = (by: number) => {
    const { pairs } = synthetic({ noise: NOISE, responses: 40, length: (r) => 5 + (r % 30) });
    return withSeries(pairs, 'training', (own) => own.map((_, t) => own[t - by] ?? -0.7));
  };

  it('finds by how many tokens the training series is late or early', () => {
    for (const by of [-2, -1, 1, 2]) {
      const { shift } = findings(shifted(by));
      assert.ok(shift.found, String(by));
      assert.equal(shift.values.shift, by);
      assert.ok(shift.explained! > 0.9, String(shift.explained));
      assert.ok(shift.evidence.startsWith(`training shifted by ${by > 0 ? '+' : ''}${by} fits far better`));
      assert.ok(shift.evidence.includes(`${said(shift.values.meanAbsShifted!)} in place of`));
      assert.ok(shift.values.meanAbsShifted! < 0.05 && shift.values.meanAbs! > 0.5);
    }
  });

  it('is not found where the ends of one series are odd: shifted by so many tokens, they are out of sight', () => {
    const { pairs } = synthetic({ noise: NOISE, responses: 40, length: 20 });
    for (const [from, to] of [
      [0, 2],
      [18, 20],
    ] as const) {
      for (const side of ['rollout', 'training'] as const) {
        const odd = withSeries(pairs, side, (own) => own.map((x, t) => (t >= from && t < to ? -100 : x)));
        assert.equal(findings(odd).shift.found, false, `${side} ${from}`);
      }
    }
  });

  it('has the two means of plain arithmetic', () => {
    const pairs = shifted(1);
    const apart: number[] = [];
    const beside: number[] = [];
    const left: number[] = [];
    for (const { rollout, training } of pairs) {
      for (let t = 0; t + 1 < rollout.length; t++) {
        apart.push(Math.abs(rollout[t]! - training[t]!));
        beside.push(Math.abs(rollout[t + 1]! - training[t + 1]!));
        left.push(Math.abs(rollout[t]! - training[t + 1]!));
      }
    }
    const { values, explained } = findings(pairs).shift;
    const before = Math.min(mean(apart), mean(beside));
    near(values.meanAbs, before, 1e-12);
    near(values.meanAbsShifted, mean(left), 1e-12);
    near(explained!, 1 - mean(left) / before, 1e-12);
  });

  it('does not look across the edges of responses, nor at masked tokens', () => {
    // Of responses of one token there is no neighbour, though the next response's token would fit.
    const series = Array.from({ length: 60 }, (_, r) => -0.3 - (r % 7));
    const pairs = synthetic({ responses: 60, length: 1 }).pairs.map(
      (pair, r): Pair => ({
        ...pair,
        rollout: Float64Array.of(series[r]!),
        training: Float64Array.of(series[r - 1] ?? -1),
      }),
    );
    const { shift } = findings(pairs);
    assert.equal(shift.found, false);
    assert.equal(shift.explained, null);
    // Every second token masked: those two tokens apart are the next that count.
    const masked = shifted(1).map((pair) => ({ ...pair, mask: pair.mask.map((_, t) => t % 2) }));
    assert.equal(findings(masked).shift.found, false);
    const two = shifted(2).map((pair) => ({ ...pair, mask: pair.mask.map((_, t) => t % 2) }));
    assert.equal(findings(two).shift.values.shift, 2);
  });
});

describe('temperature', () => {
  const at = (rollout: number, training: number, more: SyntheticOptions = {}) =>
    synthetic({
      noise: 0.002,
      engines: { rollout: (z) => z.map((x) => x / rollout), training: (z) => z.map((x) => x / training) },
      ...more,
    });

  it('finds the ratio within 1 % where the most likely tokens are known', () => {
    for (const [rollout, training] of [
      [1, 0.7],
      [0.6, 1],
      [1, 1.05],
      [0.8, 0.84],
    ] as const) {
      const { temperature } = findings(at(rollout, training, { top: 5 }).sample);
      assert.ok(temperature.found, `${rollout} and ${training}`);
      near(temperature.values.temperatureRatio, training / rollout, 0.01);
      assert.equal(temperature.values.exact, 1);
      assert.ok(temperature.explained! > 0.85, String(temperature.explained));
      assert.match(
        temperature.evidence,
        new RegExp(
          `^best-fit temperature of training over rollout ${said(temperature.values.temperatureRatio!)}, from gaps between \\d+ candidates; it accounts for ${said(100 * temperature.explained!)} %`,
        ),
      );
    }
  });

  it('finds it within 1 % without them where two tokens compete', () => {
    for (const [rollout, training] of [
      [1, 0.7],
      [0.6, 1],
      [1, 1.05],
    ] as const) {
      const { sample } = at(rollout, training, {
        vocabulary: 2,
        sure: 0.2,
      });
      const { temperature } = findings(sample);
      assert.ok(temperature.found, `${rollout} and ${training}`);
      near(temperature.values.temperatureRatio, training / rollout, 0.01);
      assert.equal(temperature.values.exact, 0);
      assert.ok(temperature.evidence.includes('from the odds of chosen tokens'));
    }
  });

  it('finds which side is hotter without them where many compete', () => {
    for (const [rollout, training] of [
      [1, 0.6],
      [0.6, 1],
    ] as const) {
      const { temperature } = findings(at(rollout, training, { sure: 0.3, responses: 200 }).sample);
      assert.equal(temperature.values.exact, 0);
      const ratio = temperature.values.temperatureRatio!;
      assert.ok(training > rollout ? ratio > 1.1 : ratio < 0.9, String(ratio));
    }
  });

  it('needs no chosen token: lists of texts do as well as ids', () => {
    const { pairs } = at(1, 0.7, { top: 5 });
    const texts = pairs.map((pair) => ({
      ...pair,
      topLogprobs: {
        rollout: pair.topLogprobs.rollout!.map((top) => ({
          ...top!,
          tokens: top!.tokens.map((v) => `t${v}`),
        })),
        training: pair.topLogprobs.training!.map((top) => ({
          ...top!,
          tokens: top!.tokens.map((v) => `t${v}`),
        })),
      },
    }));
    assert.deepEqual(findings(texts).temperature, findings(pairs).temperature);
  });
});

describe('scaled', () => {
  it('finds the factor of log-probs that were divided after the softmax', () => {
    for (const factor of [0.7, 1.03, 1 / 0.6]) {
      const { pairs } = synthetic({ noise: 0.001, responses: 100 });
      const scaled = withSeries(pairs, 'training', (own) => own.map((x) => x * factor));
      const result = findings(scaled).scaled;
      assert.ok(result.found, String(factor));
      near(result.values.scale, factor, 0.003);
      assert.ok(result.explained! > 0.9);
      assert.match(result.evidence, new RegExp(`^log pi is ${said(result.values.scale!)} times log mu`));
    }
  });

  it('is not what a temperature before the softmax does', () => {
    const { sample } = synthetic({
      noise: 0.001,
      top: 5,
      responses: 100,
      engines: { training: (z) => z.map((x) => x / 0.7) },
    });
    assert.deepEqual(foundIn(findings(sample)), ['temperature']);
  });
});

describe('kept mass', () => {
  const filtered = (topP: number, noise: number) =>
    synthetic({
      noise,
      responses: 200,
      sure: 0.3,
      engines: { rollout: (z) => topPFiltered(z, topP).map((log) => Math.max(log, -745)) },
    });

  it('finds the mean mass that a filter kept', () => {
    for (const topP of [0.7, 0.9, 0.95]) {
      const { positions, sample } = filtered(topP, 0);
      // log mu - log pi of a kept token is -log of the kept mass.
      const mass = positions.flat().map(({ logMu, logPi, token }) => Math.exp(logPi[token]! - logMu[token]!));
      for (const one of mass) assert.ok(one >= topP - 1e-9 && one <= 1 + 1e-9);
      const result = findings(sample)['kept-mass'];
      assert.ok(result.found, String(topP));
      near(result.values.keptMass, mean(mass), 1e-9);
      const ds = mass.map((z) => -Math.log(z));
      near(result.values.oneSided, mean(ds.map((d) => d - d ** 2 / 2)) / mean(ds), 1e-9);
      assert.equal(result.explained, Math.min(1, result.values.oneSided!));
      assert.ok(result.evidence.startsWith(`mean of pi / mu ${said(mean(mass))} (`));
    }
    assert.ok(findings(filtered(0.9, NOISE).sample)['kept-mass'].found, 'beside noise, too');
  });

  it('is not a difference of two whole distributions, however large', () => {
    for (const noise of [0.3, 1]) {
      const { sample } = synthetic({ noise, responses: 200, sure: 0.3 });
      assert.equal(findings(sample)['kept-mass'].found, false);
    }
  });
});

describe('identity', () => {
  it('finds raw log-probs of a rollout that sampled at another temperature', () => {
    for (const temperature of [0.7, 1.5]) {
      const tempered = (z: Float64Array) => z.map((x) => x / temperature);
      const { positions, sample } = synthetic({
        responses: 200,
        sure: 0.3,
        noise: NOISE,
        sampler: (z) => logSoftmax(tempered(z)),
        engines: { training: tempered },
      });
      const { identity } = findings(sample);
      const ratios = positions
        .flat()
        .map(({ logMu, logPi, token }) => Math.exp(logPi[token]! - logMu[token]!));
      near(identity.values.meanRatio, mean(ratios), 1e-9);
      assert.ok(identity.evidence.startsWith(`mean of pi / mu is ${said(mean(ratios))}, `));
      assert.ok(identity.found && identity.explained! > 0, `${temperature}: ${identity.evidence}`);
      // Tokens were drawn from pi: the mean is 1 + chi-squared.
      const chi2 = positions
        .flat()
        .map(
          ({ logMu, logPi }) =>
            mean([...logPi].map((log, v) => Math.exp(2 * log - logMu[v]!))) * logPi.length,
        );
      near(identity.values.meanRatio, mean(chi2), 0.05);
    }
  });

  it('holds for any two whole distributions of which one was sampled', () => {
    for (const noise of [0.01, 0.3, 1]) {
      const { identity } = findings(synthetic({ responses: 200, sure: 0.3, noise, seed: 3 }).sample);
      assert.equal(identity.found, false, identity.evidence);
      assert.equal(identity.explained, 0);
      assert.ok(Math.abs(identity.values.errors!) < 5, identity.evidence);
    }
  });
});

describe('zero fill', () => {
  /** Zeros in one side of responses, where `at` says; how many of them count: the other side is below -0.1. */
  const filled = (
    side: 'rollout' | 'training',
    at: (t: number, length: number, response: number) => boolean,
    mask: (t: number) => number = () => 1,
  ) => {
    const { pairs } = synthetic({ noise: NOISE, responses: 50, length: 12 });
    const all = withSeries(pairs, side, (own, pair) =>
      own.map((x, t) => (at(t, own.length, pair.index) ? 0 : x)),
    ).map((pair) => ({ ...pair, mask: pair.mask.map((_, t) => mask(t)) }));
    const other = side === 'rollout' ? 'training' : 'rollout';
    const zeros = all.flatMap((pair) =>
      [...pair[other]].filter((x, t) => at(t, 12, pair.index) && mask(t) === 1 && x < -0.1),
    );
    return { all, zeros };
  };

  it('does not take a series of nothing but zeros for a beginning', () => {
    const { all, zeros } = filled('training', () => true);
    const { found, values } = findings(all)['zero-fill'];
    assert.ok(found);
    assert.deepEqual([values.zeros, values.leading, values.trailing], [zeros.length, 0, 0]);
  });

  it('counts exact zeros where the other engine is unsure, and says where they are', () => {
    for (const side of ['rollout', 'training'] as const) {
      for (const [place, at] of [
        ['', (t: number, _: number, r: number) => (t + r) % 5 === 2],
        [', most of them at the start', (t: number) => t < 3],
        [', most of them at the end', (t: number, length: number) => t >= length - 3],
      ] as const) {
        const { all, zeros } = filled(side, at);
        const result = findings(all)['zero-fill'];
        assert.ok(result.found);
        assert.equal(result.values.zeros, zeros.length);
        assert.equal(result.values.share, zeros.length / 600);
        assert.equal(result.values[side], zeros.length);
        assert.ok(result.explained! > 0.9, String(result.explained));
        assert.ok(
          result.evidence.includes(
            `${zeros.length} of 600 tokens (${said((100 * zeros.length) / 600)} %) are exactly 0 in ${side}${place}, where the other engine says ${said(mean(zeros))} on average`,
          ),
          result.evidence,
        );
      }
    }
  });

  it('finds their place among the tokens that count, whatever a mask hides', () => {
    const { all, zeros } = filled(
      'training',
      (t) => t >= 4 && t < 6,
      (t) => (t < 4 ? 0 : 1),
    );
    for (const { training } of all) training.fill(Number.NaN, 0, 4);
    const { values } = findings(all)['zero-fill'];
    assert.equal(values.zeros, zeros.length);
    assert.equal(values.leading, zeros.length);
  });

  it('counts both sides', () => {
    const { all } = filled('rollout', (t) => t === 5);
    const both = withSeries(all, 'training', (own) => own.map((x, t) => (t === 7 ? 0 : x)));
    const { values, evidence } = findings(both)['zero-fill'];
    assert.ok(values.rollout! > 0 && values.training! > 0);
    assert.equal(values.zeros, values.rollout! + values.training!);
    assert.match(evidence, /exactly 0 in rollout or training/);
  });

  it('takes a 0 for certainty where the other engine is nearly certain, too', () => {
    const { pairs } = synthetic({ noise: 1e-4, responses: 50, sure: 0.8 });
    const rounded = withSeries(pairs, 'training', (own) => own.map((x) => (x > -0.05 ? 0 : x)));
    assert.equal(findings(rounded)['zero-fill'].found, false);
  });

  it('takes few of many zeros for chance, though no nearly certain token is unsure', () => {
    const { pairs } = synthetic({ noise: 1e-4, responses: 60, length: 10, sure: 0.8 });
    // What is likely enough is certain in the rollout.
    const certain = withSeries(pairs, 'rollout', (own) => own.map((x) => (x > -1e-4 ? 0 : x)));
    const all = certain.flatMap((pair) => [...pair.rollout]);
    const zeros = all.filter((x) => x === 0).length;
    const near = all.filter((x) => x !== 0 && x > -0.02).length;
    // At most one of the nearly certain ones is likely to be unsure, and five times that share of the zeros is no surprise.
    const chance = 5 * zeros * Math.min(0.02, 1 / (near + 1));
    assert.ok(zeros > 100 && near > 50 && chance > 3, `${zeros}, ${near}, ${chance}`);
    for (const count of [1, Math.floor(chance), Math.ceil(2 * chance)]) {
      let left = count;
      const few = withSeries(certain, 'rollout', (own, pair) =>
        own.map((x, t) => (pair.training[t]! < -1 && left-- > 0 ? 0 : x)),
      );
      const result = findings(few)['zero-fill'];
      assert.equal(result.values.zeros, count);
      assert.equal(result.found, count > chance, result.evidence);
    }
  });
});

describe('prompt counted', () => {
  it('finds first tokens that are far apart', () => {
    const { pairs } = synthetic({ noise: NOISE, responses: 50, length: (r) => 4 + (r % 9) });
    const odd = withSeries(pairs, 'training', (own, { index }) =>
      own.map((x, t) => (t === 0 ? -2 - (index % 5) : x)),
    );
    const result = findings(odd)['prompt-counted'];
    assert.ok(result.found);
    const firsts = odd.map(({ rollout, training }) => Math.abs(rollout[0]! - training[0]!));
    const others = odd.flatMap(({ rollout, training }) =>
      [...rollout].slice(1).map((x, t) => Math.abs(x - training[t + 1]!)),
    );
    near(result.values.first, mean(firsts), 1e-12);
    near(result.values.rest, mean(others), 1e-12);
    assert.ok(result.explained! > 0.9);
    assert.ok(result.evidence.includes(`is ${said(mean(firsts))} at the first counted token`));
    // The first token that counts is not the first of the response.
    const masked = odd.map(({ rollout, training, mask, ...pair }) => ({
      ...pair,
      rollout: Float64Array.of(-1, ...rollout),
      training: Float64Array.of(Number.NaN, ...training),
      mask: Uint8Array.of(0, ...mask),
    }));
    near(findings(masked)['prompt-counted'].values.first, mean(firsts), 1e-12);
  });

  it('does not mistake the only choice of a response for it', () => {
    // All but the first token are certain: what rounding there is, is at the first.
    for (let seed = 1; seed <= 10; seed++) {
      const { pairs } = synthetic({ seed, noise: 0.04, responses: 64, length: 6, sure: 0 });
      const certain = pairs.map((pair) => ({
        ...pair,
        rollout: pair.rollout.map((x, t) => (t === 0 ? x : -1e-7)),
        training: pair.training.map((x, t) => (t === 0 ? x : -1.1e-7)),
      }));
      const result = findings(certain)['prompt-counted'];
      assert.equal(result.found, false, result.evidence);
    }
  });
});
