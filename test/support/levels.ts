import { currentDevice, info, type VectorLevel } from '../../lib/runtime.js';

const levels: readonly VectorLevel[] = ['portable', 'avx2', 'avx512', 'avx512bf16', 'amx'];

/** The vector levels that this processor can run, from portable up; on a GPU one stands for all. */
export function vectorLevels(): readonly VectorLevel[] {
  if (currentDevice() === 'cuda') return [info().vectorLevel];
  return levels.slice(0, levels.indexOf(info().supportedVectorLevel) + 1);
}
