/** Times cases: samples that outlast the clock and the fence, on inputs that outgrow the caches. */
import { Bench } from 'tinybench';
import type { Device } from '../lib/device.js';
import { currentDevice, type Recording, record, trimMemory } from '../lib/runtime.js';
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

/**
 * The least that a sample lasts, so that the fence and the clock do not count. The peers' drivers take as much. On a GPU a
 * fence costs tens of microseconds.
 */
const sampleMs = () => (currentDevice() === 'cuda' ? 10 : 2);
const leastSamples = 5;
/** Input sets together exceed the last-level caches of common servers. */
const coldBytes = 2 ** 27;
const mostSets = 16;
/** Where a run is so many operations, its inputs' way from memory hardly counts, and making them is what takes time. */
const longFlops = 2e9;
const mostSetsOfLong = 4;
/** There nothing is long, and making inputs costs nothing. */
const mostSetsOnGpu = 64;

/** How many input sets are rotated: caches should not flatter, nor memory overflow. */
export function inputSetsOf(
  { inputBytes, flops }: Pick<BenchCase, 'inputBytes' | 'flops'>,
  device: Device = currentDevice(),
): number {
  const onCpu = flops >= longFlops ? mostSetsOfLong : mostSets;
  const most = device === 'cuda' ? mostSetsOnGpu : onCpu;
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
 * A case with its input sets. A sample is as many runs as last some milliseconds, queued one after another on the sets
 * in turn, up to the arrival of a read that waits for them all. On a GPU all sets are recorded, so that calls do not
 * count, and a recording of all of them is what is queued.
 */
export class Sampler {
  readonly #case: BenchCase;
  readonly #inputs: readonly InputSet[];
  readonly #fence: Tensor;
  #recording: Recording | undefined;
  #next = 0;
  #calls = 1;

  constructor(benchCase: BenchCase, inputs: readonly InputSet[], fence: Tensor) {
    this.#case = benchCase;
    this.#inputs = inputs;
    this.#fence = fence;
  }

  /** Runs of a sample. */
  get runs(): number {
    return this.#calls * (this.#recording ? this.#inputs.length : 1);
  }

  /** Runs each set once, then finds out how many runs a sample takes. */
  async warm(): Promise<void> {
    await this.#fence.data();
    for (let i = 0; i < this.#inputs.length; i++) await this.sample();
    if (recordsRuns(this.#case, this.#inputs))
      ({ recording: this.#recording } = record(() => {
        for (const input of this.#inputs) input.run();
      }));
    for (;;) {
      const { counted } = await this.sample();
      if (counted >= sampleMs()) return;
      const wanted = Math.ceil((1.2 * this.#calls * sampleMs()) / Math.max(counted, 1e-3));
      this.#calls = Math.max(this.#calls + 1, Math.min(16 * this.#calls, wanted));
    }
  }

  /** Milliseconds of a sample: all of it, and the part that counts. */
  async sample(): Promise<{ total: number; counted: number }> {
    const start = performance.now();
    for (let i = 0; i < this.#calls; i++) {
      const running = this.#recording
        ? this.#recording.replay()
        : this.#inputs[this.#next++ % this.#inputs.length]!.run();
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
      samples.push(counted / this.runs);
    }
    return samples;
  }

  /** What the first set of inputs tells beside the time. */
  async figures(): Promise<Figures> {
    return (await this.#inputs[0]?.figures?.()) ?? {};
  }

  close(): void {
    this.#recording?.dispose();
    for (const input of this.#inputs) input.dispose();
    this.#fence.dispose();
    trimMemory(); // a full run would otherwise keep the largest inputs of every shape
  }
}

/** On a GPU, all but what is about the calls. */
function recordsRuns({ unit }: BenchCase, inputs: readonly InputSet[]): boolean {
  return (
    currentDevice() === 'cuda' && unit !== 'ns/op' && inputs.every(({ recordable }) => recordable === true)
  );
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
