import { checkChoice, checkInteger, checkNumber } from '../errors.js';
import type { VectorLevel } from '../native.js';
import { currentDevice, info, setThreads } from '../runtime.js';
import { callOne, full, handleOf, type Tensor } from '../tensor/tensor.js';

/** In the order of native/ops/peak.h. */
const kinds = ['fma', 'bf16', 'read', 'copy', 'amx'] as const;

/**
 * `fma`: fp32 multiply-adds from registers; `bf16`: products of bf16 pairs summed in fp32, by vdpbf16ps or on the tensor
 * cores of a GPU; `amx`: the same on tiles of a CPU; `read` and `copy`: streams through memory.
 */
export type PeakKind = (typeof kinds)[number];

/** kPeakSteps * kPeakAccumulators * 16 lanes of native/ops/peak.h. */
const lanesAPass = 4096 * 12 * 16;
/** kPeakTileSteps * kPeakTiles steps of 16 x 16 x 32 multiply-adds. */
const productsAPass = 1024 * 4 * 16 * 16 * 32;

/**
 * A fixed amount of work to be timed from outside (queue it, then await the result).
 *
 * @param passes repetitions of the work; {@link peakWork} tells how much that is
 * @param memory fp32, a multiple of 32 elements: what `read` reads; `copy` copies its first half to the second
 * @returns fp32 [1]: 2 for `fma`, 1024 for `bf16`, 4096 for `amx`, else the largest element of the memory (of `copy`, the largest
 *   of those that end each MiB)
 * @throws InvalidArgumentError for `bf16` on a CPU below vector level avx512bf16, for `amx` on a GPU or below amx, or memory
 *   that does not fit
 */
export function peak(kind: PeakKind, passes: number, memory?: Tensor): Tensor {
  checkChoice('peak', 'kind', kind, kinds);
  checkInteger('peak', 'passes', passes, 1);
  return callOne('peak', [kinds.indexOf(kind), passes, handleOf(memory)]);
}

/** Floating-point operations (2 a multiply-add) of the arithmetic kinds, bytes read and written of the others. */
export function peakWork(kind: PeakKind, passes: number, memoryBytes = 0): number {
  if (kind === 'fma') return passes * lanesAPass * 2;
  if (kind === 'bf16') return passes * lanesAPass * 4;
  if (kind === 'amx') return passes * productsAPass * 2;
  return passes * memoryBytes;
}

/** Billions of operations or bytes a second: the best sample, and the median one. */
export interface Peak {
  readonly best: number;
  readonly median: number;
}

/** What the machine was seen to do at most, on `threads` threads. */
export interface MachinePeaks {
  readonly threads: number;
  readonly vectorLevel: VectorLevel;
  /** GFLOP/s. */
  readonly fma: Peak;
  /** GFLOP/s; null where the CPU's vector level has no bf16 arithmetic. */
  readonly bf16: Peak | null;
  /** GFLOP/s of bf16 products on tiles; null where the vector level has none, and on a GPU. */
  readonly amx: Peak | null;
  /** GB/s. */
  readonly read: Peak;
  /** GB/s, read and written together. */
  readonly copy: Peak;
}

const samples = 5;

/**
 * Measures the peaks of the current device, of a CPU at the current vector level: for each kind a warm-up and five samples.
 *
 * @param options.threads default: the current number, which is restored
 * @param options.milliseconds about how long a kind is measured; default 50. A sample of memory is one pass at least
 * @param options.memoryBytes streamed through by `read` and `copy`; default 256 MiB, far above the caches
 */
export async function measurePeaks(
  options: { readonly threads?: number; readonly milliseconds?: number; readonly memoryBytes?: number } = {},
): Promise<MachinePeaks> {
  const before = info().threads;
  const { threads = before, milliseconds = 50, memoryBytes = 2 ** 28 } = options;
  checkNumber('measurePeaks', 'milliseconds', milliseconds, 0);
  checkInteger('measurePeaks', 'memoryBytes', memoryBytes, 128, 2 ** 40);
  setThreads(threads);
  const memory = full([Math.floor(memoryBytes / 128) * 32], 1);
  const measure = async (kind: PeakKind): Promise<Peak> => {
    let passes = kind === 'read' || kind === 'copy' ? 1 : 16;
    await time(kind, passes, memory);
    // Few passes do not tell what many take: a GPU is not busy with them.
    let elapsed = await time(kind, passes, memory);
    const wanted = milliseconds / samples;
    while (elapsed < wanted / 4) {
      passes *= 4;
      elapsed = await time(kind, passes, memory);
    }
    passes = Math.max(1, Math.round((wanted / elapsed) * passes));
    const work = peakWork(kind, passes, memory.bytes);
    const rates: number[] = [];
    for (let i = 0; i < samples; i++) rates.push(work / (await time(kind, passes, memory)) / 1e6);
    rates.sort((a, b) => a - b);
    return { best: rates[samples - 1]!, median: rates[(samples - 1) / 2]! };
  };
  try {
    const { vectorLevel } = info();
    const onGpu = currentDevice() === 'cuda';
    return {
      threads,
      vectorLevel,
      fma: await measure('fma'),
      bf16: onGpu || vectorLevel === 'avx512bf16' || vectorLevel === 'amx' ? await measure('bf16') : null,
      amx: !onGpu && vectorLevel === 'amx' ? await measure('amx') : null,
      read: await measure('read'),
      copy: await measure('copy'),
    };
  } finally {
    memory.dispose();
    setThreads(before);
  }
}

/** Milliseconds from the call to the result. */
async function time(kind: PeakKind, passes: number, memory: Tensor): Promise<number> {
  const start = performance.now();
  const out = peak(kind, passes, kind === 'read' || kind === 'copy' ? memory : undefined);
  await out.item();
  const elapsed = performance.now() - start;
  out.dispose();
  return elapsed;
}
