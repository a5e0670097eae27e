import { join } from 'node:path';
import { type MetricsRecord, readMetrics } from '../io/runDirectory.js';
import { resolveSanityOptions } from '../sanity/config.js';
import type { SanitySummary } from '../sanity/run.js';
import type { Cell, PrecisionPair } from './cell.js';
import type { GridConfig } from './config.js';
import { type SpreadThreshold, spreadThresholds } from './thresholds.js';

export type CellStatus = 'finished' | 'interrupted' | 'failed' | 'missing';

export interface CellResult extends Cell {
  /** The folder of the run, within the grid's. */
  readonly directory: string;
  readonly status: CellStatus;
  readonly summary: SanitySummary | null;
  /** The message of a run that failed. */
  readonly failure?: string;
}

/** Of several runs: the mean, the least and the greatest. */
export interface Spread {
  readonly mean: number;
  readonly min: number;
  readonly max: number;
}

/** The finished runs of one algorithm in one pair of precisions. */
export interface GridGroup extends PrecisionPair {
  readonly algorithm: string;
  /** Seeds of the runs that count: those with at least one step. */
  readonly seeds: readonly number[];
  /** Runs among them that reached their last step. */
  readonly finished: number;
  readonly steps: Spread;
  readonly finalAccuracy: Spread;
  readonly peakAccuracy: Spread;
  /** Runs that passed the sanity test, and the steps (from 0) at which runs collapsed. */
  readonly passed: number;
  readonly collapsedAt: readonly number[];
  /** Of those that collapsed, the runs that were back at the end; undefined in grids of before they were told apart. */
  readonly recovered?: number;
  /** Mean |log pi - log mu| per token at the end, in nats. */
  readonly meanAbsLogRatio: Spread;
  /** Standard deviation over responses of log pi(y) - log mu(y), in nats, mean of the first five steps. */
  readonly startSpread: Spread;
  /** Accuracy of a step's responses, mean of the steps that every run of the grid with a step took. */
  readonly meanAccuracy: Spread;
}

/** What a step costs, as medians over all steps of the grid. */
export interface GridCosts {
  /**
   * The share of the training engine's time that the extra pass for pi_old takes: score / (score + train). The paper
   * says about 25 % (arXiv 2510.26788).
   */
  readonly oldPassShare: number;
  /** The same as a share of the whole step, rollout included. */
  readonly oldPassShareOfStep: number;
  /** Seconds of rollout per generated token and precision. */
  readonly rolloutSecondsPerToken: Readonly<Record<string, number>>;
  /** Rollout in fp32 over rollout in the 16-bit formats; null where the grid has not both. The paper says about 3. */
  readonly fp32RolloutCost: number | null;
}

export interface GridSummary {
  readonly task: string;
  readonly steps: number;
  readonly cells: readonly CellResult[];
  readonly groups: readonly GridGroup[];
  readonly costs: GridCosts;
  /** What mismatch each algorithm bore, where it was run in several pairs of precisions. */
  readonly thresholds: readonly SpreadThreshold[];
  /** Whether cells are left because the grid was stopped; it can be resumed. */
  readonly interrupted: boolean;
  readonly failed: number;
}

/** Gathers what the runs of a grid left. */
export async function summarizeGrid(
  directory: string,
  config: GridConfig,
  cells: readonly CellResult[],
  stopped: boolean,
): Promise<GridSummary> {
  const { task, steps } = resolveSanityOptions(config.common);
  const runs = await Promise.all(
    cells.map(async (cell): Promise<CellRun> => {
      try {
        return { cell, records: await readMetrics(join(directory, cell.directory)) };
      } catch {
        return { cell, records: [] };
      }
    }),
  );
  const begun = runs.filter(({ cell, records }) => cell.summary !== null && records.length > 0);
  const commonSteps = Math.min(...begun.map(({ records }) => records.length));
  const byPair = new Map<string, CellRun[]>();
  for (const run of begun) {
    const key = `${run.cell.algorithm} ${run.cell.training} ${run.cell.rollout}`;
    byPair.set(key, [...(byPair.get(key) ?? []), run]);
  }
  const groups = [...byPair.values()].map((own) => groupOf(own, commonSteps));
  return {
    task,
    steps,
    cells,
    groups,
    costs: costsOf(runs),
    thresholds: spreadThresholds(groups),
    interrupted: stopped && cells.some(({ status }) => status === 'interrupted' || status === 'missing'),
    failed: cells.filter(({ status }) => status === 'failed').length,
  };
}

/** A cell and what its run logged of each step. */
interface CellRun {
  readonly cell: CellResult;
  readonly records: readonly MetricsRecord[];
}

/** Steps at the start of a run whose mismatch training has hardly moved. */
const START_STEPS = 5;

function groupOf(runs: readonly CellRun[], commonSteps: number): GridGroup {
  const cells = runs.map(({ cell }) => cell);
  const { algorithm, training, rollout } = cells[0]!;
  const summaries = cells.map(({ summary }) => summary!);
  const meanOf = (name: string, steps: number) =>
    spread(
      runs.map(({ records }) => {
        const values = records.slice(0, steps).map((record) => Number(record[name]));
        return values.reduce((sum, x) => sum + x, 0) / values.length;
      }),
    );
  return {
    algorithm,
    training,
    rollout,
    seeds: cells.map(({ seed }) => seed),
    finished: cells.filter(({ status }) => status === 'finished').length,
    steps: spread(summaries.map((s) => s.steps)),
    finalAccuracy: spread(summaries.map((s) => s.finalAccuracy)),
    peakAccuracy: spread(summaries.map((s) => s.peakAccuracy)),
    passed: summaries.filter((s) => s.passed).length,
    collapsedAt: summaries.flatMap((s) => (s.collapsedAtStep === null ? [] : [s.collapsedAtStep])),
    // Runs of before it was judged don't tell.
    ...(summaries.every((s) => s.recovered !== undefined) && {
      recovered: summaries.filter((s) => s.recovered).length,
    }),
    meanAbsLogRatio: spread(summaries.map((s) => s.mismatch?.meanAbsLogRatio ?? Number.NaN)),
    startSpread: meanOf('mismatch/seqLogRatioStd', START_STEPS),
    meanAccuracy: meanOf('train/reward', commonSteps),
  };
}

function costsOf(runs: readonly CellRun[]): GridCosts {
  const shares: number[] = [];
  const sharesOfStep: number[] = [];
  const perToken = new Map<string, number[]>();
  for (const { cell, records } of runs) {
    for (const record of records) {
      const [rollout, score, train] = ['rollout', 'score', 'train'].map((name) =>
        Number(record[`time/${name}_s`]),
      ) as [number, number, number];
      shares.push(score / (score + train));
      sharesOfStep.push(score / (rollout + score + train));
      const seconds = perToken.get(cell.rollout) ?? [];
      // tokens_per_s is of the whole step.
      seconds.push(rollout / (Number(record['time/tokens_per_s']) * (rollout + score + train)));
      perToken.set(cell.rollout, seconds);
    }
  }
  const rolloutSecondsPerToken = Object.fromEntries([...perToken].map(([name, s]) => [name, median(s)]));
  const sixteenBit = ['fp16', 'bf16'].flatMap((name) => rolloutSecondsPerToken[name] ?? []);
  const { fp32 } = rolloutSecondsPerToken;
  return {
    oldPassShare: median(shares),
    oldPassShareOfStep: median(sharesOfStep),
    rolloutSecondsPerToken,
    fp32RolloutCost:
      fp32 === undefined || sixteenBit.length === 0
        ? null
        : fp32 / (sixteenBit.reduce((sum, x) => sum + x, 0) / sixteenBit.length),
  };
}

function spread(values: readonly number[]): Spread {
  return {
    mean: values.reduce((sum, x) => sum + x, 0) / values.length,
    min: Math.min(...values),
    max: Math.max(...values),
  };
}

function median(values: readonly number[]): number {
  if (values.length === 0) return Number.NaN;
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}
