/**
 * The only importer of the addon, and its one hand-written type.
 *
 * An op is called by writing its arguments as numbers into a buffer that both sides share and crossing once;
 * outputs come back in the same buffer as (handle, dtype, device, rank, dimensions...).
 */
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import bindings from 'bindings';
import type { Device } from './device.js';
import { DeviceError, InternalError, InvalidArgumentError } from './errors.js';

export interface MemoryUse {
  /** Live tensors. */
  readonly tensors: number;
  /** Bytes held by live tensors and recordings. */
  readonly bytes: number;
  /** Bytes free in the allocator, kept for reuse. */
  readonly cachedBytes: number;
  /** The most bytes ever held at once. */
  readonly peakBytes: number;
}

/** What vector code may assume of the processor, each level including those before it (native/core/registry.h). */
export const vectorLevels = ['portable', 'avx2', 'avx512', 'avx512bf16', 'amx'] as const;
export type VectorLevel = (typeof vectorLevels)[number];

export interface AddonInfo {
  readonly threads: number;
  readonly vectorLevel: VectorLevel;
  readonly supportedVectorLevel: VectorLevel;
  readonly cudaCompiled: boolean;
  /** Where tensors are made that have no other tensor to follow. */
  readonly device: Device;
  readonly cudaDevices: readonly {
    readonly name: string;
    readonly computeCapability: string;
    readonly totalBytes: number;
    readonly multiprocessors: number;
  }[];
  /** CUDA versions, as 13.0: of the driver, and of the run time that the addon was built with; empty where there is none. */
  readonly cudaDriver: string;
  readonly cudaRuntime: string;
  /** Why no CUDA device can be used; empty where one can. */
  readonly cudaProblem: string;
}

export interface KnobDescription {
  readonly name: string;
  readonly meaning: string;
  readonly rollout: number;
  readonly training: number;
  readonly matched: number;
}

interface Addon {
  readonly buffer: ArrayBuffer;
  readonly ops: readonly string[];
  readonly knobs: readonly KnobDescription[];
  invoke(op: number, argumentCount: number): number;
  takeError(): { kind: 'invalid' | 'device' | 'internal'; message: string };
  dispose(handle: number): void;
  upload(handle: number, data: ArrayBufferView): number;
  read(...handles: number[]): Promise<ArrayBuffer[]> | -1;
  beginRecording(): number;
  endRecording(): number;
  replay(recording: number): number;
  disposeRecording(recording: number): boolean;
  memory(device?: Device): MemoryUse;
  freeMemory(): number | null;
  trim(): void;
  setDevice(device: Device): number;
  setThreads(threads: number): number;
  setVectorLevel(level: string): number;
  setProfiling(on: boolean): number;
  profile(): { nanoseconds: number; ops: { op: string; calls: number; nanoseconds: number }[] };
  info(): AddonInfo;
}

const packageRoot = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');

function load(): Addon {
  try {
    const chosen = process.env.ISOPOLICY_ADDON;
    if (chosen) {
      const module = { exports: {} };
      process.dlopen(module, path.resolve(chosen));
      return module.exports as Addon;
    }
    return bindings({ bindings: 'isopolicy', module_root: packageRoot }) as Addon;
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message.split('\n')[0] : String(cause);
    throw new InternalError(
      `the native addon could not be loaded: ${reason}\n` +
        `Build it with "npm rebuild isopolicy" (or "npm run build:native" in ${packageRoot}). It needs a C++20 compiler, make ` +
        'and Python 3. If npm blocked the install script, allow it first: "npm install-scripts approve isopolicy".',
      { cause },
    );
  }
}

export const addon: Addon = load();

const buffer = new Float64Array(addon.buffer);
const sequenceSlot = buffer.length - 1;
const opNumbers: ReadonlyMap<string, number> = new Map(addon.ops.map((name, index) => [name, index]));

/** The error of the last native call that returned -1, made where JavaScript made the call. */
function throwLastError(): never {
  const { kind, message } = addon.takeError();
  if (kind === 'invalid') throw new InvalidArgumentError(message);
  if (kind === 'device') throw new DeviceError(message);
  throw new InternalError(message);
}

/** Passes a native status through, throwing what the addon found wrong. */
export function checked(status: number): number {
  if (status < 0) throwLastError();
  return status;
}

/** What one output of an op is, as the addon reports it. */
export interface NativeOutput {
  readonly handle: number;
  readonly dtype: number;
  readonly device: number;
  readonly shape: number[];
}

/** The number of an op by its name in native/ops/table.cc. */
export function opNumber(name: string): number {
  const number = opNumbers.get(name);
  if (number === undefined) throw new InternalError(`the addon has no op named ${name}; rebuild it`);
  return number;
}

/** Calls an op by number; arguments are numbers in the order that native/ops reads them. */
export function invoke(op: number, values: readonly number[]): NativeOutput[] {
  for (let i = 0; i < values.length; i++) buffer[i] = values[i]!;
  const count = checked(addon.invoke(op, values.length));
  const outputs: NativeOutput[] = [];
  let at = 0;
  for (let i = 0; i < count; i++) {
    const handle = buffer[at++]!;
    const dtype = buffer[at++]!;
    const device = buffer[at++]!;
    const rank = buffer[at++]!;
    const shape: number[] = [];
    for (let d = 0; d < rank; d++) shape.push(buffer[at++]!);
    outputs.push({ handle, dtype, device, shape });
  }
  return outputs;
}

/** Call sites of ops that can still fail once queued, by sequence number. */
const callSites = new Map<number, Error>();

let newestCallSite = 0;
/** The failure last reported: every read that waits behind it reports it too, with the same stack. */
let reported: { sequence: number; site: Error | undefined } | undefined;

/** Remembers this call, so that a failure of the op just queued (or of the given number) points here. */
export function rememberCallSite(sequence = buffer[sequenceSlot]!): void {
  callSites.set(sequence, new Error());
  newestCallSite = sequence;
}

/**
 * Waits for everything queued so far and returns the bytes of the tensors.
 * Rejects with a {@link DeviceError} when queued work failed; its stack points to the call that queued it.
 */
export async function readBytes(handles: readonly number[]): Promise<ArrayBuffer[]> {
  const upTo = newestCallSite;
  const result = addon.read(...handles);
  if (result === -1) throwLastError();
  try {
    return await result;
  } catch (failure) {
    const { message, sequence } = failure as { message: string; sequence: number };
    const error = new DeviceError(message);
    if (reported?.sequence !== sequence) reported = { sequence, site: callSites.get(sequence) };
    const { site } = reported;
    if (site?.stack) error.stack = `${error.name}: ${message}\n${site.stack.split('\n').slice(2).join('\n')}`;
    throw error;
  } finally {
    for (const sequence of callSites.keys()) if (sequence <= upTo) callSites.delete(sequence);
  }
}
