/** Times one case with tinybench. */
import { Bench } from 'tinybench';
import { trimMemory } from '../lib/runtime.js';
import { full, type Tensor } from '../lib/tensor/tensor.js';
import type { BenchCase, InputSet } from './case.js';

export interface Timing {
  /** Milliseconds of one run of the case. */
  readonly medianMs: number;
  readonly p90Ms: number;
  readonly minMs: number;
  readonly samples: number;
  readonly runsPerSample: number;
  readonly inputSets: number;
}

/** The least that a sample lasts, so that the fence and the clock do not count. */
const sampleMs = 2;
const leastSamples = 5;
/** Input sets together exceed the last-level caches of common servers. */
const coldBytes = 2 ** 27;
const mostSets = 16;

/** How many input sets are rotated: caches should not flatter, nor memory overflow. */
export function inputSetsOf(inputBytes: number): number {
  return Math.max(1, Math.min(mostSets, Math.ceil(coldBytes / Math.max(1, inputBytes))));
}

/**
 * Runs the case for about `time` milliseconds after a warm-up. A sample is as many runs as last two milliseconds,
 * queued one after another on rotating inputs, up to the arrival of a read that waits for them all.
 */
export async function measure(benchCase: BenchCase, time: number, sets?: number | null): Promise<Timing> {
  const count = sets ?? inputSetsOf(benchCase.inputBytes);
  const inputs: InputSet[] = [];
  const fence = full([1], 0);
  try {
    for (let i = 0; i < count; i++) inputs.push(benchCase.prepare(100 * i + 1));
    return await timeInputs(benchCase, inputs, fence, time);
  } finally {
    for (const input of inputs) input.dispose();
    fence.dispose();
    trimMemory(); // a full run would otherwise keep the largest inputs of every shape
  }
}

async function timeInputs(
  benchCase: BenchCase,
  inputs: readonly InputSet[],
  fence: Tensor,
  time: number,
): Promise<Timing> {
  let next = 0;
  /** Milliseconds of a sample of `runs`: all of it, and the part that counts. */
  const sample = async (runs: number): Promise<{ total: number; counted: number }> => {
    const start = performance.now();
    for (let i = 0; i < runs; i++) inputs[next++ % inputs.length]!.run();
    const called = performance.now();
    await fence.data();
    const total = performance.now() - start;
    return { total, counted: benchCase.callsOnly ? called - start : total };
  };

  await fence.data();
  for (let i = 0; i < inputs.length; i++) await sample(1);
  let runs = 1;
  for (;;) {
    const { counted } = await sample(runs);
    if (counted >= sampleMs) break;
    const wanted = Math.ceil((1.2 * runs * sampleMs) / Math.max(counted, 1e-3));
    runs = Math.max(runs + 1, Math.min(16 * runs, wanted));
  }

  const bench = new Bench({
    time,
    iterations: leastSamples,
    warmupTime: time / 5,
    warmupIterations: 1,
    retainSamples: true,
    throws: true,
  });
  bench.add(
    benchCase.op,
    async () => {
      const { total, counted } = await sample(runs);
      return { overriddenDuration: counted / runs, overriddenIterationCost: total };
    },
    { async: true },
  );
  const [task] = await bench.run();
  const result = task?.result;
  if (result?.state !== 'completed') throw new Error(`tinybench ended in state ${result?.state ?? 'none'}`);
  const { latency } = result;
  const sorted = latency.samples ?? [];
  return {
    medianMs: latency.p50,
    p90Ms: quantile(sorted, 0.9),
    minMs: latency.min,
    samples: latency.samplesCount,
    runsPerSample: runs,
    inputSets: inputs.length,
  };
}

/** Of sorted values, interpolated. */
export function quantile(sorted: readonly number[], q: number): number {
  if (sorted.length === 0) return Number.NaN;
  const at = (sorted.length - 1) * q;
  const below = Math.floor(at);
  const low = sorted[below]!;
  return low + (at - below) * ((sorted[below + 1] ?? low) - low);
}
