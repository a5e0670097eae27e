/**
 * One job of a grid in a process of its own: makes a base, or runs a cell. It is forked, gets its job as the first
 * message, tells events as messages, and ends after the step that is running when it is told to stop or the parent is
 * gone.
 */
import { RunDirectory } from '../io/runDirectory.js';
import { setThreads } from '../runtime.js';
import { prepareBase } from '../sanity/base.js';
import type { BaseConfig } from '../sanity/baseConfig.js';
import type { TaskSanityConfig } from '../sanity/config.js';
import { runSanity, type SanityEvent } from '../sanity/run.js';

export type Job =
  | { readonly kind: 'base'; readonly threads: number; readonly config: BaseConfig; readonly base: string }
  | {
      readonly kind: 'run';
      readonly threads: number;
      readonly config: TaskSanityConfig;
      readonly base: string;
      readonly directory: string;
      /** A folder for TensorBoard event files. */
      readonly tensorboard?: string;
    };

/** What a job tells the scheduler. */
export type JobMessage =
  | { readonly kind: 'event'; readonly event: SanityEvent }
  | { readonly kind: 'done'; readonly interrupted: boolean }
  | { readonly kind: 'failed'; readonly message: string };

const controller = new AbortController();
// A Ctrl-C reaches every process of the terminal; this one waits for the scheduler's word.
process.on('SIGINT', () => {});
process.on('SIGTERM', () => controller.abort());
process.on('disconnect', () => controller.abort());
process.on('message', (message: Job | 'stop') => {
  if (message === 'stop') controller.abort();
  else void start(message);
});

async function start(job: Job): Promise<void> {
  try {
    setThreads(job.threads);
    const interrupted = await runJob(job);
    tell({ kind: 'done', interrupted });
  } catch (error) {
    tell({ kind: 'failed', message: error instanceof Error ? error.message : String(error) });
  }
  process.disconnect?.();
}

/** Whether the job was interrupted. */
async function runJob(job: Job): Promise<boolean> {
  const { signal } = controller;
  const report = (event: SanityEvent) => tell({ kind: 'event', event });
  if (job.kind === 'base') {
    const base = await prepareBase(job.config, { directory: job.base, signal, report });
    base?.model.dispose();
    return base === null;
  }
  const directory = await RunDirectory.open(job.directory);
  const { base, tensorboard } = job;
  const { interrupted } = await runSanity(job.config, {
    directory,
    base,
    signal,
    report,
    ...(tensorboard !== undefined && { tensorboard }),
  });
  return interrupted;
}

function tell(message: JobMessage): void {
  if (process.connected) process.send!(message);
}
