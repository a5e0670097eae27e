/**
 * The folder of one run: what it was asked to do, what it measured, and the checkpoints it can go on from.
 *
 * ```
 * config.json      the resolved configuration, with `formatVersion`; of training runs also as config.yaml
 * metrics.jsonl    a flat object a step: `step` and `group/name` keys
 * samples.jsonl    an object a sample, with its `step`
 * summary.json     the outcome
 * checkpoint/step-NNNNNN/   state after NNNNNN steps, with its `score.json` where it has one; the last ones and the best are kept
 * ```
 *
 * JSON has no NaN or infinity: in metrics, samples and summary they are the strings "NaN", "Infinity" and
 * "-Infinity". Steps count from 0, so the checkpoint of step N holds the state before step N runs.
 */
import { createReadStream } from 'node:fs';
import { appendFile, mkdir, open, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { checkInteger, checkNumber, InvalidArgumentError, invalid } from '../errors.js';
import { atomicWrite, atomicWriteFile, syncFolder } from './atomicWrite.js';
import { exists, makeFolder, makeWritableFolder } from './folder.js';
import { isObject, readJsonObject } from './jsonFile.js';

/** Version of the folder's layout and of config.json; another one is refused. */
export const RUN_FORMAT_VERSION = 1;

const CONFIG = 'config.json';
const METRICS = 'metrics.jsonl';
const SAMPLES = 'samples.jsonl';
const SUMMARY = 'summary.json';
const CHECKPOINTS = 'checkpoint';
const SCORE = 'score.json';
/** A run's own entries: where one of them exists, the folder is taken. */
const RUN_ENTRIES = [CONFIG, 'config.yaml', METRICS, SAMPLES, SUMMARY, CHECKPOINTS];
const METRIC_KEY = /^[^\s/]+(?:\/[^\s/]+)+$/;
/** A complete checkpoint, or one that was complete when a newer one of the same step took its place. */
const CHECKPOINT_NAME = /^(step|replaced)-(\d{6,15})$/;

/** A line of metrics.jsonl: the step and values under `group/name` keys. */
export interface MetricsRecord {
  readonly step: number;
  readonly [key: string]: number | string | boolean | null;
}

/** A line of samples.jsonl: the step and anything JSON can hold. */
export interface SampleRecord {
  readonly step: number;
  readonly [key: string]: unknown;
}

export interface Checkpoint {
  /** Steps done when it was saved. */
  readonly step: number;
  /** Its folder. */
  readonly path: string;
}

export interface ScoredCheckpoint extends Checkpoint {
  readonly score: number;
}

export interface CheckpointOptions {
  /** Newest checkpoints to keep; default 2. */
  readonly keepLast?: number;
  /** Checkpoints with the greatest scores to keep beside them, of equal ones the newer; default 0. */
  readonly keepBest?: number;
  /** How good this one is; without one it is never among the best. */
  readonly score?: number | undefined;
}

export class RunDirectory {
  readonly path: string;
  #config: Readonly<Record<string, unknown>>;
  /** Appends run one after another, in the order of the calls. */
  #lastAppend: Promise<void> = Promise.resolve();

  private constructor(path: string, config: Readonly<Record<string, unknown>>) {
    this.path = path;
    this.#config = config;
  }

  /** What config.json holds, its formatVersion aside. */
  get config(): Readonly<Record<string, unknown>> {
    return this.#config;
  }

  /**
   * Starts a run in `dir`, made where it is missing, and writes its config.json.
   *
   * @param config plain JSON with finite numbers, since a resumed run must find what this one was given
   * @throws InvalidArgumentError naming `out` when `dir` holds a run, is not a folder or cannot be written
   */
  static async create(dir: string, config: Readonly<Record<string, unknown>>): Promise<RunDirectory> {
    const text = encodeConfig(config);
    await makeWritableFolder('run', 'out', dir);
    const taken = (await readdir(dir)).find((entry) => RUN_ENTRIES.includes(entry));
    if (taken !== undefined) {
      throw new InvalidArgumentError(
        `[run] expected out to be a folder without a run (it has ${taken}; choose another, or resume that run if it is this command's), got ${JSON.stringify(dir)}`,
      );
    }
    await atomicWriteFile(join(dir, CONFIG), text);
    return new RunDirectory(dir, decodeConfig(dir, text));
  }

  /**
   * Opens the run in `dir` to go on with it. Before the first append, call {@link truncateMetrics} with the
   * checkpoint's step (0 where there is none).
   *
   * @throws InvalidArgumentError when there is no run, or one of another format version
   */
  static async open(dir: string): Promise<RunDirectory> {
    let text: string;
    try {
      text = await readFile(join(dir, CONFIG), 'utf8');
    } catch (error) {
      throw unreadable(dir, `the folder of a run, with a ${CONFIG} that can be read`, error);
    }
    return new RunDirectory(dir, decodeConfig(dir, text));
  }

  /** Replaces the configuration, of a run that is to do more than it was started for. */
  async replaceConfig(config: Readonly<Record<string, unknown>>): Promise<void> {
    const text = encodeConfig(config);
    await atomicWriteFile(join(this.path, CONFIG), text);
    this.#config = decodeConfig(this.path, text);
  }

  /** Adds a line to metrics.jsonl. Keys are `step` and `group/name`. */
  async appendMetrics(record: MetricsRecord): Promise<void> {
    checkStep('appendMetrics', record.step);
    for (const [key, value] of Object.entries(record)) {
      if (key !== 'step' && !METRIC_KEY.test(key))
        invalid('appendMetrics', 'keys of the form group/name', key);
      if (value !== null && !['number', 'string', 'boolean'].includes(typeof value)) {
        invalid('appendMetrics', `${key} to be a number, string, boolean or null`, value);
      }
    }
    await this.#append(METRICS, record);
  }

  /** Adds a line to samples.jsonl. */
  async appendSample(record: SampleRecord): Promise<void> {
    checkStep('appendSample', record.step);
    await this.#append(SAMPLES, record);
  }

  /** Replaces summary.json. */
  async writeSummary(summary: object): Promise<void> {
    await atomicWriteFile(join(this.path, SUMMARY), `${JSON.stringify(summary, nonFiniteAsText, 2)}\n`);
  }

  /** The folder of the checkpoint saved after `step` steps. */
  checkpointPath(step: number): string {
    return join(this.path, CHECKPOINTS, `step-${stepDigits(step)}`);
  }

  /**
   * Saves a checkpoint: `write` fills a temporary folder, which is flushed and renamed; only then do older ones go,
   * all but the last and the best. A kill at any moment leaves the newest complete one in place. Saving the same step
   * again replaces it; a step before the newest checkpoint is refused.
   */
  async saveCheckpoint(
    step: number,
    write: (dir: string) => Promise<void>,
    options: CheckpointOptions = {},
  ): Promise<void> {
    const where = 'saveCheckpoint';
    const keepLast = checkInteger(where, 'keepLast', options.keepLast ?? 2, 1);
    const keepBest = checkInteger(where, 'keepBest', options.keepBest ?? 0, 0);
    const { score } = options;
    if (score !== undefined) checkNumber(where, 'score', score);
    const target = this.checkpointPath(step);
    const folder = join(this.path, CHECKPOINTS);
    const newest = await this.latestCheckpoint();
    if (newest !== undefined && newest.step > step) {
      invalid('saveCheckpoint', `step to be at least ${newest.step}, the newest checkpoint's`, step);
    }
    await makeFolder(folder);
    await syncFolder(this.path);
    await prune(folder, keepLast, keepBest);

    const temporary = join(folder, `.tmp-${step}`);
    await mkdir(temporary);
    try {
      await write(temporary);
      if (score !== undefined) await writeFile(join(temporary, SCORE), `${JSON.stringify({ score })}\n`);
      await syncTree(temporary);
      // A checkpoint must never be newer on the disk than the log of the steps before it.
      await this.#syncLogs();
      if (newest?.step === step && newest.path === target) await rename(target, replacedPath(folder, step));
      await rename(temporary, target);
    } catch (error) {
      await rm(temporary, { recursive: true, force: true });
      throw error;
    }
    await syncFolder(folder);
    await prune(folder, keepLast, keepBest);
  }

  /** The newest complete checkpoint; leftovers of a killed save don't count. */
  async latestCheckpoint(): Promise<Checkpoint | undefined> {
    return (await listCheckpoints(join(this.path, CHECKPOINTS)))[0];
  }

  /** The complete checkpoint with the greatest score, of equal ones the newest; undefined where none has one. */
  async bestCheckpoint(): Promise<ScoredCheckpoint | undefined> {
    return (await bestCheckpoints(join(this.path, CHECKPOINTS)))[0];
  }

  /**
   * Makes the logs end where the checkpoint of `step` does: drops the lines of `step` and later from metrics.jsonl
   * and samples.jsonl, and a last line that a kill tore, so that the resumed log has each step once.
   */
  async truncateMetrics(step: number): Promise<void> {
    checkStep('truncateMetrics', step);
    await this.#lastAppend;
    await removeLeftovers(this.path);
    for (const name of [METRICS, SAMPLES]) {
      const path = join(this.path, name);
      if (!(await exists(path))) continue;
      await atomicWrite(path, async (file) => {
        for await (const { text, record } of readRecords(path)) {
          if (record.step < step) await file.writeFile(`${text}\n`);
        }
      });
    }
  }

  #append(name: string, record: object): Promise<void> {
    // Encoded now, so that the caller may change the record while the line waits its turn.
    const line = `${JSON.stringify(record, nonFiniteAsText)}\n`;
    const appended = this.#lastAppend.then(() => appendFile(join(this.path, name), line));
    this.#lastAppend = appended.catch(() => {});
    return appended;
  }

  async #syncLogs(): Promise<void> {
    await this.#lastAppend;
    for (const name of [METRICS, SAMPLES]) {
      const path = join(this.path, name);
      if (await exists(path)) await syncFile(path);
    }
    await syncFolder(this.path);
  }
}

/**
 * The records of a run's metrics.jsonl, with "NaN" and the infinities as numbers again. A torn last line is left
 * out; a run without metrics has none.
 *
 * @throws InvalidArgumentError when `dir` holds no run, or a line other than the last is damaged
 */
export async function readMetrics(dir: string): Promise<MetricsRecord[]> {
  const path = join(dir, METRICS);
  const records: MetricsRecord[] = [];
  if (await exists(path)) {
    for await (const { record } of readRecords(path)) records.push(restoreNonFinite(record));
  } else if (!(await exists(join(dir, CONFIG)))) {
    invalid('readMetrics', `dir to be the folder of a run, with ${CONFIG} or ${METRICS}`, dir);
  }
  return records;
}

function encodeConfig(config: Readonly<Record<string, unknown>>): string {
  if (Object.hasOwn(config, 'formatVersion')) {
    invalid('RunDirectory', 'config without formatVersion, which is written for it', config.formatVersion);
  }
  const checkFinite = (key: string, value: unknown): unknown => {
    if (typeof value === 'number' && !Number.isFinite(value)) {
      invalid('RunDirectory', `config ${key} to be a finite number`, value);
    }
    return value;
  };
  return `${JSON.stringify({ formatVersion: RUN_FORMAT_VERSION, ...config }, checkFinite, 2)}\n`;
}

function decodeConfig(dir: string, text: string): Record<string, unknown> {
  let stored: unknown;
  try {
    stored = JSON.parse(text);
  } catch (error) {
    throw unreadable(dir, `the folder of a run, with a ${CONFIG} of valid JSON`, error);
  }
  if (!isObject(stored)) throw unreadable(dir, `the folder of a run, with an object in ${CONFIG}`);
  const { formatVersion, ...config } = stored;
  if (formatVersion !== RUN_FORMAT_VERSION) {
    throw unreadable(
      dir,
      `a run of format version ${RUN_FORMAT_VERSION} (${CONFIG} has ${String(formatVersion)})`,
    );
  }
  return config;
}

/** The error about a folder that is no run to be read, with the system's reason where it gave one. */
function unreadable(dir: string, expected: string, cause?: unknown): InvalidArgumentError {
  const { code, message } = (cause ?? {}) as { code?: string; message?: string };
  const reason = cause === undefined ? '' : ` (${code ?? message})`;
  return new InvalidArgumentError(`[run] expected ${expected}${reason}, got ${JSON.stringify(dir)}`, {
    cause,
  });
}

function checkStep(where: string, step: unknown): number {
  return checkInteger(where, 'step', step, 0, 999_999_999_999_999);
}

function stepDigits(step: number): string {
  return String(checkStep('checkpoint', step)).padStart(6, '0');
}

function replacedPath(folder: string, step: number): string {
  return join(folder, `replaced-${stepDigits(step)}`);
}

/** Complete checkpoints, newest first; of two of the same step, the one in its proper place first. */
async function listCheckpoints(folder: string): Promise<Checkpoint[]> {
  if (!(await exists(folder))) return [];
  const found: (Checkpoint & { replaced: boolean })[] = [];
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    const match = CHECKPOINT_NAME.exec(entry.name);
    if (match === null || !entry.isDirectory()) continue;
    found.push({ step: Number(match[2]), path: join(folder, entry.name), replaced: match[1] === 'replaced' });
  }
  found.sort((a, b) => b.step - a.step || Number(a.replaced) - Number(b.replaced));
  return found.map(({ step, path }) => ({ step, path }));
}

/** Complete checkpoints that have a score, the greatest first. */
async function bestCheckpoints(folder: string): Promise<ScoredCheckpoint[]> {
  const scored: ScoredCheckpoint[] = [];
  for (const checkpoint of await listCheckpoints(folder)) {
    const path = join(checkpoint.path, SCORE);
    if (!(await exists(path))) continue;
    const { score } = await readJsonObject('checkpoint', path);
    scored.push({ ...checkpoint, score: checkNumber('checkpoint', `score of ${path}`, score) });
  }
  return scored.sort((a, b) => b.score - a.score || b.step - a.step);
}

/** Removes leftovers, checkpoints whose replacement is in place, and all but the newest and the best ones. */
async function prune(folder: string, keepLast: number, keepBest: number): Promise<void> {
  await removeLeftovers(folder);
  const all = await listCheckpoints(folder);
  const kept = new Set([...new Set(all.map(({ step }) => step))].slice(0, keepLast));
  if (keepBest > 0) for (const { step } of (await bestCheckpoints(folder)).slice(0, keepBest)) kept.add(step);
  for (const { step, path } of all) {
    // The first of a step is the one in its place.
    if (kept.delete(step)) continue;
    // Renamed first: a kill in the middle of the removal must not leave half a checkpoint under a complete name.
    await rename(path, join(folder, `.tmp-old-${stepDigits(step)}`));
    await removeLeftovers(folder);
  }
}

async function removeLeftovers(folder: string): Promise<void> {
  for (const entry of await readdir(folder)) {
    if (entry.startsWith('.tmp-')) await rm(join(folder, entry), { recursive: true, force: true });
  }
}

/** Flushes every file and folder of a tree, the contents before the folder that names them. */
async function syncTree(folder: string): Promise<void> {
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) await syncTree(path);
    else if (entry.isFile()) await syncFile(path);
  }
  await syncFolder(folder);
}

async function syncFile(path: string): Promise<void> {
  const file = await open(path, 'r+');
  try {
    await file.sync();
  } finally {
    await file.close();
  }
}

function nonFiniteAsText(_key: string, value: unknown): unknown {
  return typeof value === 'number' && !Number.isFinite(value) ? String(value) : value;
}

function restoreNonFinite(record: SampleRecord): MetricsRecord {
  const numbers: Record<string, unknown> = { ...record };
  for (const [key, value] of Object.entries(numbers)) {
    if (value === 'NaN' || value === 'Infinity' || value === '-Infinity') numbers[key] = Number(value);
  }
  return numbers as unknown as MetricsRecord;
}

/** The lines of a log with their records. The last line may be damaged and is then left out; any other throws. */
async function* readRecords(path: string): AsyncGenerator<{ text: string; record: SampleRecord }> {
  let damaged: number | undefined;
  let number = 0;
  for await (const text of readLines(path)) {
    number++;
    if (damaged !== undefined)
      invalid('run', `line ${damaged} of ${path} to be a JSON object with a step`, 'damage');
    const record = parseRecord(text);
    if (record === undefined) damaged = number;
    else yield { text, record };
  }
}

function parseRecord(text: string): SampleRecord | undefined {
  try {
    const record: unknown = JSON.parse(text);
    return isObject(record) && typeof record.step === 'number' ? (record as SampleRecord) : undefined;
  } catch {
    return undefined;
  }
}

/** Lines by their line feeds alone: text of samples may hold other separators of lines (U+2028) as they are. */
async function* readLines(path: string): AsyncGenerator<string> {
  let rest: Buffer[] = [];
  for await (const chunk of createReadStream(path) as AsyncIterable<Buffer>) {
    let start = 0;
    for (let end = chunk.indexOf(0x0a); end >= 0; end = chunk.indexOf(0x0a, start)) {
      yield Buffer.concat([...rest, chunk.subarray(start, end)]).toString('utf8');
      rest = [];
      start = end + 1;
    }
    if (start < chunk.length) rest.push(chunk.subarray(start));
  }
  if (rest.length > 0) yield Buffer.concat(rest).toString('utf8');
}
