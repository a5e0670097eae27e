import { gemm } from '../../lib/ops/gemm.js';
import { linearLogprob, linearLogprobBackward } from '../../lib/ops/linearLogprob.js';
import { info } from '../../lib/runtime.js';
import { bytesPerElement, type NativeFloatDType } from '../../lib/tensor/dtype.js';
import { full as filled, zeros } from '../../lib/tensor/tensor.js';
import {
  type BenchCase,
  type CaseSelection,
  type Figures,
  familiesOf,
  type InputSet,
  idInput,
  inputSet,
  normalInput,
  type Sizes,
  sizesOf,
} from '../case.js';
import { type LogprobScratch, logprobScratch } from '../scratch.js';

/** The memory beyond inputs and outputs takes a process to find out, of the CPU: measured where peers are, too. */
function withScratch(
  selection: CaseSelection,
  head: Head,
  dtype: NativeFloatDType,
  pass: keyof LogprobScratch,
  set: InputSet,
): InputSet {
  if (selection.peers.length === 0 || selection.device !== 'cpu') return set;
  const figures = (): Figures => {
    const scratch = logprobScratch(...head, dtype, info().threads);
    return scratch ? { scratchMiB: scratch[pass] / 2 ** 20 } : {};
  };
  return { ...set, figures };
}

type Head = readonly [rows: number, vocabulary: number, hidden: number];

const sizes: Sizes<Head> = {
  tiny: [[20, 300, 48]],
  cpu: {
    quick: [[256, 16384, 896]],
    full: [
      [512, 32000, 896],
      [512, 151936, 1536],
    ],
  },
  cuda: {
    quick: [[4096, 151936, 1536]],
    full: [
      [4096, 32000, 4096],
      [4096, 151936, 1536],
    ],
  },
};

/** Shapes are rows x vocabulary x hidden: a product of that size, three of them in the backward pass. */
export function linearLogprobCases(selection: CaseSelection): BenchCase[] {
  const cases: BenchCase[] = [];
  for (const head of sizesOf(selection, sizes))
    for (const dtype of selection.dtypes) {
      const [rows, vocabulary, hiddenSize] = head;
      const operands = (rows + vocabulary) * hiddenSize * bytesPerElement(dtype);
      const base = {
        group: 'linear-logprob' as const,
        dtype,
        shape: `${rows}x${vocabulary}x${hiddenSize}`,
        unit: 'GFLOP/s' as const,
        flops: 2 * rows * vocabulary * hiddenSize,
        bytes: operands,
        inputBytes: operands,
      };
      const inputs = (seed: number) => ({
        hidden: normalInput([rows, hiddenSize], dtype, seed),
        weight: normalInput([vocabulary, hiddenSize], dtype, seed + 1, hiddenSize ** -0.5),
        targets: idInput(rows, vocabulary, seed),
      });
      // The same product alone, which the fused op is held against.
      for (const family of familiesOf(selection, 'rollout', 'training'))
        cases.push({
          ...base,
          op: 'plainGemm',
          family,
          bytes: operands + rows * vocabulary * bytesPerElement(dtype),
          prepare(seed) {
            const { hidden, weight, targets } = inputs(seed);
            return inputSet([hidden, weight, targets], () =>
              gemm(hidden, weight, { transposeB: true, family }),
            );
          },
        });
      for (const gemmFamily of familiesOf(selection, 'rollout', 'training'))
        cases.push({
          ...base,
          op: 'linearLogprob',
          family: gemmFamily,
          prepare(seed) {
            const { hidden, weight, targets } = inputs(seed);
            const set = inputSet([hidden, weight, targets], () =>
              linearLogprob(hidden, weight, targets, { gemmFamily }),
            );
            return withScratch(selection, head, dtype, 'forward', set);
          },
        });
      if (selection.families.includes('training'))
        cases.push({
          ...base,
          op: 'linearLogprobBackward',
          family: 'training',
          flops: 3 * base.flops,
          bytes: operands + 8 * vocabulary * hiddenSize,
          inputBytes: operands + 4 * vocabulary * hiddenSize,
          prepare(seed) {
            const { hidden, weight, targets } = inputs(seed);
            const { logprobs, lse, entropy } = linearLogprob(hidden, weight, targets);
            const dLogprobs = filled([rows], 1 / rows);
            const gradWeight = zeros([vocabulary, hiddenSize]);
            const tensors = [hidden, weight, targets, logprobs, lse, entropy, dLogprobs, gradWeight];
            const set = inputSet(tensors, () =>
              linearLogprobBackward(dLogprobs, hidden, weight, targets, lse, gradWeight),
            );
            return withScratch(selection, head, dtype, 'backward', set);
          },
        });
    }
  return cases;
}
