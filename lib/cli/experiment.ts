/**
 * What the commands that make a run directory share: --out, --resume, --json, --device and --threads, a folder that is made or
 * opened again, the progress line, and signals that end the work after the step that is running.
 */
import { constants } from 'node:fs';
import { access } from 'node:fs/promises';
import { join } from 'node:path';
import type { Command } from 'commander';
import { type Device, initialDevice } from '../device.js';
import { InvalidArgumentError, invalid } from '../errors.js';
import { makeWritableFolder } from '../io/folder.js';
import { RunDirectory } from '../io/runDirectory.js';
import { version } from '../version.js';
import { quoted, toJson, wantsColor } from './format.js';
import { interruptible } from './interruptible.js';
import { deviceOption, integerOption, pathOption } from './options.js';
import { type ProgressLine, ProgressWriter } from './progress.js';

export interface ExperimentFlags {
  readonly device?: Device;
  readonly threads?: number;
  readonly out?: string;
  readonly resume?: string;
  readonly json?: boolean;
}

/** How one command does its part. */
export interface Experiment<Options extends object, Config extends object, Summary extends object> {
  /** The options of a configuration among those of the command line, or those that a run was started with. */
  readonly options: Options;
  /** Checks options and fills in the defaults, before a folder is made. */
  resolve(options: Options): Config | Promise<Config>;
  /** The name of a new folder in runs/, without the time. */
  name(config: Config): string;
  run(config: Config, context: ExperimentContext): Promise<Summary>;
  /** The results as text of at most 80 columns. */
  text(summary: Summary, config: Config, directory: string, color: boolean): string;
  exitCode(summary: Summary): number;
  /** False where nothing is computed on the device, so that the addon need not be there; default true. */
  readonly native?: boolean;
  /** Folders beside the run's own that it writes to, by the option that names them. */
  readonly folders?: Readonly<Record<string, string | undefined>>;
}

export interface ExperimentContext {
  readonly directory: RunDirectory;
  /** Aborted by the first SIGINT or SIGTERM. */
  readonly signal: AbortSignal;
  progress(line: ProgressLine): void;
  /** A line that stays, above the progress. */
  note(message: string): void;
}

/** Options that may stand beside --resume: they don't change the run. */
const RESUME_OPTIONS = ['resume', 'device', 'threads', 'json'];

/** Adds the options of every experiment that computes on the device. */
export function experimentOptions(command: Command): Command {
  return directoryOptions(
    command
      .addOption(deviceOption())
      .addOption(
        integerOption('--threads <n>', 'native threads; results are the same at any number', 1, 256),
      ),
  );
}

/** Adds the options that every experiment has. */
export function directoryOptions(command: Command): Command {
  return command
    .addOption(pathOption('--out <dir>', 'folder of the run (default: a new one in runs/)'))
    .addOption(pathOption('--resume <dir>', 'go on with the run in this folder, as it was configured'))
    .option('--json', 'print the summary as one JSON object');
}

/**
 * Runs an experiment from its command line to its output and exit code.
 *
 * @param alsoBesideResume names of options that may stand beside --resume, too
 */
export async function runExperiment<Options extends object, Config extends object, Summary extends object>(
  command: Command,
  flags: ExperimentFlags,
  experiment: Experiment<Options, Config, Summary>,
  alsoBesideResume: readonly string[] = [],
): Promise<void> {
  const where = command.name();
  if (flags.resume !== undefined) {
    await checkResume(flags.resume, command, [...RESUME_OPTIONS, ...alsoBesideResume]);
  }
  const runtime = experiment.native === false ? undefined : await import('../runtime.js');

  // Before a folder is made: there may be no such device.
  const useDevice = (device: Device) => runtime?.setDevice(device);

  const makeFolders = async () => {
    for (const [name, path] of Object.entries(experiment.folders ?? {})) {
      if (path !== undefined) await makeWritableFolder(where, name, path);
    }
  };
  let config: Config;
  let directory: RunDirectory;
  if (flags.resume === undefined) {
    const device = flags.device ?? initialDevice();
    useDevice(device);
    config = await experiment.resolve(experiment.options);
    await makeFolders();
    const out = flags.out ?? defaultDirectory(experiment.name(config), new Date());
    directory = await RunDirectory.create(out, {
      command: where,
      version,
      ...(runtime && { device }),
      config,
    });
  } else {
    directory = await RunDirectory.open(flags.resume);
    useDevice(deviceOf(where, directory, flags));
    config = await experiment.resolve(storedOptions(where, directory) as Options);
    await makeFolders();
  }
  if (flags.threads !== undefined) runtime?.setThreads(flags.threads);

  const writer = new ProgressWriter();
  if (flags.resume !== undefined && directory.config.version !== version) {
    writer.note(
      `isopolicy: the run was started by version ${directory.config.version}, this is ${version}: ` +
        'it may not end with the same bits',
    );
  }
  const interruption = interruptible(writer, 'finishing this step, then saving');
  try {
    const summary = await experiment.run(config, {
      directory,
      signal: interruption.signal,
      progress: (line) => writer.update(line),
      note: (message) => writer.note(message),
    });
    writer.end();
    // Before the output, which may find nobody reading it and end the process.
    process.exitCode = experiment.exitCode(summary);
    const { path } = directory;
    const text = flags.json
      ? toJson({ ...summary, directory: path })
      : experiment.text(summary, config, path, wantsColor(process.stdout));
    process.stdout.write(`${text}\n`);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOSPC' || code === 'EDQUOT') {
      writer.note(
        `isopolicy: the disk is full; where there is room, go on from the last checkpoint with\nisopolicy ${where} --resume ${quoted(directory.path)}`,
      );
    }
    throw error;
  } finally {
    writer.end();
    interruption.release();
  }
}

/** `runs/<name>-<time>`. */
export function defaultDirectory(name: string, now: Date): string {
  const time = now
    .toISOString()
    .replace(/\.\d+Z$/, 'Z')
    .replace(/[-:]/g, '');
  return join('runs', `${name}-${time}`.replaceAll(':', '-'));
}

/** Refuses what --resume can't follow, before anything is loaded. */
async function checkResume(dir: string, command: Command, allowed: readonly string[]): Promise<void> {
  const where = command.name();
  for (const option of command.options) {
    const name = option.attributeName();
    const given = !['default', undefined].includes(command.getOptionValueSource(name));
    if (given && !allowed.includes(name)) {
      throw new InvalidArgumentError(
        `[${where}] expected no ${option.long} beside --resume, which goes on with the run as it was configured`,
      );
    }
  }
  const file = join(dir, 'config.json');
  try {
    await access(file, constants.R_OK);
  } catch (cause) {
    throw new InvalidArgumentError(
      `[${where}] expected --resume to be the folder of a run, with a config.json, got ${JSON.stringify(dir)}`,
      { cause },
    );
  }
}

/** The device that a run was started on: on another one it would not go on with the same bits. */
function deviceOf(where: string, { path, config }: RunDirectory, flags: ExperimentFlags): Device {
  const device = (config.device ?? 'cpu') as Device;
  if (flags.device !== undefined && flags.device !== device) {
    invalid(where, `--device ${device}, on which the run in ${quoted(path)} was started`, flags.device);
  }
  return device;
}

function storedOptions(where: string, { path, config }: RunDirectory): object {
  if (config.command !== where || typeof config.config !== 'object' || config.config === null) {
    invalid(where, `--resume to be the folder of a ${where} run`, path);
  }
  return config.config;
}
