import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type AdamWOptions, adamw } from '../../lib/ops/adamw.js';
import { setThreads, setVectorLevel } from '../../lib/runtime.js';
import { floatDtypes } from '../../lib/tensor/dtype.js';
import { cast, tensor, zeros } from '../../lib/tensor/tensor.js';
import { assertClose, assertSameBits, normals } from '../support/compare.js';
import { vectorLevels } from '../support/levels.js';
import { ownTensors } from '../support/owned.js';

const own = ownTensors();
const defaults: AdamWOptions = { lr: 1e-3, beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1, step: 1 };

/** One step in fp64 on plain arrays. */
function reference(
  w: Float64Array,
  g: ArrayLike<number>,
  m: Float64Array,
  v: Float64Array,
  { lr, beta1, beta2, eps, weightDecay, step, gradScale = 1 }: AdamWOptions,
): void {
  for (let i = 0; i < w.length; i++) {
    const gradient = g[i]! * gradScale;
    m[i] = beta1 * m[i]! + (1 - beta1) * gradient;
    v[i] = beta2 * v[i]! + (1 - beta2) * gradient ** 2;
    const mHat = m[i]! / (1 - beta1 ** step);
    const vHat = v[i]! / (1 - beta2 ** step);
    w[i] = w[i]! - lr * weightDecay * w[i]! - (lr * mHat) / (Math.sqrt(vHat) + eps);
  }
}

describe('adamw', () => {
  it('does a step by hand', async () => {
    // g = 2, m = 1, v = 2, corrections 1/2 and 1/2: m^ = 2, v^ = 4; w = 8 - 0.5*0.25*8 - 0.5 * 2 / (2 + 2) = 6.75.
    const [w, g, m, v] = [[8], [4], [0], [0]].map((x) => own(tensor(x)));
    adamw(w!, g!, m!, v!, {
      lr: 0.5,
      beta1: 0.5,
      beta2: 0.5,
      eps: 2,
      weightDecay: 0.25,
      step: 1,
      gradScale: 0.5,
    });
    assert.deepEqual([await w!.item(), await m!.item(), await v!.item()], [6.75, 1, 2]);
    assert.equal(await g!.item(), 4);
  });

  for (const { size, options } of [
    { size: 1, options: {} },
    { size: 37, options: { gradScale: 1 / 65536 } },
    { size: 50_003, options: { gradScale: 0.37, beta2: 0.999 } },
    { size: 100, options: { weightDecay: 0, beta1: 0 } },
  ]) {
    it(`follows fp64 over 20 steps of ${size} weights, ${JSON.stringify(options)}`, async () => {
      const settings = { ...defaults, lr: 1e-2, ...options };
      const start = Float32Array.from(normals(size, 1));
      const w64 = Float64Array.from(start);
      const m64 = new Float64Array(size);
      const v64 = new Float64Array(size);
      const gradients = Array.from({ length: 20 }, (_, i) =>
        Float32Array.from(normals(size, 100 + i, 1 / (settings.gradScale ?? 1))),
      );
      gradients.forEach((g, i) => {
        reference(w64, g, m64, v64, { ...settings, step: i + 1 });
      });
      let first: Float32Array[] | undefined;
      for (const level of vectorLevels()) {
        for (const threads of [1, 3]) {
          setVectorLevel(level);
          setThreads(threads);
          const w = own(tensor(start));
          const [g, m, v] = [0, 0, 0].map(() => own(zeros([size])));
          gradients.forEach((values, i) => {
            g!.upload(values);
            adamw(w, g!, m!, v!, { ...settings, step: i + 1 });
          });
          const state = [await w.floats(), await m!.floats(), await v!.floats()];
          first ??= state;
          state.forEach((x, i) => {
            assertSameBits(x, first![i]!, `${'wmv'[i]} at ${level}, ${threads} threads`);
          });
        }
      }
      assertClose(first![0]!, w64, 'fp32', 'weights', 1e-6);
      assertClose(first![1]!, m64, 'fp32', 'm', 1e-6);
      assertClose(first![2]!, v64, 'fp32', 'v', 1e-6);
    });
  }

  for (const dtype of floatDtypes) {
    it(`leaves the rounded weights in a ${dtype} tensor`, async () => {
      for (const level of vectorLevels()) {
        setVectorLevel(level);
        const w = own(tensor(normals(1003, 2), [17, 59]));
        const compute = own(zeros([17, 59], dtype));
        const state = [0, 0].map(() => own(zeros([17, 59])));
        adamw(w, own(tensor(normals(1003, 3), [17, 59])), state[0]!, state[1]!, { ...defaults, compute });
        assertSameBits(await compute.bits(), await own(cast(w, dtype)).bits(), `${dtype} at ${level}`);
      }
    });
  }

  it('names the argument at fault and then changes nothing', async () => {
    const make = () => own(tensor([1, 2]));
    const [w, g, m, v] = [make(), make(), make(), make()];
    const run = (change: Partial<AdamWOptions>) => () => adamw(w, g, m, v, { ...defaults, ...change });
    const other = own(zeros([3]));
    const ids = own(zeros([2], 'int32'));
    assert.throws(() => adamw(ids, g, m, v, defaults), /\[adamw\] expected master of dtype fp32, got int32/);
    assert.throws(() => adamw(w, other, m, v, defaults), /expected grad of shape \[2\], got \[3\]/);
    assert.throws(() => adamw(w, g, other, v, defaults), /expected m of shape \[2\], got \[3\]/);
    assert.throws(
      () => adamw(w, g, m, own(zeros([2], 'fp16')), defaults),
      /expected v of dtype fp32, got fp16/,
    );
    assert.throws(run({ compute: other }), /expected compute of shape \[2\], got \[3\]/);
    assert.throws(run({ compute: ids }), /expected compute of dtype fp32, fp16 or bf16, got int32/);
    assert.throws(run({ lr: -1 }), /expected lr of at least 0, got -1/);
    assert.throws(run({ lr: Number.NaN }), /expected lr to be a finite number, got NaN/);
    assert.throws(run({ beta1: 1 }), /expected beta1 from 0 to below 1, got 1/);
    assert.throws(run({ beta2: -0.1 }), /expected beta2 from 0 to below 1/);
    assert.throws(run({ eps: -1 }), /expected eps of at least 0/);
    assert.throws(run({ weightDecay: -1 }), /expected weightDecay of at least 0/);
    assert.throws(run({ step: 0 }), /expected step to be an integer from 1/);
    assert.throws(run({ gradScale: Infinity }), /expected gradScale to be a finite number/);
    for (const t of [w, g, m, v]) assert.deepEqual([...(await t.floats())], [1, 2]);
  });
});
