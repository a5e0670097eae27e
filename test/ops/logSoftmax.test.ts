import assert from 'node:assert/strict';
import { after, afterEach, describe, it } from 'node:test';
import { chosenLogprobs, logSoftmax, logSoftmaxBackward } from '../../lib/ops/logSoftmax.js';
import { info, memory, setThreads, setVectorLevel } from '../../lib/runtime.js';
import { floatDtypes } from '../../lib/tensor/dtype.js';
import { readTensors, type Tensor, tensor } from '../../lib/tensor/tensor.js';
import { assertClose, assertSameBits, normals } from '../support/compare.js';
import { vectorLevels } from '../support/levels.js';

const widths = [1, 2, 11, 33, 1000, 4099];
const chunks = [0, 16, 512];
const families = ['rollout', 'training'] as const;

const start = memory().tensors;
after(() => assert.equal(memory().tensors, start));
const { threads, vectorLevel } = info();
afterEach(() => {
  setVectorLevel(vectorLevel);
  setThreads(threads);
});

/** log-softmax, log-sum-exp and entropy of the rows, in fp64. */
function reference(logits: ArrayLike<number>, columns: number, temperature: number) {
  const rows = logits.length / columns;
  const logprobs = new Float64Array(logits.length);
  const lse = new Float64Array(rows);
  const entropy = new Float64Array(rows);
  for (let i = 0; i < rows; i++) {
    let max = Number.NEGATIVE_INFINITY;
    for (let j = 0; j < columns; j++) max = Math.max(max, logits[i * columns + j]! / temperature);
    let sum = 0;
    for (let j = 0; j < columns; j++) sum += Math.exp(logits[i * columns + j]! / temperature - max);
    lse[i] = max + Math.log(sum);
    for (let j = 0; j < columns; j++) {
      const logprob = logits[i * columns + j]! / temperature - lse[i]!;
      logprobs[i * columns + j] = logprob;
      if (logprob > Number.NEGATIVE_INFINITY) entropy[i]! -= Math.exp(logprob) * logprob;
    }
  }
  return { logprobs, lse, entropy };
}

/** Error in nats: log-probs are compared absolutely, with room for the fp32 grid of x and of lse. */
function assertNats(out: ArrayLike<number>, expected: ArrayLike<number>, limit: number, label: string): void {
  assert.equal(out.length, expected.length);
  for (let i = 0; i < expected.length; i++) {
    const error = Math.abs(out[i]! - expected[i]!);
    assert.ok(error <= limit, `${label}: element ${i} is ${out[i]}, expected ${expected[i]}`);
  }
}

function disposeAll(...tensors: Tensor[]): void {
  for (const t of tensors) t.dispose();
}

async function deviceError(t: Tensor, pattern: RegExp): Promise<void> {
  await assert.rejects(t.data(), (error: Error & { code?: string }) => {
    assert.equal(error.code, 'ERR_DEVICE');
    assert.match(error.message, pattern);
    assert.match(error.stack ?? '', /logSoftmax\.test/);
    return true;
  });
}

for (const level of vectorLevels()) {
  describe(`log-softmax at ${level}`, () => {
    for (const dtype of floatDtypes) {
      it(`${dtype}: logSoftmax and chosenLogprobs are those of fp64, in both families and every chunk`, async () => {
        setVectorLevel(level);
        for (const columns of widths) {
          const rows = 5;
          const logits = tensor(normals(rows * columns, columns + 7, 4), [rows, columns], dtype);
          const values = await logits.floats();
          const chosen = Int32Array.from({ length: rows }, (_, i) => (i * 7919 + columns - 1) % columns);
          const ids = tensor(chosen, [rows], 'int32');
          for (const temperature of [1, 0.7]) {
            // The kernel divides by the fp32 temperature.
            const expected = reference(values, columns, Math.fround(temperature));
            for (const chunk of chunks) {
              const bits: Float32Array[][] = [];
              for (const family of families) {
                const label = `${dtype} V ${columns} T ${temperature} chunk ${chunk} ${family}`;
                const out = logSoftmax(logits, { temperature, chunk, family });
                const token = chosenLogprobs(logits, ids, { temperature, chunk, family });
                const read = (await readTensors([
                  out,
                  token.logprobs,
                  token.lse,
                  token.entropy,
                ])) as Float32Array[];
                const [all, logprobs, lse, entropy] = read as [
                  Float32Array,
                  Float32Array,
                  Float32Array,
                  Float32Array,
                ];
                assertNats(all, expected.logprobs, 6e-6, label);
                assertNats(lse, expected.lse, 3e-6, `${label} lse`);
                assertNats(entropy, expected.entropy, 1e-5, `${label} entropy`);
                assertSameBits(
                  logprobs,
                  Array.from(chosen, (id, i) => all[i * columns + id]!),
                  `${label} chosen`,
                );
                assert.ok(
                  all.every((x) => x <= 0),
                  `${label}: no log-prob is above 0`,
                );
                bits.push(read);
                disposeAll(out, token.logprobs, token.lse, token.entropy);
              }
              for (let k = 0; k < 4; k++)
                assertSameBits(bits[0]![k]!, bits[1]![k]!, `${dtype} V ${columns} chunk ${chunk}, families`);
            }
          }
          disposeAll(logits, ids);
        }
      });

      it(`${dtype}: the gradient is the analytic one and that of finite differences`, async () => {
        setVectorLevel(level);
        for (const columns of [1, 2, 11, 33, 1000]) {
          const rows = 3;
          const temperature = 0.5;
          const logits = tensor(normals(rows * columns, columns, 2), [rows, columns], dtype);
          const values = await logits.floats();
          const weights = Float32Array.from(normals(rows * columns, columns + 1));
          const dOut = tensor(weights, [rows, columns]);
          const logprobs = logSoftmax(logits, { temperature, family: 'training' });
          const grad = logSoftmaxBackward(dOut, logprobs, { temperature, dtype });
          assert.equal(grad.dtype, dtype);
          const out = await grad.floats();
          const analytic = new Float64Array(rows * columns);
          const forward = reference(values, columns, temperature).logprobs;
          for (let i = 0; i < rows; i++) {
            const row = weights.subarray(i * columns, (i + 1) * columns);
            const total = row.reduce((a, b) => a + b, 0);
            for (let j = 0; j < columns; j++) {
              const p = Math.exp(forward[i * columns + j]!);
              analytic[i * columns + j] = (row[j]! - p * total) / temperature;
            }
          }
          if (columns === 1) assertNats(out, [0, 0, 0], 1e-6, 'one entry has no gradient');
          else assertClose(out, analytic, dtype, `${dtype} V ${columns}`);
          const loss = (x: Float64Array) =>
            reference(x, columns, temperature).logprobs.reduce((sum, l, k) => sum + l * weights[k]!, 0);
          for (const at of [0, (columns * rows) >> 1, columns * rows - 1]) {
            const shifted = (by: number) => {
              const x = Float64Array.from(values);
              x[at]! += by;
              return loss(x);
            };
            const slope = (shifted(1e-4) - shifted(-1e-4)) / 2e-4;
            const unit = dtype === 'fp32' ? 1e-5 : dtype === 'fp16' ? 1e-3 : 8e-3;
            assert.ok(
              Math.abs(out[at]! - slope) <= unit * (Math.abs(slope) + 1),
              `${at}: ${out[at]}, ${slope}`,
            );
          }
          disposeAll(logits, dOut, logprobs, grad);
        }
      });
    }

    it('has exponentials within two units in the last place, subnormal ones too', async () => {
      setVectorLevel(level);
      // With a dOut of 0 everywhere but in the first column, where it is -1, the gradient is exp(logprob).
      const columns = 4099;
      const exponents = Float32Array.from({ length: columns }, (_, j) =>
        j % 3 === 0 ? -j / 39 : j % 3 === 1 ? -j / 3900 : (j - 2000) / 23,
      );
      const special = [0, -0, -104, -105, -1e30, Number.NEGATIVE_INFINITY, 88.7, 90, 1e30, Number.NaN];
      exponents.set(special, 1);
      const d = new Float32Array(columns);
      d[0] = -1;
      const dOut = tensor(d, [1, columns]);
      const logprobs = tensor(exponents, [1, columns]);
      const grad = logSoftmaxBackward(dOut, logprobs, { dtype: 'fp32' });
      const out = await grad.floats();
      for (let j = 1; j < columns; j++) {
        const exact = Math.exp(exponents[j]!);
        if (!(exact < 3.4e38)) assert.ok(Object.is(out[j], exact > 0 ? Infinity : Number.NaN), `${j}`);
        else {
          const unit = 2 ** (Math.max(-126, Math.floor(Math.log2(exact))) - 23);
          assert.ok(Math.abs(out[j]! - exact) <= 2 * unit, `exp(${exponents[j]}) is ${out[j]}`);
        }
      }
      assert.deepEqual(Array.from(out.subarray(1, 7)), [1, 1, 0, 0, 0, 0]);
      disposeAll(dOut, logprobs, grad);
    });

    it('gives exactly -infinity and no NaN for masked logits, and NaN where a row has no distribution', async () => {
      setVectorLevel(level);
      const inf = Number.POSITIVE_INFINITY;
      for (const chunk of chunks) {
        for (const family of families) {
          for (const columns of [2, 33, 1000]) {
            const row = (make: (j: number) => number) => Array.from({ length: columns }, (_, j) => make(j));
            const last = columns - 1;
            const values = [
              row((j) => (j === last ? -2.5 : -inf)),
              row((j) => (j === 0 ? 3 : j === last ? 3 : -inf)),
              row(() => -inf),
              row((j) => (j === last ? Number.NaN : -inf)),
              row((j) => (j === 0 ? Number.NaN : j)),
              row((j) => (j === last ? inf : 0)),
              row((j) => (j === 0 ? -3e38 : 3e38)),
            ];
            const logits = tensor(values.flat(), [values.length, columns]);
            const ids = tensor(new Int32Array(values.length).fill(last), [values.length], 'int32');
            const out = logSoftmax(logits, { chunk, family });
            const token = chosenLogprobs(logits, ids, { chunk, family });
            const [all, logprobs, lse, entropy] = await readTensors([
              out,
              token.logprobs,
              token.lse,
              token.entropy,
            ]);
            const at = (i: number) => Array.from(all!.subarray(i * columns, (i + 1) * columns));
            const label = `V ${columns} chunk ${chunk} ${family}`;
            assert.deepEqual(
              at(0),
              row((j) => (j === last ? 0 : -inf)),
              label,
            );
            const half = Math.fround(3 - Math.fround(3 + Math.log(2)));
            assert.deepEqual(
              at(1),
              row((j) => (j === 0 || j === last ? half : -inf)),
              label,
            );
            for (const i of [2, 3, 4, 5]) {
              assert.ok(at(i).every(Number.isNaN), `${label} row ${i}`);
              assert.ok(Number.isNaN(logprobs![i]) && Number.isNaN(entropy![i]), `${label} row ${i}`);
            }
            assert.equal(at(6)[0], -inf);
            assert.ok(Number.isFinite(logprobs![6]) && Number.isFinite(lse![6]));
            assert.deepEqual([lse![0], logprobs![0], entropy![0]], [-2.5, 0, 0]);
            assert.ok(Math.abs(entropy![1]! - Math.log(2)) < 1e-7);
            disposeAll(logits, ids, out, token.logprobs, token.lse, token.entropy);
          }
        }
      }
    });

    it('rescales what was summed where later steps raise the maximum', async () => {
      setVectorLevel(level);
      // Rising by 1 an entry, so that every step of 16 raises it; and one late jump that leaves nothing before.
      const rising = Float64Array.from({ length: 99 }, (_, j) => j);
      const jump = Float64Array.from({ length: 99 }, (_, j) => (j === 90 ? 500 : -j / 10));
      const logits = tensor([...rising, ...jump], [2, 99]);
      const ids = tensor(Int32Array.of(98, 90), [2], 'int32');
      const expected = reference([...rising, ...jump], 99, 1);
      for (const family of families) {
        for (const chunk of [1, 16, 17, 64, 98]) {
          const token = chosenLogprobs(logits, ids, { chunk, family });
          const [logprobs, lse, entropy] = await readTensors([token.logprobs, token.lse, token.entropy]);
          assertNats(lse!, expected.lse, 2e-5, `chunk ${chunk}`);
          assertNats(entropy!, expected.entropy, 1e-6, `chunk ${chunk}`);
          assertNats(logprobs!, [expected.logprobs[98]!, 0], 8e-6, `chunk ${chunk}`);
          disposeAll(token.logprobs, token.lse, token.entropy);
        }
      }
      disposeAll(logits, ids);
    });
  });
}

describe('log-softmax', () => {
  it('gives the same bits at 1 and 3 threads, and to a row alone as in a batch', async () => {
    const [rows, columns] = [37, 1234];
    const logits = tensor(normals(rows * columns, 3, 5), [rows, columns], 'bf16');
    const ids = tensor(
      Int32Array.from({ length: rows }, (_, i) => (i * 31) % columns),
      [rows],
      'int32',
    );
    const dOut = tensor(normals(rows * columns, 4), [rows, columns]);
    for (const family of families) {
      const compute = async (from: number, to: number) => {
        const [part, some, d] = [logits.rows(from, to), ids.rows(from, to), dOut.rows(from, to)];
        const out = logSoftmax(part, { family, chunk: 512 });
        const token = chosenLogprobs(part, some, { family, chunk: 512 });
        const grad = logSoftmaxBackward(d, out, { dtype: 'fp16' });
        const all = [out, token.logprobs, token.lse, token.entropy, grad];
        const read = (await readTensors(all)) as Float32Array[];
        disposeAll(part, some, d, ...all);
        return read;
      };
      setThreads(1);
      const one = await compute(0, rows);
      setThreads(3);
      const three = await compute(0, rows);
      const alone = await compute(20, 21);
      one.forEach((values, k) => {
        assertSameBits(values, three[k]!, `threads, output ${k}`);
        const width = values.length / rows;
        assertSameBits(values.subarray(20 * width, 21 * width), alone[k]!, `batch, output ${k}`);
      });
    }
    disposeAll(logits, ids, dOut);
  });

  it('differs between chunks where sums are long, so that the knob is one', async () => {
    const logits = tensor(normals(64 * 4099, 5, 3), [64, 4099]);
    const ids = tensor(new Int32Array(64), [64], 'int32');
    const whole = chosenLogprobs(logits, ids, { chunk: 0 });
    const steps = chosenLogprobs(logits, ids, { chunk: 16 });
    const [a, b] = await readTensors([whole.logprobs, steps.logprobs]);
    assert.ok(a!.some((x, i) => x !== b![i]));
    for (const t of [whole, steps]) disposeAll(t.logprobs, t.lse, t.entropy);
    disposeAll(logits, ids);
  });

  it('takes no rows', async () => {
    const logits = tensor([], [0, 7]);
    const ids = tensor([], [0], 'int32');
    for (const family of families) {
      const out = logSoftmax(logits, { family });
      const token = chosenLogprobs(logits, ids, { family });
      const grad = logSoftmaxBackward(out, out);
      for (const t of [out, token.logprobs, grad]) assert.equal((await t.data()).length, 0);
      disposeAll(out, token.logprobs, token.lse, token.entropy, grad);
    }
    disposeAll(logits, ids);
  });

  it('names the row, the id and the vocabulary of an id outside it', async () => {
    const logits = tensor(new Float32Array(33), [3, 11]);
    for (const [id, row] of [
      [11, 1],
      [-1, 2],
    ] as const) {
      const values = new Int32Array(3);
      values[row] = id;
      const ids = tensor(values, [3], 'int32');
      for (const family of families) {
        const token = chosenLogprobs(logits, ids, { family });
        await deviceError(
          token.logprobs,
          new RegExp(`^\\[chosenLogprobs\\] expected ids from 0 to V - 1 = 10, got ${id} in row ${row}$`),
        );
        disposeAll(token.logprobs, token.lse, token.entropy);
      }
      ids.dispose();
    }
    logits.dispose();
  });

  it('rejects each bad argument at the call', () => {
    const x = tensor(new Float32Array(6), [2, 3]);
    const vector = tensor(new Float32Array(6));
    const empty = tensor([], [2, 0]);
    const ints = tensor(new Int32Array(6), [2, 3], 'int32');
    const ids = tensor(new Int32Array(2), [2], 'int32');
    const three = tensor(new Int32Array(3), [3], 'int32');
    const halves = tensor(new Float32Array(6), [2, 3], 'fp16');
    const cases: [() => unknown, RegExp][] = [
      [() => logSoftmax(vector), /^\[logSoftmax\] expected logits of 2 dimensions \[N, V\], got \[6\]/],
      [() => logSoftmax(empty), /expected logits of shape \[N, V\] with V of at least 1, got \[2, 0\]/],
      [() => logSoftmax(ints), /expected logits of dtype fp32, fp16 or bf16, got int32/],
      [() => logSoftmax(x, { temperature: 0 }), /expected temperature above 0/],
      [() => logSoftmax(x, { temperature: -1 }), /expected temperature above 0/],
      [() => logSoftmax(x, { temperature: 1e-60 }), /expected temperature above 0/],
      [
        () => logSoftmax(x, { temperature: Number.NaN }),
        /expected temperature to be a finite number, got NaN/,
      ],
      [() => logSoftmax(x, { temperature: Number.POSITIVE_INFINITY }), /temperature to be a finite number/],
      [() => logSoftmax(x, { chunk: -1 }), /expected chunk to be an integer from 0/],
      [() => logSoftmax(x, { chunk: 1.5 }), /expected chunk to be an integer/],
      [() => logSoftmax(x, { family: 'rolout' as 'rollout' }), /expected family to be one of.*rollout\?/],
      [() => chosenLogprobs(x, three), /^\[chosenLogprobs\] expected ids of shape \[N\] = \[2\], got \[3\]/],
      [() => chosenLogprobs(x, x), /expected ids of dtype int32, got fp32/],
      [() => chosenLogprobs(vector, ids), /expected logits of 2 dimensions/],
      [() => chosenLogprobs(x, ids, { temperature: 0 }), /expected temperature above 0/],
      [() => logSoftmaxBackward(halves, x), /^\[logSoftmaxBackward\] expected dOut of dtype fp32, got fp16/],
      [() => logSoftmaxBackward(x, halves), /expected logprobs of dtype fp32, got fp16/],
      [() => logSoftmaxBackward(x, vector), /expected logprobs of shape \[N, V\] = \[2, 3\], got \[6\]/],
      [() => logSoftmaxBackward(vector, x), /expected dOut of 2 dimensions/],
      [() => logSoftmaxBackward(empty, empty), /expected dOut of shape \[N, V\] with V of at least 1/],
      [() => logSoftmaxBackward(x, x, { temperature: 0 }), /expected temperature above 0/],
    ];
    for (const [attempt, message] of cases) assert.throws(attempt, { code: 'ERR_INVALID_ARGUMENT', message });
    disposeAll(x, vector, empty, ints, ids, three, halves);
  });
});
