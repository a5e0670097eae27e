/** What signatures must not find, what they must not look at, and that nothing breaks them. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { conclude } from '../../lib/diagnose/conclude.js';
import { countedTokens } from '../../lib/diagnose/countedTokens.js';
import { decide, testAll } from '../../lib/diagnose/decide.js';
import type { SignatureName } from '../../lib/diagnose/diagnosis.js';
import { noiseFloor } from '../../lib/diagnose/noiseFloor.js';
import type { Pair, TopLogprobs } from '../../lib/diagnose/record.js';
import { sampleOf } from '../../lib/diagnose/sample.js';
import { CounterRandom } from '../../lib/random.js';
import { pairOf } from './support.js';
import { findings, foundIn, synthetic, usualNoise } from './synthetic.js';

function verdictOf(pairs: readonly Pair[], results: ReturnType<typeof findings>, dtype = 'bf16'): string {
  const floor = noiseFloor(dtype, { numLayers: null, hiddenSize: null });
  const { verdict, cause } = decide(countedTokens(sampleOf(pairs)), Object.values(results), [], floor);
  return `${verdict}: ${cause}`;
}

describe('clean noise', () => {
  it('has no signature but its size: formats, seeds, lengths, vocabularies, sureness, steps and batches', () => {
    let seed = 100;
    for (const dtype of ['bf16', 'fp16', 'fp32']) {
      for (const times of [0.3, 1, 2.5]) {
        for (const [responses, length] of [
          [30, 8],
          [64, 17],
          [200, 3],
          [9, 150],
        ] as const) {
          for (const [sure, top] of [
            [0, 5],
            [0.5, 0],
            [0.9, 5],
          ] as const) {
            seed++;
            const { pairs } = synthetic({
              seed,
              responses,
              length: (r) => 1 + ((r * 7) % (2 * length - 1)),
              vocabulary: 30 + (seed % 31),
              sure,
              top,
              noise: times * usualNoise(dtype),
              more: (r) => (seed % 2 ? { step: r >> 4, batch: `${r >> 3}` } : {}),
            });
            const results = findings(pairs, dtype);
            const about = `seed ${seed}: ${dtype}, ${times}, ${responses} responses of ${length}, ${sure}`;
            assert.deepEqual(foundIn(results), [], about);
            assert.equal(verdictOf(pairs, results, dtype), 'NOISE FLOOR: rounding', about);
          }
        }
      }
    }
  });

  it('has none in few responses or tokens, either: one number fits any law', () => {
    for (const responses of [1, 2, 3, 5, 8]) {
      for (const length of [1, 2, 3, 5, 17, 60]) {
        for (let seed = 1; seed <= 30; seed++) {
          const dtype = ['bf16', 'fp16', 'fp32'][seed % 3]!;
          const { pairs } = synthetic({
            seed,
            responses,
            length,
            sure: [0, 0.5, 0.95][seed % 3]!,
            top: seed % 2 ? 5 : 0,
            noise: (seed % 5 ? 1 : 2) * usualNoise(dtype),
          });
          const about = `seed ${seed}: ${responses} responses of ${length}`;
          const results = findings(pairs, dtype);
          assert.deepEqual(foundIn(results), [], about);
          assert.doesNotMatch(verdictOf(pairs, results, dtype), /^BROKEN/, about);
        }
      }
    }
  });

  it('is that of noise that is now and then 0, in short responses, and in draws of them', async () => {
    for (let seed = 1; seed <= 10; seed++) {
      const random = new CounterRandom(seed, 9);
      const { pairs } = synthetic({
        seed,
        responses: 400,
        length: 1 + (seed % 4),
        noise: usualNoise('bf16'),
      });
      const often = pairs.map((pair) => ({
        ...pair,
        training: pair.training.map((x, t) => (random.uniform() < 0.6 ? pair.rollout[t]! : x)),
      }));
      const { verdict, cause, confidence } = await conclude(sampleOf(often), [], {
        declared: 'bf16',
        size: { numLayers: null, hiddenSize: null },
        draws: 20,
      });
      assert.deepEqual([verdict, cause], ['NOISE FLOOR', 'reduction-order'], `seed ${seed}`);
      assert.ok(confidence >= 0.85, `seed ${seed}: ${confidence}`);
    }
  });

  it('is that of large batches of one step without a loop over all others', () => {
    const one = synthetic({ responses: 1, length: 1, noise: 0.01, sure: 0 }).pairs[0]!;
    const pairs = Array.from({ length: 200_000 }, (_, index) => ({ ...one, index, batch: `${index >> 3}` }));
    const start = process.cpuUsage();
    findings(pairs);
    const { user, system } = process.cpuUsage(start);
    assert.ok(user + system < 20e6, `${(user + system) / 1e6} s`);
  });
});

describe('a mismatch that few tokens share', () => {
  it('is not held against a law, however well it fits', () => {
    // One token of each of nine responses, off by the same.
    const pairs = Array.from({ length: 9 }, (_, r) =>
      pairOf(r, [-0.5, -2, -0.1, -1], [-0.5, -2.2, -0.1, -1]),
    );
    const results = findings(pairs);
    for (const name of ['scaled', 'temperature', 'shift', 'kept-mass'] as const) {
      assert.equal(results[name].found, false, name);
      assert.equal(results[name].explained, null, name);
      assert.equal(results[name].evidence, 'needs a mismatch that at least 12 tokens share');
    }
    const more = findings([...pairs, ...pairs]);
    assert.notEqual(more['kept-mass'].explained, null);
  });
});

describe('series that have nothing to do with each other', () => {
  it('are no multiples of each other where one is certain and the other is not', () => {
    const pairs = Array.from({ length: 30 }, (_, r) =>
      pairOf(r, [-3, -1e-4, -3, -1e-4], [-1e-4, -2, -1e-4, -2]),
    );
    const { scaled } = findings(pairs);
    assert.ok(scaled.explained! > 0.5, 'a factor of about 0 leaves less than half');
    assert.equal(scaled.found, false);
  });

  it('fit no law: not a factor or a temperature near 0, either', () => {
    for (const sure of [0, 0.5, 0.8, 0.95]) {
      for (const top of [0, 5]) {
        const a = synthetic({ seed: 1, responses: 100, sure, top }).pairs;
        const b = synthetic({ seed: 2, responses: 100, sure, top }).pairs;
        const unrelated = a.map((pair, r) => ({
          ...pair,
          training: b[r]!.training,
          topLogprobs: { rollout: pair.topLogprobs.rollout, training: b[r]!.topLogprobs.training },
        }));
        const results = findings(unrelated);
        for (const name of ['scaled', 'temperature', 'shift', 'kept-mass', 'prompt-counted'] as const) {
          assert.equal(results[name].found, false, `${sure}, ${top}: ${name}: ${results[name].evidence}`);
        }
        assert.match(verdictOf(unrelated, results), /^BROKEN: (not-the-sampler|different-weights)$/);
      }
    }
  });
});

describe('degenerate input', () => {
  const of = (logMu: readonly number[], logPi: readonly number[], count = 20) =>
    Array.from({ length: count }, (_, i) => pairOf(i, logMu, logPi));

  it('is equal to the bit where both sides are', () => {
    const { pairs } = synthetic({ responses: 20, top: 5 });
    for (const same of [pairs, of([0, 0, 0], [0, 0, 0]), of([-1.3], [-1.3], 1), of([], [], 3)]) {
      const results = findings(same);
      for (const result of Object.values(results)) {
        assert.ok(!result.found || result.name === 'floor', result.name);
        assert.ok(!Number.isNaN(result.explained), result.name);
      }
    }
    assert.equal(verdictOf(pairs, findings(pairs)), 'NOISE FLOOR: bit-identical');
  });

  it('has no verdict of a law where all tokens are alike', () => {
    // Two numbers fit a shift, a factor, a temperature or a kept mass, whichever one likes; more tokens say no more.
    const alike = findings(of([-1.3, -1.3], [-1.31, -1.31]));
    for (const name of ['shift', 'outliers', 'boundaries', 'position', 'prompt-counted'] as const) {
      assert.equal(alike[name].found, false, name);
    }
  });

  it('is empty where no token counts', () => {
    const masked = of([-1, -2], [-3, -4]).map((pair) => ({ ...pair, mask: new Uint8Array(2) }));
    const tokens = countedTokens(sampleOf(masked));
    assert.equal(tokens.count, 0);
    const floor = noiseFloor('bf16', { numLayers: null, hiddenSize: null });
    assert.deepEqual(decide(tokens, [], [], floor), { verdict: 'BROKEN', cause: 'missing' });
  });
});

describe('what signatures look at', () => {
  const faulty = (seed: number) => {
    const { pairs } = synthetic({
      seed,
      responses: 60,
      length: (r) => 3 + (r % 9),
      noise: 0.05,
      top: 5,
      more: (r) => ({ step: Math.floor(r / 24), batch: `${r >> 3}` }),
    });
    const random = new CounterRandom(seed, 1);
    return pairs.map((pair) => ({
      ...pair,
      mask: pair.mask.map((_, t) => (t === 2 || random.uniform() < 0.7 ? 1 : 0)),
      // Some zeros, and some values far off.
      training: pair.training.map((x) => (random.uniform() < 0.05 ? 0 : random.uniform() < 0.05 ? x - 4 : x)),
    }));
  };

  it('is never a masked token', () => {
    for (let seed = 1; seed <= 4; seed++) {
      const pairs = faulty(seed);
      const expected = findings(pairs);
      for (const poison of [Number.NaN, Infinity, -Infinity, 1e300, 0]) {
        const poisoned = pairs.map(({ rollout, training, mask, topLogprobs, ...pair }) => {
          const top = (lists: readonly (TopLogprobs | null)[] | null) =>
            lists!.map((list, t) => (mask[t] === 1 ? list : { tokens: [1, 2], logprobs: [poison, poison] }));
          return {
            ...pair,
            mask,
            rollout: rollout.map((x, t) => (mask[t] === 1 ? x : poison)),
            training: training.map((x, t) => (mask[t] === 1 ? x : -poison)),
            topLogprobs: { rollout: top(topLogprobs.rollout), training: top(topLogprobs.training) },
          };
        });
        assert.deepEqual(findings(poisoned), expected, String(poison));
      }
    }
  });

  it('is not the order of responses, but where they have no steps', () => {
    const approximately = (a: unknown, b: unknown, path: string): void => {
      if (typeof a === 'number' && typeof b === 'number') {
        const same = Object.is(a, b) || Math.abs(a - b) <= 1e-7 * Math.max(1e-3, Math.abs(a));
        assert.ok(same, `${path}: ${a} and ${b}`);
      } else assert.equal(a, b, path);
    };
    for (let seed = 1; seed <= 4; seed++) {
      const pairs = faulty(seed);
      const before = findings(pairs);
      const after = findings(new CounterRandom(seed, 2).shuffle([...pairs]));
      for (const name of Object.keys(before) as SignatureName[]) {
        assert.equal(after[name].found, before[name].found, name);
        assert.equal(after[name].evidence, before[name].evidence, name);
        approximately(after[name].explained, before[name].explained, name);
        assert.deepEqual(Object.keys(after[name].values), Object.keys(before[name].values), name);
        for (const [key, value] of Object.entries(before[name].values)) {
          approximately(after[name].values[key], value, `${name}.${key}`);
        }
      }
    }
  });

  it('breaks on no finite input, and always says a share or nothing', () => {
    const logprob = fc.oneof(
      fc.constantFrom(0, -0, -1e-30, -1e-9, -1e-3, -0.5, -1, -1e4, -745.2, -3.4e38, 1e-7, 0.3, 20, 5e-324),
      fc.double({ min: -30, max: 0, noNaN: true }),
      fc.double({ min: -1e300, max: 1e300, noNaN: true }),
    );
    const token = fc.record({ mu: logprob, pi: logprob, counts: fc.boolean(), same: fc.boolean() });
    const list = fc.option(
      fc
        .array(
          fc.tuple(
            fc.constantFrom<number | string>(1, 2, 3, 4, 5, 'a', 'b'),
            fc.oneof(logprob, fc.constant(-Infinity)),
          ),
          {
            maxLength: 6,
          },
        )
        .map((entries) => ({ tokens: entries.map(([id]) => id), logprobs: entries.map(([, log]) => log) })),
      { nil: null },
    );
    const response = fc.record({
      tokens: fc.array(token, { minLength: 0, maxLength: 12 }),
      lists: fc.array(fc.tuple(list, list), { minLength: 12, maxLength: 12 }),
      step: fc.option(fc.integer({ min: 0, max: 4 }), { nil: null }),
      batch: fc.option(fc.constantFrom('a', 'b'), { nil: null }),
      version: fc.option(fc.constantFrom('1', '2'), { nil: null }),
    });
    const repeated = fc.tuple(fc.array(response, { maxLength: 6 }), fc.integer({ min: 1, max: 12 }));
    fc.assert(
      fc.property(repeated, ([responses, times]) => {
        const pairs = Array.from({ length: times }, () => responses)
          .flat()
          .map(({ tokens, lists, step, batch, version }, index) =>
            pairOf(
              index,
              tokens.map(({ mu }) => mu),
              tokens.map(({ mu, pi, same }) => (same ? mu : pi)),
              {
                mask: Uint8Array.from(tokens, ({ counts }) => Number(counts)),
                topLogprobs: {
                  rollout: tokens.map((_, t) => lists[t]![0]),
                  training: tokens.map((_, t) => lists[t]![1]),
                },
                step,
                batch,
                weightsVersions: { rollout: version, training: '1' },
              },
            ),
          );
        for (const dtype of ['bf16', 'fp32']) {
          const floor = noiseFloor(dtype, { numLayers: null, hiddenSize: null });
          const tokens = countedTokens(sampleOf(pairs));
          const results = testAll(tokens, floor);
          for (const { name, explained, evidence } of results) {
            assert.ok(
              explained === null || (explained >= 0 && explained <= 1),
              `${name}: ${explained}, ${evidence}`,
            );
            assert.ok(evidence.length > 0 && !/undefined|\bnull\b/.test(evidence), evidence);
          }
          decide(tokens, results, [], floor);
        }
      }),
      { numRuns: 400 },
    );
  });
});
