/** Runs the groups that were asked for. */
import { type MachinePeaks, measurePeaks } from '../lib/ops/peak.js';
import { info, setThreads } from '../lib/runtime.js';
import type { BenchOptions } from './arguments.js';
import { type BenchCase, nameOf } from './case.js';
import { groups } from './cases/index.js';
import { commit, describeMachine, type Machine } from './machine.js';
import { measure } from './measure.js';
import { byQuestion, compare } from './peers/compare.js';
import { Driver } from './peers/driver.js';
import { findPeer, type MissingPeer, peersFolder } from './peers/list.js';
import {
  type BenchDocument,
  figuresLine,
  higherPeaks,
  type Measured,
  type PeakPass,
  type PeerPresent,
  peaksLine,
  rowOf,
  schemaVersion,
  tableHead,
  tableRow,
} from './report.js';

/**
 * Measures what the options select, group by group, with the peaks measured anew before each; with peers, each question
 * to us and to them by turns.
 *
 * @param print receives the lines of the table as they come
 * @param save receives the document after each group: a run that is ended early keeps what it has
 */
export async function runBench(
  options: BenchOptions,
  command: string,
  print: (line: string) => void,
  save: (document: BenchDocument) => Promise<void> = async () => {},
): Promise<BenchDocument> {
  const { help: _help, out: _out, scaling: _scaling, ...settings } = options;
  const onGpu = options.device === 'cuda';
  const machine = describeMachine();
  const date = new Date().toISOString();
  const atFirst = info().threads;
  // On a GPU one native thread launches; the others rest.
  const threadCounts = options.threads.length > 0 ? options.threads : [onGpu ? 1 : atFirst];
  const peakCounts = onGpu ? threadCounts : [1, atFirst, ...threadCounts];
  const withPeers = options.peers.length > 0;
  const table = { withPeers, onGpu };
  print(machineLine(machine));

  const peers = new Peers(options, print);
  const best = new Map<number, MachinePeaks>();
  const peaks: PeakPass[] = [];
  const measured: Measured[] = [];
  const failures: { row: string; message: string }[] = [];
  // The rows once more: a later pass may have seen higher peaks than those that the printed shares are of.
  const documentOf = (): BenchDocument => ({
    schemaVersion,
    date,
    commit: commit(),
    command,
    settings,
    machine,
    peaks,
    peers: { present: peers.present, missing: peers.missing },
    rows: measured.map((m) => rowOf(m, best.get(m.threads)!, measured, options.device)),
    failures,
  });
  const measureAll = async (before: PeakPass['before']) => {
    for (const threads of new Set(peakCounts)) {
      const pass = await measurePeaks({ threads, ...peakSettings(options) });
      peaks.push({ before, ...pass });
      best.set(threads, higherPeaks(best.get(threads), pass));
      print(peaksLine(pass, onGpu));
    }
  };
  try {
    for (const group of options.only) {
      const cases = selected(groups[group](options), options.rows);
      if (cases.length === 0) continue;
      print('');
      await measureAll(group);
      print(tableHead(group, cases[0]!.unit, table));
      for (const threads of threadCounts) {
        setThreads(threads);
        for (const question of withPeers ? byQuestion(cases) : cases.map((c) => [c])) {
          try {
            const done = await peers.measure(question, threads);
            measured.push(...done);
            for (const m of done) {
              const row = rowOf(m, best.get(threads)!, measured, options.device);
              print(tableRow(row, table));
              const figures = figuresLine(row);
              if (figures !== null) print(figures);
            }
          } catch (error) {
            const row = question.map((c) => `${nameOf(c)}, ${threads} threads`).join('; ');
            const failure = { row, message: (error as Error).message };
            failures.push(failure);
            print(`${failure.row}: FAILED: ${failure.message}`);
          }
        }
      }
      await save(documentOf());
    }
    print('');
    await measureAll('the end');
  } finally {
    setThreads(atFirst);
    peers.close();
  }
  return documentOf();
}

function machineLine({ cpu, cores, vectorLevel, node, gpu }: Machine): string {
  if (gpu === null) return `${cpu}, ${cores} cores, ${vectorLevel}, Node ${node}`;
  const { name, computeCapability, heldTo, driver } = gpu;
  return `${name}, capability ${computeCapability}${heldTo ? ` held to ${heldTo}` : ''}, driver ${driver}, Node ${node}`;
}

/** Memory far above the caches, which are the larger ones on a GPU. */
function peakSettings({ shapes, device }: BenchOptions) {
  if (shapes === 'tiny') return { milliseconds: 1, memoryBytes: 2 ** 20 };
  return device === 'cuda' ? { memoryBytes: 2 ** 31 } : {};
}

function selected(cases: readonly BenchCase[], parts: readonly string[]): BenchCase[] {
  return cases.filter((c) => parts.length === 0 || parts.some((part) => nameOf(c).includes(part)));
}

/** The drivers of each number of threads, started when they are first asked. */
class Peers {
  readonly missing: MissingPeer[] = [];
  readonly #options: BenchOptions;
  readonly #print: (line: string) => void;
  readonly #drivers = new Map<number, Driver[]>();

  constructor(options: BenchOptions, print: (line: string) => void) {
    this.#options = options;
    this.#print = print;
  }

  get present(): PeerPresent[] {
    return [...this.#drivers].flatMap(([threads, drivers]) =>
      drivers
        .filter(({ version }) => version !== '')
        .map(({ name, version }) => ({ name, threads, version })),
    );
  }

  /** The rows of one question. */
  async measure(question: readonly BenchCase[], threads: number): Promise<Measured[]> {
    const { time, sets, peers } = this.#options;
    if (peers.length === 0) {
      const benchCase = question[0]!;
      return [{ benchCase, threads, timing: await measure(benchCase, time, sets), peers: [] }];
    }
    const comparison = await compare(question, this.#driversFor(threads), { time, sets, threads });
    return comparison.timings.map((each) => ({ ...each, threads, peers: comparison.peers }));
  }

  close(): void {
    for (const driver of [...this.#drivers.values()].flat()) driver.close();
  }

  #driversFor(threads: number): Driver[] {
    let drivers = this.#drivers.get(threads);
    if (drivers) return drivers;
    drivers = [];
    this.#drivers.set(threads, drivers);
    const { peers, peersDir, pinPeers } = this.#options;
    const level = pinPeers ? info().vectorLevel : null;
    for (const name of peers) {
      const found = findPeer(name, { threads, folder: peersFolder(peersDir), level });
      if (!('missing' in found)) drivers.push(new Driver(found));
      else if (!this.missing.some((m) => m.name === name)) {
        this.missing.push(found);
        this.#print(`${name} is missing: ${found.missing}`);
      }
    }
    return drivers;
  }
}
