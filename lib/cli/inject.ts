import { Argument, Command, Option } from 'commander';
import { checkChoice, InvalidArgumentError } from '../errors.js';
import { type Level, levels } from '../instruments/faults/fault.js';
import { faultNames, faults } from '../instruments/faults/index.js';
import type { InjectConfig, InjectOptions, InjectSummary } from '../instruments/inject.js';
import { type NumericsMode, numericsModes } from '../rl/numericsMode.js';
import { type FloatDType, precisionLabel } from '../tensor/dtype.js';
import { exitCodes } from './exitCodes.js';
import { type ExperimentFlags, experimentOptions, runExperiment } from './experiment.js';
import { count, quoted, wrap } from './format.js';
import { choiceOption, integerOption, precisionOption } from './options.js';
import {
  resolveSubject,
  type SubjectFlags,
  type SubjectOptions,
  subjectOptions,
  subjectOptionsOf,
} from './subjectOptions.js';

interface Flags extends SubjectFlags, ExperimentFlags {
  readonly strength?: Level | number;
  readonly precision?: FloatDType;
  readonly numerics?: NumericsMode;
  readonly samples?: number;
  readonly steps?: number;
  readonly top?: number;
  readonly seed?: number;
}

type Options = SubjectOptions & InjectOptions;

/** `isopolicy inject`: a real run with one fault, as dumps for `diagnose`. */
export function injectCommand(): Command {
  const command = new Command('inject')
    .summary('make a real run of both engines with one fault, as two files for diagnose')
    .description(
      'Sample and score responses with both engines over a few steps of training, let one thing go wrong, and write what ' +
        'each engine logs: rollout.jsonl and training.jsonl in the folder of the run.',
    )
    .addArgument(new Argument('[fault]', 'what goes wrong, of the list below'))
    .addOption(strengthOption())
    .addOption(precisionOption('--precision <type>', 'of both engines (default: fp16)'))
    .addOption(
      choiceOption('--numerics <mode>', 'rounding and reduction choices of the engines', numericsModes),
    )
    .addOption(integerOption('--samples <n>', 'responses of all steps together (default: 256)', 1))
    .addOption(integerOption('--steps <n>', 'steps, between which the policy learns (default: 4)', 1))
    .addOption(integerOption('--top <n>', 'most likely tokens logged at each position (default: 5)', 0))
    .addOption(integerOption('--seed <n>', 'of the run and the fault (default: 1)', 0, 2 ** 31 - 1));
  subjectOptions(command).addOption(
    integerOption('--experts <n>', 'experts of each layer of the taught model (default: 0, dense)', 0),
  );
  experimentOptions(command).addHelpText('after', () => `\n${faultList()}\n\n${EXAMPLES}`);
  return command.action((fault: string | undefined, flags: Flags) => inject(fault, flags, command));
}

const EXAMPLES = `Examples:
  $ isopolicy inject temperature --task interleave:32:10 --out runs/temperature
  $ isopolicy inject stale-weights --precision bf16 --strength strong
  $ isopolicy inject routing-flip --experts 8
  $ isopolicy inject none --numerics matched`;

/** Each fault with its strengths, for help. */
function faultList(): string {
  const lines = faults.flatMap(({ name, title, strength, strengths, runs }) => [
    `  ${name}`,
    ...wrap(`${title}; ${runs}`, 74).map((line) => `      ${line}`),
    ...(name === 'none'
      ? []
      : wrap(`${strength}: ${levels.map((level) => `${level} ${strengths[level]}`).join(', ')}`, 74).map(
          (line) => `      ${line}`,
        )),
  ]);
  return ['Faults:', ...lines].join('\n');
}

/** A level, or a number. */
function strengthOption(): Option {
  const option = new Option(
    '--strength <level>',
    `${levels.join(', ')}, or a number that the fault knows (default: ordinary)`,
  );
  return option.argParser((text) =>
    text.trim() !== '' && Number.isFinite(Number(text))
      ? Number(text)
      : checkChoice('cli', '--strength', text, levels),
  );
}

async function inject(fault: string | undefined, flags: Flags, command: Command): Promise<void> {
  const beside = flags.resume !== undefined;
  if (beside !== (fault === undefined)) {
    throw new InvalidArgumentError(
      beside
        ? `[inject] expected no <fault> beside --resume, which goes on with the run as it was configured, got ${JSON.stringify(fault)}`
        : `[inject] expected <fault>, one of ${faultNames.join(', ')}, got none`,
    );
  }
  const { strength, precision, numerics, samples, steps, top, seed } = flags;
  const options: Options = {
    // With --resume, that of the folder is taken instead.
    fault: fault === undefined ? 'none' : checkChoice('inject', '<fault>', fault, faultNames),
    ...(strength !== undefined && { strength }),
    ...(precision && { precision }),
    ...(numerics && { numerics }),
    ...(samples !== undefined && { samples }),
    ...(steps !== undefined && { steps }),
    ...(top !== undefined && { top }),
    ...(seed !== undefined && { seed }),
    ...subjectOptionsOf('inject', flags),
  };
  await runExperiment<Options, InjectConfig, InjectSummary>(
    command,
    flags,
    {
      options,
      resolve: async (given) => {
        const { resolveInjectOptions } = await import('../instruments/inject.js');
        // What a run was started with has its subject already.
        if ('subject' in given) return given as unknown as InjectConfig;
        return resolveInjectOptions({ ...given, subject: await resolveSubject('inject', given) });
      },
      folders: { '--base': flags.base },
      name: (config) => `inject-${config.fault}`,
      run: async (config, { directory, signal, progress }) => {
        const { injectFault } = await import('../instruments/inject.js');
        return injectFault(config, {
          directory,
          signal,
          ...(flags.base !== undefined && { base: flags.base }),
          report: ({ step, steps: all, what }) =>
            progress({
              phase: 'inject',
              parts: [
                { text: step === null ? 'model' : `step ${step + 1}/${all}`, importance: 2 },
                { text: what, importance: 1 },
              ],
            }),
        });
      },
      text: (summary, _config, path) => injectReport(summary, path),
      exitCode: ({ interrupted }) => (interrupted ? exitCodes.interrupted : exitCodes.success),
    },
    ['base'],
  );
}

/** What was done, and how to look at it. */
export function injectReport(summary: InjectSummary, directory: string): string {
  const { fault, title, strength, strengthOf, level, tokens, touched, samples, steps, precision } = summary;
  if (summary.interrupted) {
    return `INTERRUPTED  start over with: isopolicy inject --resume ${quoted(directory)}`;
  }
  const named = level === null ? '' : `${level}, `;
  const how = fault === 'none' ? [] : wrap(`strength: ${named}${strength} (${strengthOf})`);
  return [
    ...wrap(`${fault}: ${title}`),
    ...how,
    `${count(samples, 'response')} in ${count(steps, 'step')}, ${count(tokens, 'token')}, touched: ${touched}`,
    ...wrap(`${precisionLabel(precision)}, numerics ${summary.numerics}, ${summary.task}`),
    '',
    `isopolicy diagnose ${summary.files.map((file) => quoted(`${directory}/${file}`)).join(' ')}`,
    `run directory: ${directory}`,
  ].join('\n');
}
