/**
 * Data as large models give them, in fp64: most tokens all but certain, few two- or three-way choices, some wide open with a long
 * tail; noise whose scale differs by a factor of ten between contexts; responses of very different lengths.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { countedTokens } from '../../lib/diagnose/countedTokens.js';
import { type Decision, decide, testAll } from '../../lib/diagnose/decide.js';
import { noiseFloor } from '../../lib/diagnose/noiseFloor.js';
import type { Pair } from '../../lib/diagnose/record.js';
import { sampleOf } from '../../lib/diagnose/sample.js';
import { CounterRandom } from '../../lib/random.js';
import { normal, pairOf } from './support.js';
import { logSoftmax, rounded, topPFiltered, usualNoise } from './synthetic.js';

interface LargeOptions {
  readonly seed?: number;
  readonly responses?: number;
  /** Mean number of tokens. */
  readonly length?: number;
  /** Times the usual noise of bf16. */
  readonly noise?: number | ((response: number) => number);
  /** Share of tokens with 30 times the noise, as experts that are chosen otherwise make it. */
  readonly heavy?: number;
  /** Temperatures. */
  readonly rollout?: number;
  readonly training?: number;
  readonly topP?: number;
  readonly decimals?: number;
  readonly greedy?: boolean;
  /** Training's logits as bf16 numbers, after what is added to all of a context's. */
  readonly rounded?: (random: CounterRandom) => number;
  readonly more?: (response: number) => Partial<Pair>;
}

function contextOf(random: CounterRandom): Float64Array {
  const kind = random.uniform();
  const of = (count: number, logit: (rank: number) => number) =>
    Float64Array.from({ length: count }, (_, rank) => logit(rank));
  if (kind < 0.7) {
    const gap = 5 + 12 * random.uniform();
    return of(8, (rank) => (rank === 0 ? 20 : 20 - gap - Math.log(rank) - random.uniform()));
  }
  if (kind < 0.9) {
    const ways = 2 + random.integer(2);
    return of(24, (rank) =>
      rank < ways ? 20 - 2 * random.uniform() : 15 - Math.log(rank) - normal(random) ** 2 / 2,
    );
  }
  return of(80, (rank) => 20 - 1.1 * Math.log(rank + 1) - 0.4 * normal(random) ** 2);
}

function large(options: LargeOptions): Pair[] {
  const { seed = 1, responses = 64, length = 80, noise = 1, heavy = 0, topP = 1 } = options;
  const { rollout = 1, training = 1, decimals = 12, greedy = false } = options;
  const stored = (x: number) => Math.round(x * 10 ** decimals) / 10 ** decimals;
  return Array.from({ length: responses }, (_, r) => {
    const random = new CounterRandom(seed, r);
    const count = Math.round(length * Math.exp(0.8 * normal(random) - 0.32)) + 10;
    const [mu, pi]: [number[], number[]] = [[], []];
    const times = typeof noise === 'number' ? noise : noise(r);
    for (let t = 0; t < count; t++) {
      const logits = contextOf(random);
      const flipped = random.uniform() < heavy ? 30 : 1;
      const size = flipped * times * usualNoise('bf16') * Math.exp(0.9 * normal(random) - 0.4);
      const [a, b] = [rollout, training].map((T) =>
        logits.map((z) => (z + size * Math.SQRT1_2 * normal(random)) / T),
      ) as [Float64Array, Float64Array];
      if (options.rounded !== undefined) {
        const more = options.rounded(random);
        b.forEach((z, v) => {
          b[v] = rounded(z + more, 7);
        });
      }
      const logMu = topP < 1 ? topPFiltered(a, topP) : logSoftmax(a);
      const logPi = logSoftmax(b);
      let left = random.uniform();
      let token = greedy ? logMu.indexOf(Math.max(...logMu)) : 0;
      if (!greedy) {
        for (let v = 0; v < logMu.length && left >= 0; v++) {
          if (logMu[v] === -Infinity) continue;
          token = v;
          left -= Math.exp(logMu[v]!);
        }
      }
      mu.push(stored(logMu[token]!));
      pi.push(stored(logPi[token]!));
    }
    return pairOf(r, mu, pi, options.more?.(r));
  });
}

function conclusionOf(pairs: readonly Pair[]): Decision {
  const tokens = countedTokens(sampleOf(pairs));
  const floor = noiseFloor('bf16', { numLayers: null, hiddenSize: null });
  return decide(tokens, testAll(tokens, floor), [], floor);
}

/** What is said of two seeds. */
function causeOf(
  options: LargeOptions,
  change: (pairs: Pair[], seed: number) => Pair[] = (p) => p,
): Promise<string[]> {
  return Promise.all(
    [1, 2].map(async (seed) => {
      const { verdict, cause } = await conclusionOf(change(large({ ...options, seed }), seed));
      return `${verdict}: ${cause}`;
    }),
  );
}

const always = (text: string) => [text, text];
const every = (responses: number) => (r: number) => ({ step: Math.floor(r / responses) });

describe('clean data of large models', () => {
  for (const [name, options] of Object.entries<LargeOptions>({
    'as they are': {},
    'of few responses': { responses: 4, length: 500 },
    'at another temperature on both sides': { rollout: 0.6, training: 0.6 },
    'sampled greedily': { greedy: true },
    'three times noisier than usual': { noise: 3 },
    'with a few tokens of large noise': { heavy: 0.001 },
    'rounded to six decimals': { decimals: 6 },
  })) {
    it(`is noise ${name}`, async () => {
      assert.deepEqual(await causeOf(options), always('NOISE FLOOR: rounding'));
    });
  }

  it('is noise where a mismatch grows or shrinks by a tenth a step: that is no jump', async () => {
    for (const factor of [1.1, 1 / 1.1]) {
      const options = { responses: 160, length: 40, noise: (r: number) => factor ** Math.floor(r / 16) };
      assert.deepEqual(await causeOf({ ...options, more: every(16) }), always('NOISE FLOOR: rounding'));
      assert.deepEqual(await causeOf(options), always('NOISE FLOOR: rounding'));
    }
  });

  it('has no zeros filled in where certain tokens become unsure by large noise', async () => {
    for (const options of [
      { noise: 20, decimals: 4 },
      { heavy: 0.02, noise: 3, decimals: 3 },
    ]) {
      for (const cause of await causeOf(options)) assert.doesNotMatch(cause, /zero-fill/);
    }
  });
});

describe('faults in data of large models', () => {
  it('finds a temperature without candidates, of many competing tokens, and experts chosen otherwise', async () => {
    for (const [rollout, training] of [
      [1.2, 1],
      [0.6, 1],
      [1, 0.8],
    ] as const) {
      for (const heavy of [0, 0.005]) {
        assert.deepEqual(await causeOf({ rollout, training, heavy }), always('BROKEN: temperature'));
      }
    }
  });

  it('finds logits of several octaves that were rounded to bf16, without candidates', async () => {
    // The greatest of a context are 20 and less: from 12 to 36.
    const spread = (random: CounterRandom) => 24 * random.uniform() - 8;
    for (const noise of [0.2, 1]) {
      // Engines in bf16 whose noise is no more than usual may have such logits.
      assert.deepEqual(await causeOf({ noise, rounded: spread }), always('NOISE FLOOR: 16-bit-logits'));
    }
  });

  it('calls kept mass by its name, though it makes likely tokens likelier', async () => {
    for (const topP of [0.8, 0.9]) {
      for (const cause of await causeOf({ topP, noise: 0.5 })) assert.match(cause, /: kept-mass$/);
    }
  });

  it('finds weights that are stale from a step on', async () => {
    const stale = (r: number) => (r >= 80 ? 3 : 1);
    for (const cause of await causeOf({ responses: 160, length: 60, noise: stale, more: every(16) })) {
      assert.match(cause, /: stale-weights$/);
    }
    for (const cause of await causeOf({ responses: 64, length: 60, noise: stale, more: every(80) })) {
      assert.doesNotMatch(cause, /stale-weights/);
    }
  });

  it('calls responses that differ batch by batch, beside others that are equal to the bit, no stale weights', async () => {
    const byBatch = (pairs: Pair[]) =>
      pairs.map((pair, r) => (r % 32 < 24 ? { ...pair, training: pair.rollout } : pair));
    for (const cause of await causeOf({ responses: 128, length: 60 }, byBatch)) {
      assert.match(cause, /: batch-variance$/);
    }
  });

  it('finds zeros among log-probs that are rounded to 0 themselves', async () => {
    const filled = (pairs: Pair[], seed: number) => {
      const random = new CounterRandom(seed, 77);
      return pairs.map((pair) => ({
        ...pair,
        rollout: pair.rollout.map((x) => (random.uniform() < 0.01 ? 0 : x)),
      }));
    };
    for (const cause of await causeOf({ decimals: 4 }, filled)) assert.match(cause, /: zero-fill$/);
  });

  it('finds a token of the prompt at the start of long responses', async () => {
    const prompted = (pairs: Pair[]) =>
      pairs.map((pair, r) => ({
        ...pair,
        rollout: pair.rollout.map((x, t) => (t === 0 ? -2 : x)),
        training: pair.training.map((x, t) => (t === 0 ? -0.5 - (r % 7) : x)),
      }));
    for (const cause of await causeOf({ length: 200, responses: 40 }, prompted)) {
      assert.match(cause, /: prompt-counted$/);
    }
  });
});
