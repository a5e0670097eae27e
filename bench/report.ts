/** From timings to rows: rates, shares of the peak, the table and the JSON document. */
import type { Device } from '../lib/device.js';
import type { MachinePeaks, Peak } from '../lib/ops/peak.js';
import type { NativeFloatDType } from '../lib/tensor/dtype.js';
import type { BenchOptions, FamilyName, GroupName } from './arguments.js';
import { type BenchCase, nameOf } from './case.js';
import type { Machine } from './machine.js';
import type { Timing } from './measure.js';
import { type BestPeer, bestPeerOf, type PeerResult } from './peers/compare.js';
import type { MissingPeer, PeerName } from './peers/list.js';

/** Raised when a field changes its meaning or goes. */
export const schemaVersion = 2;

/** The peak that a row is held against: arithmetic in fp32 or bf16 (on vectors or tiles), reading or copying memory. */
export type Roof = 'fma' | 'bf16' | 'amx' | 'read' | 'copy';

export interface Row extends Timing {
  readonly group: GroupName;
  readonly op: string;
  readonly family: FamilyName;
  readonly dtype: NativeFloatDType;
  readonly shape: string;
  readonly threads: number;
  /** Of the median, in `unit`. */
  readonly rate: number;
  readonly unit: BenchCase['unit'];
  readonly gflops: number;
  /** Of the least traffic that the op needs. */
  readonly gbps: number;
  /** The time that the peaks allow over the median time; null where neither arithmetic nor memory is measured. */
  readonly share: number | null;
  readonly roof: Roof | null;
  /** Our rate over that of the same row on one thread; null where that was not measured, or no rate counts. */
  readonly scaling: number | null;
  /** Every peer's figure or refusal; empty without --peers and where no peer has the op. */
  readonly peers: readonly PeerResult[];
  /** What the peers computed in, where that is not the row's dtype; else null. */
  readonly peerDtype: NativeFloatDType | null;
  readonly bestPeer: BestPeer | null;
}

/** A peer that took part: what it says of itself. */
export interface PeerPresent {
  readonly name: PeerName;
  readonly threads: number;
  readonly version: string;
}

export interface PeakPass extends MachinePeaks {
  readonly before: GroupName | 'the end';
}

export interface BenchDocument {
  readonly schemaVersion: typeof schemaVersion;
  readonly date: string;
  readonly commit: string | null;
  readonly command: string;
  readonly settings: Omit<BenchOptions, 'help' | 'out' | 'scaling'>;
  readonly machine: Machine;
  readonly peaks: readonly PeakPass[];
  readonly peers: { readonly present: readonly PeerPresent[]; readonly missing: readonly MissingPeer[] };
  readonly rows: readonly Row[];
  readonly failures: readonly { readonly row: string; readonly message: string }[];
}

/** The best of what was seen so far: a ceiling does not come down because a neighbour was busy. */
export function higherPeaks(a: MachinePeaks | undefined, b: MachinePeaks): MachinePeaks {
  if (!a) return b;
  const higher = (x: Peak, y: Peak) => (x.best >= y.best ? x : y);
  return {
    ...b,
    fma: higher(a.fma, b.fma),
    bf16: a.bf16 && b.bf16 ? higher(a.bf16, b.bf16) : b.bf16,
    amx: a.amx && b.amx ? higher(a.amx, b.amx) : b.amx,
    read: higher(a.read, b.read),
    copy: higher(a.copy, b.copy),
  };
}

/**
 * The roofline: the op takes at least flops / peak and bytes / bandwidth; the longer of the two is its roof. The
 * bandwidth is that of reading, or, for an op that writes too, of copying where that is the higher one. bf16 is held against
 * tiles or vdpbf16ps, the first that the vector level has; everything else against the fp32 multiply-add, fp16
 * on tiles too, which may then exceed it. On a GPU the peak of tensor cores, called bf16, is that of fp16, too.
 */
export function roofOf(
  benchCase: Pick<BenchCase, 'flops' | 'bytes' | 'dtype' | 'writes'>,
  peaks: MachinePeaks,
  device: Device = 'cpu',
): { leastMs: number; roof: Roof } {
  const { flops, bytes, dtype, writes } = benchCase;
  const isFast = device === 'cuda' ? dtype !== 'fp32' : dtype === 'bf16';
  const arithmetic = !isFast ? 'fma' : peaks.amx ? 'amx' : peaks.bf16 ? 'bf16' : 'fma';
  const arithmeticMs = flops / (peaks[arithmetic]!.best * 1e6);
  const memory: Roof = writes && peaks.copy.best > peaks.read.best ? 'copy' : 'read';
  const memoryMs = bytes / (peaks[memory].best * 1e6);
  return arithmeticMs >= memoryMs
    ? { leastMs: arithmeticMs, roof: arithmetic }
    : { leastMs: memoryMs, roof: memory };
}

/** What was measured of a row. */
export interface Measured {
  readonly benchCase: BenchCase;
  readonly threads: number;
  readonly timing: Timing;
  readonly peers: readonly PeerResult[];
}

/** The same row on one thread, over its time. */
export function scalingOf(row: Measured, all: readonly Measured[]): number | null {
  if (row.threads === 1 || row.benchCase.unit === 'ns/op') return null;
  const name = nameOf(row.benchCase);
  const single = all.find((other) => other.threads === 1 && nameOf(other.benchCase) === name);
  return single ? single.timing.medianMs / row.timing.medianMs : null;
}

export function rowOf(
  measured: Measured,
  peaks: MachinePeaks,
  all: readonly Measured[] = [],
  device: Device = 'cpu',
): Row {
  const { benchCase, timing, peers } = measured;
  const { group, op, family, dtype, shape, unit, flops, bytes, ops = 1, tokens = 0 } = benchCase;
  const peerDtype = benchCase.peer?.dtype ?? dtype;
  const gflops = flops / timing.medianMs / 1e6;
  const gbps = bytes / timing.medianMs / 1e6;
  const limit = flops === 0 && bytes === 0 ? null : roofOf(benchCase, peaks, device);
  const rate = {
    'GFLOP/s': gflops,
    'GB/s': gbps,
    'tokens/s': tokens / (timing.medianMs / 1e3),
    'ns/op': (timing.medianMs * 1e6) / ops,
  }[unit];
  return {
    group,
    op,
    family,
    dtype,
    shape,
    threads: peaks.threads,
    ...timing,
    rate,
    unit,
    gflops,
    gbps,
    share: limit && limit.leastMs / timing.medianMs,
    roof: limit?.roof ?? null,
    scaling: scalingOf(measured, all),
    peers,
    peerDtype: peerDtype === dtype ? null : peerDtype,
    bestPeer: bestPeerOf(peers, timing.medianMs, rate),
  };
}

/** Column name, width, and whether it is aligned to the right. 80 columns with the blanks between. */
const columns = [
  ['op', 15, false],
  ['family', 8, false],
  ['type', 4, false],
  ['shape', 14, false],
  ['th', 2, true],
  ['ms', 7, true],
  ['p90', 7, true],
  ['rate', 6, true],
  ['peak', 4, true],
  ['of', 4, false],
] as const;

/**
 * What follows with --peers: the best of them (with a star where it computed in another dtype), our rate over its, and
 * our rate over that of one thread.
 */
const peerColumns = [
  ['peer', 12, false],
  ['peerRate', 6, true],
  ['ratio', 5, true],
  ['scal', 4, true],
] as const;

const shownAs: Readonly<Record<string, string>> = { peerRate: 'rate' };

/** What the table shows: with peers more columns, on a GPU wider shapes instead of threads. */
export interface TableForm {
  readonly withPeers?: boolean;
  readonly onGpu?: boolean;
}

function columnsOf({ withPeers = false, onGpu = false }: TableForm) {
  const own = columns
    .filter(([name]) => !onGpu || name !== 'th')
    .map(([name, width, right]) => [name, onGpu && name === 'shape' ? width + 3 : width, right] as const);
  return withPeers ? [...own, ...peerColumns.filter(([name]) => !onGpu || name !== 'scal')] : own;
}

function line(cells: Readonly<Record<string, string>>, form: TableForm): string {
  return columnsOf(form)
    .map(([name, width, right]) => (right ? cells[name]!.padStart(width) : cells[name]!.padEnd(width)))
    .join(' ')
    .trimEnd();
}

export function tableHead(group: GroupName, unit: BenchCase['unit'], form: TableForm = {}): string {
  const names = columnsOf(form).map(([name]) => [name, shownAs[name] ?? name]);
  return `${group}, rate in ${unit}\n${line(Object.fromEntries(names), form)}`;
}

export function tableRow(row: Row, form: TableForm = {}): string {
  const { bestPeer, scaling } = row;
  return line(
    {
      op: shortOp(row.op),
      family: row.family,
      type: row.dtype,
      shape: row.shape,
      th: String(row.threads),
      ms: short(row.medianMs),
      p90: short(row.p90Ms),
      rate: short(row.rate),
      peak: row.share === null ? '' : `${Math.round(100 * row.share)}%`,
      of: row.roof ?? '',
      peer: bestPeer ? `${bestPeer.name}${row.peerDtype ? '*' : ''}` : '',
      peerRate: bestPeer ? short(bestPeer.rate) : '',
      ratio: bestPeer ? bestPeer.ratio.toFixed(2) : '',
      scal: scaling === null ? '' : scaling.toFixed(2),
    },
    form,
  );
}

export function peaksLine(peaks: MachinePeaks, onGpu = false): string {
  const { threads, fma, bf16, amx, read, copy } = peaks;
  const show = (peak: Peak) => Math.round(peak.best);
  return (
    `peak, ${onGpu ? 'GPU' : threads === 1 ? '1 thread' : `${threads} threads`}: fma ${show(fma)}` +
    `${bf16 ? `, bf16 ${show(bf16)}` : ''}${amx ? `, amx ${show(amx)}` : ''} GFLOP/s; read ${show(read)}, copy ${show(copy)} GB/s`
  );
}

/** What a row has beside its time, as a line below it; null where that is nothing. */
export function figuresLine({ figures }: Pick<Row, 'figures'>): string | null {
  const parts = Object.entries(figures).map(([name, value]) => `${name} ${short(value)}`);
  return parts.length === 0 ? null : `  ${parts.join(', ')}`;
}

function shortOp(op: string): string {
  if (op.length <= 15) return op;
  return op
    .replace('Backward', 'Bwd')
    .replace('Gradient', 'Grad')
    .replace(/^linear/, 'lin')
    .slice(0, 15);
}

/** Four digits in at most six characters, from thousandths to hundreds of thousands. */
export function short(x: number): string {
  if (x >= 1000) return x.toFixed(0);
  return x >= 1 ? x.toPrecision(4) : x.toFixed(4);
}
