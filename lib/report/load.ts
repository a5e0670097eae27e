import { access, readFile } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import { InvalidArgumentError } from '../errors.js';
import { RunDirectory, readMetrics } from '../io/runDirectory.js';
import type { ReportRun } from './figure.js';

/**
 * Reads a run directory for a report. A run that has not come to its end is read as far as it has; what the reader should
 * know of that is in `notes`.
 *
 * @throws InvalidArgumentError on a folder that is missing, has no run, or one of another format version
 */
export async function loadRun(directory: string): Promise<ReportRun> {
  const run = await RunDirectory.open(directory);
  const { command, version, config } = run.config;
  if (typeof command !== 'string' || typeof config !== 'object' || config === null) {
    throw new InvalidArgumentError(
      `[report] expected config.json of ${directory} to have a command and a config`,
    );
  }
  const notes: string[] = [];
  const summary = await readSummary(directory, notes);
  const metrics = await readMetrics(directory);
  if (await endsTorn(join(directory, 'metrics.jsonl'))) {
    notes.push('The last line of metrics.jsonl is torn and left out.');
  }
  return {
    directory,
    name: basename(resolve(directory)),
    command,
    version: String(version ?? 'unknown'),
    config: config as Record<string, unknown>,
    summary,
    metrics,
    notes,
  };
}

async function readSummary(directory: string, notes: string[]): Promise<ReportRun['summary']> {
  const path = join(directory, 'summary.json');
  try {
    await access(path);
  } catch {
    notes.push('The run has not come to its end: it has no summary yet.');
    return null;
  }
  try {
    return JSON.parse(await readFile(path, 'utf8'), (_key, value) =>
      value === 'NaN' || value === 'Infinity' || value === '-Infinity' ? Number(value) : value,
    );
  } catch (cause) {
    throw new InvalidArgumentError(`[report] expected ${path} to be readable JSON`, { cause });
  }
}

async function endsTorn(path: string): Promise<boolean> {
  try {
    const text = await readFile(path, 'utf8');
    return text.length > 0 && !text.endsWith('\n');
  } catch {
    return false;
  }
}
