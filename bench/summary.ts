/** The targets of the project, each with the rows that it is about and what is held against it. */
import type { PeakKind } from '../lib/ops/peak.js';
import type { BenchDocument, Row } from './report.js';

/** What a row, among the others of its run, achieves; null where it says nothing. */
type Measure = (row: Row, document: BenchDocument) => number | null;

interface Target {
  readonly what: string;
  readonly unit: string;
  /** The rows that count. */
  readonly of: (row: Row) => boolean;
  readonly measure: Measure;
  readonly atLeast?: number;
  readonly atMost?: number;
}

/** A target, met or not, for the rows of one family and number of threads. */
export interface Outcome {
  readonly what: string;
  readonly unit: string;
  readonly family: Row['family'];
  readonly threads: number;
  readonly rows: number;
  readonly median: number;
  readonly worst: number;
  /** The row that is worst: dtype and shape. */
  readonly where: string;
  readonly bound: string;
  readonly met: boolean;
}

/** M, N and K, or whatever the numbers of a shape are. */
export function dimensions(shape: string): number[] {
  return shape.split(/[x+]/).map(Number);
}

const op =
  (...names: string[]) =>
  (row: Row) =>
    names.includes(row.op);
const isTall = (row: Row) => dimensions(row.shape)[0]! >= 128;
const is16 = (row: Row) => row.dtype !== 'fp32';
const all =
  (...tests: ((row: Row) => boolean)[]) =>
  (row: Row) =>
    tests.every((test) => test(row));
const dtype = (name: Row['dtype']) => (row: Row) => row.dtype === name;

const peerRatio: Measure = (row) => row.bestPeer?.ratio ?? null;
const roofShare: Measure = (row) => row.share;

/** Of the highest peak of a kind that was seen on as many threads. */
const shareOf =
  (kind: PeakKind): Measure =>
  (row, { peaks }) => {
    const best = Math.max(
      ...peaks.filter((pass) => pass.threads === row.threads).map((pass) => pass[kind]?.best ?? 0),
    );
    return best > 0 ? row.gflops / best : null;
  };

/** The row of another op on the same shape, dtype and threads; of the same family where that has it. */
function counterpart(row: Row, { rows }: BenchDocument, name: string): Row | undefined {
  const same = rows.filter(
    (other) =>
      other.op === name &&
      other.shape === row.shape &&
      other.dtype === row.dtype &&
      other.threads === row.threads,
  );
  return same.find(({ family }) => family === row.family) ?? same[0];
}

const rateOver =
  (name: string): Measure =>
  (row, document) => {
    const other = counterpart(row, document, name);
    return other ? row.gflops / other.gflops : null;
  };

const timeOver =
  (name: string): Measure =>
  (row, document) => {
    const other = counterpart(row, document, name);
    return other ? row.medianMs / other.medianMs : null;
  };

const figure =
  (name: string): Measure =>
  (row) =>
    row.figures[name] ?? null;

/** As the rollout engine has them: weights packed once. */
const decodeRows = (row: Row) => op('gemmPacked')(row) && !isTall(row);
/** M = 1 on the weights that no cache holds. */
const largeWeights = (row: Row) => dimensions(row.shape)[1]! > 100_000;
const logits = (row: Row) => ['512x151936', '4096x32000'].includes(row.shape);

export const targets: readonly Target[] = [
  {
    what: 'GEMM bf16, M >= 128, packed: of the best peer',
    unit: 'x',
    of: all(op('gemmPacked'), isTall, dtype('bf16')),
    measure: peerRatio,
    atLeast: 1,
  },
  {
    what: 'GEMM bf16, M >= 128, packed: of the vdpbf16ps peak',
    unit: 'x',
    of: all(op('gemmPacked'), isTall, dtype('bf16')),
    measure: shareOf('bf16'),
    atLeast: 0.9,
  },
  {
    what: 'GEMM bf16, M >= 128, plain: of the vdpbf16ps peak',
    unit: 'x',
    of: all(op('gemm'), isTall, dtype('bf16')),
    measure: shareOf('bf16'),
    atLeast: 0.88,
  },
  {
    what: 'GEMM fp16, M >= 128: of the fp32 FMA peak',
    unit: 'x',
    of: all(op('gemm', 'gemmPacked'), isTall, dtype('fp16')),
    measure: shareOf('fma'),
    atLeast: 0.9,
  },
  {
    what: 'GEMM fp32: of the best peer',
    unit: 'x',
    of: all(op('gemm', 'gemmPacked'), dtype('fp32')),
    measure: peerRatio,
    atLeast: 0.95,
  },
  {
    what: 'Transposes of training: of the forward rate',
    unit: 'x',
    of: op('linearInputGradient', 'linearWeightGradient'),
    measure: rateOver('gemm'),
    atLeast: 0.9,
  },
  {
    what: 'Decode GEMM, M = 1, N = 151936, packed: of the bandwidth',
    unit: 'x',
    of: all(decodeRows, largeWeights, (row) => row.shape.startsWith('1x')),
    measure: roofShare,
    atLeast: 0.95,
  },
  {
    what: 'Decode GEMM, M = 4 to 32, 16 bits, packed: of the roof',
    unit: 'x',
    of: all(decodeRows, is16, (row) => !row.shape.startsWith('1x')),
    measure: roofShare,
    atLeast: 0.85,
  },
  {
    what: 'Attention forward: of the best peer',
    unit: 'x',
    of: op('attention', 'pagedAttention'),
    measure: peerRatio,
    atLeast: 1.5,
  },
  {
    what: 'Attention backward: times the forward',
    unit: 'x',
    of: op('attentionBackward'),
    measure: timeOver('attention'),
    atMost: 2.5,
  },
  {
    what: 'Decode attention: of the best peer',
    unit: 'x',
    of: op('decodeAttention'),
    measure: peerRatio,
    atLeast: 1.5,
  },
  {
    what: 'Decode attention: of the bandwidth',
    unit: 'x',
    of: op('decodeAttention'),
    measure: roofShare,
    atLeast: 0.8,
  },
  {
    what: 'Log-softmax forward: of the best peer',
    unit: 'x',
    of: all(op('logSoftmax'), logits),
    measure: peerRatio,
    atLeast: 1.3,
  },
  {
    what: 'Log-softmax backward: of the best peer',
    unit: 'x',
    of: all(op('logSoftmaxBackward'), logits),
    measure: peerRatio,
    atLeast: 1,
  },
  {
    what: 'Fused linear log-prob and its backward: of the plain GEMM rate',
    unit: 'x',
    of: op('linearLogprob', 'linearLogprobBackward'),
    measure: rateOver('plainGemm'),
    atLeast: 0.85,
  },
  {
    what: 'Fused linear log-prob and its backward: memory beyond inputs and outputs',
    unit: 'MiB',
    of: op('linearLogprob', 'linearLogprobBackward'),
    measure: figure('scratchMiB'),
    atMost: 64,
  },
  {
    what: 'Training step: of PyTorch bf16',
    unit: 'x',
    of: all(op('trainStep'), is16),
    measure: peerRatio,
    atLeast: 1.5,
  },
  {
    what: 'Generation, batch 64: of PyTorch bf16',
    unit: 'x',
    of: all(op('generate'), is16),
    measure: peerRatio,
    atLeast: 2,
  },
  {
    what: 'Two threads against one, what memory does not bound',
    unit: 'x',
    of: (row) => row.threads === 2 && row.roof !== 'read' && row.roof !== 'copy',
    measure: (row) => row.scaling,
    atLeast: 1.85,
  },
  {
    what: 'JavaScript call to queued command',
    unit: 'ns/op',
    of: op('call', 'replayCall'),
    measure: (row) => row.rate,
    atMost: 1000,
  },
  {
    what: '10 ms timer beside a rollout: p99 delay',
    unit: 'ms',
    of: op('generate+timer'),
    measure: figure('timerP99Ms'),
    atMost: 20,
  },
];

/** Of the highest bandwidth of copying that was seen. */
const shareOfCopying: Measure = (row, { peaks }) =>
  row.gbps / Math.max(...peaks.map(({ copy }) => copy.best));

/** For rows that a device takes as it is, or that one held to an older one's kernels takes. */
const where =
  (held: boolean, measure: Measure): Measure =>
  (row, document) =>
    (document.machine.gpu?.heldTo != null) === held ? measure(row, document) : null;

const isLarge = (row: Row) => dimensions(row.shape)[0]! >= 1024;

/** What is asked of an H200; PyTorch is the peer. */
const gpuTargets: readonly Target[] = [
  {
    what: 'GEMM of 16 bits, M >= 1024: of PyTorch',
    unit: 'x',
    of: all(op('gemm'), isLarge, is16),
    measure: where(false, peerRatio),
    atLeast: 0.95,
  },
  {
    what: 'The same by the kernels of older GPUs',
    unit: 'x',
    of: all(op('gemm'), isLarge, is16),
    measure: where(true, peerRatio),
    atLeast: 0.5,
  },
  {
    what: 'GEMM of 16 bits, M <= 64: of the bandwidth of copying',
    unit: 'x',
    of: all(op('gemm'), is16, (row) => dimensions(row.shape)[0]! <= 64),
    measure: shareOfCopying,
    atLeast: 0.8,
  },
  {
    what: 'Decode attention: of the bandwidth of copying',
    unit: 'x',
    of: all(op('decodeAttention'), is16),
    measure: shareOfCopying,
    atLeast: 0.8,
  },
  {
    what: 'Attention forward: of PyTorch',
    unit: 'x',
    of: all(op('attention', 'pagedAttention'), is16),
    measure: peerRatio,
    atLeast: 0.9,
  },
  {
    what: 'Attention backward: of PyTorch',
    unit: 'x',
    of: all(op('attentionBackward'), is16),
    measure: peerRatio,
    atLeast: 0.8,
  },
  {
    what: 'Log-softmax and elementwise ops: of the bandwidth of copying',
    unit: 'x',
    of: (row) => row.unit === 'GB/s' && row.op !== 'sample',
    measure: shareOfCopying,
    atLeast: 0.85,
  },
  {
    what: 'Training step of a large model: of PyTorch compiled',
    unit: 'x',
    of: all(op('trainStep'), is16, (row) => dimensions(row.shape)[1]! >= 1024),
    measure: peerRatio,
    atLeast: 0.9,
  },
  {
    what: 'Generation of a large model, batch 1: of reading its weights',
    unit: 'x',
    of: all(op('generate'), is16, (row) => row.shape.startsWith('1x')),
    measure: roofShare,
    atLeast: 0.75,
  },
  {
    what: 'Generation: of PyTorch',
    unit: 'x',
    of: all(op('generate'), is16),
    measure: peerRatio,
    atLeast: 1,
  },
  {
    what: 'JavaScript call to queued command',
    unit: 'ns/op',
    of: op('call', 'replayCall'),
    measure: (row) => row.rate,
    atMost: 5000,
  },
];

/** Every target with the rows of the run that it is about, by family and threads; targets without rows are left out. */
export function outcomes(document: BenchDocument): Outcome[] {
  const ofDevice = (document.machine.gpu ?? null) === null ? targets : gpuTargets;
  return ofDevice.flatMap((target) => {
    const groups = new Map<string, { row: Row; value: number }[]>();
    for (const row of document.rows) {
      const value = target.of(row) ? target.measure(row, document) : null;
      if (value === null || !Number.isFinite(value)) continue;
      const key = `${row.family} ${row.threads}`;
      groups.set(key, [...(groups.get(key) ?? []), { row, value }]);
    }
    return [...groups.values()].map((group) => outcomeOf(target, group));
  });
}

/** An outcome as lines of 80 columns. */
export function outcomeLines(outcome: Outcome): string[] {
  const { what, unit, family, rows, median, worst, where: at, bound, met } = outcome;
  const number = (x: number) => (x >= 100 ? x.toFixed(0) : x.toFixed(2));
  return [
    `${met ? 'met   ' : 'missed'}  ${what} (${family})`,
    `        ${bound} ${unit}: worst ${number(worst)} (${at}), median ${number(median)} of ${rows}`,
  ];
}

function outcomeOf(target: Target, group: readonly { row: Row; value: number }[]): Outcome {
  const { what, unit, atLeast, atMost } = target;
  const sign = atLeast === undefined ? -1 : 1;
  const sorted = group.toSorted((a, b) => sign * (a.value - b.value));
  const worst = sorted[0]!;
  const { family, threads, dtype, shape } = worst.row;
  return {
    what,
    unit,
    family,
    threads,
    rows: group.length,
    median: sorted[sorted.length >> 1]!.value,
    worst: worst.value,
    where: `${dtype} ${shape}`,
    bound: atLeast === undefined ? `<= ${atMost}` : `>= ${atLeast}`,
    met: atLeast === undefined ? worst.value <= atMost! : worst.value >= atLeast,
  };
}
