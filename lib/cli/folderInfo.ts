/** What a path holds, for `isopolicy info`: a model, an adapter, a run, a file of tensors or a data set. */
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { openDataset } from '../data/dataset.js';
import { invalid } from '../errors.js';
import { INDEX, WHOLE } from '../io/checkpointFiles.js';
import { exists } from '../io/folder.js';
import { readJsonObject, readJsonObjectIfThere } from '../io/jsonFile.js';
import { RunDirectory } from '../io/runDirectory.js';
import { openSafetensors } from '../io/safetensors.js';
import type { ModelInfo } from '../models/inspectModel.js';

export interface AdapterInfo {
  readonly path: string;
  readonly type: string | null;
  /** The model that it belongs to. */
  readonly base: string | null;
  readonly rank: number | null;
  readonly alpha: number | null;
  readonly targets: readonly string[] | string | null;
  readonly parameters: number;
  readonly dtypes: readonly string[];
  readonly bytes: number;
  /** What of its settings keeps it from being loaded; whether its tensors fit shows beside its model. */
  readonly problems: readonly string[];
}

export interface RunInfo {
  readonly path: string;
  readonly command: string;
  readonly version: string | null;
  /** Whether it has come to its end. */
  readonly finished: boolean;
  /** Steps of the newest checkpoint; null without one. */
  readonly checkpoint: number | null;
}

export interface DataInfo {
  readonly path: string;
  readonly files: number;
  readonly bytes: number;
  readonly columns: readonly string[];
  /** Rows; null where there are more than {@link MOST_ROWS}, which are not counted. */
  readonly rows: number | null;
  readonly first: Readonly<Record<string, unknown>> | null;
}

export interface TensorsInfo {
  readonly path: string;
  readonly bytes: number;
  readonly metadata: Readonly<Record<string, string>>;
  readonly tensors: readonly {
    readonly name: string;
    readonly dtype: string;
    readonly shape: readonly number[];
  }[];
}

export type FolderInfo =
  | ({ readonly kind: 'model' } & ModelInfo)
  | ({ readonly kind: 'adapter' } & AdapterInfo)
  | ({ readonly kind: 'run' } & RunInfo)
  | ({ readonly kind: 'tensors' } & TensorsInfo)
  | ({ readonly kind: 'data' } & DataInfo);

/** So many are counted in a moment. */
export const MOST_ROWS = 100_000;

/**
 * Tells what a file or folder holds.
 *
 * @throws InvalidArgumentError where it is missing, or holds nothing that is known
 */
export async function inspectPath(path: string): Promise<FolderInfo> {
  const entry = await stat(path).catch((error: NodeJS.ErrnoException) =>
    invalid('info', `a file or folder (${error.code})`, path),
  );
  if (!entry.isDirectory()) {
    return path.endsWith('.safetensors')
      ? { kind: 'tensors', ...(await inspectTensors(path)) }
      : { kind: 'data', ...(await inspectData(path)) };
  }
  const has = (name: string) => exists(join(path, name));
  const weights = (await has(WHOLE)) || (await has(INDEX));
  if (!weights && (await has('adapter_config.json'))) {
    return { kind: 'adapter', ...(await inspectAdapter(path)) };
  }
  if (!weights && (await isRun(path))) return { kind: 'run', ...(await inspectRun(path)) };
  if (weights || (await has('config.json')) || (await has('tokenizer.json'))) {
    const { inspectModel } = await import('../models/inspectModel.js');
    return { kind: 'model', ...(await inspectModel(path)) };
  }
  const newest = (await readdir(path))
    .filter((name) => /^step-\d+$/.test(name))
    .sort()
    .at(-1);
  if (newest !== undefined) invalid('info', `one of the checkpoints, such as ${join(path, newest)}`, path);
  return { kind: 'data', ...(await inspectData(path)) };
}

async function inspectAdapter(path: string): Promise<AdapterInfo> {
  const { parsePeftConfig } = await import('../models/peftConfig.js');
  const { attemptAsync } = await import('../models/inspectModel.js');
  const config = await readJsonObject('info', join(path, 'adapter_config.json'));
  const problems: string[] = [];
  await attemptAsync(problems, () => parsePeftConfig(config));
  await using file = await openSafetensors(join(path, 'adapter_model.safetensors'));
  const tensors = [...file.tensors.values()];
  const { peft_type: type, base_model_name_or_path: base, r, lora_alpha: alpha, target_modules } = config;
  const number = (value: unknown) => (typeof value === 'number' ? value : null);
  const isTargets = typeof target_modules === 'string' || Array.isArray(target_modules);
  return {
    path,
    type: typeof type === 'string' ? type : null,
    base: typeof base === 'string' ? base : null,
    rank: number(r),
    alpha: number(alpha),
    targets: isTargets ? (target_modules as string[] | string) : null,
    parameters: tensors.reduce((sum, { shape }) => sum + shape.reduce((product, dim) => product * dim, 1), 0),
    dtypes: [...new Set(tensors.map(({ dtype }) => dtype))].sort(),
    bytes: tensors.reduce((sum, { bytes }) => sum + bytes, 0),
    problems,
  };
}

/** Whether config.json is a run's, which names the command that made it; a model's does not. */
async function isRun(path: string): Promise<boolean> {
  const config = await readJsonObjectIfThere('info', join(path, 'config.json'));
  return config !== undefined && 'formatVersion' in config && 'command' in config;
}

async function inspectRun(path: string): Promise<RunInfo> {
  const directory = await RunDirectory.open(path);
  const { command, version } = directory.config;
  const checkpoint = await directory.latestCheckpoint();
  return {
    path,
    command: String(command),
    version: typeof version === 'string' ? version : null,
    finished: await exists(join(path, 'summary.json')),
    checkpoint: checkpoint?.step ?? null,
  };
}

async function inspectTensors(path: string): Promise<TensorsInfo> {
  await using file = await openSafetensors(path);
  return {
    path,
    bytes: (await stat(path)).size,
    metadata: Object.fromEntries(file.metadata),
    tensors: [...file.tensors].map(([name, { dtype, shape }]) => ({ name, dtype, shape })),
  };
}

async function inspectData(path: string): Promise<DataInfo> {
  const dataset = await openDataset(path);
  let first: DataInfo['first'] = null;
  for await (const { values } of dataset.rows()) {
    first = values;
    break;
  }
  let rows = 0;
  // One column is enough to count by: of tables the others are then not decoded.
  for await (const _row of dataset.rows(dataset.columns.slice(0, 1))) if (++rows > MOST_ROWS) break;
  const sizes = await Promise.all(dataset.files.map((file) => stat(file)));
  return {
    path,
    files: dataset.files.length,
    bytes: sizes.reduce((sum, { size }) => sum + size, 0),
    columns: dataset.columns,
    rows: rows > MOST_ROWS ? null : rows,
    first,
  };
}
