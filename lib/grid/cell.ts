import { basename, join } from 'node:path';
import type { FloatDType } from '../tensor/dtype.js';

/** The precisions of the two engines, written `training:rollout`. */
export interface PrecisionPair {
  readonly training: FloatDType;
  readonly rollout: FloatDType;
}

/** One run of a grid. */
export interface Cell extends PrecisionPair {
  /** As in a sanity run: a preset or the path of a file. */
  readonly algorithm: string;
  readonly seed: number;
}

/** The name of a cell's folder: `grpo-bf16-fp32-seed1`. */
export function cellName({ algorithm, training, rollout, seed }: Cell): string {
  return `${basename(algorithm)}-${training}-${rollout}-seed${seed}`.replaceAll(/[^\w.-]/g, '-');
}

/** The folder of a cell's run within that of the grid. */
export function cellDirectory(cell: Cell): string {
  return join('runs', cellName(cell));
}
