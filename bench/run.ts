/** Runs the groups that were asked for. */
import { type MachinePeaks, measurePeaks } from '../lib/ops/peak.js';
import { info, setThreads } from '../lib/runtime.js';
import type { BenchOptions } from './arguments.js';
import type { BenchCase } from './case.js';
import { groups } from './cases/index.js';
import { commit, describeMachine } from './machine.js';
import { measure, type Timing } from './measure.js';
import {
  type BenchDocument,
  higherPeaks,
  type PeakPass,
  peaksLine,
  rowOf,
  schemaVersion,
  tableHead,
  tableRow,
} from './report.js';

/**
 * Measures what the options select, group by group, with the peaks measured anew before each.
 *
 * @param print receives the lines of the table as they come
 */
export async function runBench(
  options: BenchOptions,
  command: string,
  print: (line: string) => void,
): Promise<BenchDocument> {
  const { help: _help, out: _out, ...settings } = options;
  const machine = describeMachine();
  const date = new Date().toISOString();
  const before = info().threads;
  const threadCounts = options.threads.length > 0 ? options.threads : [before];
  print(`${machine.cpu}, ${machine.cores} cores, ${machine.vectorLevel}, Node ${machine.node}`);

  const best = new Map<number, MachinePeaks>();
  const peaks: PeakPass[] = [];
  const measured: { benchCase: BenchCase; timing: Timing; threads: number }[] = [];
  const failures: { row: string; message: string }[] = [];
  try {
    for (const group of options.only) {
      const cases = groups[group](options);
      if (cases.length === 0) continue;
      print('');
      for (const threads of new Set([1, before, ...threadCounts])) {
        const pass = await measurePeaks({ threads });
        peaks.push({ before: group, ...pass });
        best.set(threads, higherPeaks(best.get(threads), pass));
        print(peaksLine(pass));
      }
      print(tableHead(group, cases[0]!.unit));
      for (const threads of threadCounts) {
        setThreads(threads);
        for (const benchCase of cases) {
          try {
            const timing = await measure(benchCase, options.time, options.sets);
            measured.push({ benchCase, timing, threads });
            print(tableRow(rowOf(benchCase, timing, best.get(threads)!)));
          } catch (error) {
            const failure = { row: nameOf(benchCase, threads), message: (error as Error).message };
            failures.push(failure);
            print(`${failure.row}: FAILED: ${failure.message}`);
          }
        }
      }
    }
  } finally {
    setThreads(before);
  }
  // Once more: a later pass may have seen higher peaks than those that the printed shares are of.
  const rows = measured.map(({ benchCase, timing, threads }) => rowOf(benchCase, timing, best.get(threads)!));
  return { schemaVersion, date, commit: commit(), command, settings, machine, peaks, rows, failures };
}

function nameOf({ op, family, dtype, shape }: BenchCase, threads: number): string {
  return `${op} ${family} ${dtype} ${shape}, ${threads} threads`;
}
