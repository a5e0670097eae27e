import {
  groupedLinear,
  groupedLinearInputGradient,
  groupedLinearWeightGradient,
} from '../../lib/ops/groupedLinear.js';
import { PackedWeight } from '../../lib/ops/packWeight.js';
import { bytesPerElement, type NativeFloatDType } from '../../lib/tensor/dtype.js';
import { tensor, zeros } from '../../lib/tensor/tensor.js';
import {
  type BenchCase,
  type CaseSelection,
  familiesOf,
  inputSet,
  normalInput,
  type Sizes,
  sizesOf,
} from '../case.js';

interface Layer {
  readonly rows: number;
  readonly experts: number;
  readonly n: number;
  readonly k: number;
}

/** Gate and up of Qwen3-30B-A3B, of whose 128 experts these are some, each with its share of the rows. */
const layers = (experts: number, ...rows: readonly number[]): Layer[] =>
  rows.map((count) => ({ rows: count, experts, n: 1536, k: 2048 }));

const sizes: Sizes<Layer> = {
  tiny: [{ rows: 20, experts: 3, n: 32, k: 48 }],
  cpu: { quick: layers(8, 8, 1024), full: layers(8, 8, 32, 256, 1024, 4096) },
  // Eight experts for each of 1, 64 and 1,024 tokens, and more.
  cuda: { quick: layers(128, 8, 512, 8192), full: layers(128, 8, 64, 512, 2048, 8192, 32768) },
};

/** One product an expert, of all rows together; shapes are rows x N x K. */
export function groupedLinearCases(selection: CaseSelection): BenchCase[] {
  const least = selection.shapes === 'tiny' ? 1 : 256;
  return sizesOf(selection, sizes).flatMap((layer) =>
    selection.dtypes.flatMap((dtype) => [
      ...forward(layer, dtype, selection),
      ...(selection.families.includes('training') && layer.rows >= least ? gradients(layer, dtype) : []),
    ]),
  );
}

function forward(layer: Layer, dtype: NativeFloatDType, selection: CaseSelection): BenchCase[] {
  const { rows, experts, n, k } = layer;
  const ops = selection.device === 'cuda' ? ['groupedLinear'] : ['groupedLinear', 'groupedPacked'];
  return ops.flatMap((op) =>
    familiesOf(selection, 'rollout', 'training').map((family) => ({
      ...common(layer, dtype),
      op,
      family,
      prepare(seed) {
        const x = normalInput([rows, k], dtype, seed);
        const weight = normalInput([experts, n, k], dtype, seed + 1, k ** -0.5);
        const offsets = evenOffsets(layer);
        if (op === 'groupedLinear')
          return inputSet([x, weight, offsets], () => groupedLinear(x, weight, offsets, { family }));
        const packed = new PackedWeight(weight);
        weight.dispose();
        return inputSet([x, packed, offsets], () => groupedLinear(x, packed, offsets, { family }));
      },
    })),
  );
}

function gradients(layer: Layer, dtype: NativeFloatDType): BenchCase[] {
  const { rows, experts, n, k } = layer;
  const size = bytesPerElement(dtype);
  return [
    {
      ...common(layer, dtype),
      op: 'groupedInputGradient',
      family: 'training',
      prepare(seed) {
        const dy = normalInput([rows, n], dtype, seed);
        const weight = normalInput([experts, n, k], dtype, seed + 1);
        const offsets = evenOffsets(layer);
        return inputSet([dy, weight, offsets], () => groupedLinearInputGradient(dy, weight, offsets));
      },
    },
    {
      ...common(layer, dtype),
      op: 'groupedWeightGradient',
      family: 'training',
      bytes: rows * (n + k) * size + 8 * experts * n * k,
      inputBytes: rows * (n + k) * size + 4 * experts * n * k,
      prepare(seed) {
        const dy = normalInput([rows, n], dtype, seed);
        const x = normalInput([rows, k], dtype, seed + 1);
        const grad = zeros([experts, n, k]);
        const offsets = evenOffsets(layer);
        return inputSet([dy, x, grad, offsets], () => groupedLinearWeightGradient(dy, x, offsets, grad));
      },
    },
  ];
}

function evenOffsets({ rows, experts }: Layer) {
  const offsets = Array.from({ length: experts + 1 }, (_, e) => Math.floor((e * rows) / experts));
  return tensor(offsets, [experts + 1], 'int32');
}

function common({ rows, experts, n, k }: Layer, dtype: NativeFloatDType) {
  const touched = Math.min(experts, rows);
  const size = bytesPerElement(dtype);
  return {
    group: 'gemm' as const,
    dtype,
    shape: `${rows}x${n}x${k}`,
    unit: 'GFLOP/s' as const,
    flops: 2 * rows * n * k,
    bytes: (rows * (n + k) + touched * n * k) * size,
    inputBytes: (rows * k + experts * n * k) * size,
  };
}
