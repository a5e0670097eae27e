import { describe, it } from 'node:test';
import { adamw } from '../../lib/ops/adamw.js';
import { pagedAttention, writeKvCache } from '../../lib/ops/attention.js';
import { addToColumns, scaleColumns } from '../../lib/ops/columns.js';
import { accumulate, add, multiply, scale } from '../../lib/ops/elementwise.js';
import { embedding, embeddingBackward, scatterRows } from '../../lib/ops/embedding.js';
import { linearLogprob, linearLogprobBackward } from '../../lib/ops/linearLogprob.js';
import { chosenLogprobs, logSoftmax, logSoftmaxBackward } from '../../lib/ops/logSoftmax.js';
import { columnSum, reduce } from '../../lib/ops/reduce.js';
import { addRmsNorm, rmsNorm, rmsNormBackward } from '../../lib/ops/rmsNorm.js';
import { rope, ropeBackward, ropeTable } from '../../lib/ops/rope.js';
import { sample } from '../../lib/ops/sample.js';
import { swiglu, swigluBackward } from '../../lib/ops/swiglu.js';
import { type FloatDType, floatDtypes } from '../../lib/tensor/dtype.js';
import { cast, copy, readTensors, type Tensor, tensor, view, zeros } from '../../lib/tensor/tensor.js';
import { assertSameBits, normals } from '../support/compare.js';
import { ownTensors } from '../support/owned.js';

const own = ownTensors();
const [rows, width] = [5, 1136]; // whole vectors, so that only where the memory begins decides

/** Values as a tensor that begins `offset` elements into its memory. */
function placed(offset: number, seed: number, shape: readonly number[], dtype: FloatDType): Tensor {
  const size = shape.reduce((a, b) => a * b, 1);
  const whole = own(tensor([...new Float64Array(offset), ...normals(size, seed)], [offset + size], dtype));
  return own(view(whole, offset, shape));
}

/** What each op makes of inputs that begin so many elements into their memory. */
async function results(offset: number, dtype: FloatDType): Promise<Map<string, ArrayLike<number>>> {
  const of = (seed: number, shape: readonly number[] = [rows, width], type: FloatDType = dtype) =>
    placed(offset, seed, shape, type);
  const fp32 = (seed: number, shape?: readonly number[]) => of(seed, shape, 'fp32');
  const [x, y, weight] = [of(1), of(2), of(3, [width])];
  const ids = own(tensor([3, 0, 3, 1, 3], [5], 'int32'));
  const made = new Map<string, Tensor>();
  const keep = (name: string, t: Tensor) => made.set(name, own(t));
  keep('cast', cast(x, 'fp32'));
  keep('copy', copy(x));
  keep('add', add(x, y));
  keep('multiply', multiply(x, y));
  keep('scale', scale(x, 0.3));
  const target = fp32(4);
  accumulate(target, x);
  made.set('accumulate', target);
  keep('scaleColumns', scaleColumns(x, 16, 64, 0.7));
  const columns = of(5);
  addToColumns(columns, of(6, [rows, 64]), 16, 0.7);
  made.set('addToColumns', columns);
  keep('rmsNorm', rmsNorm(x, weight, 1e-6, 2));
  const fused = addRmsNorm(x, y, weight, 1e-6, 1);
  keep('addRmsNorm sum', fused.sum);
  keep('addRmsNorm', fused.y);
  const [gradWeight, grad] = [fp32(7, [width]), fp32(8)];
  keep('rmsNormBackward', rmsNormBackward(y, x, weight, 1e-6, gradWeight));
  made.set('gradWeight', gradWeight);
  const table = own(ropeTable(8, 64, 10000));
  const heads = of(9, [rows, 3, 64]);
  keep('rope', rope(heads, table, ids, { rotatedHeads: 2 }));
  keep('ropeBackward', ropeBackward(heads, table, ids));
  const gateUp = of(10, [rows, 2 * width]);
  keep('swiglu', swiglu(gateUp, 2));
  keep('swigluBackward', swigluBackward(x, gateUp));
  keep('embedding', embedding(x, ids));
  keep('scatterRows', scatterRows(x, ids, 6));
  embeddingBackward(x, ids, grad);
  made.set('embeddingBackward', grad);
  keep('reduce', reduce(x, 'sum', 'last'));
  const sums = fp32(11, [1000]);
  columnSum(x, 8, 1000, sums);
  made.set('columnSum', sums);
  const chosen = chosenLogprobs(x, ids, { chunk: 300, temperature: 0.7 });
  for (const name of ['logprobs', 'lse', 'entropy'] as const) keep(name, chosen[name]);
  const logprobs = fp32(12);
  keep('logSoftmax', logSoftmax(x, { temperature: 0.7 }));
  keep('logSoftmaxBackward', logSoftmaxBackward(grad, logprobs, { dtype }));
  const token = linearLogprob(x, y, ids);
  for (const name of ['logprobs', 'lse', 'entropy'] as const) keep(`linear ${name}`, token[name]);
  const [dLogprobs, ofWeight] = [fp32(13, [rows]), fp32(14)];
  keep('linearLogprobBackward', linearLogprobBackward(dLogprobs, x, y, ids, token.lse, ofWeight));
  made.set('gradient of the head', ofWeight);
  const qkv = of(18, [rows, 4, 64]);
  const cache = {
    keyCache: of(19, [1, 1, 64, 16]),
    valueCache: of(20, [1, 1, 16, 64]),
    blockTable: own(tensor([0], [1, 1], 'int32')),
    slots: own(zeros([rows], 'int32')),
    positions: own(tensor([0, 1, 2, 3, 4], [5], 'int32')),
  };
  writeKvCache(qkv, cache, { numHeads: 2, numKvHeads: 1 });
  made.set('keys of the cache', cache.keyCache);
  made.set('values of the cache', cache.valueCache);
  keep('pagedAttention', pagedAttention(qkv, cache, { numHeads: 2, numKvHeads: 1 }));
  const keys = own(zeros([rows, 4], 'int32'));
  for (const settings of [{}, { topK: 300, topP: 0.8 }]) {
    const drawn = sample(x, keys, { seed: 3, temperature: 0.7, ...settings });
    keep(`ids ${JSON.stringify(settings)}`, drawn.ids);
    keep(`logprobs ${JSON.stringify(settings)}`, drawn.logprobs);
  }
  const v = own(view(own(zeros([offset + rows * width])), offset, [rows, width]));
  const [master, m, compute] = [fp32(15), fp32(16), of(17)];
  const rates = { lr: 0.1, beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1, step: 1 };
  adamw(master, grad, m, v, { ...rates, compute });
  for (const [name, t] of Object.entries({ master, m, v, compute })) made.set(`adamw ${name}`, t);
  const values = await readTensors([...made.values()]);
  return new Map([...made.keys()].map((name, i) => [name, values[i]!]));
}

describe('where memory begins', () => {
  for (const dtype of floatDtypes) {
    it(`changes no bit of an op on ${dtype}`, async () => {
      const expected = await results(0, dtype);
      for (const offset of [1, 2, 3, 8]) {
        const found = await results(offset, dtype);
        for (const [name, values] of expected)
          assertSameBits(found.get(name)!, values, `${name}, ${offset} elements in`);
      }
    });
  }
});
