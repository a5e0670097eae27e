import { currentDevice, info, type VectorLevel } from '../../lib/runtime.js';

const levels: readonly VectorLevel[] = ['portable', 'avx2', 'avx512', 'avx512bf16', 'amx'];

/**
 * The vector levels that this processor can run, from portable up, but for one between them that ISOPOLICY_TEST_WITHOUT names;
 * on a GPU one stands for all.
 */
export function vectorLevels(): readonly VectorLevel[] {
  if (currentDevice() === 'cuda') return [info().vectorLevel];
  const best = info().supportedVectorLevel;
  const able = levels.slice(0, levels.indexOf(best) + 1);
  return able.filter((level) => level === best || level !== process.env.ISOPOLICY_TEST_WITHOUT);
}
