/**
 * Two kernels, one matrix product: the same bf16 inputs summed in two orders, and how many results differ.
 *
 * Run: node examples/kernel.mjs
 */
import { gemm, randomNormal } from 'isopolicy';

const a = randomNormal([64, 1024], { seed: 1, dtype: 'bf16' });
const b = randomNormal([1024, 64], { seed: 2, dtype: 'bf16' });
const results = {};
for (const outDtype of ['fp32', 'bf16']) {
  const rollout = await gemm(a, b, { family: 'rollout', outDtype }).floats();
  const training = await gemm(a, b, { family: 'training', outDtype }).floats();
  const differing = rollout.filter((x, i) => x !== training[i]).length;
  const largest = Math.max(...rollout.map((x, i) => Math.abs(x - training[i])));
  results[outDtype] = {
    results: rollout.length,
    differing,
    'largest difference': largest.toPrecision(2),
    'first element': rollout[0],
  };
}
// Both families add in fp32, in another order; rounding to bf16 hides most of the differences and enlarges the rest.
console.log(
  '64 x 1024 times 1024 x 64 in bf16, rollout family against training family, by dtype of the result:',
);
console.table(results);
