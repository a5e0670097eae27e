import { add } from '../../lib/ops/elementwise.js';
import { record } from '../../lib/runtime.js';
import type { Tensor } from '../../lib/tensor/tensor.js';
import { type BenchCase, type CaseSelection, inputSet, normalInput } from '../case.js';

const ops = 20;

/**
 * What an op costs apart from its arithmetic: tensors of 16 elements, so that nothing else is left. `call` is the
 * JavaScript thread's part (check, allocate, queue, dispose); `callAndRun` and `replay` end when the native thread
 * is done.
 */
export function callCases(selection: CaseSelection): BenchCase[] {
  if (!selection.families.includes('shared') || !selection.dtypes.includes('fp32')) return [];
  const base = {
    group: 'calls' as const,
    family: 'shared' as const,
    dtype: 'fp32' as const,
    shape: `${ops} adds of 16`,
    unit: 'ns/op' as const,
    flops: 0,
    bytes: 0,
    ops,
    inputBytes: 2 ** 20, // more sets would measure the caches of JavaScript
  };
  const direct = (seed: number) => {
    const x = normalInput([16], 'fp32', seed);
    return inputSet([x], () => {
      chain(x);
    });
  };
  const replayed = (seed: number) => {
    const x = normalInput([16], 'fp32', seed);
    const { recording, result } = record(() => chain(x));
    return {
      run: () => recording.replay(),
      dispose: () => {
        recording.dispose();
        for (const t of [x, ...result]) t.dispose();
      },
    };
  };
  return [
    { ...base, op: 'call', callsOnly: true, prepare: direct },
    { ...base, op: 'callAndRun', prepare: direct },
    { ...base, op: 'replayCall', callsOnly: true, prepare: replayed },
    { ...base, op: 'replay', prepare: replayed },
  ];
}

/** x + x, that + x, and so on. */
function chain(x: Tensor): Tensor[] {
  const sums: Tensor[] = [];
  let last = x;
  for (let i = 0; i < ops; i++) {
    last = add(last, x);
    sums.push(last);
  }
  return sums;
}
