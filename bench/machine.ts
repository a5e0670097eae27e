/** Where and on what the benchmark ran. */
import { execFileSync } from 'node:child_process';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { info, type VectorLevel } from '../lib/runtime.js';

export interface Machine {
  readonly cpu: string;
  readonly cores: number;
  readonly memoryBytes: number;
  readonly platform: string;
  readonly node: string;
  readonly vectorLevel: VectorLevel;
  readonly supportedVectorLevel: VectorLevel;
  /** Running processes over the last minute, before the benchmark: above 0 on an idle machine means company. */
  readonly loadAverage: number;
}

export function describeMachine(): Machine {
  const { vectorLevel, supportedVectorLevel } = info();
  return {
    cpu: os.cpus()[0]?.model.trim() ?? 'unknown',
    cores: os.availableParallelism(),
    memoryBytes: os.totalmem(),
    platform: `${process.platform}-${process.arch}`,
    node: process.version,
    vectorLevel,
    supportedVectorLevel,
    loadAverage: os.loadavg()[0] ?? 0,
  };
}

/** The commit that is checked out, with a plus sign where files differ from it; null outside a checkout. */
export function commit(): string | null {
  const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');
  const git = (...args: string[]) =>
    execFileSync('git', ['-C', root, ...args], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    }).trim();
  try {
    return git('rev-parse', 'HEAD') + (git('status', '--porcelain') === '' ? '' : '+');
  } catch {
    return null;
  }
}
