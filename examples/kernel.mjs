/**
 * Two kernels, one matrix product: the same bf16 inputs, added in two orders. Almost every fp32 sum differs in its last
 * bits; rounding to bf16 hides nearly all of that, and turns what is left into a whole step of bf16.
 *
 * Run: node examples/kernel.mjs
 */
import { gemm, randomNormal } from 'isopolicy';

const a = randomNormal([256, 1024], { seed: 1, dtype: 'bf16' });
const b = randomNormal([1024, 256], { seed: 2, dtype: 'bf16' });
for (const outDtype of ['fp32', 'bf16']) {
  const rollout = await gemm(a, b, { family: 'rollout', outDtype }).floats();
  const training = await gemm(a, b, { family: 'training', outDtype }).floats();
  const differing = rollout.filter((x, i) => x !== training[i]).length;
  const largest = Math.max(...rollout.map((x, i) => Math.abs(x - training[i]))).toExponential(1);
  console.log(`${outDtype}: ${differing} of ${rollout.length} results differ, by ${largest} at most`);
}
