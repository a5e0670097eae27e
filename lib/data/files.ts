/** Which files a data set has: one file, a folder that `datasets` has saved, or a folder of shards as on the hub. */
import { readdir, stat } from 'node:fs/promises';
import { basename, dirname, join, relative, sep } from 'node:path';
import { checkChoice, invalid } from '../errors.js';
import { kindOf, readJsonObjectIfThere } from '../io/jsonFile.js';
import { dataExtensions, formatOfName } from './format.js';
import { DATA } from './row.js';

/** Words in the name of a file or folder, and the split that they mean. */
const SPLITS: Readonly<Record<string, string>> = {
  train: 'train',
  training: 'train',
  test: 'test',
  testing: 'test',
  eval: 'test',
  evaluation: 'test',
  validation: 'validation',
  valid: 'validation',
  val: 'validation',
  dev: 'validation',
};
/** Files of JSON that describe data and hold none. */
const DESCRIPTIONS = new Set(['dataset_info.json', 'dataset_infos.json', 'dataset_dict.json', 'state.json']);
const MAX_DEPTH = 4;

/**
 * The files of a data set, in the order of their rows.
 *
 * @param path a file or a folder
 * @param split which part of a folder that has several (`train`, `test`, ...)
 * @throws InvalidArgumentError where there are none, where a shard is missing, or where the split is not clear
 */
export async function findDataFiles(path: string, split?: string): Promise<string[]> {
  const entry = await stat(path).catch((error: NodeJS.ErrnoException) =>
    invalid(DATA, `a file or folder of data (${error.code})`, path),
  );
  if (!entry.isDirectory()) {
    if (split !== undefined) invalid(DATA, `no split for one file (${path})`, split);
    return [path];
  }
  const splits = await savedSplits(path);
  if (splits !== undefined) return savedFiles(join(path, checkSplit(path, splits, split)));
  if ((await readJsonObjectIfThere(DATA, join(path, 'state.json'))) !== undefined) {
    if (split !== undefined) invalid(DATA, `no split for ${path}, which is saved as one`, split);
    return savedFiles(path);
  }
  return shardFiles(path, split);
}

/** The splits of a folder that `DatasetDict.save_to_disk` has written; nothing for another folder. */
async function savedSplits(folder: string): Promise<string[] | undefined> {
  const path = join(folder, 'dataset_dict.json');
  const file = await readJsonObjectIfThere(DATA, path);
  if (file === undefined) return undefined;
  const { splits } = file;
  if (!Array.isArray(splits) || splits.length === 0 || !splits.every(isPlainName)) {
    invalid(DATA, `splits of ${path} to be a list of names`, kindOf(splits));
  }
  return splits;
}

/** The shards of a folder that `Dataset.save_to_disk` has written, as its state.json lists them. */
async function savedFiles(folder: string): Promise<string[]> {
  const path = join(folder, 'state.json');
  const files = (await readJsonObjectIfThere(DATA, path))?._data_files;
  const names = Array.isArray(files)
    ? files.map((file) => (file as { filename?: unknown } | null)?.filename)
    : [];
  if (names.length === 0 || !names.every(isPlainName)) {
    invalid(DATA, `_data_files of ${path} to be a list of files in that folder`, kindOf(files));
  }
  return names.map((name) => join(folder, name));
}

/** The files of a folder by their names: those of one split, in one folder, of one format, with no shard missing. */
async function shardFiles(folder: string, split: string | undefined): Promise<string[]> {
  const all = await walk(folder, 0);
  if (all.length === 0) {
    const entries = (await readdir(folder)).sort();
    const shown = entries.length === 0 ? 'an empty folder' : entries.slice(0, 8).join(', ');
    invalid(DATA, `${folder} to have files of data (${dataExtensions.join(', ')})`, shown);
  }
  const splits = [...new Set(all.map((path) => splitOf(folder, path)))].sort();
  const wanted = checkSplit(folder, splits, split === undefined ? undefined : (SPLITS[split] ?? split));
  const files = all.filter((path) => splitOf(folder, path) === wanted);
  checkAlike(folder, 'in one folder', files, (path) => relative(folder, dirname(path)) || '.');
  checkAlike(folder, 'of one format', files, (path) => formatOfName(path)!);
  checkShards(files);
  return files.sort((a, b) => (a < b ? -1 : 1));
}

/** All files below a folder whose extension is that of data. */
async function walk(folder: string, depth: number): Promise<string[]> {
  const files: string[] = [];
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (/^[._]/.test(entry.name) || DESCRIPTIONS.has(entry.name)) continue;
    // A link to a folder could lead back to where it lies.
    if (entry.isDirectory() && depth < MAX_DEPTH) files.push(...(await walk(path, depth + 1)));
    else if (!entry.isDirectory() && formatOfName(path) !== undefined) files.push(path);
  }
  return files;
}

/** The split that a file's name says, or else that of a folder on the way to it; `data` for none. */
function splitOf(folder: string, path: string): string {
  for (const part of relative(folder, path).split(sep).reverse()) {
    for (const word of part.toLowerCase().split(/[^a-z]+/)) {
      const split = SPLITS[word];
      if (split !== undefined) return split;
    }
  }
  return 'data';
}

function checkSplit(folder: string, splits: readonly string[], split: string | undefined): string {
  if (split !== undefined) return checkChoice(DATA, `the split of ${folder}`, split, splits);
  if (splits.length === 1) return splits[0]!;
  return invalid(DATA, `the split of ${folder} to be chosen: ${splits.join(', ')}`, 'none');
}

function checkAlike(
  folder: string,
  what: string,
  files: readonly string[],
  of: (path: string) => string,
): void {
  const kinds = [...new Set(files.map(of))].sort();
  if (kinds.length > 1) invalid(DATA, `the files of ${folder} to be ${what}`, kinds.join(', '));
}

/** Expects every shard of `NAME-00000-of-00003` to be there. */
function checkShards(files: readonly string[]): void {
  const sets = new Map<string, Set<number>>();
  for (const path of files) {
    const [, before, index, count] = /^(.*-)(\d{5})-of-(\d{5})\./.exec(path) ?? [];
    if (index === undefined) continue;
    const key = `${before}*-of-${count}`;
    sets.set(key, (sets.get(key) ?? new Set()).add(Number(index)));
  }
  for (const [key, present] of sets) {
    const count = Number(key.slice(-5));
    const missing = Array.from({ length: count }, (_, i) => i).filter((i) => !present.has(i));
    if (missing.length > 0) {
      invalid(
        DATA,
        `${key} to have all of its ${count} shards`,
        `none of number ${missing.slice(0, 8).join(', ')}`,
      );
    }
  }
}

function isPlainName(name: unknown): name is string {
  return typeof name === 'string' && name !== '' && name !== '.' && name !== '..' && basename(name) === name;
}
