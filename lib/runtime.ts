import { checkInteger, InvalidArgumentError } from './errors.js';
import {
  type AddonInfo,
  addon,
  checked,
  type MemoryUse,
  rememberCallSite,
  type VectorLevel,
} from './native.js';

export type { AddonInfo, MemoryUse, VectorLevel };

/** Live tensors and bytes of this environment. A training or rollout step leaves these as it found them. */
export function memory(): MemoryUse {
  return addon.memory();
}

/** Returns cached memory to the system, once the work that is queued already has run. */
export function trimMemory(): void {
  addon.trim();
}

/** How the addon was built, what the processor has, and which CUDA devices can be used (or why none). */
export function info(): AddonInfo {
  return addon.info();
}

/** Native threads that share each kernel; results are the same bits at any number. */
export function setThreads(threads: number): void {
  checked(addon.setThreads(checkInteger('setThreads', 'threads', threads, 1, 256)));
}

/**
 * The vector code that ops queued from now on use; the default is the best the processor has, or what the
 * environment variable ISOPOLICY_VECTOR_LEVEL names.
 */
export function setVectorLevel(level: VectorLevel): void {
  checked(addon.setVectorLevel(level));
}

/** Frees recordings that were dropped without dispose(), as tensors are. */
const finalizer = new FinalizationRegistry<number>((id) => {
  addon.disposeRecording(id);
});

/** A sequence of ops recorded once, to be run again with one call on the same memory. */
export class Recording implements Disposable {
  readonly #id: number;
  #disposed = false;

  /** @internal */
  constructor(id: number) {
    this.#id = id;
    finalizer.register(this, id, this);
  }

  /** Queues the whole sequence; inputs are read from, outputs written to, the tensors of the recording. */
  replay(): void {
    rememberCallSite(checked(addon.replay(this.#id)));
  }

  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    finalizer.unregister(this);
    addon.disposeRecording(this.#id);
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/**
 * Records the ops that `body` calls instead of running them. Their memory stays reserved until the recording is
 * disposed of, even where the tensors themselves are.
 */
export function record<R>(body: () => R): { recording: Recording; result: R } {
  checked(addon.beginRecording());
  let result: R;
  try {
    result = body();
    if (result instanceof Promise)
      throw new InvalidArgumentError(
        '[record] expected a synchronous function, got one that returns a promise',
      );
  } catch (error) {
    addon.disposeRecording(checked(addon.endRecording()));
    throw error;
  }
  return { recording: new Recording(checked(addon.endRecording())), result };
}
