import { join } from 'node:path';
import { Command } from 'commander';
import { invalid } from '../errors.js';
import type { DialConfig, DialPoint, DialSummary } from '../instruments/dial.js';
import { distinct } from '../instruments/distinct.js';
import type { LinearLaw } from '../instruments/law.js';
import type { BaseOptions } from '../sanity/baseConfig.js';
import { checkFloatDtype, precisionLabel } from '../tensor/dtype.js';
import { type BaseFlags, baseOptions, baseOptionsOf } from './baseOptions.js';
import { exitCodes } from './exitCodes.js';
import { type ExperimentFlags, experimentOptions, runExperiment } from './experiment.js';
import { formatNumber, formatShare, formatTable, quoted, wrap } from './format.js';
import { integerOption, listOption, pathOption } from './options.js';

/** Lists that a sweep goes through, every combination of them. */
interface Sweep {
  readonly formats?: readonly string[];
  readonly lengths?: readonly string[];
  readonly widths?: readonly string[];
  readonly depths?: readonly string[];
  readonly baseAccuracies?: readonly string[];
  readonly baseSeeds?: readonly string[];
  readonly samples?: number;
  readonly seed?: number;
  readonly fitFrom?: number;
  readonly spreads?: readonly string[];
}

interface Flags extends Sweep, BaseFlags, ExperimentFlags {
  readonly bases?: string;
}

interface Options extends Sweep {
  readonly base: BaseOptions;
}

const FORMATS = ['e8m10', 'e8m9', 'e8m8', 'e8m7', 'e8m6', 'e8m5', 'e8m4', 'e8m3', 'e5m10'];

/** `isopolicy dial`: mismatch against the bits of the format. */
export function dialCommand(): Command {
  const command = new Command('dial')
    .summary('emulate any float format in both engines; fit the law of the mismatch')
    .description(
      'Measure the mismatch in formats with any split of exponent and mantissa bits, emulated in both engines, over ' +
        'several bases, and fit how it follows mantissa bits, length, width, depth and entropy.',
    )
    .addOption(
      listOption(
        '--formats <list>',
        'comma-separated eXmY, tf32, fp16, bf16, fp32 (default: e8m10 to e8m3, e5m10)',
      ),
    )
    .addOption(listOption('--lengths <list>', 'lengths of answers (default: that of --task)'))
    .addOption(listOption('--widths <list>', 'widths of the model (default: --hidden-size)'))
    .addOption(listOption('--depths <list>', 'depths of the model (default: --layers)'))
    .addOption(listOption('--base-accuracies <list>', 'where teaching stops (default: --base-accuracy)'))
    .addOption(listOption('--base-seeds <list>', 'seeds of the bases (default: 1,2,3)'))
    .addOption(integerOption('--samples <n>', 'responses in each setting (default: 512)', 2))
    .addOption(integerOption('--seed <n>', 'seed of the responses (default: 1)', 0))
    .addOption(integerOption('--fit-from <bits>', 'least mantissa bits of the fit (default: 5)', 1))
    .addOption(listOption('--spreads <list>', 'nats of spread whose length is predicted (default: 1,2)'))
    .addOption(pathOption('--bases <dir>', 'a folder that keeps the bases (default: in the run)'));
  experimentOptions(baseOptions(command)).addHelpText(
    'after',
    `
eXmY has X exponent bits (2 to 8) and Y stored mantissa bits (1 to 23): e8m7 is
bf16's split, e5m10 fp16's; tf32 is e8m10. Emulated formats have IEEE 754's
rules, subnormals and infinities included, so e4m3 ends at 240 and e5m2 at 57344
(OCP's e4m3fn goes to 448 and has no infinity). They are kept in fp32 and stand
in for no hardware.

Examples:
  $ isopolicy dial --task interleave:32:10
  $ isopolicy dial --lengths 16,32,64 --base-seeds 1,2,3`,
  );
  return command.action((flags: Flags) => dial(flags, command));
}

async function dial(flags: Flags, command: Command): Promise<void> {
  const { formats, lengths, widths, depths, baseAccuracies, baseSeeds, samples, seed } = flags;
  const { fitFrom, spreads } = flags;
  const sweep = {
    ...{ formats, lengths, widths, depths, baseAccuracies, baseSeeds },
    ...{ samples, seed, fitFrom, spreads },
  };
  const options: Options = {
    ...Object.fromEntries(Object.entries(sweep).filter(([, value]) => value !== undefined)),
    base: baseOptionsOf(flags),
  };
  await runExperiment<Options | DialConfig, DialConfig, DialSummary>(
    command,
    flags,
    {
      options,
      resolve: async (given) => ('bases' in given ? given : resolve(given)),
      folders: { '--bases': flags.bases },
      name: (config) => `dial-${config.bases[0]!.task}`,
      run: async (config, { directory, signal, progress }) => {
        const { turnDial } = await import('../instruments/dial.js');
        const { baseName } = await import('../grid/config.js');
        const folder = flags.bases ?? join(directory.path, 'bases');
        return turnDial(config, {
          directory,
          signal,
          base: (own) => join(folder, baseName(own)),
          report: ({ done, points, what }) =>
            progress({
              phase: 'dial',
              parts: [
                { text: `${done}/${points} points`, importance: 2 },
                { text: what, importance: 1 },
              ],
            }),
        });
      },
      text: (summary, _config, path) => dialReport(summary, path),
      exitCode: ({ interrupted }) => (interrupted ? exitCodes.interrupted : exitCodes.success),
    },
    ['bases'],
  );
}

async function resolve(given: Options): Promise<DialConfig> {
  const where = 'dial';
  const { resolveBaseOptions } = await import('../sanity/baseConfig.js');
  const base = resolveBaseOptions(where, given.base);
  const [name, own, ...rest] = base.task.split(':') as [string, string, ...string[]];
  const numbers = (flag: string, list: readonly string[] | undefined, otherwise: number) =>
    (list ?? [String(otherwise)]).map((text) =>
      /^\d+(\.\d+)?$/.test(text) ? Number(text) : invalid(where, `${flag} to be numbers`, text),
    );
  const tasks = (given.lengths ?? [own]).map((length) => [name, length, ...rest].join(':'));
  const bases = tasks.flatMap((task) =>
    numbers('--widths', given.widths, base.hiddenSize).flatMap((hiddenSize) =>
      numbers('--depths', given.depths, base.numLayers).flatMap((numLayers) =>
        numbers('--base-accuracies', given.baseAccuracies, base.baseAccuracy).flatMap((baseAccuracy) =>
          numbers('--base-seeds', given.baseSeeds ?? ['1', '2', '3'], 1).map((baseSeed) =>
            resolveBaseOptions(where, { ...base, task, hiddenSize, numLayers, baseAccuracy, baseSeed }),
          ),
        ),
      ),
    ),
  );
  return {
    bases: distinct(bases),
    formats: distinct((given.formats ?? FORMATS).map((text) => checkFloatDtype(where, 'each format', text))),
    samples: given.samples ?? 512,
    seed: given.seed ?? 1,
    fitFrom: given.fitFrom ?? 5,
    spreads: distinct(
      (given.spreads ?? ['1', '2']).map((text) =>
        Number(text) > 0 ? Number(text) : invalid(where, '--spreads to be numbers above 0', text),
      ),
    ),
  };
}

/** A row a format, means over the bases, and the laws. */
export function dialReport(summary: DialSummary, directory: string): string {
  const { points, failures = [], laws, predictions, fitFrom, interrupted } = summary;
  const lines: string[] = [];
  if (interrupted) lines.push(`INTERRUPTED  resume with: isopolicy dial --resume ${quoted(directory)}`, '');
  if (points.length > 0) {
    lines.push(formatsTable(points), '');
    lines.push(
      ...wrap(
        'L is log pi(y) - log mu(y) of a response, which its importance weight has as the exponent; ESS: effective sample size ' +
          'of those weights, as a share. All formats but fp16, bf16 and fp32 are emulated.',
      ),
      '',
    );
  }
  for (const format of new Set(failures.map((failure) => failure.format))) {
    const own = failures.filter((failure) => failure.format === format);
    lines.push(
      ...wrap(`${precisionLabel(format)} is too narrow for ${own.length} of the bases: ${own[0]!.failure}`),
      '',
    );
  }
  const { seqLogRatioStd, meanAbsLogRatio, klMuPiK3 } = laws;
  for (const [name, law] of Object.entries({
    'mean |log pi - log mu|': meanAbsLogRatio,
    'KL[mu||pi], k3': klMuPiK3,
    'std of L': seqLogRatioStd,
  })) {
    if (law !== null) lines.push(...lawLines(name, law, fitFrom), '');
  }
  if (predictions.length > 0) lines.push(...predictionLines(predictions), '');
  lines.push(`run directory: ${directory}`);
  return lines.join('\n');
}

function formatsTable(points: readonly DialPoint[]): string {
  const right = { align: 'right' } as const;
  const formats = [...new Set(points.map(({ format }) => format))];
  return formatTable(
    [
      { heading: 'format' },
      { heading: 'bases', ...right },
      { heading: 'mean\n|log pi - log mu|', ...right },
      { heading: 'KL[mu||pi]\nk3', ...right },
      { heading: 'std of L', ...right },
      { heading: 'ESS', ...right },
      { heading: 'accuracy', ...right },
    ],
    formats.map((format) => {
      const own = points.filter((point) => point.format === format);
      const mean = (of: (point: DialPoint) => number) => own.reduce((sum, p) => sum + of(p), 0) / own.length;
      return [
        format,
        String(own.length),
        formatNumber(mean((p) => p.meanAbsLogRatio)),
        formatNumber(mean((p) => p.klMuPiK3)),
        formatNumber(mean((p) => p.seqLogRatioStd)),
        formatNumber(mean((p) => p.ess)),
        formatShare(mean((p) => p.accuracy)),
      ];
    }),
  );
}

function lawLines(
  name: string,
  { coefficients, r2, observations, groups }: LinearLaw,
  fitFrom: number,
): string[] {
  const labels: Record<string, string> = {
    mantissaBits: 'a mantissa bit more',
    log2Length: 'twice the length',
    log2Width: 'twice the width',
    log2Depth: 'twice the depth',
    baseAccuracy: 'teaching to 1 rather than 0',
    entropy: 'a nat of entropy more',
  };
  const terms = Object.entries(coefficients).map(
    ([key, { value, low, high }]) =>
      `${labels[key] ?? key} times ${formatNumber(2 ** value)} (${formatNumber(2 ** low)} to ${formatNumber(2 ** high)})`,
  );
  return wrap(
    `${name}: ${terms.join(', ')}; R2 ${formatNumber(r2)} of ${observations} points on ${groups} bases with at least ${fitFrom} mantissa bits.`,
  );
}

/** An interval of more than two decades says that the bases do not determine the length. */
const DECADE = 10;

function predictionLines(predictions: DialSummary['predictions']): string[] {
  const lengths = predictions.map(
    ({ format, spread, length: { value, low, high } }) =>
      `${formatNumber(spread)} nats at ${formatNumber(value)} tokens in ${format} (${
        high > low * DECADE ** 2 ? 'hardly determined' : `${formatNumber(low)} to ${formatNumber(high)}`
      })`,
  );
  return wrap(
    `Prediction of the last law, beyond what was measured: L has a standard deviation of ${lengths.join(', ')}.`,
  );
}
