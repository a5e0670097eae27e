/**
 * A model's tensors as a folder holds them: in `model.safetensors`, or in several files (shards) that
 * `model.safetensors.index.json` lists: `{"metadata": {"total_size": 24}, "weight_map": {"tensor name": "file name"}}`.
 */
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { checkInteger, invalid } from '../errors.js';
import { atomicWriteFile } from './atomicWrite.js';
import { exists, makeFolder } from './folder.js';
import { isObject, readJsonObject } from './jsonFile.js';
import {
  type ByteRange,
  openSafetensors,
  type SafetensorsEntry,
  type SafetensorsFile,
  writeSafetensors,
} from './safetensors.js';
import { checkEntry, type TensorInfo } from './safetensorsHeader.js';

export const WHOLE = 'model.safetensors';
export const INDEX = 'model.safetensors.index.json';
/** Weights that were saved as Python objects, which would have to be executed to be read. */
const PICKLES = ['pytorch_model.bin', 'pytorch_model.bin.index.json'];
/** Size of a shard unless the caller says otherwise; files of many gigabytes are a burden to copy and to fetch. */
const MAX_SHARD_BYTES = 5e9;

/** A model's files, open, their headers checked; no tensor is read before it is asked for. */
export class CheckpointFiles {
  readonly path: string;
  /** Every tensor by name; offsets count from the beginning of its file. */
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  readonly #files: readonly SafetensorsFile[];
  readonly #fileOf: ReadonlyMap<string, SafetensorsFile>;

  /** @internal use {@link openCheckpoint} */
  constructor(path: string, files: readonly SafetensorsFile[]) {
    this.path = path;
    this.#files = files;
    this.tensors = new Map(files.flatMap((file) => [...file.tensors]));
    this.#fileOf = new Map(files.flatMap((file) => [...file.tensors.keys()].map((name) => [name, file])));
  }

  /** The paths of its files, in the order of the index. */
  get files(): string[] {
    return this.#files.map(({ path }) => path);
  }

  /** The bytes of one tensor, row-major, little endian; with `range` these alone. */
  async read(name: string, range?: ByteRange): Promise<ArrayBuffer> {
    const file = this.#fileOf.get(name);
    if (file === undefined) invalid('checkpoint', `a tensor of ${this.path}`, name);
    return file.read(name, range);
  }

  /** Closes the files; closing twice is harmless. */
  async close(): Promise<void> {
    for (const file of this.#files) await file.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/**
 * Opens the model of a folder and checks that index and files agree, before anything is read. Where the folder has
 * `model.safetensors` and an index, the former counts, as it does for other tools.
 *
 * @throws InvalidArgumentError naming file and tensor: no model there, a missing or broken file, an index that names
 *   files outside the folder, tensors that are missing, in two files or not in the index
 */
export async function openCheckpoint(dir: string): Promise<CheckpointFiles> {
  const folder = await stat(dir).catch(() => undefined);
  if (!folder?.isDirectory()) invalid('checkpoint', 'a folder with a model', dir);
  if (await exists(join(dir, WHOLE))) {
    return new CheckpointFiles(dir, [await openSafetensors(join(dir, WHOLE))]);
  }
  const index = join(dir, INDEX);
  if (!(await exists(index))) {
    const pickles = await Promise.all(PICKLES.map((name) => exists(join(dir, name))));
    const found = pickles.includes(true)
      ? 'PyTorch pickles alone (save the model as safetensors)'
      : 'neither';
    invalid('checkpoint', `${WHOLE} or ${INDEX} in ${dir}`, found);
  }
  const shards = checkIndex(await readJsonObject('checkpoint', index), index);
  const missing: string[] = [];
  for (const shard of shards.keys()) if (!(await exists(join(dir, shard)))) missing.push(shard);
  if (missing.length > 0) invalid('checkpoint', `the files that ${index} names`, `no ${listNames(missing)}`);
  const files: SafetensorsFile[] = [];
  try {
    for (const shard of shards.keys()) files.push(await openSafetensors(join(dir, shard)));
    checkShards([...shards.values()], files, index);
    return new CheckpointFiles(dir, files);
  } catch (error) {
    for (const file of files) await file.close();
    throw error;
  }
}

/**
 * Checks an index by itself. Its `total_size` is not looked at: the files' headers say it better, and many tools get it
 * wrong.
 *
 * @returns the tensors of each shard by its file name
 * @throws InvalidArgumentError, and nothing else, for whatever object
 */
export function checkIndex(
  { weight_map: map }: Readonly<Record<string, unknown>>,
  where: string,
): ReadonlyMap<string, ReadonlySet<string>> {
  if (!isObject(map) || Object.keys(map).length === 0) {
    invalid('checkpoint', `weight_map of ${where} to be an object of tensor and file names`, map);
  }
  const shards = new Map<string, Set<string>>();
  for (const [name, shard] of Object.entries(map)) {
    // A plain name cannot lead out of the folder. That it may be a symbolic link is wanted: downloads are kept so.
    if (typeof shard !== 'string' || !/^[^/\\:\0]+\.safetensors$/.test(shard)) {
      invalid('checkpoint', `weight_map of ${where} to name .safetensors files beside it`, shard);
    }
    const names = shards.get(shard) ?? new Set();
    shards.set(shard, names.add(name));
  }
  return shards;
}

/** Each file has the tensors that the index says and no others: so none is missing, and none in two files. */
function checkShards(
  expected: readonly ReadonlySet<string>[],
  files: readonly SafetensorsFile[],
  index: string,
): void {
  for (const [i, { path, tensors }] of files.entries()) {
    const names = expected[i]!;
    const missing = [...names].filter((name) => !tensors.has(name));
    const extra = [...tensors.keys()].filter((name) => !names.has(name));
    const what = `${path} to have the tensors that ${index} says`;
    if (missing.length > 0) invalid('checkpoint', what, `no ${listNames(missing)}`);
    if (extra.length > 0) invalid('checkpoint', what, `also ${listNames(extra)}`);
  }
}

/**
 * Writes a model's tensors into a folder (made where it is missing): one file, or shards and their index. Each file is
 * written whole or not at all, and the index last, so that the folder has a model only once it has all of it.
 *
 * @param entries in the order in which shards are filled
 * @param options.maxShardBytes most bytes of data in a file, unless one tensor alone has more; default 5 GB
 * @throws InvalidArgumentError where the folder has a model already, whose files would mix with these
 */
export async function writeCheckpoint(
  dir: string,
  entries: readonly SafetensorsEntry[],
  options: { maxShardBytes?: number } = {},
): Promise<void> {
  const limit = checkInteger(
    'writeCheckpoint',
    'maxShardBytes',
    options.maxShardBytes ?? MAX_SHARD_BYTES,
    1,
    Number.MAX_SAFE_INTEGER,
  );
  const shards: SafetensorsEntry[][] = [];
  let room = 0;
  let totalSize = 0;
  for (const entry of entries) {
    const bytes = checkEntry(entry);
    totalSize += bytes;
    if (shards.length === 0 || bytes > room) {
      shards.push([]);
      room = limit;
    }
    shards.at(-1)!.push(entry);
    room -= bytes;
  }
  const names = new Set(entries.map(({ name }) => name));
  if (names.size !== entries.length) invalid('writeCheckpoint', 'every tensor name once', 'a name twice');
  await checkNoModel('writeCheckpoint', dir);
  await makeFolder(dir);
  // Other tools ask for the framework that the tensors' layout is of; row-major ones are PyTorch's.
  const metadata = { format: 'pt' };
  if (shards.length <= 1) return writeSafetensors(join(dir, WHOLE), entries, metadata);
  const weightMap: [string, string][] = [];
  for (const [i, shard] of shards.entries()) {
    const digits = (n: number) => String(n).padStart(5, '0');
    const file = `model-${digits(i + 1)}-of-${digits(shards.length)}.safetensors`;
    await writeSafetensors(join(dir, file), shard, metadata);
    for (const { name } of shard) weightMap.push([name, file]);
  }
  const index = { metadata: { total_size: totalSize }, weight_map: Object.fromEntries(weightMap) };
  await atomicWriteFile(join(dir, INDEX), `${JSON.stringify(index, null, 2)}\n`);
}

/** @throws InvalidArgumentError where a folder has a model already */
export async function checkNoModel(where: string, dir: string): Promise<void> {
  for (const name of [WHOLE, INDEX]) {
    if (await exists(join(dir, name))) invalid(where, `a folder without ${name}`, dir);
  }
}

/** The first few of some names, and how many more there are. */
export function listNames(names: readonly string[]): string {
  const shown = names.slice(0, 5).join(', ');
  return names.length > 5 ? `${shown} and ${names.length - 5} more` : shown;
}
