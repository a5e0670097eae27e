import { type ChildProcess, fork } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { checkInteger } from '../errors.js';
import { exists } from '../io/folder.js';
import { RunDirectory } from '../io/runDirectory.js';
import type { TaskSanityConfig } from '../sanity/config.js';
import type { SanityEvent, SanitySummary } from '../sanity/run.js';
import { type Cell, cellDirectory, cellName } from './cell.js';
import { baseName, cellConfig, type GridConfig, gridBases } from './config.js';
import { type CellResult, type GridSummary, summarizeGrid } from './summary.js';
import type { Job, JobMessage } from './worker.js';

export interface GridRunOptions {
  readonly directory: RunDirectory;
  /** Of the package, written into the runs' config.json. */
  readonly version: string;
  /** Runs at once; default half of the processors, at least 1. */
  readonly jobs?: number;
  /** Native threads of each run; default the processors shared out among the jobs. */
  readonly threads?: number;
  /** A folder that keeps the bases, for other grids to share; default `bases` in the grid's own. */
  readonly bases?: string;
  /** A folder for TensorBoard event files, each run's in a folder of its own with the run's name. */
  readonly tensorboard?: string;
  /** Aborting it lets every run finish its step and save. */
  readonly signal?: AbortSignal;
  readonly report?: (event: GridEvent) => void;
}

/** What a grid tells while it goes on. */
export interface GridEvent {
  /** The base or cell that the event is about. */
  readonly job: string;
  readonly done: number;
  readonly jobs: number;
  /** What its run told; undefined where it began or ended. */
  readonly event?: SanityEvent;
  readonly failure?: string;
}

/**
 * Runs every cell of a grid that is not finished, several at once, each in a process of its own. Cells are sanity runs
 * whose bits depend on their configuration alone; those that were interrupted go on. A cell that fails does not stop
 * the others.
 */
export async function runGrid(config: GridConfig, options: GridRunOptions): Promise<GridSummary> {
  const { directory, signal, report, tensorboard } = options;
  const jobs = checkInteger('grid', 'jobs', options.jobs ?? defaultJobs(), 1, 4096);
  const threads = checkInteger(
    'grid',
    'threads',
    options.threads ?? Math.max(1, Math.floor(availableParallelism() / jobs)),
    1,
    256,
  );
  const bases = options.bases ?? join(directory.path, 'bases');
  const baseOf = (cell: Cell) => join(bases, baseName(cellConfig(config, cell)));
  const failures = new Map<string, string>();

  const pending: Cell[] = [];
  for (const cell of config.cells) {
    const run = join(directory.path, cellDirectory(cell));
    if (!isFinished(await readSummary(run), cellConfig(config, cell))) pending.push(cell);
  }
  const neededBases = new Set<string>();
  for (const cell of pending) {
    if (!(await exists(join(baseOf(cell), 'base.json')))) neededBases.add(baseOf(cell));
  }
  const missingBases = [...gridBases(config)].filter(([name]) => neededBases.has(join(bases, name)));
  const total = missingBases.length + config.cells.length;
  let done = config.cells.length - pending.length;

  const queue: QueuedJob[] = [
    ...missingBases.map(
      ([name, base]): QueuedJob => ({
        name,
        job: async () => ({ kind: 'base', threads, config: base, base: join(bases, name) }),
      }),
    ),
    ...pending.map((cell): QueuedJob => {
      const sanity = cellConfig(config, cell);
      const run = join(directory.path, cellDirectory(cell));
      return {
        name: cellName(cell),
        after: baseName(sanity),
        job: async () => {
          await openRun(run, { command: 'sanity', version: options.version, config: sanity });
          return {
            kind: 'run',
            threads,
            config: sanity,
            base: baseOf(cell),
            directory: run,
            ...(tensorboard !== undefined && { tensorboard: join(tensorboard, cellName(cell)) }),
          };
        },
      };
    }),
  ];
  await runQueue(queue, jobs, signal, async ({ name, after, job }) => {
    const tell = (more: Partial<GridEvent> = {}) => report?.({ job: name, done, jobs: total, ...more });
    const inherited = after === undefined ? undefined : failures.get(after);
    tell();
    const outcome: Outcome =
      inherited === undefined
        ? await job().then(
            (ready) => runJob(ready, signal, (event) => tell({ event })),
            (error: Error): Outcome => ({ kind: 'failed', message: error.message }),
          )
        : { kind: 'failed', message: inherited };
    if (outcome.kind === 'failed') failures.set(name, outcome.message);
    if (outcome.kind !== 'done' || !outcome.interrupted) done++;
    tell(outcome.kind === 'failed' ? { failure: outcome.message } : {});
  });

  const cells: CellResult[] = [];
  for (const cell of config.cells) cells.push(await readCell(directory.path, config, cell, failures));
  const summary = await summarizeGrid(directory.path, config, cells, signal?.aborted === true);
  await directory.writeSummary(summary);
  return summary;
}

function defaultJobs(): number {
  return Math.max(1, Math.floor(availableParallelism() / 2));
}

/** Makes the run of a cell or opens it; its configuration is the grid's, which may have more steps by now. */
async function openRun(path: string, config: Readonly<Record<string, unknown>>): Promise<void> {
  if (await exists(join(path, 'config.json'))) await (await RunDirectory.open(path)).replaceConfig(config);
  else await RunDirectory.create(path, config);
}

async function readCell(
  grid: string,
  config: GridConfig,
  cell: Cell,
  failures: ReadonlyMap<string, string>,
): Promise<CellResult> {
  const directory = cellDirectory(cell);
  const summary = await readSummary(join(grid, directory));
  const failure = failures.get(cellName(cell));
  const finished = isFinished(summary, cellConfig(config, cell));
  const status =
    failure !== undefined ? 'failed' : finished ? 'finished' : summary !== null ? 'interrupted' : 'missing';
  return { ...cell, directory, status, summary, ...(failure !== undefined && { failure }) };
}

/** Whether a run reached its last step, or passed where it was to stop then. */
function isFinished(summary: SanitySummary | null, { steps, stopWhenPassed }: TaskSanityConfig): boolean {
  if (summary === null) return false;
  return summary.steps >= steps || summary.divergence !== undefined || (stopWhenPassed && summary.passed);
}

async function readSummary(run: string): Promise<SanitySummary | null> {
  try {
    return JSON.parse(await readFile(join(run, 'summary.json'), 'utf8'));
  } catch {
    // Missing, or torn by a kill: the run then goes on from its checkpoint and writes it again.
    return null;
  }
}

interface QueuedJob {
  readonly name: string;
  /** The job that has to be done first, where it is in the queue, too. */
  readonly after?: string;
  readonly job: () => Promise<Job>;
}

/** Runs `body` over the jobs in order, `width` at once, each after the one that it waits for; begins none after the signal. */
async function runQueue(
  queue: readonly QueuedJob[],
  width: number,
  signal: AbortSignal | undefined,
  body: (job: QueuedJob) => Promise<void>,
): Promise<void> {
  const waiting = [...queue];
  const open = new Set(queue.map(({ name }) => name));
  const running = new Set<Promise<void>>();
  while (waiting.length > 0 || running.size > 0) {
    const next = waiting.findIndex(({ after }) => after === undefined || !open.has(after));
    if (next >= 0 && running.size < width && !signal?.aborted) {
      const [job] = waiting.splice(next, 1);
      const run = body(job!).then(() => {
        open.delete(job!.name);
        running.delete(run);
      });
      running.add(run);
    } else if (running.size > 0) {
      await Promise.race(running);
    } else {
      return;
    }
  }
}

type Outcome = Exclude<JobMessage, { kind: 'event' }>;

function runJob(
  job: Job,
  signal: AbortSignal | undefined,
  onEvent: (event: SanityEvent) => void,
): Promise<Outcome> {
  return new Promise((resolve) => {
    // What the job prints to stderr is a crash's last word.
    const child: ChildProcess = fork(new URL('./worker.js', import.meta.url), [], {
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    });
    const stop = () => child.connected && child.send('stop');
    signal?.addEventListener('abort', stop);
    let outcome: Outcome | undefined;
    let errors = '';
    child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      errors = `${errors}${text}`.slice(-2000);
    });
    child.on('message', (message: JobMessage) => {
      if (message.kind === 'event') onEvent(message.event);
      else outcome = message;
    });
    child.on('error', (error) => {
      outcome ??= { kind: 'failed', message: error.message };
    });
    child.on('close', (code, killed) => {
      signal?.removeEventListener('abort', stop);
      const reason = killed ?? `exit code ${code}`;
      const message = `the process of the run ended with ${reason} ${errors.trim()}`.trim();
      resolve(outcome ?? { kind: 'failed', message });
    });
    child.send(job);
  });
}
