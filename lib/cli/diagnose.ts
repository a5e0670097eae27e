import { rm, rmdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { Argument, Command, Option } from 'commander';
import { type Diagnosis, type Verdict, verdicts } from '../diagnose/diagnosis.js';
import { type FormatName, formatNames } from '../diagnose/formats/format.js';
import { atomicWriteFile } from '../io/atomicWrite.js';
import { exists } from '../io/folder.js';
import { RunDirectory } from '../io/runDirectory.js';
import { version } from '../version.js';
import { diagnosisMarkdown } from './diagnoseMarkdown.js';
import { diagnosisText } from './diagnoseReport.js';
import { exitCodes } from './exitCodes.js';
import { formatCount, quoted, toJson, wantsColor } from './format.js';
import { interruptible } from './interruptible.js';
import { choiceOption, integerOption, pathOption, precisionOption } from './options.js';
import { ProgressWriter } from './progress.js';
import { diagnosisPage } from './report.js';

/** The least verdict that fails. */
const failOn = { suspicious: 'SUSPICIOUS', broken: 'BROKEN', never: null } as const satisfies Record<
  string,
  Verdict | null
>;

interface Flags {
  readonly dtype?: string;
  readonly layers?: number;
  readonly hiddenSize?: number;
  readonly format?: FormatName;
  readonly tokenizer?: string;
  readonly failOn?: keyof typeof failOn;
  readonly out?: string;
  readonly json?: boolean;
  readonly markdown?: boolean;
}

/** `isopolicy diagnose`: two dumps of log-probs in, a verdict out. */
export function diagnoseCommand(): Command {
  const command = new Command('diagnose')
    .summary('tell rounding from a bug: two files of log-probs in, a verdict out')
    .description(
      'Compare the log-probs of a rollout engine and a training engine for the same responses: what is wrong, how bad it is ' +
        'for the gradient, and what to do. Files may have any size, any order of samples, and be packed with gzip.',
    )
    .addArgument(new Argument('<rollout>', "the rollout engine's log-probs, or both engines'"))
    .addArgument(new Argument('[training]', "the training engine's log-probs"))
    .addOption(
      precisionOption('--dtype <type>', 'what both engines are meant to compute in (default: the likeliest)'),
    )
    .addOption(integerOption('--layers <n>', 'depth of the model, for the expected noise', 1))
    .addOption(integerOption('--hidden-size <n>', 'width of the model, for the expected noise', 1))
    .addOption(choiceOption('--format <name>', 'what the files are', formatNames, 'found out'))
    .addOption(pathOption('--tokenizer <dir>', 'a model folder whose tokenizer gives the text of tokens'))
    .addOption(
      choiceOption('--fail-on <verdict>', 'the least verdict that fails', Object.keys(failOn), 'suspicious'),
    )
    .addOption(pathOption('--out <dir>', 'also write JSON, Markdown and an HTML page into this folder'))
    .option('--json', 'print the diagnosis as one JSON object')
    .addOption(new Option('--markdown', 'print it as Markdown').conflicts('json'))
    .addHelpText(
      'after',
      `
Input: JSON lines (or one array), a response each: id, tokens, logprobs, and
optionally mask, text, step, batch, temperature, topP, topK, weightsVersion,
topLogprobs. One file may have both series: rolloutLogprobs, trainingLogprobs.
Dumps of verl, TRL, vLLM, SGLang, prime-rl and slime are known by their fields.

Exit codes: ${verdicts.map((verdict, i) => `${i} ${verdict}`).join(', ')}; ${exitCodes.usage} also for bad usage or
input, with nothing on stdout; ${exitCodes.interrupted} interrupted.

Examples:
  $ isopolicy diagnose rollout.jsonl training.jsonl --dtype bf16
  $ isopolicy diagnose dump.jsonl.gz --fail-on broken --out diagnosis`,
    );
  return command.action((rollout: string, training: string | undefined, flags: Flags) =>
    run(rollout, training, flags),
  );
}

async function run(rollout: string, training: string | undefined, flags: Flags): Promise<void> {
  // Until there is a verdict: 1 would be one, whatever went wrong.
  process.exitCode = exitCodes.usage;
  const { diagnose } = await import('../diagnose/diagnose.js');
  const { dtype, layers, hiddenSize, format, out } = flags;
  const tokenText = flags.tokenizer === undefined ? undefined : await tokenTextOf(flags.tokenizer);
  const writer = new ProgressWriter(process.stderr, { logEveryMs: 5000 });
  const interruption = interruptible(writer, 'stopping');
  const { signal } = interruption;
  const settings = {
    ...(dtype !== undefined && { dtype }),
    ...(layers !== undefined && { numLayers: layers }),
    ...(hiddenSize !== undefined && { hiddenSize }),
    ...(format !== undefined && { format }),
  };
  const config = {
    command: 'diagnose',
    version,
    config: { rollout, training: training ?? null, ...settings },
  };
  // Before gigabytes are read: the folder may be taken, or not to be written to.
  const made = out === undefined ? [] : await missingFolders(out);
  const directory = out === undefined ? undefined : await RunDirectory.create(out, config);
  const written = ['config.json'];
  try {
    const diagnosis = await diagnose(rollout, training ?? null, {
      ...settings,
      ...(tokenText && { tokenText }),
      command: ['isopolicy', ...process.argv.slice(2).map(quoted)].join(' '),
      signal,
      report: ({ responses }) =>
        writer.update({
          phase: 'diagnose',
          parts: [{ text: `${formatCount(responses)} responses`, importance: 1 }],
        }),
    });
    writer.end();
    if (directory) await writeAll(directory, diagnosis, written);
    process.exitCode = exitCodeOf(diagnosis.verdict, flags.failOn ?? 'suspicious');
    process.stdout.write(`${printed(diagnosis, flags)}\n`);
    if (directory) process.stderr.write(`isopolicy: written to ${quoted(directory.path)}\n`);
  } catch (error) {
    if (directory) await abandon(directory, written, made);
    if (!signal.aborted) throw error;
    process.exitCode = exitCodes.interrupted;
  } finally {
    writer.end();
    interruption.release();
  }
}

function printed(diagnosis: Diagnosis, { json, markdown }: Flags): string {
  if (json) return toJson(diagnosis);
  if (markdown) return diagnosisMarkdown(diagnosis).trimEnd();
  return diagnosisText(diagnosis, { color: wantsColor(process.stdout), width: process.stdout.columns ?? 0 });
}

/** The verdict's place among them, or 0 where it is not to fail. */
function exitCodeOf(verdict: Verdict, least: keyof typeof failOn): number {
  const limit = failOn[least];
  const place = verdicts.indexOf(verdict);
  return limit !== null && place >= verdicts.indexOf(limit) ? place : exitCodes.success;
}

/** @param written gets the names of files that are about to be written */
async function writeAll(directory: RunDirectory, diagnosis: Diagnosis, written: string[]): Promise<void> {
  const { path } = directory;
  const write = (name: string, text: string) => {
    written.push(name);
    return atomicWriteFile(join(path, name), text);
  };
  await write('diagnosis.md', diagnosisMarkdown(diagnosis));
  await write('report.html', await diagnosisPage(diagnosis, path));
  await directory.writeSummary(diagnosis);
}

/** Leaves nothing of a diagnosis that came to no end: neither its files nor the folders that were made for them. */
async function abandon(
  { path }: RunDirectory,
  written: readonly string[],
  made: readonly string[],
): Promise<void> {
  // What ended it is what is told, not that something is in the way here, too.
  for (const name of written) await rm(join(path, name), { force: true }).catch(() => {});
  // One that holds something by now stays.
  for (const folder of made) await rmdir(folder).catch(() => {});
}

/** A folder and those above it, as far as they are not there; from the inside out. */
async function missingFolders(path: string): Promise<string[]> {
  const missing: string[] = [];
  for (let folder = path; !(await exists(folder)); folder = dirname(folder)) missing.push(folder);
  return missing;
}

async function tokenTextOf(folder: string): Promise<(id: number) => string> {
  const { loadTokenizer } = await import('../text/tokenizer.js');
  const tokenizer = await loadTokenizer(folder);
  return (id) => tokenizer.decode([id], { continues: true });
}
