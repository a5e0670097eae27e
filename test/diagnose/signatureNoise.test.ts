/** Signatures of how the noise is spread: over time, batches, tokens and positions. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Pair } from '../../lib/diagnose/record.js';
import { CounterRandom } from '../../lib/random.js';
import { findings, type Spot, synthetic, usualNoise, withSeries } from './synthetic.js';

const NOISE = usualNoise('bf16') / 2;
const said = (x: number) => String(Number(x.toPrecision(3)));

/** The logit noise of some responses, as defined: mean |d| over mean 1 - p. */
function logitNoise(pairs: readonly Pair[]): number {
  let [absolute, open] = [0, 0];
  for (const { rollout, training, mask } of pairs) {
    rollout.forEach((mu, t) => {
      if (mask[t] === 0) return;
      absolute += Math.abs(mu - training[t]!);
      open += 1 - (Math.exp(mu) + Math.exp(training[t]!)) / 2;
    });
  }
  return absolute / open;
}

describe('weight update', () => {
  const jump = (at: number, times: number, more: (response: number) => Partial<Pair>) =>
    synthetic({
      responses: 160,
      length: 15,
      noise: ({ response }: Spot) => NOISE * Math.max(1, response < at ? 1 / times : times),
      more,
    });

  it('finds the step from which on the noise is another', () => {
    for (const [step, times] of [
      [3, 6],
      [7, 6],
      [5, 1 / 6],
    ] as const) {
      // Responses are in any order: the step counts.
      const { pairs } = jump(16 * step, times, (r) => ({ step: Math.floor(r / 16) }));
      const shuffled = new CounterRandom(5).shuffle([...pairs]).map((pair, index) => ({ ...pair, index }));
      const result = findings(shuffled)['weight-update'];
      assert.ok(result.found, result.evidence);
      assert.equal(result.values.border, step);
      assert.ok(Math.abs(Math.log(result.values.ratio! / times)) < Math.log(1.25), result.evidence);
      assert.equal(result.values.errors! > 0, times > 1);
      assert.ok(
        result.evidence.startsWith(`from step ${step} on the noise is ${said(result.values.ratio!)} times`),
      );
      const calm = pairs.filter(({ index }) => index < 16 * step === times > 1);
      const expected = 1 - logitNoise(calm) / logitNoise(pairs);
      assert.ok(Math.abs(result.explained! - expected) < 0.1, `${result.explained}, ${expected}`);
    }
  });

  it('finds a place in the file where there are no steps', () => {
    for (const at of [40, 80, 120]) {
      const { sample } = jump(at, 6, () => ({}));
      const result = findings(sample)['weight-update'];
      assert.ok(result.found, result.evidence);
      assert.ok(Math.abs(result.values.border! - at) <= 10, String(result.values.border));
      assert.ok(result.evidence.startsWith(`from response ${result.values.border} on`));
    }
  });

  it('takes no jump of noise that stays below what rounding makes', () => {
    for (const [times, found] of [
      [0.1, false],
      [0.5, false],
      [4, true],
    ] as const) {
      // From the middle on the noise is three times as large, and so many times the usual one.
      const { pairs } = synthetic({
        responses: 160,
        length: 15,
        noise: ({ response }) => (usualNoise('bf16') * times) / (response < 80 ? 3 : 1),
        more: (r) => ({ step: Math.floor(r / 16) }),
      });
      const result = findings(pairs)['weight-update'];
      assert.equal(result.found, found, result.evidence);
      assert.equal(result.values.border, 5);
      assert.ok(Math.abs(Math.log(result.values.loud! / times)) < Math.log(1.5), String(result.values.loud));
      const below = `; even the louder side has but ${said(100 * result.values.loud!)} % of the usual noise`;
      assert.equal(result.evidence.endsWith(below), !found, result.evidence);
    }
  });

  it('does not take a step that is by chance all equal, or all not, for a jump', () => {
    // Half of the responses are equal to the bit; those of the last step all are, or none.
    for (const equal of [true, false]) {
      const { pairs } = synthetic({
        responses: 212,
        noise: NOISE,
        more: (r) => ({ step: Number(r >= 200) }),
      });
      const mixed = pairs.map((pair, r) =>
        (r < 200 ? r % 2 === 0 : equal) ? { ...pair, training: pair.rollout } : pair,
      );
      const result = findings(mixed)['weight-update'];
      assert.equal(result.found, false, result.evidence);
    }
  });

  it('goes by the versions that tokens have on both sides', () => {
    // The second half of every other response is of the weights before.
    const isOld = (response: number, t: number) => response % 2 === 1 && t >= 8;
    const { pairs } = synthetic({
      responses: 80,
      length: 16,
      noise: ({ response, position }) => (isOld(response, position) ? 8 * NOISE : NOISE),
      more: (r) => ({
        weightsVersions: {
          rollout: Array.from({ length: 16 }, (_, t) => (isOld(r, t) ? '4' : '5')),
          training: '5',
        },
      }),
    });
    const result = findings(pairs)['weight-update'];
    assert.ok(result.found);
    assert.equal(result.values.olderShare, 0.25);
    const part = (old: boolean) =>
      logitNoise(
        pairs.map((pair) => ({
          ...pair,
          mask: pair.mask.map((_, t) => Number(isOld(pair.index, t) === old)),
        })),
      );
    const ratio = part(true) / part(false);
    assert.ok(Math.abs(result.values.ratio! / ratio - 1) < 1e-9, `${result.values.ratio}, ${ratio}`);
    assert.ok(Math.abs(result.explained! - (1 - part(false) / logitNoise(pairs))) < 1e-9);
    assert.equal(
      result.evidence,
      `25 % of the tokens have another weights version in training than in the rollout, and ${said(ratio)} times the noise of the others`,
    );
  });

  it('has no number that is none where the tokens of the same weights are certain', () => {
    const versions = { rollout: ['1', '2'], training: '2' };
    const pairs = synthetic({ responses: 20, length: 2 }).pairs.map((pair) => ({
      ...pair,
      rollout: Float64Array.of(-1, 0),
      training: Float64Array.of(-2, 0),
      weightsVersions: versions,
    }));
    const result = findings(pairs)['weight-update'];
    assert.equal(result.explained, 1);
    assert.equal(result.values.olderShare, 0.5);
  });

  it('needs enough responses on both sides, and steps of all', () => {
    const { pairs } = jump(150, 50, (r) => ({ step: Number(r >= 150) }));
    const few = findings(pairs)['weight-update'];
    assert.deepEqual([few.found, few.explained], [false, null]);
    const partly = pairs.map((pair) => (pair.index === 3 ? { ...pair, step: null } : pair));
    assert.match(findings(partly)['weight-update'].evidence, /^from response \d/);
  });

  it('takes a million responses of many steps without trouble', () => {
    const count = 300_000;
    const one = synthetic({ responses: 1, length: 1, noise: NOISE, sure: 0 }).pairs[0]!;
    const pairs = Array.from({ length: count }, (_, index) => ({ ...one, index, step: index >> 3 }));
    const start = process.cpuUsage();
    const result = findings(pairs)['weight-update'];
    const { user, system } = process.cpuUsage(start);
    assert.equal(result.found, false);
    assert.ok(user + system < 20e6, `${(user + system) / 1e6} s`);
  });
});

describe('boundaries', () => {
  it('finds responses that are equal to the bit beside others, where they stand together', () => {
    const { pairs } = synthetic({ responses: 96, length: 12, noise: NOISE, more: (r) => ({ step: r >> 5 }) });
    const some = (isEqual: (index: number) => boolean, more: (index: number) => Partial<Pair> = () => ({})) =>
      findings(
        pairs.map((pair) => ({
          ...pair,
          ...(isEqual(pair.index) && { training: pair.rollout }),
          ...more(pair.index),
        })),
      ).boundaries;
    // Eight in a row, in the order of the file.
    const inRows = some((r) => r % 32 < 8);
    assert.ok(inRows.found, inRows.evidence);
    assert.equal(inRows.values.equalShare, 0.25);
    assert.equal(inRows.values.runs, 6);
    // Of 8 and 24 in any order: 2 * 8 * 24 / 32 + 1 runs.
    assert.equal(inRows.values.expected, 3 * 13);
    assert.ok(Math.abs(inRows.explained! - 1) < 1e-12);
    assert.match(inRows.evidence, /^25 % of the responses are equal to the bit in every token.* in 6 runs/);
    // Every fourth: no chance, but no batch, either; unless it is said to be one.
    assert.equal(some((r) => r % 4 === 0).found, false);
    const named = some(
      (r) => r % 4 === 0,
      (r) => ({ batch: `b${r % 4}` }),
    );
    assert.deepEqual(named.values, inRows.values);
  });

  it('does not take whole steps for it: that is what a weight update looks like', () => {
    const { pairs } = synthetic({ responses: 96, length: 12, noise: NOISE, more: (r) => ({ step: r >> 4 }) });
    const equal = pairs.map((pair) => (pair.step! < 3 ? { ...pair, training: pair.rollout } : pair));
    assert.equal(findings(equal).boundaries.found, false);
  });

  it('does not take short responses whose tokens are equal now and then for it', () => {
    for (const [share, length] of [
      [0.3, 2],
      [0.5, 3],
      [0.8, 6],
    ] as const) {
      const random = new CounterRandom(7);
      const { pairs } = synthetic({ responses: 400, length, noise: NOISE, sure: 0.3 });
      const often = pairs.map((pair) => ({
        ...pair,
        training: pair.training.map((x, t) => (random.uniform() < share ? pair.rollout[t]! : x)),
      }));
      const { boundaries } = findings(often);
      assert.equal(boundaries.found, false, boundaries.evidence);
    }
  });

  it('finds the batch whose noise is another, and how many times', () => {
    const { pairs } = synthetic({
      responses: 120,
      length: 15,
      noise: ({ response }) => (response % 6 === 4 ? 5 * NOISE : NOISE),
      more: (r) => ({ step: Math.floor(r / 60), batch: `b${r % 6}` }),
    });
    const { boundaries } = findings(pairs);
    assert.ok(boundaries.found, boundaries.evidence);
    assert.ok(Math.abs(Math.log(boundaries.values.ratio! / 5)) < Math.log(1.25), boundaries.evidence);
    assert.match(boundaries.evidence, /^of 6 batches the one that differs most has [\d.]+ times/);
    const same = pairs.map((pair) => ({ ...pair, batch: null }));
    assert.deepEqual([findings(same).boundaries.found, findings(same).boundaries.explained], [false, null]);
  });
});

describe('outliers', () => {
  const { pairs } = synthetic({ responses: 100, length: 20, noise: NOISE });
  /** Every 97th token is `by` nats off. */
  const odd = (by: number) =>
    withSeries(pairs, 'training', (own, { index }) =>
      own.map((x, t) => ((20 * index + t) % 97 === 5 ? x - by : x)),
    );

  it('counts a few tokens that hold most of the mismatch', () => {
    const { outliers } = findings(odd(6));
    assert.ok(outliers.found, outliers.evidence);
    assert.equal(outliers.values.outliers, 21);
    assert.equal(outliers.values.share, 21 / 2000);
    const all = odd(6).flatMap(({ rollout, training }) =>
      [...rollout].map((x, t) => Math.abs(x - training[t]!)),
    );
    const total = all.reduce((a, b) => a + b, 0);
    const held = all.filter((x) => x > 5).reduce((a, b) => a + b, 0);
    assert.ok(Math.abs(outliers.explained! - held / total) < 1e-12);
    assert.ok(outliers.evidence.startsWith('21 of 2000 tokens (1.05 %) are further apart than '));
  });

  it('does not find many, or a little', () => {
    const many = withSeries(pairs, 'training', (own) => own.map((x, t) => (t % 10 === 3 ? x - 6 : x)));
    assert.equal(findings(many).outliers.found, false);
    assert.equal(findings(odd(0.02)).outliers.found, false);
  });

  it('asks for a quarter of the mismatch', () => {
    const calm = pairs.flatMap(({ rollout, training }) => [
      ...rollout.map((x, t) => Math.abs(x - training[t]!)),
    ]);
    const rest = calm.reduce((a, b) => a + b, 0);
    for (const share of [0.22, 0.28]) {
      // Three tokens hold just less of it, or just more.
      const by = (share * rest) / (1 - share) / 3;
      const few = withSeries(pairs, 'training', (own, { index }) =>
        own.map((x, t) => (t === 3 && index < 3 ? x - by : x)),
      );
      const { outliers } = findings(few);
      assert.equal(outliers.values.outliers, 3);
      assert.ok(Math.abs(outliers.explained! - share) < 0.02, outliers.evidence);
      assert.equal(outliers.found, share > 0.25, outliers.evidence);
    }
  });

  it('does not take the rounding of a few tokens, where all others are equal to the bit, for it', () => {
    const few = withSeries(pairs, 'training', (own, { rollout, index }) =>
      own.map((x, t) => ((20 * index + t) % 40 === 7 ? x : rollout[t]!)),
    );
    const { outliers } = findings(few);
    assert.equal(outliers.found, false, outliers.evidence);
  });
});

describe('position', () => {
  it('finds noise that grows along the response, and how many times', () => {
    const grows = (position: number) => NOISE * (1 + position / 4);
    const { sample } = synthetic({
      responses: 120,
      length: 30,
      sure: 0.3,
      noise: ({ position }) => grows(position),
    });
    const { position } = findings(sample);
    assert.ok(position.found, position.evidence);
    // Means over the first and the last third of positions.
    const mean = (from: number, to: number) => (grows(from) + grows(to)) / 2;
    const expected = mean(20, 29) / mean(0, 10);
    assert.ok(Math.abs(position.values.ratio! / expected - 1) < 0.2, `${position.values.ratio}, ${expected}`);
    assert.ok(Math.abs(position.values.early! - 10) <= 1 && Math.abs(position.values.late! - 20) <= 1);
    assert.ok(position.evidence.includes(`${said(position.values.ratio!)} times (`));
  });

  it('finds none in noise that is everywhere alike, nor in what shrinks', () => {
    for (const noise of [() => NOISE, ({ position }: Spot) => NOISE / (1 + position)]) {
      const { sample } = synthetic({ responses: 120, length: 30, noise });
      assert.equal(findings(sample).position.found, false);
    }
  });

  it('does not find noise that grows by half, however certain that is', () => {
    const { sample } = synthetic({
      responses: 400,
      length: 30,
      sure: 0.3,
      noise: ({ position }) => NOISE * (1 + position / 30),
    });
    const { position } = findings(sample);
    assert.ok(position.values.errors! > 8, position.evidence);
    assert.equal(position.found, false);
  });
});

describe('floor and uncertainty', () => {
  it('measure the noise of the logits, however sure the policy is', () => {
    // |d| of an error e of each logit has the standard deviation e times something between 1 - p and sqrt(2) (1 - p).
    const least = Math.sqrt(2 / Math.PI);
    for (const sure of [0, 0.5, 0.9]) {
      for (const noise of [1e-6, 1e-3, 0.05]) {
        const { pairs } = synthetic({ responses: 150, sure, noise });
        const { floor, uncertainty } = findings(pairs);
        assert.ok(Math.abs(floor.values.logitNoise! / logitNoise(pairs) - 1) < 1e-6);
        const ratio = floor.values.logitNoise! / noise;
        assert.ok(ratio > 0.9 * least && ratio < 1.1 * Math.SQRT2 * least, `${sure}, ${noise}: ${ratio}`);
        assert.equal(floor.values.units! * 2 ** -8, floor.values.logitNoise);
        assert.equal(floor.found, floor.values.units! <= floor.values.high!);
        assert.ok(
          floor.evidence.includes(`a noise of the logits of ${said(floor.values.logitNoise!)} nats`) ||
            floor.values.logitNoise! < 1e-3,
        );
        assert.ok(Math.abs(floor.values.biasErrors!) < 5);
        assert.equal(uncertainty.found, false, uncertainty.evidence);
      }
    }
  });

  it('tell how many unsure tokens are equal to the bit', () => {
    const { pairs } = synthetic({ responses: 50, noise: NOISE, sure: 0 });
    const half = withSeries(pairs, 'training', (own, { rollout }) =>
      own.map((x, t) => (t % 2 ? x : rollout[t]!)),
    );
    const unsure = half.flatMap(({ rollout, training }) =>
      [...rollout].flatMap((mu, t) =>
        1 - (Math.exp(mu) + Math.exp(training[t]!)) / 2 >= 0.01 ? [mu === training[t]!] : [],
      ),
    );
    const share = unsure.filter((equal) => equal).length / unsure.length;
    assert.equal(findings(half).floor.values.equalShare, share);
    const same = withSeries(pairs, 'training', (_, { rollout }) => rollout);
    assert.equal(findings(same).floor.evidence, 'no difference at all: equal to the bit');
    assert.equal(findings(same).floor.values.equalShare, 1);
  });

  it('find a mismatch of unlikely tokens that is more than rounding makes of it', () => {
    const { pairs } = synthetic({ responses: 300, noise: NOISE, sure: 0 });
    const tail = withSeries(pairs, 'training', (own, { index }) =>
      own.map((x, t) => (x < -2.4 ? x + ((index + t) % 2 ? 2 : -2) : x)),
    );
    const { uncertainty } = findings(tail);
    assert.ok(uncertainty.found, uncertainty.evidence);
    assert.ok(
      uncertainty.evidence.includes(`${said(uncertainty.values.ratio!)} times the noise of likely ones`),
    );
  });
});
