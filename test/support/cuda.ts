import { info } from '../../lib/runtime.js';

/** Options of a test that needs a GPU, or the emulator of one (npm run test:emulated): skipped with the reason elsewhere. */
export function needsCuda(): { skip: string | false } {
  const { cudaDevices, cudaProblem } = info();
  return { skip: cudaDevices.length > 0 ? false : cudaProblem };
}
