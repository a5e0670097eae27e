/** Times cases: samples that outlast the clock and the fence, on inputs that outgrow the caches. */
import { Bench } from 'tinybench';
import { trimMemory } from '../lib/runtime.js';
import { full, type Tensor } from '../lib/tensor/tensor.js';
import type { BenchCase, Figures, InputSet } from './case.js';

/** Milliseconds of one run of the case. */
export interface Statistics {
  readonly medianMs: number;
  readonly p90Ms: number;
  readonly minMs: number;
  readonly samples: number;
}

export interface Timing extends Statistics {
  readonly runsPerSample: number;
  readonly inputSets: number;
  readonly figures: Figures;
}

/** The least that a sample lasts, so that the fence and the clock do not count. The peers' drivers take as much. */
const sampleMs = 2;
const leastSamples = 5;
/** Input sets together exceed the last-level caches of common servers. */
const coldBytes = 2 ** 27;
const mostSets = 16;
/** Where a run is so many operations, its inputs' way from memory hardly counts, and making them is what takes time. */
const longFlops = 2e9;
const mostSetsOfLong = 4;

/** How many input sets are rotated: caches should not flatter, nor memory overflow. */
export function inputSetsOf({ inputBytes, flops }: Pick<BenchCase, 'inputBytes' | 'flops'>): number {
  const most = flops >= longFlops ? mostSetsOfLong : mostSets;
  return Math.max(1, Math.min(most, Math.ceil(coldBytes / Math.max(1, inputBytes))));
}

export function statistics(samples: readonly number[]): Statistics {
  const sorted = samples.toSorted((a, b) => a - b);
  return {
    medianMs: quantile(sorted, 0.5),
    p90Ms: quantile(sorted, 0.9),
    minMs: sorted[0] ?? Number.NaN,
    samples: sorted.length,
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

/**
 * A case with its input sets. A sample is as many runs as last two milliseconds, queued one after another on the sets
 * in turn, up to the arrival of a read that waits for them all.
 */
export class Sampler {
  readonly #case: BenchCase;
  readonly #inputs: readonly InputSet[];
  readonly #fence: Tensor;
  #next = 0;
  #runs = 1;

  constructor(benchCase: BenchCase, inputs: readonly InputSet[], fence: Tensor) {
    this.#case = benchCase;
    this.#inputs = inputs;
    this.#fence = fence;
  }

  /** Runs of a sample. */
  get runs(): number {
    return this.#runs;
  }

  /** Runs each set once, then finds out how many runs a sample takes. */
  async warm(): Promise<void> {
    await this.#fence.data();
    for (let i = 0; i < this.#inputs.length; i++) await this.sample();
    for (;;) {
      const { counted } = await this.sample();
      if (counted >= sampleMs) return;
      const wanted = Math.ceil((1.2 * this.#runs * sampleMs) / Math.max(counted, 1e-3));
      this.#runs = Math.max(this.#runs + 1, Math.min(16 * this.#runs, wanted));
    }
  }

  /** Milliseconds of a sample: all of it, and the part that counts. */
  async sample(): Promise<{ total: number; counted: number }> {
    const start = performance.now();
    for (let i = 0; i < this.#runs; i++) {
      const running = this.#inputs[this.#next++ % this.#inputs.length]!.run();
      if (running) await running;
    }
    const called = performance.now();
    await this.#fence.data();
    const total = performance.now() - start;
    return { total, counted: this.#case.callsOnly ? called - start : total };
  }

  /** Milliseconds of one run, one figure a sample, for about so long. */
  async measure(milliseconds: number): Promise<number[]> {
    const samples: number[] = [];
    for (let passed = 0; passed < milliseconds || samples.length < 2; ) {
      const { total, counted } = await this.sample();
      passed += total;
      samples.push(counted / this.#runs);
    }
    return samples;
  }

  /** What the first set of inputs tells beside the time. */
  async figures(): Promise<Figures> {
    return (await this.#inputs[0]?.figures?.()) ?? {};
  }

  close(): void {
    for (const input of this.#inputs) input.dispose();
    this.#fence.dispose();
    trimMemory(); // a full run would otherwise keep the largest inputs of every shape
  }
}

/** Makes `sets` sets of inputs and warms them up. */
export async function openSampler(benchCase: BenchCase, sets: number): Promise<Sampler> {
  const inputs: InputSet[] = [];
  const sampler = new Sampler(benchCase, inputs, full([1], 0));
  try {
    for (let i = 0; i < sets; i++) inputs.push(benchCase.prepare(100 * i + 1));
    await sampler.warm();
    return sampler;
  } catch (error) {
    sampler.close();
    throw error;
  }
}

/** Runs the case for about `time` milliseconds after a warm-up. */
export async function measure(benchCase: BenchCase, time: number, sets?: number | null): Promise<Timing> {
  const count = sets ?? inputSetsOf(benchCase);
  const sampler = await openSampler(benchCase, count);
  try {
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
        const { total, counted } = await sampler.sample();
        return { overriddenDuration: counted / sampler.runs, overriddenIterationCost: total };
      },
      { async: true },
    );
    const [task] = await bench.run();
    const result = task?.result;
    if (result?.state !== 'completed') throw new Error(`tinybench ended in state ${result?.state ?? 'none'}`);
    return {
      ...statistics(result.latency.samples ?? []),
      runsPerSample: sampler.runs,
      inputSets: count,
      figures: await sampler.figures(),
    };
  } finally {
    sampler.close();
  }
}
