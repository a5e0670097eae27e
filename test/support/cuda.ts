import { currentDevice, info } from '../../lib/runtime.js';

/** Options of a test that needs a GPU, or the emulator of one (npm run test:emulated): skipped with the reason elsewhere. */
export function needsCuda(): { skip: string | false } {
  const { cudaDevices, cudaProblem } = info();
  return { skip: cudaDevices.length > 0 ? false : cudaProblem };
}

/**
 * Whether kernels run on the emulator of a GPU, which is slow: sizes that are no part of the evidence are smaller there.
 */
export function onEmulator(): boolean {
  return currentDevice() === 'cuda' && info().cudaDevices[0]!.name === 'emulated CUDA device';
}
