import assert from 'node:assert/strict';
import { after, describe, it } from 'node:test';
import { swiglu, swigluBackward } from '../../lib/ops/swiglu.js';
import { memory, setThreads, setVectorLevel } from '../../lib/runtime.js';
import { floatDtypes } from '../../lib/tensor/dtype.js';
import { randomNormal, readTensors, type Tensor, tensor, view, zeros } from '../../lib/tensor/tensor.js';
import { assertClose, assertSameBits, normals } from '../support/compare.js';
import { vectorLevels } from '../support/levels.js';
import { roundTo } from '../support/rounding.js';

const f = Math.fround;
const widths = [1, 5, 16, 33, 64, 100, 257];
const start = memory().tensors;
after(() => assert.equal(memory().tensors, start));

const disposeAll = (...tensors: Tensor[]) => {
  for (const t of tensors) t.dispose();
};
const sigmoid = (g: number) => 1 / (1 + Math.exp(-g));
const silu = (g: number) => g * sigmoid(g);

/** d silu / dg from its definition g s(g), by the product rule. */
const siluSlope = (g: number) => sigmoid(g) + g * sigmoid(g) * sigmoid(-g);

for (const level of vectorLevels()) {
  describe(`swiglu at ${level}`, () => {
    it('computes silu in fp32 within 4 ulp, from -103 to 100', async () => {
      setVectorLevel(level);
      const gates = Float32Array.from({ length: 4001 }, (_, i) => -103 + (i * 203) / 4000);
      const gateUp = tensor([...gates, ...gates.map(() => 1)], [1, 8002]);
      const y = swiglu(gateUp);
      const values = await y.floats();
      for (const [i, g] of gates.entries()) {
        const reference = g / (1 + Math.exp(-g));
        // Below -87 the result nears and enters the subnormal numbers, whose spacing is 2^-149.
        const ulp = Math.max(Math.abs(reference) * 2 ** -23, 2 ** -149 * 128);
        assert.ok(Math.abs(values[i]! - reference) <= 4 * ulp, `silu(${g}) = ${values[i]}, not ${reference}`);
      }
      disposeAll(gateUp, y);
    });

    for (const dtype of floatDtypes) {
      it(`${dtype}: rounds where its argument says, to the bit`, async () => {
        setVectorLevel(level);
        for (const width of widths) {
          const gateUp = tensor(normals(6 * width, width, 2), [3, 2 * width], dtype);
          const x = await gateUp.floats();
          const at = (row: number, i: number) => x[row * 2 * width + i]!;
          // silu in fp32 of the same gates: the op itself on fp32 with up = 1, checked on its own above.
          const wide = tensor(
            x.map((value, k) => (k % (2 * width) < width ? value : 1)),
            [3, 2 * width],
          );
          const exact = swiglu(wide);
          const one = swiglu(gateUp, 1);
          const two = swiglu(gateUp, 2);
          const [s, y1, y2] = await readTensors([exact, one, two]);
          assert.deepEqual(one.shape, [3, width]);
          for (let k = 0; k < 3 * width; k++) {
            const up = at(Math.floor(k / width), width + (k % width));
            const where = `width ${width}, element ${k}`;
            assertSameBits([y1![k]!], [roundTo(f(s![k]! * up), dtype)], `1 rounding, ${where}`);
            assertSameBits(
              [y2![k]!],
              [roundTo(f(roundTo(s![k]!, dtype) * up), dtype)],
              `2 roundings, ${where}`,
            );
          }
          const reference = Float64Array.from(
            y1!,
            (_, k) =>
              silu(at(Math.floor(k / width), k % width)) * at(Math.floor(k / width), width + (k % width)),
          );
          assertClose(y1!, reference, dtype, `fp64, width ${width}`);
          assertClose(y2!, reference, dtype, `fp64, two roundings, width ${width}`);
          disposeAll(gateUp, wide, exact, one, two);
        }
      });

      it(`${dtype}: gradients agree with fp64`, async () => {
        setVectorLevel(level);
        for (const width of widths) {
          const gateUp = tensor(normals(6 * width, width, 3), [3, 2 * width], dtype);
          const dOut = tensor(normals(3 * width, width + 1), [3, width], dtype);
          const gradient = swigluBackward(dOut, gateUp);
          const [x, d, out] = await readTensors([gateUp, dOut, gradient]);
          const reference = Float64Array.from(x!, (_, k) => {
            const [row, i] = [Math.floor(k / (2 * width)), k % (2 * width)];
            const gate = x![row * 2 * width + (i % width)]!;
            const up = x![row * 2 * width + (i % width) + width]!;
            const upstream = d![row * width + (i % width)]!;
            return i < width ? upstream * up * siluSlope(gate) : upstream * silu(gate);
          });
          assertClose(out!, reference, dtype, `width ${width}`);
          const other = zeros(gateUp.shape, dtype);
          swigluBackward(dOut, gateUp, other);
          swigluBackward(dOut, gateUp, gateUp);
          for (const t of [other, gateUp]) assertSameBits(await t.data(), out!, `out, width ${width}`);
          disposeAll(gateUp, dOut, gradient, other);
        }
      });

      it(`${dtype}: large gates neither overflow nor lose the sign of zero, infinities stay`, async () => {
        setVectorLevel(level);
        const gates = [100, -100, Infinity, -Infinity, NaN, 0];
        const gateUp = tensor([...gates, 2, 2, 2, 2, 2, 2], [12], dtype);
        const dOut = tensor([1, 1, 1, 1, 1, 1], [6], dtype);
        const y = swiglu(gateUp);
        const dx = swigluBackward(dOut, gateUp);
        const [out, gradient] = await readTensors([y, dx]);
        const tiny = roundTo(f(-200 * Math.exp(-100)), dtype);
        assert.deepEqual([out![0], ...out!.subarray(2)], [200, Infinity, NaN, NaN, 0]);
        assert.ok(Math.abs(out![1]! - tiny) <= 1e-3 * Math.abs(tiny) + 2 ** -133, `${out![1]}`);
        assert.ok(Object.is(out![1], -0) || out![1]! < 0);
        assert.equal(gradient![0], 2); // slope of silu at 100: 1
        assert.ok(Math.abs(gradient![1]!) < 1e-40);
        assert.equal(gradient![5], 1); // slope at 0: 1/2
        assert.equal(gradient![6], 100);
        assert.ok(Math.abs(gradient![7]!) < 1e-40);
        disposeAll(gateUp, dOut, y, dx);
      });

      it(`${dtype}: a row is the same in any batch and at 1 and 3 threads`, async () => {
        setVectorLevel(level);
        const gateUp = randomNormal([4, 75, 514], { seed: 1, dtype });
        const dOut = randomNormal([4, 75, 257], { seed: 2, dtype });
        const results = [];
        for (const threads of [1, 3]) {
          setThreads(threads);
          const y = swiglu(gateUp, 2);
          const dx = swigluBackward(dOut, gateUp);
          assert.deepEqual([y.shape, dx.shape], [dOut.shape, gateUp.shape]);
          results.push(await readTensors([y, dx]));
          disposeAll(y, dx);
        }
        setThreads(2);
        assertSameBits(results[1]![0]!, results[0]![0]!, 'forward');
        assertSameBits(results[1]![1]!, results[0]![1]!, 'backward');
        const flat = gateUp.reshape(300, 514);
        const row = flat.rows(123, 124);
        const alone = swiglu(row, 2);
        assertSameBits(await alone.data(), results[0]![0]!.subarray(123 * 257, 124 * 257), 'alone');
        disposeAll(gateUp, dOut, flat, row, alone);
      });
    }
  });
}

describe('swiglu', () => {
  it('has reference gradients that agree with finite differences', () => {
    for (const g of [-30, -3, -0.5, 0, 0.1, 2, 20]) {
      const slope = (silu(g + 1e-5) - silu(g - 1e-5)) / 2e-5;
      assert.ok(Math.abs(slope - siluSlope(g)) < 1e-9, `${g}`);
    }
  });

  it('takes tensors without rows and rows without elements', async () => {
    for (const shape of [
      [0, 8],
      [3, 0],
    ]) {
      const x = zeros(shape);
      const y = swiglu(x);
      assert.deepEqual(y.shape, [shape[0], shape[1]! / 2]);
      assert.equal((await y.data()).length, 0);
      disposeAll(x, y);
    }
  });

  it('names the argument that does not fit', () => {
    const x = zeros([2, 8]);
    const odd = zeros([2, 7]);
    const half = zeros([2, 4], 'fp16');
    const ids = zeros([2, 8], 'int32');
    const upper = zeros([2, 4]);
    const whole = zeros([3, 8]);
    const [lower, shifted] = [whole.rows(0, 2), whole.rows(1, 3)];
    const inside = view(whole, 0, [2, 4]);
    const live = memory().tensors;
    const cases: [() => void, RegExp][] = [
      [() => swiglu(odd), /^\[swiglu\] expected gateUp with an even last dimension \(2F\), got \[2, 7\]$/],
      [() => swiglu(ids), /^\[swiglu\] expected gateUp of dtype .*, got int32$/],
      [() => swiglu(x, 3 as 1), /expected roundings to be an integer from 1 to 2, got 3/],
      [() => swigluBackward(x, x), /^\[swigluBackward\] expected dOut of shape \[2, 4\], got \[2, 8\]$/],
      [() => swigluBackward(half, x), /expected dOut of dtype fp32, got fp16/],
      [() => swigluBackward(upper, x, odd), /expected out of shape \[2, 8\], got \[2, 7\]/],
      [() => swigluBackward(upper, lower, shifted), /out to be gateUp or to have memory of its own/],
      [() => swigluBackward(inside, x, lower), /out to have memory of its own, got memory that dOut uses/],
    ];
    for (const [call, message] of cases) assert.throws(call, { code: 'ERR_INVALID_ARGUMENT', message });
    assert.equal(memory().tensors, live);
    disposeAll(x, odd, half, ids, upper, whole, lower, shifted, inside);
  });
});
