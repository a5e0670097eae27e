/** A checkpoint in another dtype, tensor by tensor: of any architecture and any size. */
import { mkdtemp, readdir, readFile, rename, rm, rmdir } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { checkChoice, checkInteger, invalid } from '../errors.js';
import { atomicWriteFile, syncFolder } from '../io/atomicWrite.js';
import {
  type CheckpointFiles,
  INDEX,
  listNames,
  openCheckpoint,
  writeCheckpoint,
} from '../io/checkpointFiles.js';
import { exists, makeWritableFolder } from '../io/folder.js';
import { readJsonObjectIfThere } from '../io/jsonFile.js';
import { openRegularFile } from '../io/regularFile.js';
import { type SafetensorsDtype, safetensorsDtypes, type TensorInfo } from '../io/safetensorsHeader.js';
import { roundingStats } from '../ops/roundingStats.js';
import { floatDtypes, type NativeFloatDType } from '../tensor/dtype.js';
import { cast, type Tensor, tensor, tensorFromBits } from '../tensor/tensor.js';
import { isCompanionFile } from './companionFiles.js';
import { refuseQuantization, withDtype } from './huggingFaceConfig.js';
import { storedDtypeOf, storedDtypes } from './huggingFaceTensors.js';

const WHERE = 'convert';
const CONFIG = 'config.json';
/** Elements that are rounded at once: what is made of them on the way stays near the processor. */
const STEP = 2 ** 20;

export const overflowChoices = ['refuse', 'clamp', 'allow'] as const;
export type OverflowChoice = (typeof overflowChoices)[number];

export interface ConvertOptions {
  /** What floats are rounded to (to nearest even) and stored in. Integers stay as they are. */
  readonly dtype: NativeFloatDType;
  /** Values beyond the dtype: nothing is written (default), the largest finite value is, or infinity. */
  readonly overflow?: OverflowChoice;
  /** Most bytes of tensors in one file; default 5 GB. */
  readonly maxShardBytes?: number;
  /** Ends the work; nothing is left of it. */
  readonly signal?: AbortSignal;
  /** Told after each piece. */
  readonly report?: (progress: ConvertProgress) => void;
}

export interface ConvertProgress {
  /** Bytes of the source. */
  readonly done: number;
  readonly total: number;
}

/** What became of one tensor. */
export interface ConvertedTensor {
  readonly name: string;
  readonly from: SafetensorsDtype;
  readonly to: SafetensorsDtype;
  readonly elements: number;
  /** Finite values that are beyond the dtype. */
  overflow: number;
  /** Values that were NaN or infinite before, and are carried as they are. */
  nonFinite: number;
  /** Values other than 0 that have become 0. */
  toZero: number;
  /** Values that are subnormal in the dtype, where it has fewer bits for them. */
  subnormal: number;
  /** Largest |x| of the source; infinite or NaN where it has such values. 0 for integers, which are not looked at. */
  maxAbs: number;
  /** ||rounded - x|| / ||x|| over the values that stay finite; 0 where all of these are 0. */
  relativeError: number;
}

export interface Conversion {
  readonly source: string;
  /** The folder that now has the model; null where nothing was written: none was named, or values overflow. */
  readonly out: string | null;
  readonly dtype: NativeFloatDType;
  readonly tensors: readonly ConvertedTensor[];
  /** Sums over the tensors. */
  readonly total: Omit<ConvertedTensor, 'name' | 'from' | 'to'>;
  /** Files copied beside the weights. */
  readonly copied: readonly string[];
  /** What of the source does not come along: weights in other forms, folders, and what is no part of a model. */
  readonly leftOut: readonly string[];
}

/**
 * Converts the tensors of a folder to `dtype` and says what is lost. The model's other files come along, with the dtype in
 * config.json changed. `out` has a model once it has all of it; a few megabytes are in memory at a time.
 *
 * @param out a folder that is new or empty (files whose names begin with a dot may be there); null: only measured
 * @throws InvalidArgumentError before anything is written: no model in `dir`, quantised weights, floats in other types
 *   than F32, F16 and BF16, an `out` with files; and the signal's reason where it ends the work
 */
export async function convertCheckpoint(
  dir: string,
  out: string | null,
  options: ConvertOptions,
): Promise<Conversion> {
  const { maxShardBytes, signal, report } = options;
  const dtype = checkChoice(WHERE, 'dtype', options.dtype, floatDtypes);
  const overflow = checkChoice(WHERE, 'overflow', options.overflow ?? 'refuse', overflowChoices);
  if (maxShardBytes !== undefined) {
    checkInteger(WHERE, 'maxShardBytes', maxShardBytes, 1, Number.MAX_SAFE_INTEGER);
  }
  await using files = await openCheckpoint(dir);
  const config = await readJsonObjectIfThere('config.json', join(dir, CONFIG));
  if (config) refuseQuantization(config, join(dir, CONFIG));
  checkFloats(files);
  const others = await otherFiles(files);
  const made = out !== null && (await checkNewFolder(out));

  const total = [...files.tensors.values()].reduce((sum, { bytes }) => sum + bytes, 0);
  let done = 0;
  const tensors = [...files.tensors].map(([name, info]) => blank(name, info, dtype));
  const norms = { error: 0, all: 0 };
  /** Converts one tensor; what is found out on the way is kept. */
  const data = async function* (converted: ConvertedTensor): AsyncGenerator<ArrayBufferView> {
    for await (const { bytes, read } of convert(files, converted, { dtype, overflow, norms })) {
      yield bytes;
      done += read;
      signal?.throwIfAborted();
      report?.({ done, total });
    }
  };
  const result = (written: boolean): Conversion => ({
    source: dir,
    out: written ? out : null,
    dtype,
    tensors,
    total: summed(tensors, norms),
    copied: written ? others.copied : [],
    leftOut: others.leftOut,
  });
  if (out === null) {
    for (const converted of tensors) for await (const _bytes of data(converted));
    return result(false);
  }

  const staging = await mkdtemp(join(out, `.tmp-${process.pid}-`));
  let written = false;
  try {
    const entries = tensors.map((converted) => ({
      name: converted.name,
      dtype: converted.to,
      shape: files.tensors.get(converted.name)!.shape,
      data: () => data(converted),
    }));
    await writeCheckpoint(staging, entries, maxShardBytes === undefined ? {} : { maxShardBytes });
    if (overflow !== 'refuse' || !tensors.some((converted) => converted.overflow > 0)) {
      const weights = (await readdir(staging)).sort(indexLast);
      for (const name of others.copied) {
        await atomicWriteFile(join(staging, name), await readFile(join(dir, name)));
      }
      if (config) {
        const text = `${JSON.stringify(withDtype(config, dtype), null, 2)}\n`;
        await atomicWriteFile(join(staging, CONFIG), text);
      }
      // The file that makes a folder a model comes last.
      const names = [...others.copied, ...(config ? [CONFIG] : []), ...weights];
      for (const name of names) await rename(join(staging, name), join(out, name));
      await syncFolder(out);
      written = true;
    }
    return result(written);
  } finally {
    await rm(staging, { recursive: true, force: true });
    if (made && !written) await rmdir(out).catch(() => undefined);
  }
}

function checkFloats({ path, tensors }: CheckpointFiles): void {
  const strange = [...tensors]
    .filter(([, info]) => isFloat(info.dtype) && storedDtypeOf(info.dtype) === undefined)
    .map(([name, { dtype }]) => `${name} in ${dtype}`);
  if (strange.length > 0) invalid(WHERE, `floats of ${path} in F32, F16 or BF16`, listNames(strange));
}

function isFloat(dtype: SafetensorsDtype): boolean {
  return /F\d/.test(dtype);
}

/** Files to copy beside the weights, and what stays behind. Names that begin with a dot are neither. */
async function otherFiles(files: CheckpointFiles): Promise<{ copied: string[]; leftOut: string[] }> {
  const own = [CONFIG, INDEX, ...files.files.map((path) => basename(path))];
  const copied: string[] = [];
  const leftOut: string[] = [];
  for (const entry of await readdir(files.path, { withFileTypes: true })) {
    const { name } = entry;
    if (name.startsWith('.') || own.includes(name)) continue;
    if (entry.isDirectory()) leftOut.push(`${name}/`);
    else if (!isCompanionFile(name)) leftOut.push(name);
    else {
      // Looked at now: what cannot be read, or is a Git LFS pointer, would stop the work at its end.
      await (await openRegularFile(WHERE, join(files.path, name))).file.close();
      copied.push(name);
    }
  }
  return { copied: copied.sort(), leftOut: leftOut.sort() };
}

/** Makes `out` where it is missing, and says whether it did. */
async function checkNewFolder(out: string): Promise<boolean> {
  const isNew = !(await exists(out));
  const entries = isNew
    ? []
    : await readdir(out).catch((error: NodeJS.ErrnoException) =>
        invalid(WHERE, `a folder that is new or empty (${error.code})`, out),
      );
  const taken = entries.filter((name) => !name.startsWith('.')).sort();
  if (taken.length > 0) invalid(WHERE, `${out} to be new or empty`, `a folder with ${listNames(taken)}`);
  await makeWritableFolder(WHERE, 'out', out);
  return isNew;
}

function indexLast(a: string, b: string): number {
  return Number(a.endsWith('.json')) - Number(b.endsWith('.json')) || (a < b ? -1 : 1);
}

function blank(name: string, { dtype: from, bytes }: TensorInfo, dtype: NativeFloatDType): ConvertedTensor {
  return {
    name,
    from,
    to: isFloat(from) ? storedDtypes[dtype] : from,
    elements: bytes / safetensorsDtypes[from],
    overflow: 0,
    nonFinite: 0,
    toZero: 0,
    subnormal: 0,
    maxAbs: 0,
    relativeError: 0,
  };
}

interface Norms {
  error: number;
  all: number;
}

/** The bytes of a converted tensor, piece by piece; what is found out is added to `converted`, squares to `norms`. */
async function* convert(
  files: CheckpointFiles,
  converted: ConvertedTensor,
  { dtype, overflow, norms }: { dtype: NativeFloatDType; overflow: OverflowChoice; norms: Norms },
): AsyncGenerator<{ bytes: ArrayBufferView; read: number }> {
  const info = files.tensors.get(converted.name)!;
  const from = storedDtypeOf(info.dtype);
  const step = STEP * safetensorsDtypes[info.dtype];
  const own: Norms = { error: 0, all: 0 };
  for (let begin = 0; begin < info.bytes; begin += step) {
    const range = { begin, end: Math.min(begin + step, info.bytes) };
    const stored = await files.read(converted.name, range);
    const read = stored.byteLength;
    if (from === undefined) {
      yield { bytes: new Uint8Array(stored), read };
      continue;
    }
    using x = widened(stored, from);
    using rounded = cast(x, dtype);
    const stats = await roundingStats(x, rounded);
    for (const key of ['overflow', 'nonFinite', 'toZero', 'subnormal'] as const) converted[key] += stats[key];
    converted.maxAbs = Math.max(converted.maxAbs, stats.maxAbs);
    own.error += stats.errorNorm ** 2;
    own.all += stats.norm ** 2;
    const bits = await rounded.bits();
    if (overflow === 'clamp' && stats.overflow > 0) clampBits(bits as Uint16Array, await x.floats(), dtype);
    // In the same type not even the payload of a NaN changes.
    yield { bytes: from === dtype ? new Uint8Array(stored) : bits, read };
  }
  converted.relativeError = ratio(own);
  norms.error += own.error;
  norms.all += own.all;
}

function widened(stored: ArrayBuffer, dtype: NativeFloatDType): Tensor {
  if (dtype === 'fp32') return tensor(new Float32Array(stored));
  const bits = new Uint16Array(stored);
  using narrow = tensorFromBits(bits, [bits.length], dtype);
  return cast(narrow, 'fp32');
}

/** Puts the largest finite value in place of an infinity that was none before. */
function clampBits(bits: Uint16Array, values: Float32Array, dtype: NativeFloatDType): void {
  const infinity = dtype === 'fp16' ? 0x7c00 : 0x7f80;
  for (let i = 0; i < bits.length; i++) {
    if ((bits[i]! & 0x7fff) === infinity && Number.isFinite(values[i]!)) bits[i]! -= 1;
  }
}

function ratio({ error, all }: Norms): number {
  return all === 0 ? 0 : Math.sqrt(error / all);
}

function summed(tensors: readonly ConvertedTensor[], norms: Norms): Conversion['total'] {
  const sum = (key: 'elements' | 'overflow' | 'nonFinite' | 'toZero' | 'subnormal') =>
    tensors.reduce((total, converted) => total + converted[key], 0);
  return {
    elements: sum('elements'),
    overflow: sum('overflow'),
    nonFinite: sum('nonFinite'),
    toZero: sum('toZero'),
    subnormal: sum('subnormal'),
    maxAbs: tensors.reduce((most, { maxAbs }) => Math.max(most, maxAbs), 0),
    relativeError: ratio(norms),
  };
}
