import { chosenLogprobs, logSoftmax, logSoftmaxBackward } from '../../lib/ops/logSoftmax.js';
import { sample } from '../../lib/ops/sample.js';
import { bytesPerElement, type NativeFloatDType } from '../../lib/tensor/dtype.js';
import { tensor } from '../../lib/tensor/tensor.js';
import {
  type BenchCase,
  type CaseSelection,
  familiesOf,
  idInput,
  inputSet,
  normalInput,
  type Sizes,
  sizesOf,
} from '../case.js';

type Logits = readonly [rows: number, vocabulary: number];

const sizes: Sizes<Logits> = {
  tiny: [[3, 500]],
  cpu: {
    quick: [
      [64, 151936],
      [512, 32000],
    ],
    full: [
      [512, 151936],
      [4096, 32000],
    ],
  },
  cuda: {
    quick: [
      [1024, 151936],
      [4096, 32000],
    ],
    full: [
      [64, 151936],
      [4096, 151936],
      [16384, 32000],
    ],
  },
};

/** Decode steps of 64 running sequences. */
const drawn: Sizes<Logits> = {
  tiny: [[3, 500]],
  cpu: { quick: [[64, 32000]], full: [[64, 32000]] },
  cuda: {
    quick: [[64, 151936]],
    full: [
      [1, 151936],
      [64, 151936],
    ],
  },
};

/** Shapes are rows x vocabulary; the dtype is that of the logits (of their gradient in the backward pass). */
export function logSoftmaxCases(selection: CaseSelection): BenchCase[] {
  const cases: BenchCase[] = [];
  for (const [rows, vocabulary] of sizesOf(selection, sizes))
    for (const dtype of selection.dtypes) {
      const elements = rows * vocabulary;
      // No peer has fp16 on CPUs: its other 16 bits are the yardstick.
      const peerDtype = dtype === 'fp16' && selection.device === 'cpu' ? 'bf16' : dtype;
      const bytes = elements * bytesPerElement(dtype);
      const base = { ...common([rows, vocabulary], dtype), inputBytes: bytes };
      for (const family of familiesOf(selection, 'rollout', 'training')) {
        cases.push(
          {
            ...base,
            op: 'logSoftmax',
            family,
            peer: { op: 'logSoftmax', dims: [rows, vocabulary], dtype: peerDtype },
            bytes: bytes + 4 * elements,
            writes: true,
            prepare(seed) {
              const logits = normalInput([rows, vocabulary], dtype, seed, 3);
              return inputSet([logits], () => logSoftmax(logits, { family }));
            },
          },
          {
            ...base,
            op: 'chosenLogprobs',
            family,
            bytes,
            prepare(seed) {
              const logits = normalInput([rows, vocabulary], dtype, seed, 3);
              const ids = idInput(rows, vocabulary, seed);
              return inputSet([logits, ids], () => chosenLogprobs(logits, ids, { family }));
            },
          },
        );
      }
      if (selection.families.includes('shared')) {
        cases.push({
          ...base,
          op: 'logSoftmaxBackward',
          family: 'shared',
          peer: { op: 'logSoftmaxBackward', dims: [rows, vocabulary], dtype: peerDtype },
          bytes: bytes + 8 * elements,
          writes: true,
          inputBytes: 8 * elements,
          prepare(seed) {
            const dOut = normalInput([rows, vocabulary], 'fp32', seed);
            const logprobs = normalInput([rows, vocabulary], 'fp32', seed + 1);
            return inputSet([dOut, logprobs], () => logSoftmaxBackward(dOut, logprobs, { dtype }));
          },
        });
      }
    }
  return [...cases, ...sampleCases(selection)];
}

/** A decode step's draw. */
function sampleCases(selection: CaseSelection): BenchCase[] {
  if (!selection.families.includes('rollout')) return [];
  return sizesOf(selection, drawn).flatMap(([rows, vocabulary]) =>
    selection.dtypes.map((dtype) => ({
      ...common([rows, vocabulary], dtype),
      op: 'sample',
      family: 'rollout',
      bytes: rows * vocabulary * bytesPerElement(dtype),
      inputBytes: rows * vocabulary * bytesPerElement(dtype),
      prepare(seed) {
        const logits = normalInput([rows, vocabulary], dtype, seed, 3);
        const places = Int32Array.from({ length: 4 * rows }, (_, i) => (i % 4 === 3 ? i >> 2 : i));
        const keys = tensor(places, [rows, 4], 'int32');
        return inputSet([logits, keys], () => sample(logits, keys, { seed }));
      },
    })),
  );
}

function common([rows, vocabulary]: Logits, dtype: NativeFloatDType) {
  return {
    group: 'log-softmax' as const,
    dtype,
    shape: `${rows}x${vocabulary}`,
    unit: 'GB/s' as const,
    flops: 0,
  };
}
