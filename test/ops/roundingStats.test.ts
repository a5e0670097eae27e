import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { roundingStats } from '../../lib/ops/roundingStats.js';
import { setVectorLevel } from '../../lib/runtime.js';
import { type FloatDType, floatDtypes, formatOf } from '../../lib/tensor/dtype.js';
import { cast, tensor } from '../../lib/tensor/tensor.js';
import { noEmulated } from '../support/dtypes.js';
import { vectorLevels } from '../support/levels.js';
import { ownTensors } from '../support/owned.js';
import { roundTo } from '../support/rounding.js';

const own = ownTensors();

/** fp32 numbers of every size, both signs, with zeros: exponents drawn evenly. */
function allSizes(count: number, seed: number): Float32Array {
  let state = seed;
  const draw = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
  return Float32Array.from({ length: count }, () => {
    if (draw() < 0.02) return 0;
    return (draw() < 0.5 ? -1 : 1) * (1 + draw()) * 2 ** Math.floor(draw() * 276 - 149);
  });
}

/** The same by fp64 arithmetic, value by value. */
function expected(values: Float32Array, dtype: 'fp16' | 'bf16' | 'fp32') {
  const { minNormal } = formatOf(dtype);
  const stats = { overflow: 0, nonFinite: 0, toZero: 0, subnormal: 0, maxAbs: 0, error: 0, all: 0 };
  for (const x of values) {
    const rounded = roundTo(x, dtype);
    stats.maxAbs = Math.max(stats.maxAbs, Math.abs(x));
    if (!Number.isFinite(x)) stats.nonFinite++;
    else if (!Number.isFinite(rounded)) stats.overflow++;
    else {
      if (x !== 0 && rounded === 0) stats.toZero++;
      if (rounded !== 0 && Math.abs(rounded) < minNormal) stats.subnormal++;
      stats.error += (rounded - x) ** 2;
      stats.all += x * x;
    }
  }
  return stats;
}

async function check(values: Float32Array, dtype: 'fp16' | 'bf16' | 'fp32'): Promise<void> {
  const x = own(tensor(values));
  const { errorNorm, norm, ...counts } = await roundingStats(x, own(cast(x, dtype)));
  const { error, all, ...wanted } = expected(values, dtype);
  assert.deepEqual(counts, wanted);
  const near = (found: number, squares: number) =>
    assert.ok(Math.abs(found - Math.sqrt(squares)) <= 1e-6 * Math.sqrt(squares), `${found} for ${squares}`);
  near(norm, all);
  near(errorNorm, error);
}

describe('roundingStats', () => {
  for (const level of vectorLevels()) {
    it(`counts what rounding does to numbers of every size, at ${level}`, async () => {
      setVectorLevel(level);
      for (const dtype of floatDtypes) await check(allSizes(20_011, 5), dtype);
    });
  }

  it('draws every line where the format does', async () => {
    for (const dtype of ['fp16', 'bf16'] as const) {
      const { max, minNormal, minSubnormal, epsilon } = formatOf(dtype);
      const lines = [
        ...[max, max * (1 + epsilon / 2), max * (1 + epsilon), max * (1 + epsilon) * (1 - 2 ** -23)],
        ...[minNormal, minNormal - minSubnormal, minNormal - minSubnormal / 2, minNormal - minSubnormal / 4],
        ...[minSubnormal, minSubnormal / 2, minSubnormal * 0.5001, minSubnormal / 4, 2 ** -149, 0, -0],
      ].filter((x) => Number.isFinite(Math.fround(x)));
      for (const x of lines) for (const sign of [1, -1]) await check(Float32Array.of(sign * x), dtype);
    }
  });

  it('leaves NaN and infinite values out of all but their own count', async () => {
    const values = Float32Array.of(1, Number.POSITIVE_INFINITY, 70000, Number.NaN, -1e-9, 3e-6);
    const x = own(tensor(values));
    const stats = await roundingStats(x, own(cast(x, 'fp16')));
    assert.deepEqual([stats.overflow, stats.nonFinite, stats.toZero, stats.subnormal], [1, 2, 1, 1]);
    assert.ok(Number.isNaN(stats.maxAbs));
    assert.ok(Math.abs(stats.norm - 1) < 1e-6);
  });

  it('takes emulated formats', { skip: noEmulated }, async () => {
    const x = own(tensor([240, 248, 0.01, 0.0009, 0.001]));
    const stats = await roundingStats(x, own(cast(x, 'e4m3' as FloatDType)));
    // IEEE's e4m3: largest 240, smallest normal 2^-6, smallest subnormal 2^-9.
    assert.deepEqual([stats.overflow, stats.toZero, stats.subnormal], [1, 1, 2]);
  });

  it('refuses what it cannot count', async () => {
    const none = own(tensor([], [0]));
    await assert.rejects(
      roundingStats(none, none),
      /\[roundingStats\] expected x of 1 to 2\^24 elements, got 0/,
    );
    const [a, b] = [own(tensor([1, 2])), own(tensor([1, 2, 3], [3], 'fp16'))];
    await assert.rejects(roundingStats(a, b), /expected b of shape \[2\]/);
  });
});
