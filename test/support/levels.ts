import { info, type VectorLevel } from '../../lib/runtime.js';

const levels: readonly VectorLevel[] = ['portable', 'avx2', 'avx512', 'avx512bf16', 'amx'];

/** The vector levels that this processor can run, from portable up. */
export function vectorLevels(): readonly VectorLevel[] {
  return levels.slice(0, levels.indexOf(info().supportedVectorLevel) + 1);
}
