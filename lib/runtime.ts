import { type Device, devices, setInitialDevice } from './device.js';
import { checkChoice, checkInteger, InvalidArgumentError } from './errors.js';
import {
  type AddonInfo,
  addon,
  checked,
  type MemoryUse,
  readBytes,
  rememberCallSite,
  type VectorLevel,
} from './native.js';

export type { AddonInfo, Device, MemoryUse, VectorLevel };

/**
 * Live tensors and bytes of this environment on a device, by default the current one. A training or rollout step leaves
 * these as it found them.
 */
export function memory(device?: Device): MemoryUse {
  return device === undefined
    ? addon.memory()
    : addon.memory(checkChoice('memory', 'device', device, devices));
}

/**
 * Makes tensors on that device from now on, here and in child processes; the default is the CPU, or what the environment
 * variable ISOPOLICY_DEVICE names. Ops run where their tensors are, so that engines made from now on compute there.
 *
 * @throws DeviceError "no usable GPU: ..." where there is none, or the addon was built without CUDA
 */
export function setDevice(device: Device): void {
  checked(addon.setDevice(checkChoice('setDevice', 'device', device, devices)));
  setInitialDevice(device);
}

/** The device on which tensors are made that have no other tensor to follow. */
export function currentDevice(): Device {
  return addon.info().device;
}

/** Bytes that the current device still has, for whoever asks first; null on the CPU, where the system knows. */
export function freeMemory(): number | null {
  return addon.freeMemory();
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

/** What one kind of op took on the native threads. */
export interface OpProfile {
  /** The op's name; `upload` and `read` are copies between JavaScript and tensors. */
  readonly op: string;
  readonly calls: number;
  readonly milliseconds: number;
}

export interface Profile {
  /** Time by op, the longest first. Ops run one after another, so that these add up. */
  readonly ops: readonly OpProfile[];
  /** From the beginning to the end of the profile. */
  readonly milliseconds: number;
  /** The part of that in which no op ran: the native threads waited for JavaScript. */
  readonly idleMilliseconds: number;
}

let profiling = false;

/**
 * Times every op that runs on the current device while `body` does, by kind: where the time of a training step or of a generation goes.
 * Ops of a replayed recording count as those of a direct call. Results do not change; the clock costs some 30 ns an op on the CPU. On a
 * GPU each op is waited for, so that the times are those of the GPU and the sum is longer than without a profile.
 *
 * @throws InvalidArgumentError inside the body of another profile
 */
export async function profile<R>(body: () => R | Promise<R>): Promise<{ result: R; profile: Profile }> {
  if (profiling) throw new InvalidArgumentError('[profile] expected one profile at a time, got a second one');
  profiling = true;
  let result: R;
  try {
    await readBytes([]); // what was queued before is not the body's
    checked(addon.setProfiling(true));
    result = await body();
    await readBytes([]);
  } finally {
    checked(addon.setProfiling(false));
    profiling = false;
  }
  await readBytes([]);
  const { nanoseconds, ops } = addon.profile();
  const busy = ops.reduce((sum, op) => sum + op.nanoseconds, 0);
  return {
    result,
    profile: {
      ops: ops
        .map(({ op, calls, nanoseconds }) => ({ op, calls, milliseconds: nanoseconds / 1e6 }))
        .sort((a, b) => b.milliseconds - a.milliseconds),
      milliseconds: nanoseconds / 1e6,
      idleMilliseconds: (nanoseconds - busy) / 1e6,
    },
  };
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
