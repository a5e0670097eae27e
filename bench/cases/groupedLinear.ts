import {
  groupedLinear,
  groupedLinearInputGradient,
  groupedLinearWeightGradient,
} from '../../lib/ops/groupedLinear.js';
import { PackedWeight } from '../../lib/ops/packWeight.js';
import { bytesPerElement, type NativeFloatDType } from '../../lib/tensor/dtype.js';
import { tensor, zeros } from '../../lib/tensor/tensor.js';
import { type BenchCase, type CaseSelection, familiesOf, inputSet, normalInput } from '../case.js';

/** The experts, each with its share of the rows: gate and up of Qwen3-30B-A3B, of whose 128 these are some. */
const experts = 8;
const [n, k] = [1536, 2048];

const quick = [8, 1024];
const full = [8, 32, 256, 1024, 4096];

/** One product an expert, of all rows together; shapes are rows x N x K. */
export function groupedLinearCases(selection: CaseSelection): BenchCase[] {
  return (selection.shapes === 'full' ? full : quick).flatMap((rows) =>
    selection.dtypes.flatMap((dtype) => [
      ...forward(rows, dtype, selection),
      ...(selection.families.includes('training') && rows >= 256 ? gradients(rows, dtype) : []),
    ]),
  );
}

function forward(rows: number, dtype: NativeFloatDType, selection: CaseSelection): BenchCase[] {
  return (['groupedLinear', 'groupedPacked'] as const).flatMap((op) =>
    familiesOf(selection, 'rollout', 'training').map((family) => ({
      ...common(rows, dtype),
      op,
      family,
      prepare(seed) {
        const x = normalInput([rows, k], dtype, seed);
        const weight = normalInput([experts, n, k], dtype, seed + 1, k ** -0.5);
        const offsets = evenOffsets(rows);
        if (op === 'groupedLinear')
          return inputSet([x, weight, offsets], () => groupedLinear(x, weight, offsets, { family }));
        const packed = new PackedWeight(weight);
        weight.dispose();
        return inputSet([x, packed, offsets], () => groupedLinear(x, packed, offsets, { family }));
      },
    })),
  );
}

function gradients(rows: number, dtype: NativeFloatDType): BenchCase[] {
  const size = bytesPerElement(dtype);
  return [
    {
      ...common(rows, dtype),
      op: 'groupedInputGradient',
      family: 'training',
      prepare(seed) {
        const dy = normalInput([rows, n], dtype, seed);
        const weight = normalInput([experts, n, k], dtype, seed + 1);
        const offsets = evenOffsets(rows);
        return inputSet([dy, weight, offsets], () => groupedLinearInputGradient(dy, weight, offsets));
      },
    },
    {
      ...common(rows, dtype),
      op: 'groupedWeightGradient',
      family: 'training',
      bytes: rows * (n + k) * size + 8 * experts * n * k,
      inputBytes: rows * (n + k) * size + 4 * experts * n * k,
      prepare(seed) {
        const dy = normalInput([rows, n], dtype, seed);
        const x = normalInput([rows, k], dtype, seed + 1);
        const grad = zeros([experts, n, k]);
        const offsets = evenOffsets(rows);
        return inputSet([dy, x, grad, offsets], () => groupedLinearWeightGradient(dy, x, offsets, grad));
      },
    },
  ];
}

function evenOffsets(rows: number) {
  const offsets = Array.from({ length: experts + 1 }, (_, e) => (e * rows) / experts);
  return tensor(offsets, [experts + 1], 'int32');
}

function common(rows: number, dtype: NativeFloatDType) {
  const size = bytesPerElement(dtype);
  return {
    group: 'gemm' as const,
    dtype,
    shape: `${rows}x${n}x${k}`,
    unit: 'GFLOP/s' as const,
    flops: 2 * rows * n * k,
    bytes: (rows * (n + k) + experts * n * k) * size,
    inputBytes: (rows * k + experts * n * k) * size,
  };
}
