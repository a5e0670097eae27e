import { gemm } from '../../lib/ops/gemm.js';
import { linear, linearInputGradient, linearWeightGradient } from '../../lib/ops/linear.js';
import { PackedWeight } from '../../lib/ops/packWeight.js';
import { bytesPerElement, type NativeFloatDType } from '../../lib/tensor/dtype.js';
import { zeros } from '../../lib/tensor/tensor.js';
import { type BenchCase, type CaseSelection, familiesOf, inputSet, normalInput } from '../case.js';

type Product = readonly [m: number, n: number, k: number];

const quick: readonly Product[] = [
  [1024, 1024, 1024],
  [512, 8960, 1536],
  [256, 256, 256],
  [1, 1536, 8960],
  [8, 8960, 1536],
];

const rows = [1, 4, 8, 16, 32];
const full: readonly Product[] = [
  [1024, 1024, 1024],
  [2048, 2048, 2048],
  [512, 1536, 1536],
  [512, 8960, 1536],
  [512, 1536, 8960],
  [256, 256, 256],
  [128, 512, 128],
  ...rows.map((m) => [m, 1536, 1536] as const),
  ...rows.map((m) => [m, 8960, 1536] as const),
  ...rows.map((m) => [m, 1536, 8960] as const),
  ...rows.map((m) => [m, 151936, 1536] as const),
];

/** x W^T with the weight as it is stored, [N, K], or packed once, outside the timing; shapes are M x N x K. */
export function gemmCases(selection: CaseSelection): BenchCase[] {
  const cases: BenchCase[] = [];
  for (const shape of selection.shapes === 'full' ? full : quick)
    for (const dtype of selection.dtypes)
      for (const op of ['gemm', 'gemmPacked'] as const)
        for (const family of familiesOf(selection, 'rollout', 'training')) {
          const [m, n, k] = shape;
          cases.push({
            ...common(shape, dtype),
            op,
            family,
            peer: { op, dims: shape },
            prepare(seed) {
              const x = normalInput([m, k], dtype, seed);
              const weight = normalInput([n, k], dtype, seed + 1, k ** -0.5);
              if (op === 'gemm')
                return inputSet([x, weight], () => gemm(x, weight, { transposeB: true, family }));
              const packed = new PackedWeight(weight);
              weight.dispose();
              return inputSet([x, packed], () => linear(x, [packed], { family }));
            },
          });
        }
  return [...cases, ...gradientCases(selection)];
}

/** The two products of a linear layer's backward pass, which the training engine alone has. */
function gradientCases(selection: CaseSelection): BenchCase[] {
  if (!selection.families.includes('training')) return [];
  const shapes = selection.shapes === 'full' ? full.filter(([m]) => m >= 256) : [quick[1]!];
  return shapes.flatMap((shape) => selection.dtypes.flatMap((dtype) => gradientsOf(shape, dtype)));
}

function gradientsOf(shape: Product, dtype: NativeFloatDType): BenchCase[] {
  const [m, n, k] = shape;
  return [
    {
      ...common(shape, dtype),
      op: 'linearInputGradient',
      family: 'training',
      prepare(seed) {
        const dy = normalInput([m, n], dtype, seed);
        const weight = normalInput([n, k], dtype, seed + 1);
        return inputSet([dy, weight], () => linearInputGradient(dy, [weight]));
      },
    },
    {
      ...common(shape, dtype),
      op: 'linearWeightGradient',
      family: 'training',
      bytes: (m * n + m * k) * bytesPerElement(dtype) + 8 * n * k,
      inputBytes: (m * n + m * k) * bytesPerElement(dtype) + 4 * n * k,
      prepare(seed) {
        const dy = normalInput([m, n], dtype, seed);
        const x = normalInput([m, k], dtype, seed + 1);
        const grad = zeros([n, k]);
        return inputSet([dy, x, grad], () => linearWeightGradient(dy, x, 0, grad));
      },
    },
  ];
}

function common([m, n, k]: Product, dtype: NativeFloatDType) {
  const size = bytesPerElement(dtype);
  return {
    group: 'gemm' as const,
    dtype,
    shape: `${m}x${n}x${k}`,
    unit: 'GFLOP/s' as const,
    flops: 2 * m * n * k,
    bytes: (m * k + n * k + m * n) * size,
    inputBytes: (m * k + n * k) * size,
  };
}
