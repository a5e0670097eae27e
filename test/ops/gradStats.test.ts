import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { gradientStats } from '../../lib/ops/gradStats.js';
import { setThreads, setVectorLevel } from '../../lib/runtime.js';
import { floatDtypes } from '../../lib/tensor/dtype.js';
import { tensor, zeros } from '../../lib/tensor/tensor.js';
import { normals } from '../support/compare.js';
import { vectorLevels } from '../support/levels.js';
import { ownTensors } from '../support/owned.js';

const own = ownTensors();
const close = (a: number, b: number) => assert.ok(Math.abs(a - b) <= 1e-6 * Math.abs(b), `${a} and ${b}`);

describe('gradientStats', () => {
  it('gives norms by hand', async () => {
    const stats = await gradientStats([
      ['a', own(tensor([3, 4]))],
      ['b', own(tensor([12], [1, 1], 'bf16'))],
    ]);
    close(stats.norm, 13);
    assert.equal(stats.nonFinite, 0);
    assert.ok(!('firstNonFinite' in stats));
    close(stats.perTensor.get('a')!.norm, 5);
    assert.deepEqual([...stats.perTensor.keys()], ['a', 'b']);
  });

  for (const dtype of floatDtypes) {
    it(`${dtype}: fp64 norms, counts, and the same bits at every level and thread count`, async () => {
      const sizes = [1, 15, 16, 8193, 70_001];
      const tensors = sizes.map((size, i) => own(tensor(normals(size, i + 1, 10 ** (i - 2)), [size], dtype)));
      const expected = [];
      for (const t of tensors) expected.push(Math.sqrt((await t.floats()).reduce((s, v) => s + v * v, 0)));
      let first: number[] | undefined;
      for (const level of vectorLevels()) {
        for (const threads of [1, 3]) {
          setVectorLevel(level);
          setThreads(threads);
          const stats = await gradientStats(tensors.map((t, i) => [`t${i}`, t] as const));
          const found = [stats.norm, ...[...stats.perTensor.values()].map((s) => s.norm)];
          first ??= found;
          assert.deepEqual(found, first, `${level}, ${threads} threads`);
          assert.equal(stats.nonFinite, 0);
        }
      }
      close(first![0]!, Math.sqrt(expected.reduce((s, n) => s + n * n, 0)));
      expected.forEach((norm, i) => {
        close(first![i + 1]!, norm);
      });
    });

    it(`${dtype}: counts infinities and NaN, leaves them out of the norm and names the first tensor`, async () => {
      for (const level of vectorLevels()) {
        setVectorLevel(level);
        const values = new Float64Array(9001).fill(0);
        values.set([3, Number.NaN, Infinity], 0);
        values.set([-Infinity, 4], 8999);
        const stats = await gradientStats([
          ['clean', own(tensor([12], [1], dtype))],
          ['middle', own(tensor(values, [9001], dtype))],
          ['later', own(tensor([Number.NaN], [1], dtype))],
        ]);
        close(stats.norm, 13);
        assert.equal(stats.nonFinite, 4);
        assert.equal(stats.firstNonFinite, 'middle');
        close(stats.perTensor.get('middle')!.norm, 5);
        assert.equal(stats.perTensor.get('middle')!.nonFinite, 3);
        assert.deepEqual(stats.perTensor.get('later'), { norm: 0, nonFinite: 1 });
      }
    });
  }

  it('neither overflows near the largest fp32 nor loses subnormals', async () => {
    const stats = await gradientStats([['big', own(tensor(new Float32Array(5000).fill(3e38)))]]);
    assert.equal(stats.nonFinite, 0);
    close(stats.norm, Math.fround(3e38) * Math.sqrt(5000));
    const small = await gradientStats([['small', own(tensor(new Float32Array(100).fill(1e-40)))]]);
    close(small.norm, Math.fround(1e-40) * 10);
  });

  it('takes nothing, empty tensors and any iterable; refuses int32 and disposed tensors', async () => {
    assert.deepEqual(await gradientStats([]), { norm: 0, nonFinite: 0, perTensor: new Map() });
    const stats = await gradientStats(new Map([['none', own(zeros([0, 3]))]]));
    assert.deepEqual(stats.perTensor.get('none'), { norm: 0, nonFinite: 0 });
    await assert.rejects(
      gradientStats([['ids', own(zeros([2], 'int32'))]]),
      /\[gradStats\] expected x of dtype fp32, fp16 or bf16, got int32/,
    );
    const gone = zeros([2]);
    gone.dispose();
    await assert.rejects(gradientStats([['gone', gone]]), /expected x to be a live tensor/);
  });
});
