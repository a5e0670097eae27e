/** Conversions to emulated formats against an independent reference, at every vector level. */
import assert from 'node:assert/strict';
import { afterEach, describe, it } from 'node:test';
import { info, setVectorLevel } from '../../lib/runtime.js';
import {
  checkFloatDtype,
  dtypeNumber,
  dtypeOf,
  type FloatDType,
  floatBits,
  formatOf,
  isEmulated,
  precisionLabel,
} from '../../lib/tensor/dtype.js';
import { cast, full, tensor } from '../../lib/tensor/tensor.js';
import { vectorLevels } from '../support/levels.js';

const scratch = new DataView(new ArrayBuffer(4));
const fromBits = (bits: number) => {
  scratch.setUint32(0, bits);
  return scratch.getFloat32(0);
};

/** Round to nearest even in fp64, where the quotient by a power of two and the product are exact. */
function reference(x: number, exponentBits: number, mantissaBits: number): number {
  if (!Number.isFinite(x) || x === 0) return x;
  const bias = 2 ** (exponentBits - 1) - 1;
  const magnitude = Math.abs(x);
  let exponent = 1 - bias;
  while (2 ** (exponent + 1) <= magnitude) exponent++;
  const quantum = 2 ** (exponent - mantissaBits);
  const steps = magnitude / quantum;
  const below = Math.floor(steps);
  const rest = steps - below;
  const rounded = (rest > 0.5 || (rest === 0.5 && below % 2 === 1) ? below + 1 : below) * quantum;
  const max = (2 - 2 ** -mantissaBits) * 2 ** bias;
  const result = rounded > max ? Infinity : rounded;
  return x < 0 ? -result : result;
}

/** Every exponent, with mantissas that are round, random, and beside the midpoints of `mantissaBits`. */
function inputs(mantissaBits: number): Float32Array {
  const values: number[] = [0, -0, Infinity, -Infinity];
  let state = 12345;
  const random = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state;
  };
  const half = mantissaBits === 23 ? 1 : 2 ** (22 - mantissaBits);
  for (let exponent = 0; exponent < 255; exponent++) {
    const mantissas = [0, 1, half, half - 1, half + 1, 3 * half, 0x7fffff, 0x7fffff - half, 0x800000 - half];
    for (let i = 0; i < 12; i++) mantissas.push(random() >>> 9, ((random() >>> 9) & ~(2 * half - 1)) | half);
    for (const mantissa of mantissas) {
      const bits = exponent * 2 ** 23 + (mantissa & 0x7fffff);
      values.push(fromBits(bits), -fromBits(bits));
    }
  }
  return Float32Array.from(values);
}

const { vectorLevel } = info();
afterEach(() => setVectorLevel(vectorLevel));

const formats = ['e2m1', 'e3m2', 'e4m3', 'e5m2', 'e5m10', 'e6m9', 'e7m1', 'e8m4', 'e8m7', 'e8m10', 'e8m22'];

describe('rounding to an emulated format', () => {
  for (const level of vectorLevels()) {
    it(`is to nearest even for every kind of number at ${level}`, async () => {
      setVectorLevel(level);
      for (const dtype of [...formats, 'e8m23', 'e2m23'] as FloatDType[]) {
        const { exponent, mantissa } = floatBits(dtype)!;
        const values = inputs(mantissa);
        using wide = tensor(values, [values.length]);
        using narrow = cast(wide, dtype);
        assert.equal(narrow.dtype, dtype);
        const out = await narrow.floats();
        for (let i = 0; i < values.length; i++) {
          const expected = reference(values[i]!, exponent, mantissa);
          if (!Object.is(out[i], expected)) {
            assert.fail(`${dtype}: ${values[i]} became ${out[i]}, not ${expected}`);
          }
        }
      }
    });

    for (const [dtype, real] of [
      ['e5m10', 'fp16'],
      ['e8m7', 'bf16'],
    ] as const) {
      it(`of ${dtype} is the conversion to ${real} at ${level}`, async () => {
        setVectorLevel(level);
        // Random bits, NaN among them; an odd number, so that a part of a vector is left.
        const bits = new Uint32Array(100_003);
        let state = 99;
        for (let i = 0; i < bits.length; i++) {
          state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
          bits[i] = (state ^ (state << 13)) >>> 0;
        }
        const values = new Float32Array(bits.buffer);
        using wide = tensor(values, [values.length]);
        using emulated = cast(wide, dtype);
        using native = cast(wide, real);
        const [a, b] = [await emulated.floats(), await native.floats()];
        for (let i = 0; i < a.length; i++) assert.ok(Object.is(a[i], b[i]), `${values[i]}: ${a[i]}, ${b[i]}`);
        using back = cast(emulated, real);
        assert.deepEqual(await back.bits(), await native.bits());
      });
    }
  }

  it('of e8m23 is none', async () => {
    const values = inputs(23);
    using wide = tensor(values, [values.length]);
    using same = cast(wide, 'e8m23');
    assert.deepEqual(await same.bits(), await wide.bits());
  });

  it('holds for a fill, an upload and between two formats', async () => {
    using filled = full([3], 1.3, 'e8m2');
    assert.deepEqual([...(await filled.floats())], [1.25, 1.25, 1.25]);
    using uploaded = tensor([1.3, -70000, 1e-9], [3], 'e5m2');
    assert.deepEqual([...(await uploaded.floats())], [1.25, -Infinity, 0]);
    using narrower = cast(uploaded, 'e4m1');
    assert.deepEqual([...(await narrower.floats())], [1, -Infinity, 0]);
  });
});

describe('the names of formats', () => {
  it('are numbers to the kernels and back', () => {
    const seen = new Set<number>();
    for (let exponent = 2; exponent <= 8; exponent++) {
      for (let mantissa = 1; mantissa <= 23; mantissa++) {
        const dtype = `e${exponent}m${mantissa}` as const;
        const number = dtypeNumber(dtype);
        assert.equal(dtypeOf(number), dtype);
        seen.add(number);
      }
    }
    assert.equal(seen.size, 7 * 23);
    for (const dtype of ['fp32', 'fp16', 'bf16', 'int32'] as const) assert.ok(!seen.has(dtypeNumber(dtype)));
    assert.ok(Math.max(...seen) < 256);
  });

  it('say what is emulated', () => {
    assert.deepEqual(
      ['fp16', 'e5m10'].map((d) => isEmulated(d as FloatDType)),
      [false, true],
    );
    assert.equal(precisionLabel('e8m4'), 'e8m4 (emulated)');
    assert.equal(precisionLabel('bf16'), 'bf16');
    assert.equal(checkFloatDtype('x', 'y', 'tf32'), 'e8m10');
    for (const bad of ['e9m3', 'e1m3', 'e4m0', 'e4m24', 'e04m3', 'fp8', 'int32', 7]) {
      assert.throws(
        () => checkFloatDtype('x', 'y', bad),
        /^InvalidArgumentError: \[x\] expected y to be fp16, bf16/,
      );
    }
    for (const [given, meant] of [
      ['bf61', 'bf16'],
      ['E4M3', 'e4m3'],
      ['e4m3fn', 'e4m3'],
      ['fp8_e4m3', 'e4m3'],
      ['fp8e5m2', 'e5m2'],
      ['float8_e5m2', 'e5m2'],
      ['torch.float8_e4m3fnuz', 'e4m3'],
      ['fp8', 'e4m3'],
      [' tf32', 'tf32'],
      ['e9m3', 'e8m3'],
    ]) {
      assert.throws(() => checkFloatDtype('x', 'y', given), new RegExp(`did you mean ${meant}\\?`), given);
    }
  });

  it('have the range of their real twins', () => {
    assert.deepEqual(formatOf('e5m10'), formatOf('fp16'));
    assert.deepEqual(formatOf('e8m7'), formatOf('bf16'));
    assert.deepEqual(formatOf('e8m23'), formatOf('fp32'));
    assert.equal(formatOf('fp16').max, 65504);
    assert.equal(formatOf('bf16').max, 3.3895313892515355e38);
    assert.equal(formatOf('fp32').max, 3.4028234663852886e38);
    assert.deepEqual(formatOf('fp16'), {
      max: 65504,
      minNormal: 2 ** -14,
      minSubnormal: 2 ** -24,
      epsilon: 2 ** -11,
    });
  });
});
