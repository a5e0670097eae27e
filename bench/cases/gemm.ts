import type { Device } from '../../lib/device.js';
import { gemm } from '../../lib/ops/gemm.js';
import { linear, linearInputGradient, linearWeightGradient } from '../../lib/ops/linear.js';
import { PackedWeight } from '../../lib/ops/packWeight.js';
import { bytesPerElement, type NativeFloatDType } from '../../lib/tensor/dtype.js';
import { zeros } from '../../lib/tensor/tensor.js';
import {
  type BenchCase,
  type CaseSelection,
  familiesOf,
  inputSet,
  normalInput,
  type Sizes,
  sizesOf,
} from '../case.js';

type Product = readonly [m: number, n: number, k: number];

const each = (rows: readonly number[], ...weights: readonly (readonly [n: number, k: number])[]) =>
  weights.flatMap(([n, k]) => rows.map((m): Product => [m, n, k]));
const cube = (size: number): Product => [size, size, size];

const decodeRows = [1, 4, 8, 16, 32];
/** The weights of a model of 1.5 billion parameters that are multiplied with 4,096 tokens: Q and output, gate or up, down. */
const trained = each([4096], [1536, 1536], [8960, 1536], [1536, 8960]);

const sizes: Sizes<Product> = {
  tiny: [
    [20, 32, 48],
    [1, 32, 48],
  ],
  cpu: {
    quick: [cube(1024), [512, 8960, 1536], cube(256), [1, 1536, 8960], [8, 8960, 1536]],
    full: [
      cube(1024),
      cube(2048),
      ...each([512], [1536, 1536], [8960, 1536], [1536, 8960]),
      cube(256),
      [128, 512, 128],
      ...each(decodeRows, [1536, 1536], [8960, 1536], [1536, 8960], [151936, 1536]),
    ],
  },
  cuda: {
    quick: [cube(4096), cube(8192), ...trained, ...each([1, 8, 64], [17920, 1536], [1536, 8960])],
    full: [
      ...[1024, 2048, 4096, 8192, 16384].map(cube),
      ...trained,
      ...each([1, 2, 4, 8, 16, 32, 64, 128], [2048, 1536], [17920, 1536], [1536, 8960], [151936, 1536]),
    ],
  },
};

/** x W^T with the weight as it is stored, [N, K], or packed once, outside the timing; shapes are M x N x K. */
export function gemmCases(selection: CaseSelection): BenchCase[] {
  const cases: BenchCase[] = [];
  // On a GPU a packed weight is the weight.
  const ops = selection.device === 'cuda' ? (['gemm'] as const) : (['gemm', 'gemmPacked'] as const);
  for (const shape of sizesOf(selection, sizes))
    for (const dtype of selection.dtypes)
      for (const op of ops)
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
  const { shapes, device } = selection;
  const least = shapes === 'tiny' ? 2 : 256;
  return sizesOf(selection, sizes)
    .filter(([m, n]) => m >= least && (m !== n || shapes === 'full'))
    .flatMap((shape) => selection.dtypes.flatMap((dtype) => gradientsOf(shape, dtype, device)));
}

function gradientsOf(shape: Product, dtype: NativeFloatDType, device: Device): BenchCase[] {
  const [m, n, k] = shape;
  const asked = (op: string) => (device === 'cuda' ? { peer: { op, dims: shape } } : {});
  return [
    {
      ...common(shape, dtype),
      op: 'linearInputGradient',
      ...asked('linearInputGradient'),
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
      ...asked('linearWeightGradient'),
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
