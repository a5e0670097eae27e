import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { headNorm, headOrder } from '../../lib/ops/headNorm.js';
import { rmsNorm } from '../../lib/ops/rmsNorm.js';
import { setVectorLevel } from '../../lib/runtime.js';
import { readTensors, tensor } from '../../lib/tensor/tensor.js';
import { assertSameBits, normals } from '../support/compare.js';
import { onDevice } from '../support/dtypes.js';
import { vectorLevels } from '../support/levels.js';
import { ownTensors } from '../support/owned.js';

const own = ownTensors();

describe('headOrder', () => {
  it('sorts the heads by kind, and back', async () => {
    const { sorted, packed } = headOrder(2, { numHeads: 3, numKvHeads: 1 });
    const [there, back] = await readTensors([own(sorted), own(packed)]);
    assert.deepEqual([...there!], [0, 1, 2, 5, 6, 7, 3, 8, 4, 9]);
    assert.deepEqual([...back!], [0, 1, 2, 6, 8, 3, 4, 5, 7, 9]);
  });
});

describe('headNorm', () => {
  const [tokens, numHeads, numKvHeads, headDim] = [5, 4, 2, 10];
  const heads = numHeads + 2 * numKvHeads;
  const shape = [tokens, heads, headDim];

  for (const dtype of onDevice('fp32', 'fp16', 'bf16', 'e4m3')) {
    for (const level of vectorLevels()) {
      it(`has the bits of rmsNorm for each head in ${dtype} at ${level}`, async () => {
        setVectorLevel(level);
        const x = own(tensor(normals(tokens * heads * headDim, 1), shape, dtype));
        const weight = (seed: number) => own(tensor(normals(headDim, seed), [headDim], dtype));
        const [q, k] = [weight(2), weight(3)];
        const order = headOrder(tokens, { numHeads, numKvHeads });
        own(order.sorted);
        own(order.packed);
        const found: Float32Array[] = [];
        for (const roundings of [1, 2] as const) {
          const y = own(headNorm(x, q, k, order, { numHeads, numKvHeads }, 1e-5, roundings));
          assert.deepEqual([y.shape, y.dtype], [shape, dtype]);
          const flat = own(x.reshape(tokens * heads, headDim));
          const [values, as, asQ, asK] = (await readTensors([
            y,
            x,
            own(rmsNorm(flat, q, 1e-5, roundings)),
            own(rmsNorm(flat, k, 1e-5, roundings)),
          ])) as [Float32Array, Float32Array, Float32Array, Float32Array];
          const expected = as.map((value, i) => {
            const head = Math.floor(i / headDim) % heads;
            return head < numHeads ? asQ[i]! : head < numHeads + numKvHeads ? asK[i]! : value;
          });
          assertSameBits(values, expected, `${roundings} roundings`);
          found.push(values);
        }
        const differ = found[0]!.some((value, i) => value !== found[1]![i]);
        assert.equal(differ, dtype !== 'fp32', 'a second rounding shows in few bits alone');
      });
    }
  }

  it('refuses weights of another width and an order of other tokens', () => {
    const x = own(tensor(normals(tokens * heads * headDim, 1), shape));
    const weight = own(tensor(normals(headDim, 2)));
    const narrow = own(tensor(normals(headDim - 1, 2)));
    const order = headOrder(tokens, { numHeads, numKvHeads });
    const other = headOrder(tokens - 1, { numHeads, numKvHeads });
    for (const t of [order, other].flatMap(({ sorted, packed }) => [sorted, packed])) own(t);
    const of = { numHeads, numKvHeads };
    assert.throws(() => headNorm(x, narrow, weight, order, of, 0), /\[rmsNorm\] expected weight of shape/);
    assert.throws(() => headNorm(x, weight, narrow, order, of, 0), /\[rmsNorm\] expected weight of shape/);
    assert.throws(
      () => headNorm(x, weight, weight, other, of, 0),
      /\[headNorm\] expected order of 5 tokens, got 4/,
    );
  });
});
