import type { Device } from '../../lib/device.js';
import { adamw } from '../../lib/ops/adamw.js';
import { addToColumns, scaleColumns } from '../../lib/ops/columns.js';
import { accumulate, add } from '../../lib/ops/elementwise.js';
import { embedding } from '../../lib/ops/embedding.js';
import { reduce } from '../../lib/ops/reduce.js';
import { addRmsNorm, rmsNorm, rmsNormBackward } from '../../lib/ops/rmsNorm.js';
import { rope, ropeTable } from '../../lib/ops/rope.js';
import { swiglu, swigluBackward } from '../../lib/ops/swiglu.js';
import { bytesPerElement, type NativeFloatDType } from '../../lib/tensor/dtype.js';
import { cast, full, type Tensor, tensor, zeros } from '../../lib/tensor/tensor.js';
import {
  type BenchCase,
  type CaseSelection,
  idInput,
  inputSet,
  normalInput,
  type Sizes,
  sizesOf,
} from '../case.js';

/** What PyTorch is asked, too. */
const askedOnGpu: readonly string[] = [
  'add',
  'rmsNorm',
  'rmsNormBackward',
  'swiglu',
  'embedding',
  'adamw',
  'cast',
];

const eps = 1e-6;
const headDim = 64;

type Size = readonly [rows: number, hidden: number];

const sizes: Sizes<Size> = {
  tiny: [[3, 128]],
  cpu: {
    quick: [[2048, 1536]],
    full: [
      [2048, 1536],
      [16384, 1536],
    ],
  },
  cuda: {
    quick: [[16384, 1536]],
    full: [
      [64, 1536],
      [4096, 1536],
      [16384, 1536],
      [16384, 8192],
    ],
  },
};

/** Ops that memory limits; shapes are tokens x hidden (of swiglu and adamw: of the input and of the weights). */
export function elementwiseCases(selection: CaseSelection): BenchCase[] {
  if (!selection.families.includes('shared')) return [];
  return sizesOf(selection, sizes).flatMap(([rows, hidden]) =>
    selection.dtypes.flatMap((dtype) => casesOf(rows, hidden, dtype, selection.device)),
  );
}

function casesOf(rows: number, hidden: number, dtype: NativeFloatDType, device: Device): BenchCase[] {
  const elements = rows * hidden;
  const size = elements * bytesPerElement(dtype);
  const wide = elements * 4;
  const shape = [rows, hidden];
  const x = (seed: number) => normalInput(shape, dtype, seed);
  const y = (seed: number) => normalInput(shape, dtype, seed + 1);
  const ones = () => full([hidden], 1, dtype);
  const row = <T extends Tensor[]>(
    op: string,
    bytes: number,
    inputBytes: number,
    make: (seed: number) => [...T],
    run: (...tensors: T) => unknown,
  ): BenchCase => ({
    group: 'elementwise',
    op,
    family: 'shared',
    dtype,
    shape: shape.join('x'),
    ...(device === 'cuda' && askedOnGpu.includes(op) && { peer: { op, dims: shape } }),
    unit: 'GB/s',
    flops: 0,
    bytes,
    writes: op !== 'reduce',
    inputBytes,
    prepare(seed) {
      const tensors = make(seed);
      return inputSet(tensors, () => {
        run(...tensors);
      });
    },
  });

  const cases = [
    row('add', 3 * size, 2 * size, (seed) => [x(seed), y(seed)], add),
    row('accumulate', 2 * wide + size, wide + size, (seed) => [zeros(shape), x(seed)], accumulate),
    row(
      'addToColumns',
      3 * size,
      2 * size,
      (seed) => [x(seed), y(seed)],
      (target, added) => addToColumns(target, added, 0, 2),
    ),
    row(
      'scaleColumns',
      2 * size,
      size,
      (seed) => [x(seed)],
      (input) => scaleColumns(input, 0, hidden, 2),
    ),
    row(
      'rmsNorm',
      2 * size,
      size,
      (seed) => [x(seed), ones()],
      (input, weight) => rmsNorm(input, weight, eps),
    ),
    row(
      'addRmsNorm',
      4 * size,
      2 * size,
      (seed) => [x(seed), y(seed), ones()],
      (input, delta, weight) => addRmsNorm(input, delta, weight, eps),
    ),
    row(
      'rmsNormBackward',
      3 * size,
      2 * size,
      (seed) => [x(seed), y(seed), ones(), zeros([hidden])],
      (dy, input, weight, grad) => rmsNormBackward(dy, input, weight, eps, grad),
    ),
    row(
      'rope',
      2 * size,
      size,
      (seed) => [heads(x(seed)), ropeTable(rows, headDim, 1e4), order(rows)],
      (input, table, positions) => rope(input, table, positions),
    ),
    row(
      'swiglu',
      1.5 * size,
      size,
      (seed) => [x(seed)],
      (gateUp) => swiglu(gateUp),
    ),
    row(
      'swigluBackward',
      2.5 * size,
      1.5 * size,
      (seed) => [normalInput([rows, hidden / 2], dtype, seed), y(seed)],
      swigluBackward,
    ),
    row('embedding', 2 * size, size, (seed) => [x(seed), idInput(rows, rows, seed)], embedding),
    row(
      'reduce',
      size,
      size,
      (seed) => [x(seed)],
      (input) => reduce(input, 'sum'),
    ),
    row(
      'adamw',
      7 * wide + size,
      4 * wide + size,
      (seed) => [
        normalInput(shape, 'fp32', seed),
        normalInput(shape, 'fp32', seed),
        zeros(shape),
        zeros(shape),
        x(seed),
      ],
      (master, grad, m, v, compute) => adamw(master, grad, m, v, { ...adamwSettings, compute }),
    ),
  ];
  if (dtype !== 'fp32')
    cases.push(
      row(
        'cast',
        wide + size,
        wide,
        (seed) => [normalInput(shape, 'fp32', seed)],
        (input) => cast(input, dtype),
      ),
    );
  return cases;
}

const adamwSettings = { lr: 1e-6, beta1: 0.9, beta2: 0.99, eps: 1e-8, weightDecay: 0, step: 1 };

function heads(x: Tensor): Tensor {
  const [rows = 0, hidden = 0] = x.shape;
  const split = x.reshape(rows, hidden / headDim, headDim);
  x.dispose();
  return split;
}

function order(count: number): Tensor {
  return tensor(
    Int32Array.from({ length: count }, (_, i) => i),
    [count],
    'int32',
  );
}
