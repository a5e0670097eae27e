import { currentDevice, info, type VectorLevel } from '../../lib/runtime.js';

const levels: readonly VectorLevel[] = ['portable', 'avx2', 'avx512', 'avx512bf16', 'amx'];

/**
 * The vector levels that this processor can run, from portable up, but for those between them that ISOPOLICY_TEST_WITHOUT
 * names (avx2,avx512); on a GPU one stands for all.
 */
export function vectorLevels(): readonly VectorLevel[] {
  if (currentDevice() === 'cuda') return [info().vectorLevel];
  const best = info().supportedVectorLevel;
  const able = levels.slice(0, levels.indexOf(best) + 1);
  const without = process.env.ISOPOLICY_TEST_WITHOUT?.split(',') ?? [];
  return able.filter((level) => level === best || !without.includes(level));
}
