import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { levels } from '../../lib/instruments/faults/fault.js';
import { faultNames, faultOf, faults } from '../../lib/instruments/faults/index.js';
import { logDistributions, mostLikely } from '../../lib/instruments/faults/logged.js';
import { numerics } from '../../lib/numerics.js';
import { RolloutEngine } from '../../lib/rollout/engine.js';
import { memory } from '../../lib/runtime.js';
import type { Base } from '../../lib/sanity/base.js';
import { TrainingEngine } from '../../lib/training/engine.js';
import { assertSameBits, normals } from '../support/compare.js';
import { roundTo } from '../support/rounding.js';
import { dumpOf, eachStep, eachToken, logprobsOf, mixtureConfig, TOP, tinyBase } from './faultRuns.js';

const schedule = { kind: 'constant', learningRate: 0 } as const;
const matched = { numerics: 'matched', precision: 'bf16' } as const;

/** The masters of a model now. */
async function mastersOf({ model }: Base): Promise<Float32Array[]> {
  return Promise.all(model.parameters.map(({ master }) => master.floats()));
}

describe('faults', () => {
  let base: Base;
  let mixture: Base;
  before(async () => {
    base = await tinyBase();
    mixture = await tinyBase(mixtureConfig);
  });
  after(() => {
    base.model.dispose();
    mixture.model.dispose();
  });

  it('have names, strengths that they allow, and no others', () => {
    assert.equal(new Set(faultNames).size, faults.length);
    for (const { name, strengths, allows } of faults) {
      for (const level of levels) assert.ok(allows(strengths[level]), `${name} ${level}`);
      for (const bad of [Number.NaN, Infinity, 1e6])
        assert.ok(!allows(bad) || name === 'stale-weights', name);
    }
    assert.throws(() => faultOf('test', 'of-by-one'), /did you mean off-by-one\?/);
  });

  it('leave a matched run equal to the bit, whole distributions too, and weights that learn', async () => {
    for (const precision of ['fp16', 'bf16', 'fp32'] as const) {
      let last: Float32Array[] | undefined;
      let tokens = 0;
      await eachStep(base, { numerics: 'matched', precision }, async (step) => {
        const clean = await dumpOf(step, 'none', 0);
        eachToken(clean, ({ token, mu, pi, muTop, piTop }) => {
          tokens++;
          assert.ok(Object.is(mu, pi));
          assert.ok(Object.is(muTop.get(token), mu), 'the same bits among the most likely');
          assert.deepEqual(muTop, piTop);
          assert.equal(muTop.size, base.model.config.vocabSize);
          const mass = [...muTop.values()].reduce((sum, logprob) => sum + Math.exp(logprob), 0);
          assert.ok(Math.abs(mass - 1) < 1e-5);
        });
        // The fused product that trains, too.
        using training = new TrainingEngine(base.model, {
          precision,
          numerics: numerics('matched'),
          schedule,
        });
        const { logprobs } = await training.score(step.sequences);
        assertSameBits(logprobsOf(clean.training), logprobs, 'fused log-probs');
        const masters = await mastersOf(base);
        if (last) assert.notDeepEqual(masters, last, 'the policy has learned');
        last = masters;
      });
      assert.ok(tokens > 100);
    }
  });

  it('leave the tokens as they were sampled, and the most likely ones in falling order', async () => {
    await eachStep(base, { precision: 'bf16' }, async (step) => {
      for (const record of [...step.rollout, ...step.training]) {
        const { tokens, text, mask, logprobs, topLogprobs } = record;
        assert.deepEqual([text.length, mask.length, logprobs.length], Array(3).fill(tokens.length));
        assert.equal(text.join(' '), tokens.map((token) => base.format([token])).join(' '));
        topLogprobs!.forEach((top, i) => {
          assert.ok(Object.is(new Map(top).get(tokens[i]!), logprobs[i]));
          for (let j = 1; j < top!.length; j++) assert.ok(top![j]![1] <= top![j - 1]![1]);
        });
      }
      const differ = logprobsOf(step.rollout).filter((mu, i) => mu !== logprobsOf(step.training)[i]);
      assert.ok(differ.length > 0, 'engines by habits of their own');
    });
  });

  it('temperature: log mu is of softmax(logits / T), log pi of softmax(logits)', async () => {
    await eachStep(base, { ...matched, steps: 1 }, async (step) => {
      for (const temperature of [0.5, 0.9, 1.7]) {
        const dump = await dumpOf(step, 'temperature', temperature);
        eachToken(dump, ({ token, mu, pi, muTop, piTop }) => {
          const sum = [...piTop.values()].reduce((total, x) => total + Math.exp(x / temperature), 0);
          for (const [other, logprob] of muTop) {
            const expected = piTop.get(other)! / temperature - Math.log(sum);
            assert.ok(Math.abs(logprob - expected) < 2e-6 * (1 + Math.abs(expected)));
          }
          assert.ok(Object.is(muTop.get(token), mu) && Object.is(piTop.get(token), pi));
        });
        assert.ok(dump.rollout.every((record) => record.temperature === temperature));
        assert.ok(
          dump.training.every((record) => record.temperature === temperature),
          'as the run claims',
        );
      }
    });
  });

  it('divided-by-temperature: log mu is log pi / T, renormalised by nothing', async () => {
    await eachStep(base, { ...matched, steps: 1 }, async (step) => {
      const sampled = await dumpOf(step, 'temperature', 0.7);
      const dump = await dumpOf(step, 'divided-by-temperature', 0.7);
      assert.deepEqual(
        dump.rollout.map(({ tokens }) => tokens),
        sampled.rollout.map(({ tokens }) => tokens),
        'drawn at that temperature',
      );
      eachToken(dump, ({ mu, pi, muTop, piTop }) => {
        assert.equal(mu, pi / 0.7);
        for (const [token, logprob] of muTop) assert.equal(logprob, piTop.get(token)! / 0.7);
      });
    });
  });

  it('top-p-mass: log mu is over the smallest set with the mass, renormalised', async () => {
    await eachStep(base, { ...matched, steps: 1 }, async (step) => {
      let filtered = 0;
      for (const topP of [0.7, 0.9]) {
        eachToken(await dumpOf(step, 'top-p-mass', topP), ({ token, mu, muTop, piTop }) => {
          const falling = [...piTop].sort(([a, p], [b, q]) => q - p || a - b);
          let mass = 0;
          const kept: number[] = [];
          for (const [id, logprob] of falling) {
            if (mass >= topP) break;
            kept.push(id);
            mass += Math.exp(logprob);
          }
          if (kept.length < falling.length) filtered++;
          assert.deepEqual([...muTop.keys()], kept);
          assert.ok(Object.is(muTop.get(token), mu));
          for (const id of kept) {
            assert.ok(Math.abs(muTop.get(id)! - (piTop.get(id)! - Math.log(mass))) < 2e-6 * (1 - mu));
          }
        });
      }
      assert.ok(filtered > 20);
    });
  });

  it('stale-weights: the old weights from the middle step on, under the name of the new ones', async () => {
    const old: Float32Array[][] = [];
    await eachStep(
      base,
      { ...matched, steps: 3 },
      async (step) => {
        old.push(await mastersOf(base));
        const { rollout, training, touched } = await dumpOf(step, 'stale-weights', 8);
        assert.deepEqual(
          [...new Set(rollout.map(({ weightsVersion }) => weightsVersion))],
          [String(8 * step.step)],
        );
        if (step.step === 0) {
          assert.equal(touched, 0);
          assert.deepEqual({ rollout, training }, { rollout: step.rollout, training: step.training });
          return;
        }
        const now = await mastersOf(base);
        assert.deepEqual(now, old[step.step], 'the model has its own weights again');
        base.model.parameters.forEach(({ master }, i) => {
          master.upload(old[step.step - 1]![i]!);
        });
        using stale = new RolloutEngine(base.model, { precision: 'bf16', numerics: numerics('matched') });
        const sequences = rollout.map(({ promptTokens, tokens }) => ({
          prompt: promptTokens,
          response: tokens,
        }));
        assertSameBits(logprobsOf(rollout), (await stale.score(sequences)).logprobs, 'a step ago');
        base.model.parameters.forEach(({ master }, i) => {
          master.upload(now[i]!);
        });
        assert.notDeepEqual(logprobsOf(rollout), logprobsOf(training));
        assert.equal(touched, logprobsOf(rollout).length);
      },
      [0, 8],
    );
    const { check } = faultOf('test', 'stale-weights');
    const config = { precision: 'bf16', numerics: 'default', samples: 8, top: 0, seed: 1 } as const;
    check!({ model: null, config: { ...config, steps: 4 } }, 16);
    assert.throws(() => check!({ model: null, config: { ...config, steps: 3 } }, 16), /steps of at least 4/);
  });

  it('bf16-head: of rounded weights, and logits on the lattice of bf16', async () => {
    for (const precision of ['fp16', 'fp32'] as const)
      await eachStep(base, { numerics: 'matched', precision, steps: 1 }, async (step) => {
        const weightsAlone = await dumpOf(step, 'bf16-head', 1);
        const sequences = weightsAlone.rollout.map(({ promptTokens, tokens }) => ({
          prompt: promptTokens,
          response: tokens,
        }));
        const { master } = base.model.head;
        const own = await master.floats();
        master.upload(own.map((weight) => roundTo(weight, 'bf16')));
        using engine = new RolloutEngine(base.model, { precision, numerics: numerics('matched') });
        assertSameBits(
          logprobsOf(weightsAlone.rollout),
          (await engine.score(sequences)).logprobs,
          'rounded head',
        );
        master.upload(own);

        assert.ok(latticeShare((await dumpOf(step, 'bf16-head', 2)).rollout, 11) > 0.9);
        assert.ok(latticeShare(step.rollout, 11) < 0.1);
        const { rollout } = await dumpOf(step, 'bf16-head', 3);
        for (const { logprobs, topLogprobs } of rollout) {
          const all = [...logprobs, ...topLogprobs!.flatMap((top) => top!.map(([, logprob]) => logprob))];
          for (const logprob of all) assert.equal(roundTo(logprob!, 'bf16'), logprob);
        }
      });
  });

  it('logits-16: the training logits on the lattice of the format, the rollout as it was', async () => {
    await eachStep(base, { numerics: 'matched', precision: 'fp32', steps: 1 }, async (step) => {
      for (const [strength, bits, share] of [
        [1, 14, 0.15],
        [2, 11, 0.1],
      ] as const) {
        const dump = await dumpOf(step, 'logits-16', strength);
        assert.equal(dump.rollout, step.rollout);
        assert.ok(latticeShare(dump.training, bits) > 0.9, `2^-${bits}`);
        assert.ok(latticeShare(step.training, bits) < share, `2^-${bits} by chance`);
        const clean = logprobsOf(step.training);
        // A logit below 16 is off by half a unit in the last place, at most.
        const most = 2 * 16 * 2 ** (strength === 1 ? -11 : -8);
        logprobsOf(dump.training).forEach((pi, i) => {
          assert.ok(Math.abs(pi - clean[i]!) <= most);
        });
      }
      for (const logprob of logprobsOf((await dumpOf(step, 'logits-16', 3)).training)) {
        assert.equal(roundTo(logprob, 'bf16'), logprob);
      }
    });
  });

  it('split-k and batch-variance: another order of sums, everywhere or in small batches alone', async () => {
    await eachStep(base, { ...matched, precision: 'fp32' }, async (step) => {
      for (const [parts, gemmSplitK] of [
        [2, 16],
        [3, 11],
      ] as const) {
        const { rollout } = await dumpOf(step, 'split-k', parts);
        const sequences = rollout.map(({ promptTokens, tokens }) => ({
          prompt: promptTokens,
          response: tokens,
        }));
        const choices = { precision: 'fp32', numerics: numerics('matched', { gemmSplitK }) } as const;
        using engine = new RolloutEngine(base.model, choices);
        assertSameBits(logprobsOf(rollout), (await engine.score(sequences)).logprobs, `${parts} parts`);
        assert.notDeepEqual(logprobsOf(rollout), logprobsOf(step.rollout));
      }
      for (const strength of [1, 2, 3]) {
        const dump = await dumpOf(step, 'batch-variance', strength);
        const sizes = new Map<string, number>();
        const differing = new Map<string, boolean>();
        dump.rollout.forEach(({ batch, logprobs }, r) => {
          sizes.set(batch, (sizes.get(batch) ?? 0) + 1);
          const differs = logprobs.some((logprob, i) => logprob !== dump.training[r]!.logprobs[i]);
          differing.set(batch, differs || differing.get(batch) === true);
        });
        assert.deepEqual([...sizes.values()], [8, 24, 8]);
        assert.deepEqual([...differing.values()], [true, false, true], `strength ${strength}`);
      }
    });
    for (const name of ['split-k', 'batch-variance']) {
      const config = {
        precision: 'bf16',
        numerics: 'default',
        samples: 8,
        steps: 2,
        top: 0,
        seed: 1,
      } as const;
      assert.throws(() => faultOf('test', name).check!({ model: null, config }, 2), /matched.*default/);
    }
  });

  it('corrupted-layer: one layer, the same in all steps, in proportion, and the model is whole again', async () => {
    const size = (dump: Awaited<ReturnType<typeof dumpOf>>) => {
      let sum = 0;
      eachToken(dump, ({ mu, pi }) => {
        sum += Math.abs(mu - pi);
      });
      return sum / logprobsOf(dump.rollout).length;
    };
    await eachStep(base, { ...matched, precision: 'fp32' }, async (step) => {
      const own = await mastersOf(base);
      const weak = size(await dumpOf(step, 'corrupted-layer', 0.001));
      const strong = size(await dumpOf(step, 'corrupted-layer', 0.01));
      assert.deepEqual(await mastersOf(base), own);
      assert.ok(strong / weak > 5 && strong / weak < 20, `ten times the noise: ${strong / weak}`);
      assert.equal(size(await dumpOf(step, 'corrupted-layer', 1e-12)), 0, 'noise that rounds away');
    });
  });

  it('off-by-one and prompt-counted: what belongs to neighbours, the end of the prompt among them', async () => {
    await eachStep(base, { precision: 'bf16', steps: 1 }, async (step) => {
      using engine = new TrainingEngine(base.model, { precision: 'bf16', schedule });
      const { offsets, logprobs } = await engine.score(
        step.training.map(({ promptTokens, tokens }) => ({
          prompt: promptTokens.slice(0, 1),
          response: [...promptTokens.slice(1), ...tokens],
        })),
      );
      /** Log-prob of the token at a place of prompt and response together. */
      const whole = (r: number, place: number) =>
        place === 0 ? null : (Array.from(logprobs.subarray(offsets[r], offsets[r + 1]))[place - 1] ?? null);
      for (const shift of [-2, -1, 1, 2, 3]) {
        const { training } = await dumpOf(step, 'off-by-one', shift);
        training.forEach((record, r) => {
          assert.deepEqual(record.tokens, step.training[r]!.tokens);
          record.logprobs.forEach((logprob, i) => {
            const place = record.promptTokens.length + i - shift;
            assert.equal(logprob, place < 0 ? null : whole(r, place), `shift ${shift}, token ${i}`);
          });
        });
      }
      for (const [share, count] of [
        [0.1, 1],
        [0.5, 2],
        [1, 3],
      ] as const) {
        const { training, touched } = await dumpOf(step, 'prompt-counted', share);
        assert.equal(touched, count * training.length);
        training.forEach((record, r) => {
          const { promptTokens, tokens } = step.training[r]!;
          assert.equal(promptTokens.length, 3);
          assert.deepEqual(record.tokens, [...promptTokens.slice(3 - count), ...tokens]);
          assert.deepEqual(
            [record.mask.length, record.text.length, record.topLogprobs!.length],
            Array(3).fill(record.tokens.length),
          );
          assert.deepEqual(
            record.logprobs,
            record.tokens.map((_, i) => whole(r, 3 - count + i)),
          );
        });
      }
    });
  });

  it('zero-fill, mask-shifted and retokenised: what they say, of the share that they say', async () => {
    await eachStep(base, { precision: 'bf16', steps: 1, samples: 1000 }, async (step) => {
      const tokens = logprobsOf(step.rollout).length;
      for (const share of [0.05, 0.2]) {
        const { rollout, training, touched } = await dumpOf(step, 'zero-fill', share);
        assert.equal(training, step.training);
        const zeros = rollout.flatMap(({ logprobs }) => logprobs.filter((logprob) => Object.is(logprob, 0)));
        assert.equal(zeros.length, touched);
        assert.ok(Math.abs(touched / tokens / share - 1) < 0.25, `${touched} of ${tokens}`);
        rollout.forEach(({ logprobs, topLogprobs }, r) => {
          logprobs.forEach((logprob, i) => {
            assert.equal(topLogprobs![i] === null, logprob === 0);
            if (logprob !== 0) assert.equal(logprob, step.rollout[r]!.logprobs[i]);
          });
        });
      }
      for (const [shift, first, last] of [
        [1, 0, 1],
        [-1, 1, 0],
        [2, 0, 1],
      ] as const) {
        const { training, touched } = await dumpOf(step, 'mask-shifted', shift);
        const zeros = training.flatMap(({ mask }) => mask.filter((m) => m === 0)).length;
        assert.equal(zeros, touched);
        assert.equal(
          touched,
          training.reduce((sum, { mask }) => sum + Math.min(mask.length, Math.abs(shift)), 0),
        );
        for (const { mask } of training.filter(({ mask }) => mask.length > 2)) {
          assert.deepEqual([mask[0], mask.at(-1)], [first, last]);
        }
      }
      const { training, touched } = await dumpOf(step, 'retokenised', 0.2);
      let merged = 0;
      const known = new Map<number, string>();
      training.forEach((record, r) => {
        const own = step.training[r]!;
        assert.equal(record.text.join(''), own.text.join(''));
        let at = 0;
        record.tokens.forEach((token, i) => {
          const count = token < base.model.config.vocabSize ? 1 : 2;
          const parts = own.logprobs.slice(at, at + count) as number[];
          assert.equal(
            record.logprobs[i],
            parts.reduce((sum, logprob) => sum + logprob, 0),
          );
          if (count === 2) {
            merged++;
            const pair = own.tokens.slice(at, at + 2).join(' ');
            assert.equal(known.get(token) ?? pair, pair, 'an id is a pair');
            known.set(token, pair);
            assert.equal(record.topLogprobs![i], null);
          } else assert.equal(token, own.tokens[at]);
          at += count;
        });
        assert.equal(at, own.tokens.length);
      });
      assert.equal(touched, 2 * merged);
      assert.ok(merged > 100 && known.size > 4);
    });
  });

  it('routing-flip: tokens at other experts in the training engine, and all else as it was', async () => {
    await eachStep(mixture, { ...matched, steps: 1, samples: 400 }, async (step) => {
      const { rollout, training, touched } = await dumpOf(step, 'routing-flip', 0.02);
      assert.equal(rollout, step.rollout);
      const tokens = logprobsOf(rollout).length;
      assert.ok(touched > 0.01 * tokens && touched < 0.03 * tokens, `${touched} of ${tokens}`);
      const changed = training.filter(({ logprobs }, r) =>
        logprobs.some((logprob, i) => logprob !== step.training[r]!.logprobs[i]),
      ).length;
      assert.ok(changed > 0 && changed <= touched, `${changed} responses, ${touched} tokens`);

      // Every token at another expert, in one of its mixtures: none has the log-prob that it had.
      const all = await dumpOf(step, 'routing-flip', 1);
      assert.equal(all.touched, tokens);
      const same = logprobsOf(all.training).filter((pi, i) => pi === logprobsOf(step.training)[i]);
      assert.ok(same.length < 0.1 * tokens, `${same.length} of ${tokens}`);

      // The routes that a replay is given are the ones that are used.
      const { routes } = await step.ownRoutes();
      using engine = new TrainingEngine(mixture.model, {
        precision: 'bf16',
        numerics: numerics('matched'),
        schedule,
      });
      const turned = routes.map((own) => own.map((expert) => (expert + 1) % 5));
      const replayed = await engine.score(step.sequences, { replay: turned });
      const whole = (await step.score(step.sequences, turned)).flatMap(({ logprobs }) => [...logprobs]);
      assertSameBits(whole, replayed.logprobs, 'fused and whole');
    });
    const { check } = faultOf('test', 'routing-flip');
    const config = { precision: 'bf16', numerics: 'default', samples: 8, steps: 2, top: 0, seed: 1 } as const;
    assert.throws(() => check!({ model: base.model.config, config }, 0.02), /mixture of experts.*dense/);
  });

  it('take rewards of chance where nothing judges', async () => {
    let last: Float32Array[] | undefined;
    const { format, ...rest } = base;
    const subject = {
      ...rest,
      format,
      judged: false,
      environment: { ...base.environment, rewards: () => assert.fail('asked for rewards') },
    };
    await eachStep(subject, { precision: 'bf16', samples: 8 }, async () => {
      const masters = await mastersOf(base);
      if (last) assert.notDeepEqual(masters, last);
      last = masters;
    });
  });

  it('read long responses in pieces, to the same bits', async () => {
    await eachStep(base, { precision: 'bf16', steps: 1 }, async (step) => {
      using engine = new RolloutEngine(base.model, { precision: 'bf16' });
      const { vocabSize } = base.model.config;
      const log = (numbers: number) => {
        const calls: number[] = [];
        return {
          calls,
          logged: logDistributions(step.sequences, { vocabSize, top: TOP, numbers }, (pieces) => {
            calls.push(pieces.reduce((sum, { sequence }) => sum + sequence.response.length, 0));
            return engine.distributions(pieces.map(({ sequence }) => sequence));
          }),
        };
      };
      const whole = log(1e6);
      const pieces = log(2 * vocabSize);
      assert.deepEqual(await pieces.logged, await whole.logged);
      assert.equal(whole.calls.length, 1);
      assert.ok(pieces.calls.length > step.sequences.length && Math.max(...pieces.calls) === 2);
    });
    const row = normals(50, 4);
    row[7] = row[3]!;
    row[11] = -Infinity;
    const expected = Array.from(row, (x, i) => [i, x] as const)
      .filter(([, x]) => x > -Infinity)
      .sort(([i, x], [j, y]) => y - x || i - j);
    for (const count of [1, 5, 49, 60]) assert.deepEqual(mostLikely(row, count), expected.slice(0, count));
  });

  it('leave no tensor behind', async () => {
    const { tensors } = memory();
    for (const [own, options] of [
      [base, { numerics: 'matched', precision: 'fp16' }],
      [mixture, matched],
    ] as const) {
      await eachStep(
        own,
        { ...options, samples: 16 },
        async (step) => {
          for (const { strengths, check, apply } of faults) {
            try {
              check?.({ model: own.model.config, config: step.config }, strengths.weak);
            } catch {
              continue;
            }
            await apply(step, strengths.weak);
          }
        },
        [7],
      );
    }
    assert.equal(memory().tensors, tensors);
  });
});

/**
 * Share of the differences between neighbours among the most likely tokens that are multiples of 2^-bits, to within the
 * error of fp32: log-probs of one position differ as their logits do.
 */
function latticeShare(
  records: readonly { topLogprobs?: readonly (readonly (readonly [number, number])[] | null)[] }[],
  bits: number,
): number {
  let on = 0;
  let count = 0;
  for (const { topLogprobs } of records) {
    for (const top of topLogprobs!) {
      for (let j = 1; j < top!.length; j++) {
        const steps = (top![j - 1]![1] - top![j]![1]) * 2 ** bits;
        count++;
        if (Math.abs(steps - Math.round(steps)) < 2 ** (bits - 20)) on++;
      }
    }
  }
  return on / count;
}
