import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { InvalidArgumentError } from '../lib/errors.js';
import { CounterRandom, philox } from '../lib/random.js';

/** Philox4x32-10 once more, in 64-bit integers, as the paper defines it. */
function philoxBigInt(counter: readonly number[], key: readonly number[]): number[] {
  const mask = 0xffffffffn;
  let [c0, c1, c2, c3] = counter.map(BigInt) as [bigint, bigint, bigint, bigint];
  let [k0, k1] = key.map(BigInt) as [bigint, bigint];
  for (let round = 0; round < 10; round++) {
    const a = 0xd2511f53n * c0;
    const b = 0xcd9e8d57n * c2;
    [c0, c1, c2, c3] = [(b >> 32n) ^ c1 ^ k0, b & mask, (a >> 32n) ^ c3 ^ k1, a & mask];
    k0 = (k0 + 0x9e3779b9n) & mask;
    k1 = (k1 + 0xbb67ae85n) & mask;
  }
  return [c0, c1, c2, c3].map(Number);
}

/** Pearson's statistic against equal expectations. */
function chiSquare(counts: readonly number[]): number {
  const expected = counts.reduce((sum, count) => sum + count, 0) / counts.length;
  return counts.reduce((sum, count) => sum + (count - expected) ** 2 / expected, 0);
}

describe('philox', () => {
  it('gives the known answers of Random123', () => {
    const ones = 0xffffffff;
    const cases = [
      { counter: [0, 0, 0, 0], key: [0, 0], words: [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8] },
      {
        counter: [ones, ones, ones, ones],
        key: [ones, ones],
        words: [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd],
      },
      {
        counter: [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
        key: [0xa4093822, 0x299f31d0],
        words: [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
      },
    ];
    for (const { counter, key, words } of cases) assert.deepEqual([...philox(counter, key)], words);
  });

  it('agrees with 64-bit integer arithmetic, also in place', () => {
    const word = fc.integer({ min: 0, max: 0xffffffff });
    fc.assert(
      fc.property(fc.array(word, { minLength: 6, maxLength: 6 }), (words) => {
        const expected = philoxBigInt(words.slice(0, 4), words.slice(4));
        const counter = Uint32Array.from(words.slice(0, 4));
        assert.deepEqual([...philox(counter, words.slice(4), counter)], expected);
      }),
      { seed: 1 },
    );
  });
});

describe('CounterRandom', () => {
  it('without a stream draws the Philox blocks of the seed in order', () => {
    const seed = 0x12345678 + 5 * 2 ** 32;
    const random = new CounterRandom(seed);
    const expected = [0, 1, 2].flatMap((block) => philoxBigInt([block, 0, 0, 0], [0x12345678, 5]));
    assert.deepEqual(
      Array.from({ length: 12 }, () => random.next()),
      expected,
    );
  });

  it('absorbs each stream id into key and counter', () => {
    const first = philoxBigInt([7, 0x80000000, 0, 0], [42, 0]);
    const second = philoxBigInt([9, (0x80000000 | 3) >>> 0, first[2]!, first[3]!], first.slice(0, 2));
    const expected = philoxBigInt([0, 0, second[2]!, second[3]!], second.slice(0, 2));
    const random = new CounterRandom(42, 7, 9 + 3 * 2 ** 32);
    assert.deepEqual(
      Array.from({ length: 4 }, () => random.next()),
      expected,
    );
  });

  it('goes on from a saved state, also across JSON and past 2^32 blocks', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 40 }), fc.maxSafeNat(), (drawn, seed) => {
        const random = new CounterRandom(seed, 3, 1);
        for (let i = 0; i < drawn; i++) random.next();
        const resumed = new CounterRandom(0, 5);
        resumed.next();
        resumed.load(JSON.parse(JSON.stringify(random.state())));
        assert.deepEqual(resumed.state(), { seed, stream: [3, 1], position: drawn });
        for (let i = 0; i < 9; i++) assert.equal(resumed.uniform(), random.uniform());
      }),
      { seed: 2 },
    );
    const far = new CounterRandom(1);
    far.load({ seed: 1, stream: [], position: 4 * (2 ** 33 + 6) + 1 });
    assert.equal(far.next(), philoxBigInt([6, 2, 0, 0], [1, 0])[1]);
  });

  it('draws different words in different streams', () => {
    const streams = [[], [0], [1], [0, 0], [0, 1], [1, 0], [2 ** 32], [0, 0, 0]];
    const firsts = streams.map((stream) => new CounterRandom(8, ...stream).next());
    assert.equal(new Set(firsts).size, streams.length);
  });

  it('makes doubles of 53 bits in [0, 1)', () => {
    const words = new CounterRandom(11, 4);
    const random = new CounterRandom(11, 4);
    let sum = 0;
    let squares = 0;
    const draws = 20000;
    for (let i = 0; i < draws; i++) {
      const expected = Number((BigInt(words.next() >>> 5) << 26n) | BigInt(words.next() >>> 6)) * 2 ** -53;
      const value = random.uniform();
      assert.equal(value, expected);
      assert.ok(value >= 0 && value < 1);
      sum += value;
      squares += value * value;
    }
    // Five standard errors of the mean (1 / sqrt(12 n)) and of the mean square (sqrt(4 / 45 / n)).
    assert.ok(Math.abs(sum / draws - 1 / 2) < 5 * Math.sqrt(1 / 12 / draws));
    assert.ok(Math.abs(squares / draws - 1 / 3) < 5 * Math.sqrt(4 / 45 / draws));
  });

  it('draws integers evenly, rejecting the uneven rest of the range', () => {
    const random = new CounterRandom(3);
    const counts = new Array<number>(7).fill(0);
    for (let i = 0; i < 70000; i++) counts[random.integer(7)]!++;
    assert.ok(chiSquare(counts) < 22.5, `chi-square ${chiSquare(counts)} of 6 degrees, 0.1 % point 22.5`);

    // With n = 3 * 2^30 a quarter of the words must be rejected; a plain modulo would favour the low third.
    const n = 3 * 2 ** 30;
    const thirds = [0, 0, 0];
    for (let i = 0; i < 30000; i++) thirds[Math.floor(random.integer(n) / 2 ** 30)]!++;
    assert.ok(chiSquare(thirds) < 13.8, `chi-square ${chiSquare(thirds)} of 2 degrees, 0.1 % point 13.8`);

    const before = random.state().position;
    assert.equal(random.integer(1), 0);
    assert.equal(random.state().position, before + 1);
    assert.ok(random.integer(2 ** 32) < 2 ** 32);
  });

  it('shuffles evenly, in place, arrays and typed arrays', () => {
    const random = new CounterRandom(17);
    const counts = new Map<string, number>();
    for (let i = 0; i < 24000; i++) {
      const order = random.shuffle([0, 1, 2, 3]).join('');
      counts.set(order, (counts.get(order) ?? 0) + 1);
    }
    assert.equal(counts.size, 24);
    const statistic = chiSquare([...counts.values()]);
    assert.ok(statistic < 49.7, `chi-square ${statistic} of 23 degrees, 0.1 % point 49.7`);

    const typed = Int32Array.from({ length: 50 }, (_, i) => i * i);
    assert.equal(random.shuffle(typed), typed);
    assert.notDeepEqual(
      [...typed],
      Array.from({ length: 50 }, (_, i) => i * i),
    );
    assert.deepEqual(
      [...typed].sort((a, b) => a - b),
      Array.from({ length: 50 }, (_, i) => i * i),
    );
    assert.deepEqual(random.shuffle([]), []);
  });

  it('refuses bad arguments by name', () => {
    const cases: [() => unknown, RegExp][] = [
      [() => new CounterRandom(-1), /seed/],
      [() => new CounterRandom(0.5), /seed/],
      [() => new CounterRandom(2 ** 53), /seed/],
      [() => new CounterRandom(0, 1, Number.NaN), /stream id/],
      [() => new CounterRandom(0).integer(0), /\bn\b/],
      [() => new CounterRandom(0).integer(2 ** 32 + 1), /\bn\b/],
      [() => new CounterRandom(0).load({ seed: 1, stream: [], position: -4 }), /position/],
      [() => new CounterRandom(0).load({ seed: 1, stream: 3 as never, position: 0 }), /stream/],
    ];
    for (const [call, name] of cases) {
      assert.throws(call, (error) => error instanceof InvalidArgumentError && name.test(error.message));
    }
  });
});
