import assert from 'node:assert/strict';
import { after, afterEach, describe, it } from 'node:test';
import { chosenLogprobs } from '../../lib/ops/logSoftmax.js';
import { type SampleOptions, sample } from '../../lib/ops/sample.js';
import { philox } from '../../lib/random.js';
import { info, memory, setThreads, setVectorLevel } from '../../lib/runtime.js';
import { floatDtypes } from '../../lib/tensor/dtype.js';
import { readTensors, type Tensor, tensor } from '../../lib/tensor/tensor.js';
import { assertSameBits, normals } from '../support/compare.js';
import { onEmulator } from '../support/cuda.js';
import { vectorLevels } from '../support/levels.js';

const inf = Number.POSITIVE_INFINITY;
const start = memory().tensors;
after(() => assert.equal(memory().tensors, start));
const { threads, vectorLevel } = info();
afterEach(() => {
  setVectorLevel(vectorLevel);
  setThreads(threads);
});

/** The uniform number of a key: 53 bits of Philox, by the implementation in TypeScript. */
function uniformOf(seed: number, key: ArrayLike<number>): number {
  const words = philox([key[0]!, key[1]!, key[2]!, 0], [seed, seed / 2 ** 32]);
  return (words[0]! * 2 ** 21 + (words[1]! >>> 11)) / 2 ** 53;
}

/** The distribution that a row is drawn from, in fp64, by sorting the whole vocabulary. */
function distribution(row: ArrayLike<number>, options: Omit<SampleOptions, 'seed'> = {}): Float64Array {
  const { temperature = 1, topK = 0, topP = 1 } = options;
  // As the kernel has it: x in fp32. Everything else is exact.
  const x = Float32Array.from(row, (l) => l / Math.fround(temperature));
  let order = Array.from(x.keys()).sort((a, b) => x[b]! - x[a]! || a - b);
  if (topK > 0) order = order.slice(0, topK);
  const weight = (j: number) => Math.exp(x[j]! - x[order[0]!]!);
  const total = order.reduce((sum, j) => sum + weight(j), 0);
  if (topP < 1) {
    let mass = 0;
    let kept = 0;
    while (kept < order.length && mass < topP * total) mass += weight(order[kept++]!);
    order = order.slice(0, kept);
  }
  const keptTotal = order.reduce((sum, j) => sum + weight(j), 0);
  const p = new Float64Array(row.length);
  for (const j of order) p[j] = weight(j) / keptTotal;
  return p;
}

function keysOf(count: number, make: (i: number) => number[] = (i) => [i, 3, 5, i]): Tensor {
  const values = Array.from({ length: count }, (_, i) => make(i)).flat();
  return tensor(Int32Array.from(values), [count, 4], 'int32');
}

async function draw(logits: Tensor, keys: Tensor, options: SampleOptions) {
  const out = sample(logits, keys, options);
  const [ids, logprobs] = await readTensors([out.ids, out.logprobs]);
  out.ids.dispose();
  out.logprobs.dispose();
  return { ids: ids as Int32Array, logprobs: logprobs as Float32Array };
}

/** Checks ids against the cumulative sum of `p` at u; within rounding of a boundary either side will do. */
function assertInverts(p: Float64Array, u: number, id: number, label: string): void {
  assert.ok(p[id]! > 0, `${label}: id ${id} has probability ${p[id]}`);
  let below = 0;
  for (let j = 0; j < id; j++) below += p[j]!;
  const slack = 2e-6;
  assert.ok(
    below - slack <= u && u < below + p[id]! + slack,
    `${label}: id ${id} covers ${below} to ${below + p[id]!}, u is ${u}`,
  );
}

const settings: Omit<SampleOptions, 'seed'>[] = [
  {},
  { temperature: 0.6 },
  { topK: 1 },
  { topK: 5 },
  { topK: 40, temperature: 1.5 },
  { topP: 0.9 },
  { topP: 0.05 },
  { topP: 0.999, temperature: 2 },
  { topK: 7, topP: 0.8 },
  { topK: 300, topP: 0.95, chunk: 16 },
];

for (const level of vectorLevels()) {
  describe(`sample at ${level}`, () => {
    for (const dtype of floatDtypes) {
      it(`${dtype}: inverts the distribution of a sort-based reference, and reports its log-probs`, async () => {
        setVectorLevel(level);
        for (const columns of [1, 2, 11, 33, 1000, 4099]) {
          const rows = columns < 1000 ? 24 : 6;
          const logits = tensor(normals(rows * columns, columns, 3), [rows, columns], dtype);
          const values = await logits.floats();
          const keys = keysOf(rows);
          for (const setting of settings) {
            const seed = 2 ** 40 + columns;
            const { ids, logprobs } = await draw(logits, keys, { seed, ...setting });
            for (let i = 0; i < rows; i++) {
              const label = `${dtype} V ${columns} ${JSON.stringify(setting)} row ${i}`;
              const p = distribution(values.subarray(i * columns, (i + 1) * columns), setting);
              assertInverts(p, uniformOf(seed, [i, 3, 5]), ids[i]!, label);
              const error = Math.abs(logprobs[i]! - Math.log(p[ids[i]!]!));
              assert.ok(error < 6e-6, `${label}: log-prob ${logprobs[i]}, expected ${Math.log(p[ids[i]!]!)}`);
            }
          }
          logits.dispose();
          keys.dispose();
        }
      });
    }

    it('without filters reports the bits of chosenLogprobs; filters that keep everything change nothing', async () => {
      setVectorLevel(level);
      const [rows, columns] = [16, 4099];
      const logits = tensor(normals(rows * columns, 9, 3), [rows, columns], 'bf16');
      const keys = keysOf(rows);
      for (const chunk of [0, 16, 512]) {
        for (const temperature of [1, 0.8]) {
          const { ids, logprobs } = await draw(logits, keys, { seed: 4, chunk, temperature });
          const chosen = tensor(ids, [rows], 'int32');
          const token = chosenLogprobs(logits, chosen, { chunk, temperature });
          assertSameBits(logprobs, await token.logprobs.floats(), `chunk ${chunk} T ${temperature}`);
          const kept = await draw(logits, keys, { seed: 4, chunk, temperature, topK: columns });
          assertSameBits(kept.ids, ids, 'topK = V');
          assertSameBits(kept.logprobs, logprobs, 'topK = V');
          for (const t of [chosen, token.logprobs, token.lse, token.entropy]) t.dispose();
        }
      }
      logits.dispose();
      keys.dispose();
    });

    it('with filters reports the bits of chosenLogprobs on what they keep', async () => {
      setVectorLevel(level);
      const [rows, columns] = [12, 4099];
      const logits = tensor(normals(rows * columns, 31, 3), [rows, columns], 'fp16');
      const values = await logits.floats();
      const keys = keysOf(rows);
      for (const setting of settings.filter((s) => s.topK !== undefined || s.topP !== undefined)) {
        const { temperature = 1 } = setting;
        for (const chunk of [0, 16, 700]) {
          const { ids, logprobs } = await draw(logits, keys, { seed: 6, ...setting, chunk });
          const masked = Float32Array.from(values);
          for (let i = 0; i < rows; i++) {
            const p = distribution(values.subarray(i * columns, (i + 1) * columns), setting);
            p.forEach((mass, j) => {
              if (mass === 0) masked[i * columns + j] = -inf;
            });
          }
          const kept = tensor(masked, [rows, columns], 'fp16');
          const chosen = tensor(ids, [rows], 'int32');
          const token = chosenLogprobs(kept, chosen, { chunk, temperature });
          assertSameBits(
            logprobs,
            await token.logprobs.floats(),
            `${JSON.stringify(setting)} chunk ${chunk}`,
          );
          for (const t of [kept, chosen, token.logprobs, token.lse, token.entropy]) t.dispose();
        }
      }
      logits.dispose();
      keys.dispose();
    });

    it('cuts long rows, among many equals and among tokens that differ in their last bits', async () => {
      setVectorLevel(level);
      const columns = 9001;
      const rows = 3;
      const kinds: [string, (x: number, j: number) => number][] = [
        ['of many values', (x) => x],
        ['of few values', (x) => Math.round(x / 2)],
        ['nearly equal', (x, j) => (1 + (j % 5)) * 1e-30 + x * 1e-32],
        ['equal', () => -2.5],
        ['far apart', (x) => x * 1e4],
        ['mostly nothing', (x, j) => (j % 1000 === 7 ? x : -inf)],
      ];
      for (const [kind, change] of kinds) {
        const logits = tensor(normals(rows * columns, 17, 3).map(change), [rows, columns]);
        const values = await logits.floats();
        const keys = keysOf(rows);
        for (const setting of [
          { topK: 1 },
          { topK: 600 },
          { topK: 8999 },
          { topP: 0.3171 },
          { topP: 0.9731 },
          { topK: 2500, topP: 0.6113 },
        ]) {
          const { ids, logprobs } = await draw(logits, keys, { seed: 21, ...setting });
          for (let i = 0; i < rows; i++) {
            const label = `${kind} ${JSON.stringify(setting)} row ${i}`;
            const p = distribution(values.subarray(i * columns, (i + 1) * columns), setting);
            assertInverts(p, uniformOf(21, [i, 3, 5]), ids[i]!, label);
            const error = Math.abs(logprobs[i]! - Math.log(p[ids[i]!]!));
            assert.ok(error < 6e-6, `${label}: log-prob ${logprobs[i]}, expected ${Math.log(p[ids[i]!]!)}`);
          }
        }
        logits.dispose();
        keys.dispose();
      }
    });

    it('at temperature 0 takes the most likely token, of equals the lowest id, with its log-prob at temperature 1', async () => {
      setVectorLevel(level);
      for (const columns of [1, 2, 33, 1000, 4099]) {
        const rows = 8;
        const values = normals(rows * columns, columns + 1);
        const expected: number[] = [];
        for (let i = 0; i < rows; i++) {
          // Two equal maxima, at ids that differ by row; in some rows at the very ends.
          const a = i === 0 ? 0 : (i * 523) % columns;
          const b = i === 1 ? columns - 1 : (i * 911 + 17) % columns;
          values[i * columns + a] = 9;
          values[i * columns + b] = 9;
          expected.push(Math.min(a, b));
        }
        const logits = tensor(values, [rows, columns], 'fp16');
        const keys = keysOf(rows);
        const { ids, logprobs } = await draw(logits, keys, { seed: 1, temperature: 0, topK: 3, topP: 0.5 });
        assert.deepEqual(Array.from(ids), expected);
        const chosen = tensor(ids, [rows], 'int32');
        const token = chosenLogprobs(logits, chosen);
        assertSameBits(logprobs, await token.logprobs.floats(), `V ${columns}`);
        for (const t of [logits, keys, chosen, token.logprobs, token.lse, token.entropy]) t.dispose();
      }
    });

    it('follows the exact distribution: chi-square over thousands of draws', async () => {
      setVectorLevel(level);
      const columns = 24;
      const count = onEmulator() ? 4000 : 20_000;
      const row = normals(columns, 12, 1.2);
      row[5] = -inf;
      row[23] = -inf;
      const logits = tensor(
        Float32Array.from({ length: count * columns }, (_, k) => row[k % columns]!),
        [count, columns],
      );
      const keys = keysOf(count, (i) => [i % 100, Math.floor(i / 100) % 20, Math.floor(i / 2000), i]);
      for (const setting of [{}, { topK: 9 }, { topP: 0.7 }, { temperature: 0.5, topP: 0.99 }]) {
        const p = distribution(Float32Array.from(row), setting);
        const { ids } = await draw(logits, keys, { seed: 77, ...setting });
        const seen = new Float64Array(columns);
        for (const id of ids) seen[id]!++;
        let chiSquare = 0;
        let freedom = -1;
        let rareSeen = 0;
        let rareExpected = 0;
        for (let j = 0; j < columns; j++) {
          const expected = p[j]! * count;
          if (expected === 0) assert.equal(seen[j], 0, `id ${j} has no mass`);
          else if (expected < 10) {
            rareSeen += seen[j]!;
            rareExpected += expected;
          } else {
            chiSquare += (seen[j]! - expected) ** 2 / expected;
            freedom++;
          }
        }
        if (rareExpected > 0) {
          chiSquare += (rareSeen - rareExpected) ** 2 / rareExpected;
          freedom++;
        }
        // Wilson and Hilferty: the cube root of chi-square / freedom is close to normal. 3.1 is the 0.1 % tail.
        const spread = 2 / (9 * freedom);
        const z = (Math.cbrt(chiSquare / freedom) - (1 - spread)) / Math.sqrt(spread);
        assert.ok(
          Math.abs(z) < 3.1,
          `${JSON.stringify(setting)}: chi-square ${chiSquare} of ${freedom}, z ${z}`,
        );
      }
      logits.dispose();
      keys.dispose();
    });
  });
}

describe('sample', () => {
  it('draws by seed and key alone: not by batch, order, slot or threads', async () => {
    const [rows, columns] = [64, 700];
    const logits = tensor(normals(rows * columns, 21, 2), [rows, columns], 'fp16');
    const values = await logits.floats();
    const key = (i: number) => [i % 8, i >> 3, 1000 + i, i];
    const keys = keysOf(rows, key);
    for (const setting of [{}, { topK: 20, topP: 0.9 }]) {
      const options = { seed: 2 ** 53 - 1, ...setting };
      setThreads(1);
      const one = await draw(logits, keys, options);
      setThreads(3);
      const three = await draw(logits, keys, options);
      assertSameBits(one.ids, three.ids, 'threads');
      assertSameBits(one.logprobs, three.logprobs, 'threads');
      // The same rows in reverse, every other one left out, in other slots.
      const some = Array.from({ length: rows / 2 }, (_, i) => rows - 1 - 2 * i);
      const shuffled = tensor(
        some.flatMap((i) => Array.from(values.subarray(i * columns, (i + 1) * columns))),
        [some.length, columns],
        'fp16',
      );
      const shuffledKeys = keysOf(some.length, (i) => [...key(some[i]!).slice(0, 3), 7]);
      const part = await draw(shuffled, shuffledKeys, options);
      assertSameBits(
        part.ids,
        some.map((i) => one.ids[i]!),
        'batch',
      );
      assertSameBits(
        part.logprobs,
        some.map((i) => one.logprobs[i]!),
        'batch',
      );
      for (const seed of [0, 2 ** 53 - 2, 2 ** 32 - 1]) {
        const other = await draw(logits, keys, { ...options, seed });
        assert.ok(
          other.ids.some((id, i) => id !== one.ids[i]),
          `seed ${seed} draws otherwise`,
        );
      }
      shuffled.dispose();
      shuffledKeys.dispose();
    }
    // One row many times: each word of the key matters.
    const same = logits.rows(0, 1);
    const first = await same.floats();
    const repeated = tensor(Array.from({ length: 40 }, () => Array.from(first)).flat(), [40, columns]);
    for (const word of [0, 1, 2]) {
      const varied = keysOf(40, (i) => [0, 1, 2, 0].map((k, at) => (at === word ? i : k)));
      const { ids } = await draw(repeated, varied, { seed: 5 });
      assert.ok(new Set(ids).size > 10, `word ${word} of the key changes the draw`);
      varied.dispose();
    }
    for (const t of [logits, keys, same, repeated]) t.dispose();
  });

  it('keeps the lower ids of equals in top k and top p', async () => {
    // Six equal tokens at odd ids: the first three of them are the top 3, and half the mass.
    const columns = 12;
    const row = Array.from({ length: columns }, (_, j) => (j % 2 ? 1 : -inf));
    const count = 400;
    const logits = tensor(Array.from({ length: count }, () => row).flat(), [count, columns]);
    const keys = keysOf(count);
    for (const setting of [{ topK: 3 }, { topP: 0.45 }, { topK: 4, topP: 0.7 }]) {
      const { ids, logprobs } = await draw(logits, keys, { seed: 3, ...setting });
      assert.deepEqual(
        [...new Set(ids)].sort((a, b) => a - b),
        [1, 3, 5],
        JSON.stringify(setting),
      );
      for (const l of logprobs) assert.ok(Math.abs(l + Math.log(3)) < 2e-7);
    }
    logits.dispose();
    keys.dispose();
  });

  it('never draws a token without mass, though nearly all mass is elsewhere', async () => {
    const columns = 1100;
    const count = onEmulator() ? 60 : 300;
    const rows = Array.from({ length: count }, (_, i) =>
      Array.from({ length: columns }, (_, j) => (j === (i * 37) % columns ? 0 : j % 2 ? -inf : -200)),
    );
    const logits = tensor(rows.flat(), [count, columns]);
    const keys = keysOf(count);
    for (const setting of [{}, { topP: 0.999 }, { topK: 2 }]) {
      const { ids, logprobs } = await draw(logits, keys, { seed: 9, ...setting });
      for (let i = 0; i < count; i++) assert.equal(ids[i], (i * 37) % columns);
      assert.ok(logprobs.every((l) => l === 0));
    }
    logits.dispose();
    keys.dispose();
  });

  it('leaves unused rows at 0, whatever they hold', async () => {
    const logits = tensor([Number.NaN, 1, 2, Number.NaN, -inf, -inf, 0, 0, 30], [3, 3]);
    const keys = tensor(Int32Array.of(1, 2, 3, -1, 1, 2, 3, -5, 1, 2, 3, 0), [3, 4], 'int32');
    for (const temperature of [0, 1]) {
      const { ids, logprobs } = await draw(logits, keys, { seed: 1, temperature });
      assert.deepEqual(Array.from(ids), [0, 0, 2]);
      assert.deepEqual(Array.from(logprobs.subarray(0, 2)), [0, 0]);
    }
    logits.dispose();
    keys.dispose();
    const none = tensor([], [0, 5]);
    const noKeys = tensor([], [0, 4], 'int32');
    const nothing = await draw(none, noKeys, { seed: 1 });
    assert.equal(nothing.ids.length, 0);
    none.dispose();
    noKeys.dispose();
  });

  it('names the first row that has no distribution', async () => {
    const keys = keysOf(40);
    for (const bad of [Number.NaN, inf, -inf]) {
      for (const temperature of [0, 1]) {
        const values = normals(40 * 50, 6);
        // NaN or infinity somewhere in rows 13 and 31; -infinity must fill a row to be a fault.
        for (const i of [31, 13])
          for (let j = 0; j < 50; j++) if (bad === -inf || j === 20) values[i * 50 + j] = bad;
        const logits = tensor(values, [40, 50]);
        const out = sample(logits, keys, { seed: 1, temperature });
        await assert.rejects(out.ids.data(), (error: Error & { code?: string }) => {
          assert.equal(error.code, 'ERR_DEVICE');
          assert.match(error.message, /^\[sample\] expected logits below infinity.*got row 13 with NaN/);
          assert.match(error.stack ?? '', /sample\.test/);
          return true;
        });
        for (const t of [logits, out.ids, out.logprobs]) t.dispose();
      }
    }
    keys.dispose();
  });

  it('rejects each bad argument at the call', () => {
    const x = tensor(new Float32Array(6), [2, 3]);
    const vector = tensor(new Float32Array(6));
    const empty = tensor([], [2, 0]);
    const keys = tensor(new Int32Array(8), [2, 4], 'int32');
    const narrow = tensor(new Int32Array(6), [2, 3], 'int32');
    const floats = tensor(new Float32Array(8), [2, 4]);
    const seed = 1;
    const cases: [() => unknown, RegExp][] = [
      [
        () => sample(vector, keys, { seed }),
        /^\[sample\] expected logits of 2 dimensions \[N, V\], got \[6\]/,
      ],
      [() => sample(empty, keys, { seed }), /expected logits of shape \[N, V\] with V of at least 1/],
      [() => sample(keys, keys, { seed }), /expected logits of dtype fp32, fp16 or bf16, got int32/],
      [() => sample(x, narrow, { seed }), /expected keys of shape \[N, 4\] = \[2, 4\], got \[2, 3\]/],
      [() => sample(x, floats, { seed }), /expected keys of dtype int32, got fp32/],
      [() => sample(x, keys, { seed: -1 }), /expected seed to be an integer of at least 0/],
      [() => sample(x, keys, { seed: 0.5 }), /expected seed to be an integer/],
      [() => sample(x, keys, { seed: 2 ** 53 }), /expected seed to be an integer/],
      [() => sample(x, keys, { seed, temperature: -0.1 }), /expected temperature of at least 0/],
      [
        () => sample(x, keys, { seed, temperature: Number.NaN }),
        /temperature to be a finite number, got NaN/,
      ],
      [() => sample(x, keys, { seed, temperature: inf }), /temperature to be a finite number/],
      [() => sample(x, keys, { seed, topK: -1 }), /expected topK to be an integer from 0/],
      [() => sample(x, keys, { seed, topK: 2.5 }), /expected topK to be an integer/],
      [() => sample(x, keys, { seed, topP: 0 }), /expected topP above 0 and at most 1, got 0/],
      [() => sample(x, keys, { seed, topP: 1.01 }), /expected topP above 0 and at most 1, got 1.01/],
      [() => sample(x, keys, { seed, topP: Number.NaN }), /expected topP to be a finite number/],
      [() => sample(x, keys, { seed, chunk: -1 }), /expected chunk to be an integer from 0/],
    ];
    for (const [attempt, message] of cases) assert.throws(attempt, { code: 'ERR_INVALID_ARGUMENT', message });
    for (const t of [x, vector, empty, keys, narrow, floats]) t.dispose();
  });
});
