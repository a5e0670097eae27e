/** `npm run bench -- --scaling`: how the cost of the engines grows, beside what the machine's peaks allow. */
import { measurePeaks } from '../../lib/ops/peak.js';
import { info, setThreads } from '../../lib/runtime.js';
import type { NativeFloatDType } from '../../lib/tensor/dtype.js';
import type { BenchOptions } from '../arguments.js';
import { commit, describeMachine, type Machine } from '../machine.js';
import type { ModelSize } from '../model.js';
import { peaksLine, schemaVersion, short } from '../report.js';
import {
  generationRates,
  kvBytesMeasured,
  newTokens,
  trainingBytesMeasured,
  trainingRateOf,
} from './measure.js';
import {
  decodeRate,
  type Ground,
  higherOf,
  kvBytesPerToken,
  prefillRate,
  trainingBytesPerToken,
  trainingRate,
} from './theory.js';

export const sweeps = ['context', 'batch', 'width', 'depth', 'threads'] as const;
export type Sweep = (typeof sweeps)[number];

/** One point of a curve, measured and as the peaks would have it. */
export interface ScalingPoint {
  readonly sweep: Sweep;
  /** What grows: tokens of context, sequences, hidden units, layers, threads. */
  readonly x: number;
  readonly work: 'prefill' | 'decode' | 'training';
  readonly threads: number;
  readonly tokensPerSecond: number;
  readonly theory: number;
}

/** Bytes a token. */
export interface MemoryPoint {
  readonly of: 'kvCache' | 'training';
  readonly model: ModelSize;
  readonly measured: number;
  readonly predicted: number;
}

export interface ScalingDocument {
  readonly schemaVersion: typeof schemaVersion;
  readonly date: string;
  readonly commit: string | null;
  readonly command: string;
  readonly machine: Machine;
  readonly dtype: NativeFloatDType;
  readonly model: ModelSize;
  readonly grounds: readonly Ground[];
  readonly points: readonly ScalingPoint[];
  readonly memory: readonly MemoryPoint[];
}

/** Each sweep changes one number of this. */
const base: ModelSize = { layers: 4, hidden: 512, heads: 8, ffn: 1376, vocabulary: 4096 };
const wide = (hidden: number): ModelSize => ({
  ...base,
  hidden,
  heads: hidden / 64,
  ffn: (43 * hidden) / 16,
});
const contexts = [1024, 4096, 16384];
const batches = [1, 4, 16, 64, 256];
const widths = [256, 512, 1024];
const depths = [2, 4, 8, 16];
const prompt = 32;
const decodedBatch = 16;
const trained = { batch: 8, length: 128 };

/** A point whose line is drawn when the roofs are known. */
interface Draft extends Omit<ScalingPoint, 'theory'> {
  readonly theory: (ground: Ground) => number;
}

/** Measures all sweeps; about two minutes on two cores. */
export async function runScaling(
  options: Pick<BenchOptions, 'dtypes' | 'threads'>,
  command: string,
  print: (line: string) => void,
): Promise<ScalingDocument> {
  const machine = describeMachine();
  const date = new Date().toISOString();
  const before = info().threads;
  const all = options.threads.at(-1) ?? before;
  const counts = [...new Set([1, all])];
  const dtype = options.dtypes.length === 1 ? options.dtypes[0]! : 'bf16';
  let grounds: Ground[] = [];
  const groundFor = (threads: number) => grounds[counts.indexOf(threads)]!;
  const drafts: Draft[] = [];
  const add = (draft: Draft) => {
    drafts.push(draft);
    const { sweep, x, work, threads, tokensPerSecond, theory } = draft;
    const cells = [sweep.padEnd(8), String(x).padStart(6), work.padEnd(9), String(threads).padStart(2)];
    const line = short(theory(groundFor(threads)));
    print(`${cells.join(' ')} ${short(tokensPerSecond).padStart(8)} ${line.padStart(10)}`);
  };
  const generation = async (
    sweep: Sweep,
    x: number,
    size: ModelSize,
    batch: number,
    length: number,
    threads = all,
  ) => {
    const { prefill, decode } = await generationRates(size, dtype, batch, length);
    const common = { sweep, x, threads };
    add({
      ...common,
      work: 'decode',
      tokensPerSecond: decode,
      // The steps that are timed have half of the new tokens behind them, too.
      theory: (ground) => decodeRate(size, batch, length + newTokens / 2, ground),
    });
    if (sweep !== 'context') return;
    add({
      ...common,
      work: 'prefill',
      tokensPerSecond: prefill,
      theory: (ground) => prefillRate(size, length, ground),
    });
  };
  const training = async (sweep: Sweep, x: number, size: ModelSize, threads = all) => {
    const { batch, length } = trained;
    const tokensPerSecond = await trainingRateOf(size, dtype, batch, length);
    const theory = (ground: Ground) => trainingRate(size, batch, length, ground);
    add({ sweep, x, work: 'training', threads, tokensPerSecond, theory });
  };

  print(`${machine.cpu}, ${machine.cores} cores, ${machine.vectorLevel}, ${dtype}, Node ${machine.node}`);
  try {
    // First: the most memory that was ever held is what tells, and longer runs would raise it.
    const memory = await memoryPoints(dtype);
    for (const { of, model, measured, predicted } of memory)
      print(
        `${of}, ${model.hidden} x ${model.layers}: ${short(measured)} B/token, ${short(predicted)} predicted`,
      );
    grounds = await groundsOf(counts, dtype);
    for (const { peaks } of grounds) print(peaksLine(peaks));
    print('sweep         x work      th tokens/s theory');
    for (const threads of counts) {
      setThreads(threads);
      await generation('threads', threads, base, decodedBatch, prompt, threads);
      await training('threads', threads, base, threads);
    }
    setThreads(all);
    for (const batch of batches) await generation('batch', batch, base, batch, prompt);
    for (const hidden of widths) {
      await generation('width', hidden, wide(hidden), decodedBatch, prompt);
      await training('width', hidden, wide(hidden));
    }
    for (const layers of depths) {
      await generation('depth', layers, { ...base, layers }, decodedBatch, prompt);
      await training('depth', layers, { ...base, layers });
    }
    for (const context of contexts) await generation('context', context, base, 1, context);
    // Once more: a roof that was measured in a busy moment would lie below the points.
    const again = await groundsOf(counts, dtype);
    grounds = grounds.map((ground, i) => higherOf(ground, again[i]!));
    for (const { peaks } of grounds) print(peaksLine(peaks));
    return {
      schemaVersion,
      date,
      commit: commit(),
      command,
      machine,
      dtype,
      model: base,
      grounds,
      points: drafts.map((draft) => ({ ...draft, theory: draft.theory(groundFor(draft.threads)) })),
      memory,
    };
  } finally {
    setThreads(before);
  }
}

const readSizes = [2, 8, 32, 128].map((mebibytes) => mebibytes * 2 ** 20);

async function groundsOf(counts: readonly number[], dtype: NativeFloatDType): Promise<Ground[]> {
  const grounds: Ground[] = [];
  for (const threads of counts) grounds.push(await groundOf(threads, dtype));
  return grounds;
}

async function groundOf(threads: number, dtype: NativeFloatDType): Promise<Ground> {
  const reading: { bytes: number; gbps: number }[] = [];
  for (const bytes of readSizes) {
    const { read } = await measurePeaks({ threads, memoryBytes: bytes, milliseconds: 20 });
    reading.push({ bytes, gbps: read.best });
  }
  const peaks = await measurePeaks({ threads });
  reading.push({ bytes: 2 ** 28, gbps: peaks.read.best });
  return { peaks, reading, dtype };
}

async function memoryPoints(dtype: NativeFloatDType): Promise<MemoryPoint[]> {
  const points: MemoryPoint[] = [];
  // By size: a larger model's peak would hide a smaller one's.
  for (const model of [wide(256), base, { ...base, layers: 8 }]) {
    points.push(
      {
        of: 'kvCache',
        model,
        measured: kvBytesMeasured(model, dtype),
        predicted: kvBytesPerToken(model, dtype),
      },
      {
        of: 'training',
        model,
        measured: await trainingBytesMeasured(model, dtype),
        predicted: trainingBytesPerToken(model, dtype),
      },
    );
  }
  return points;
}
