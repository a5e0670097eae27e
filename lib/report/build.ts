import { checkChoice, InvalidArgumentError } from '../errors.js';
import type { SanityConfig } from '../sanity/config.js';
import { taskName } from '../sanity/sourceConfig.js';
import { figuresOfDiagnosis } from './charts/diagnose.js';
import { figuresOfDial } from './charts/dial.js';
import { figuresOfGrid } from './charts/grid.js';
import { figuresOfHeadroom } from './charts/headroom.js';
import { figuresOfLadder } from './charts/ladder.js';
import { figuresOfMismatch } from './charts/mismatch.js';
import { figuresOfSanity, runLabel } from './charts/sanity.js';
import { figuresOfSimulation } from './charts/simulate.js';
import { figuresOfTraining } from './charts/train.js';
import type { Figure, ReportRun } from './figure.js';
import type { Section } from './html.js';
import { loadRun } from './load.js';

/** Charts by the command that made a run. */
const figuresOf = {
  sanity: (run: ReportRun) => figuresOfSanity([run]),
  grid: figuresOfGrid,
  mismatch: figuresOfMismatch,
  ladder: figuresOfLadder,
  dial: figuresOfDial,
  headroom: figuresOfHeadroom,
  simulate: figuresOfSimulation,
  train: figuresOfTraining,
  diagnose: figuresOfDiagnosis,
} as const satisfies Record<string, (run: ReportRun) => Figure[] | Promise<Figure[]>>;

export type ReportCommand = keyof typeof figuresOf;
export const reportCommands = Object.keys(figuresOf) as readonly ReportCommand[];

/** The text that a command prints for a finished run; given by the command line, which has it. */
export type RunText = (run: ReportRun) => string | undefined | Promise<string | undefined>;

/**
 * The sections of a report: sanity runs of one task in charts together, every other run by itself.
 *
 * @throws InvalidArgumentError on a folder that can't be read, a command that has no charts, or sanity runs of different
 * tasks, whose curves can't share a chart
 */
export async function buildSections(directories: readonly string[], text: RunText): Promise<Section[]> {
  if (directories.length === 0) {
    throw new InvalidArgumentError('[report] expected at least one run directory, got none');
  }
  const runs: ReportRun[] = [];
  for (const directory of directories) {
    const run = await loadRun(directory);
    checkChoice('report', `the command of ${directory}`, run.command as ReportCommand, reportCommands);
    runs.push(run);
  }
  const sections: Section[] = [];
  const sanity = runs.filter(({ command }) => command === 'sanity');
  checkOneTask(sanity);
  if (sanity.length > 1) {
    sections.push({
      title: `${sanity.length} sanity runs`,
      lines: sanity.flatMap((run) => [`${run.name}: ${runLabel(run)}, ${outcomeOf(run)}`, ...run.notes]),
      command: `isopolicy sanity (config.json of each has every setting: ${sanity.map(({ directory }) => directory).join(', ')})`,
      figures: figuresOfSanity(sanity),
    });
  }
  for (const run of runs) {
    if (run.command === 'sanity' && sanity.length > 1) continue;
    sections.push(await sectionOf(run, text));
  }
  return sections;
}

/** The section of one run, whose command is one of {@link reportCommands}. */
export async function sectionOf(run: ReportRun, text: RunText): Promise<Section> {
  const printed = run.summary === null ? undefined : await ofThisVersion(run, () => text(run));
  return {
    title: `${run.command}: ${run.name}`,
    lines: [`isopolicy ${run.version}`, ...run.notes],
    ...(printed !== undefined && { text: printed }),
    command: `isopolicy ${run.command} (${run.directory}/config.json has every setting)`,
    figures: await ofThisVersion(run, () => figuresOf[run.command as ReportCommand](run)),
  };
}

/** The outcome of a sanity run in a few words. */
function outcomeOf({ summary }: ReportRun): string {
  if (summary === null) return 'not at its end';
  if (summary.interrupted === true) return 'interrupted';
  if (summary.divergence) return 'diverged';
  const accuracy = Number(summary.finalAccuracy);
  return `${summary.passed === true ? 'passed' : 'not passed'}${Number.isFinite(accuracy) ? `, training accuracy ${accuracy.toFixed(3)}` : ''}`;
}

/** A summary that lacks what this version reads is the reader's to know of, not a bug of the charts. */
async function ofThisVersion<T>(run: ReportRun, make: () => T | Promise<T>): Promise<T> {
  try {
    return await make();
  } catch (cause) {
    if (!(cause instanceof TypeError)) throw cause;
    throw new InvalidArgumentError(
      `[report] expected ${run.directory}/summary.json to have the fields that this version writes, got one of ` +
        `isopolicy ${run.version} without (${cause.message}); resume the run with this version to write it anew`,
      { cause },
    );
  }
}

function checkOneTask(runs: readonly ReportRun[]): void {
  const tasks = new Map(runs.map((run) => [taskName(run.config as unknown as SanityConfig), run.directory]));
  if (tasks.size <= 1) return;
  const list = [...tasks].map(([task, directory]) => `${task} in ${directory}`).join(', ');
  throw new InvalidArgumentError(
    `[report] expected sanity runs of one task in a chart, got ${list}: make a report of each`,
  );
}
