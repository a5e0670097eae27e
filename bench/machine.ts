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
  /** The GPU that is measured; null where that is the CPU. */
  readonly gpu: {
    readonly name: string;
    readonly computeCapability: string;
    /** What its kernels were held to, as an older GPU's: ISOPOLICY_CUDA_CAPABILITY; null where nothing. */
    readonly heldTo: string | null;
    readonly memoryBytes: number;
    readonly multiprocessors: number;
    /** CUDA versions. */
    readonly driver: string;
    readonly runtime: string;
  } | null;
}

export function describeMachine(): Machine {
  const { vectorLevel, supportedVectorLevel, device, cudaDevices, cudaDriver, cudaRuntime } = info();
  const gpu = device === 'cuda' ? cudaDevices[0] : undefined;
  return {
    cpu: os.cpus()[0]?.model.trim() ?? 'unknown',
    cores: os.availableParallelism(),
    memoryBytes: os.totalmem(),
    platform: `${process.platform}-${process.arch}`,
    node: process.version,
    vectorLevel,
    supportedVectorLevel,
    loadAverage: os.loadavg()[0] ?? 0,
    gpu: gpu
      ? {
          name: gpu.name,
          computeCapability: gpu.computeCapability,
          heldTo: process.env.ISOPOLICY_CUDA_CAPABILITY || null,
          memoryBytes: gpu.totalBytes,
          multiprocessors: gpu.multiprocessors,
          driver: cudaDriver,
          runtime: cudaRuntime,
        }
      : null,
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
