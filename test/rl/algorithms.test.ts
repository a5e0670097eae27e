import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { InvalidArgumentError } from '../../lib/errors.js';
import { groupAdvantages } from '../../lib/rl/advantages.js';
import { composeAlgorithm, createAlgorithm, presetConfig } from '../../lib/rl/algorithms.js';
import type { PolicyBatch } from '../../lib/rl/batch.js';
import { batchTotals } from '../../lib/rl/batch.js';
import type { AlgorithmConfig } from '../../lib/rl/config.js';
import { losses } from '../../lib/rl/losses/index.js';
import { type PresetName, presetNames, presets } from '../../lib/rl/presets.js';
import { difference, near, onPolicyArbitrary, sequencesArbitrary, toBatch, token } from './batches.js';

const rewards = Float64Array.of(1, 0, 0, 1, 1, 1);
const configOf = (name: PresetName): AlgorithmConfig => presets[name].config;

function refused(config: object, ...messages: RegExp[]): void {
  assert.throws(
    () => composeAlgorithm('mine', config as AlgorithmConfig),
    (error: unknown) => {
      assert.ok(error instanceof InvalidArgumentError);
      for (const message of messages) assert.match(error.message, message);
      return true;
    },
  );
}

describe('createAlgorithm', () => {
  it('makes every preset under its name', () => {
    assert.ok(presetNames.length >= 50);
    for (const name of presetNames) {
      const algorithm = createAlgorithm(name);
      const { loss, mode } = configOf(name);
      assert.equal(algorithm.name, name);
      assert.equal(algorithm.needsOldLogprobs, loss !== 'reinforce' && mode !== 'bypass', name);
      // A configuration goes through JSON into a run's folder and back.
      assert.deepEqual(JSON.parse(JSON.stringify(configOf(name))), configOf(name));
    }
  });

  it('refuses an unknown name with the nearest', () => {
    assert.throws(
      () => createAlgorithm('dr-gpro' as PresetName),
      /one of .*pg-seq-is.*, got "dr-gpro" \(did you mean dr-grpo\?\)/,
    );
  });

  it('refuses a misspelt or foreign parameter, and a bad value', () => {
    assert.throws(
      () => createAlgorithm('grpo', { clipHihg: 0.28 } as object),
      /\[grpo\] .*clipHigh.*got "clipHihg" \(did you mean clipHigh\?\)/,
    );
    assert.throws(() => createAlgorithm('pg-seq-is', { clipLow: 0.2 }), /\[pg-seq-is\]/);
    assert.throws(() => createAlgorithm('dr-grpo', { clipLow: 2 }), /\[dr-grpo\] expected clipLow/);
    assert.throws(() => createAlgorithm('pg-seq-is', { constantLength: 0.5 }), /constantLength/);
  });

  it('gives each its advantages', () => {
    const plain = groupAdvantages(rewards, 3);
    assert.deepEqual(createAlgorithm('pg-seq-is').advantages(rewards, 3), plain);
    assert.deepEqual(createAlgorithm('dr-grpo').advantages(rewards, 3), plain);
    const std = createAlgorithm('grpo', { epsilon: 1e-6 }).advantages(rewards, 3);
    // One of three is right: mean 1/3, std sqrt(1/3) with Bessel's correction.
    assert.ok(near(std[0]!, 2 / 3 / (Math.sqrt(1 / 3) + 1e-6)));
    assert.deepEqual([...std.subarray(3)], [0, 0, 0]);
    const others = createAlgorithm('paper:grpo').advantages(rewards, 3);
    assert.ok(near(others[0]!, 1) && near(others[1]!, -0.5));
  });
});

describe('the settings of the sources', () => {
  it('of the paper’s text', () => {
    const { clipLow, clipHigh, baseline, importance } = configOf('paper:grpo-seq-mis');
    assert.deepEqual([clipLow, clipHigh, baseline], [0.2, 0.28, 'leave-one-out']);
    assert.deepEqual(importance, { level: 'sequence', rule: 'mask', high: 3 });
  });

  it('of the authors’ scripts, where seq_mis truncates', () => {
    assert.deepEqual(configOf('oat:seq-mis').importance, { level: 'sequence', rule: 'truncate', high: 3 });
    assert.deepEqual(configOf('oat:grpo-seq-mis').importance, { level: 'sequence', rule: 'mask', high: 10 });
    assert.deepEqual(configOf('oat:grpo-token-tis').importance, {
      level: 'token',
      rule: 'truncate',
      high: 2,
    });
    const { clipLow, clipHigh, normalizeStd, aggregation } = configOf('oat:gspo');
    assert.deepEqual(
      [clipLow, clipHigh, normalizeStd, aggregation],
      [3e-4, 4e-4, true, 'seq-mean-token-mean'],
    );
  });

  it('of verl, whose geometric bounds are of 1 / r', () => {
    const { rejections, epsilon, dualClip, logClamp } = configOf('verl:decoupled_geo_rs');
    assert.deepEqual(rejections, [
      { level: 'sequence-mean', measure: 'ratio', low: 1 / 1.001, high: 1 / 0.999 },
    ]);
    assert.deepEqual([epsilon, dualClip, logClamp], [1e-6, 3, 20]);
    assert.equal(configOf('verl:bypass_ppo_clip').mode, 'bypass');
  });
});

describe('corrected algorithms', () => {
  /** mu, pi_old, pi and hand-made ratios: pi_old / mu = 4 and 1, pi / pi_old = 1.1. */
  const batch = toBatch([
    {
      tokens: [
        token(-3, -3 + Math.log(2), -3 + Math.log(2.2)),
        token(-2, -2 + Math.log(2), -2 + Math.log(2.2)),
      ],
      advantage: 1,
    },
    { tokens: [token(-1, -1, -1)], advantage: -1 },
  ]);
  const gradientOf = (name: PresetName, parameters: object = {}) => [
    ...createAlgorithm(name, { aggregation: 'token-sum', ...parameters }).loss(batch).gradient,
  ];
  const assertNear = (actual: number[], expected: number[]) =>
    actual.forEach((value, i) => {
      assert.ok(near(value, expected[i]!), `token ${i}: ${value}, not ${expected[i]}`);
    });

  it('multiply the clipped loss by what pi_old / mu says', () => {
    assertNear(gradientOf('dr-grpo'), [-1.1, -1.1, 1]);
    assertNear(
      gradientOf('grpo-token-tis', { importance: { level: 'token', rule: 'truncate', high: 1.5 } }),
      [-1.65, -1.65, 1],
    );
    assertNear(gradientOf('grpo-seq-tis'), [-3.3, -3.3, 1]);
    assertNear(gradientOf('grpo-seq-mis'), [-4.4, -4.4, 1]);
    assertNear(gradientOf('paper:grpo-seq-mis'), [0, 0, 1]);
  });

  it('weight the policy gradient by pi / mu', () => {
    const w = 2.2 * 2.2;
    assertNear(gradientOf('pg-seq-is'), [-w, -w, 1]);
    assertNear(gradientOf('pg-seq-tis'), [-3, -3, 1]);
    assertNear(gradientOf('pg-seq-mis'), [0, 0, 1]);
    assertNear(gradientOf('pg-token-is'), [-2.2, -2.2, 1]);
  });

  it('take mu for pi_old with bypass, without a weight', () => {
    const { oldLogprobs: _, ...without } = batch;
    const { gradient } = createAlgorithm('verl:bypass_ppo_clip', {
      aggregation: 'token-sum',
      clipHigh: 9,
    }).loss(without);
    assertNear([...gradient], [-2.2, -2.2, 1]);
  });

  it('leave rejected tokens in the denominator or take them out', () => {
    const rejections = [{ level: 'sequence-sum', measure: 'ratio', high: 2 }] as const;
    const common = { loss: 'ppo-clip', aggregation: 'token-mean', rejections } as const;
    const fixed = composeAlgorithm('x', { ...common, denominator: 'fixed' }).loss(batch);
    assertNear([...fixed.gradient], [0, 0, 1 / 3]);
    const kept = composeAlgorithm('x', { ...common, denominator: 'kept' });
    assertNear([...kept.loss(batch).gradient], [0, 0, 1]);
    const { mask, totals, metrics } = kept.prepare!(batch);
    assert.deepEqual([...mask], [0, 0, 1]);
    assert.deepEqual(totals, { sequences: 1, tokens: 1 });
    assert.ok(near(metrics.rejectedShare!, 2 / 3));
  });
});

describe('properties of all presets', () => {
  it('with mu = pi_old = pi a corrected loss is the uncorrected one, to the bit', () => {
    for (const name of presetNames) {
      const config = configOf(name);
      const { importance, rejections, vetoBelow, denominator, ...plain } = config;
      const uncorrected = composeAlgorithm('plain', plain);
      const corrected = composeAlgorithm(name, config);
      fc.assert(
        fc.property(onPolicyArbitrary, (sequences) => {
          const batch = toBatch(sequences);
          const a = corrected.loss(batch);
          const b = uncorrected.loss(batch);
          assert.equal(a.loss, b.loss, name);
          assert.deepEqual(a.gradient, b.gradient, name);
        }),
        { numRuns: 20 },
      );
    }
  });

  it('PG-Seq-IS and Dr.GRPO have the gradient of REINFORCE there', () => {
    fc.assert(
      fc.property(onPolicyArbitrary, (sequences) => {
        const batch = toBatch(sequences);
        const pg = createAlgorithm('pg-seq-is', { constantLength: 9 }).loss(batch);
        const ppo = createAlgorithm('dr-grpo', { constantLength: 9 }).loss(batch);
        assert.deepEqual(pg.gradient, ppo.gradient);
        let position = 0;
        for (const { tokens, advantage } of sequences) {
          for (const t of tokens) {
            const expected = t.counts ? -advantage / (batch.totals.sequences * 9) : 0;
            assert.ok(near(pg.gradient[position++]!, expected, 1e-15));
          }
        }
        if (batch.totals.tokens === 0) return;
        assert.deepEqual([pg.metrics.weightMax, pg.metrics.ess], [1, 1]);
        assert.deepEqual([ppo.metrics.clipFraction, ppo.metrics.approxKl], [0, 0]);
      }),
    );
  });

  it('have the gradient of their own loss, weights and rejection held fixed', () => {
    for (const name of presetNames) {
      const config = configOf(name);
      const algorithm = composeAlgorithm(name, { ...config, constantLength: 9 });
      fc.assert(
        fc.property(sequencesArbitrary, (sequences) => {
          const batch = toBatch(sequences);
          const { gradient } = algorithm.loss(batch);
          // What multiplies the loss, taken once: the same correction, of log-probs that do not move.
          const held = weightsOf(config, batch);
          const f = (logprobs: Float64Array) => surrogate(config, { ...batch, logprobs }, batch, held);
          for (let i = 0; i < gradient.length; i++) {
            const up = difference(f, batch.logprobs, i, 1e-6);
            const down = difference(f, batch.logprobs, i, 3e-6);
            // At a kink there is no derivative: two step sizes disagree.
            if (Math.abs(up - down) > 1e-6 * Math.max(1, Math.abs(up))) continue;
            assert.ok(near(gradient[i]!, up, 1e-5), `${name}, token ${i}: ${gradient[i]}, not ${up}`);
          }
        }),
        { numRuns: 15 },
      );
    }
  });

  it('micro-batches add up to the mini-batch, gradients to the bit', () => {
    for (const name of presetNames) {
      const algorithm = createAlgorithm(name);
      fc.assert(
        fc.property(sequencesArbitrary, fc.nat(6), (sequences, at) => {
          const whole = toBatch(sequences);
          const expected = algorithm.loss(whole);
          const prepared = algorithm.prepare?.(whole);
          const cut = Math.min(at, sequences.length);
          const parts = [
            [0, cut],
            [cut, sequences.length],
          ].map(([begin, end]) => {
            const part = toBatch(sequences.slice(begin, end), prepared?.totals ?? whole.totals);
            const [from, to] = [whole.offsets[begin!]!, whole.offsets[end!]!];
            return algorithm.loss(
              prepared
                ? {
                    ...part,
                    mask: prepared.mask.subarray(from, to),
                    kept: prepared.kept.subarray(from, to),
                    ...(prepared.weights && { weights: prepared.weights.subarray(from, to) }),
                    preparedMetrics: prepared.metrics,
                  }
                : part,
            );
          });
          assert.deepEqual(
            parts.flatMap(({ gradient }) => [...gradient]),
            [...expected.gradient],
            name,
          );
          assert.ok(near(parts[0]!.loss + parts[1]!.loss, expected.loss), name);
        }),
        { numRuns: 15 },
      );
    }
  });

  it('refuse a part of a mini-batch that they would have to see whole', () => {
    const whole = toBatch([
      { tokens: [token(-1, -1, -1)], advantage: 1 },
      { tokens: [token(-1, -1, -1)], advantage: -1 },
    ]);
    const part = { ...toBatch([{ tokens: [token(-1, -1, -1)], advantage: 1 }]), totals: whole.totals };
    for (const name of ['verl:decoupled_geo_rs', 'verl:bypass_pg_geo_rs'] as const) {
      assert.throws(() => createAlgorithm(name).loss(part), /expected what prepare\(\) made of the whole/);
    }
    const normalized = createAlgorithm('grpo-token-tis', {
      importance: { level: 'token', rule: 'truncate', high: 2, batchNormalize: true },
    });
    assert.equal(normalized.prepareNeedsLogprobs, false);
    assert.throws(() => normalized.loss(part), /prepare/);
    assert.equal(createAlgorithm('verl:bypass_pg_geo_rs').prepareNeedsLogprobs, true);
  });

  it('masked positions may hold anything', () => {
    const junk = fc.constantFrom(Number.NaN, Infinity, -Infinity, 1e308, 0);
    fc.assert(
      fc.property(sequencesArbitrary, junk, fc.constantFrom(...presetNames), (sequences, value, name) => {
        const poisoned = toBatch(sequences);
        const batch = toBatch(sequences);
        batch.mask.forEach((counts, t) => {
          if (counts) return;
          batch.rolloutLogprobs[t] = value;
          batch.oldLogprobs![t] = -value;
          batch.logprobs[t] = value;
        });
        const result = createAlgorithm(name).loss(batch);
        assert.deepEqual(result, createAlgorithm(name).loss(poisoned));
        assert.ok(Number.isFinite(result.loss) && result.gradient.every(Number.isFinite));
        assert.ok(Object.values(result.metrics).every(Number.isFinite), JSON.stringify(result.metrics));
      }),
      { numRuns: 300 },
    );
  });
});

describe('checkAlgorithmConfig', () => {
  it('lists everything that is wrong at once', () => {
    refused(
      {
        loss: 'ppo-clip',
        clipLow: 2,
        clipHihg: 0.3,
        aggregation: 'token-men',
        mode: 'bypass',
        importance: { level: 'token', rule: 'truncate', low: 3, high: 2 },
        rejections: [{ level: 'sequence-mean', measure: 'ratio', low: 1.2, high: 1.1 }],
        vetoBelow: 1.5,
      },
      /^\[mine\] expected /,
      /"clipHihg" \(did you mean clipHigh\?\)/,
      /aggregation to be one of .*did you mean token-mean/,
      /clipLow to be a finite number between 0 and 1, got 2/,
      /importance\.low to be below importance\.high = 2, got 3/,
      /importance null in mode bypass/,
      /rejections\[0\]\.low to be below rejections\[0\]\.high = 1\.1, got 1\.2/,
      /rejections\[0\]\.low of at most 1/,
      /vetoBelow below 1, got 1\.5/,
    );
  });

  it('names each contradiction', () => {
    const ppo = { loss: 'ppo-clip' };
    refused({}, /loss to be one of .*got undefined/);
    refused({ loss: 'ppo' }, /loss to be one of/);
    refused({ ...ppo, importance: { level: 'sequence', high: 3 } }, /rule is plain/);
    refused(
      { ...ppo, importance: { level: 'sequence', rule: 'truncate' } },
      /importance\.high where its rule/,
    );
    refused({ ...ppo, importance: { level: 'sequence', rule: 'mask' } }, /got neither/);
    refused({ ...ppo, importance: { level: 'tokens' } }, /did you mean token\?/);
    refused({ ...ppo, importance: { level: 'token', rule: 'mask', high: 0.5 } }, /high of at least 1/);
    refused(
      { ...ppo, rejections: [{ level: 'token', measure: 'k3', low: 1 }] },
      /low with measure ratio alone/,
    );
    refused({ ...ppo, rejections: [{ level: 'token', measure: 'k3' }] }, /got neither/);
    refused({ ...ppo, rejections: [{ measure: 'k3', high: 1 }] }, /rejections\[0\]\.level/);
    refused({ ...ppo, rejections: 3 }, /rejections to be an array/);
    refused({ ...ppo, denominator: 'kept' }, /denominator fixed where nothing is rejected/);
    refused({ ...ppo, logClamp: -1 }, /logClamp to be a finite number above 0 or null/);
    refused({ loss: 'reinforce', clipLow: 0.2 }, /"clipLow"/);
    refused(
      { ...ppo, rejections: [{ level: 'sequence-max', measure: 'ratio', low: 0.5 }] },
      /sequence-max without low \(vetoBelow bounds the least ratio\), got 0\.5/,
    );
  });

  it('lists every option of one loss, of the advantages and of the aggregation', () => {
    refused(
      { loss: 'ppo-clip', clipLow: 9, clipHigh: -1, dualClip: 1, epsilon: 0, normalizeStd: 1, baseline: 'x' },
      /clipLow to be .*got 9/,
      /clipHigh to be .*got -1/,
      /dualClip above 1, got 1/,
      /epsilon to be .*got 0/,
      /normalizeStd to be a boolean, got 1/,
      /baseline to be one of/,
    );
    refused(
      { loss: 'dppo-tv', deltaLow: 3, deltaHigh: -3, maxRatio: 0, aggregation: 'x', constantLength: 0 },
      /deltaLow .*got 3/,
      /deltaHigh .*got -3/,
      /maxRatio .*got 0/,
      /aggregation to be one of/,
      /constantLength to be .*got 0/,
    );
  });

  it('takes whatever JSON may hold', () => {
    const ppo = { loss: 'ppo-clip' };
    refused(null as unknown as object, /configuration to be an object, got null/);
    refused({ ...ppo, importance: 'token' }, /importance to be an object or null, got token/);
    refused({ ...ppo, rejections: [null] }, /rejections\[0\] to be an object, got null/);
    refused({ ...ppo, rejections: null }, /rejections to be an array, got null/);
  });

  it('takes the parameters of a preset', () => {
    assert.equal(presetConfig('dr-grpo', { clipHigh: 0.28 }).clipHigh, 0.28);
    assert.equal(presetConfig('dr-grpo').clipHigh, 0.2);
    // A part of the importance sampling, or none of it.
    assert.deepEqual(presetConfig('pg-seq-tis', { importance: { level: 'sequence', high: 5 } }).importance, {
      level: 'sequence',
      rule: 'truncate',
      high: 5,
    });
    assert.equal(presetConfig('pg-seq-tis', { importance: null }).importance, null);
  });
});

/** Weights and what is kept, written again without the library's corrections. */
function weightsOf(config: AlgorithmConfig, batch: PolicyBatch): number[] {
  const { importance, rejections = [], mode, logClamp } = config;
  const ofOld = losses[config.loss].needsOld && mode !== 'bypass';
  const limit = logClamp ?? Infinity;
  const clamp = (x: number) => Math.min(Math.max(x, -limit), limit);
  const held: number[] = [];
  for (let s = 0; s + 1 < batch.offsets.length; s++) {
    const logs: number[] = [];
    for (let t = batch.offsets[s]!; t < batch.offsets[s + 1]!; t++) {
      const to = (ofOld ? batch.oldLogprobs : batch.logprobs)![t]!;
      if (batch.mask[t] === 1) logs.push(to - batch.rolloutLogprobs[t]!);
    }
    const total = logs.reduce((a, b) => a + b, 0);
    const rule = (log: number) => {
      const w = Math.exp(clamp(log));
      const { high, low } = importance!;
      if (importance!.rule === 'truncate') return Math.min(w, high!);
      if (importance!.rule === 'mask') return w <= high! && w >= (low ?? 0) ? w : 0;
      return w;
    };
    const mean = logs.reduce((a, b) => a + clamp(b), 0) / logs.length;
    const sum = logs.reduce((a, b) => a + clamp(b), 0);
    const meanK3 = logs.reduce((a, b) => a + Math.exp(clamp(b)) - 1 - clamp(b), 0) / logs.length;
    const out = rejections.some(({ level, measure, low, high }) => {
      const value = measure === 'k3' ? meanK3 : Math.exp(level === 'sequence-mean' ? mean : sum);
      return value > (high ?? Infinity) || value < (low ?? -Infinity);
    });
    let next = 0;
    for (let t = batch.offsets[s]!; t < batch.offsets[s + 1]!; t++) {
      if (batch.mask[t] === 0) held.push(0);
      else {
        const log = logs[next++]!;
        held.push(out ? 0 : importance ? rule(importance.level === 'token' ? log : total) : 1);
      }
    }
  }
  return held;
}

/** The loss as a function of log pi, with what is held fixed given at `at`. */
function surrogate(
  config: AlgorithmConfig,
  batch: PolicyBatch,
  at: PolicyBatch,
  held: readonly number[],
): number {
  const kept = held.map((w) => (w === 0 ? 0 : 1));
  const mask = config.denominator === 'kept' ? Uint8Array.from(kept, (k, t) => k * at.mask[t]!) : at.mask;
  const totals = batchTotals(at.offsets, mask);
  const old = config.mode === 'bypass' ? at.rolloutLogprobs : at.oldLogprobs!;
  const { clipLow = 0.2, clipHigh = 0.2, dualClip, aggregation, constantLength = 9 } = config;
  let loss = 0;
  for (let s = 0; s + 1 < at.offsets.length; s++) {
    const range = Array.from({ length: at.offsets[s + 1]! - at.offsets[s]! }, (_, i) => at.offsets[s]! + i);
    const counted = range.filter((t) => mask[t] === 1);
    const all = range.filter((t) => at.mask[t] === 1);
    const advantage = at.advantages[s]!;
    const meanLog = all.reduce((a, t) => a + at.logprobs[t]! - old[t]!, 0) / all.length;
    const norm = {
      'seq-mean-token-sum-norm': 1 / (totals.sequences * constantLength),
      'seq-mean-token-mean': 1 / (totals.sequences * counted.length),
      'token-mean': 1 / totals.tokens,
      'token-sum': 1,
    }[aggregation!];
    for (const t of counted) {
      if (held[t] === 0) continue;
      const now = batch.logprobs[t]!;
      const was = at.logprobs[t]!;
      const r = Math.exp(now - old[t]!);
      const clip = (x: number) => Math.min(Math.max(x, 1 - clipLow), 1 + clipHigh);
      const clipped = (x: number) => Math.max(-advantage * x, -advantage * clip(x));
      const moved = Math.exp(was) - Math.exp(old[t]!);
      const fixedRatio = Math.exp(was - old[t]!);
      const value = {
        reinforce: () => -advantage * now,
        'ppo-clip': () =>
          advantage < 0 && dualClip ? Math.min(clipped(r), -advantage * dualClip) : clipped(r),
        gspo: () => clipped(Math.exp(Math.min(meanLog, 10)) * Math.exp(now - was)),
        cispo: () => -advantage * Math.min(fixedRatio, 1 + clipHigh) * now,
        'dppo-tv': () =>
          (advantage > 0 ? moved > 0.2 : moved < -0.2) ? 0 : -advantage * Math.min(fixedRatio, 20) * now,
      }[config.loss]();
      loss += held[t]! * norm * value;
    }
  }
  return loss;
}
