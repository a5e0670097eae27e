import { Command } from 'commander';
import { distinct } from '../instruments/distinct.js';
import type { LadderConfig, LadderResult, LadderSummary } from '../instruments/ladder.js';
import { checkFloatDtype, type FloatDType, precisionLabel } from '../tensor/dtype.js';
import { exitCodes } from './exitCodes.js';
import { type ExperimentFlags, experimentOptions, runExperiment } from './experiment.js';
import { formatNumber, formatTable, quoted, wrap } from './format.js';
import { integerOption, listOption } from './options.js';
import {
  resolveSubject,
  type SubjectFlags,
  type SubjectOptions,
  subjectOptions,
  subjectOptionsOf,
} from './subjectOptions.js';

interface Flags extends SubjectFlags, ExperimentFlags {
  readonly precisions?: readonly string[];
  readonly samples?: number;
  readonly seed?: number;
}

interface Options extends SubjectOptions {
  readonly precisions?: readonly string[];
  readonly samples?: number;
  readonly seed?: number;
}

/** `isopolicy ladder`: where the mismatch comes from. */
export function ladderCommand(): Command {
  const command = new Command('ladder')
    .summary('show which numeric choice of the engines the mismatch comes from')
    .description(
      'Score the same responses again and again with one numeric choice or kernel family of the rollout engine after ' +
        'another swapped with the training engine’s, alone, together and layer by layer, down to an exact 0.',
    )
    .addOption(listOption('--precisions <list>', 'comma-separated (default: bf16,fp16)'))
    .addOption(integerOption('--samples <n>', 'responses that are scored (default: 256)', 1))
    .addOption(integerOption('--seed <n>', 'seed of the responses (default: 1)', 0));
  experimentOptions(subjectOptions(command)).addHelpText(
    'after',
    `
Examples:
  $ isopolicy ladder --task interleave:32:10
  $ isopolicy ladder --run runs/my-sanity-run --precisions bf16,fp16,fp32
  $ isopolicy ladder --model models/Qwen2.5-Math-1.5B --samples 32`,
  );
  return command.action((flags: Flags) => ladder(flags, command));
}

async function ladder(flags: Flags, command: Command): Promise<void> {
  const { precisions, samples, seed } = flags;
  const options: Options = {
    ...(precisions && { precisions }),
    ...(samples !== undefined && { samples }),
    ...(seed !== undefined && { seed }),
    ...subjectOptionsOf('ladder', flags),
  };
  await runExperiment<Options, LadderConfig, LadderSummary>(
    command,
    flags,
    {
      options,
      resolve: async (given) => {
        // What a run was started with has its subject already.
        if ('subject' in given) return given as unknown as LadderConfig;
        return {
          subject: await resolveSubject('ladder', given),
          precisions: distinct(
            (given.precisions ?? ['bf16', 'fp16']).map(
              (text): FloatDType => checkFloatDtype('ladder', 'each precision', text),
            ),
          ),
          samples: given.samples ?? 256,
          seed: given.seed ?? 1,
        };
      },
      folders: { '--base': flags.base },
      name: () => 'ladder',
      run: async (config, { directory, signal, progress }) => {
        const { climbLadder } = await import('../instruments/ladder.js');
        return climbLadder(config, {
          directory,
          signal,
          ...(flags.base !== undefined && { base: flags.base }),
          report: ({ done, rungs, what }) =>
            progress({
              phase: 'ladder',
              parts: [
                { text: rungs > 0 ? `${done}/${rungs} rungs` : 'model', importance: 2 },
                { text: what, importance: 1 },
              ],
            }),
        });
      },
      text: (summary, _config, path) => ladderReport(summary, path),
      exitCode: ({ interrupted }) => (interrupted ? exitCodes.interrupted : exitCodes.success),
    },
    ['base'],
  );
}

/** A table a precision: what each knob, and each layer, contributes. */
export function ladderReport({ results, interrupted, numLayers }: LadderSummary, directory: string): string {
  const lines: string[] = [];
  if (interrupted) lines.push(`INTERRUPTED  resume with: isopolicy ladder --resume ${quoted(directory)}`, '');
  for (const result of results) lines.push(...resultLines(result, numLayers), '');
  if (results.length > 0) {
    lines.push(
      ...wrap(
        'A knob is a numeric choice in which the engines differ (apart: each its own, equal: both the same); isopolicy info tells ' +
          'what each is. pi: probability of a token in the training engine; mu: in the rollout engine.',
      ),
      '',
    );
  }
  lines.push(`run directory: ${directory}`);
  return lines.join('\n');
}

function resultLines(result: LadderResult, numLayers: number): string[] {
  const { precision, tokens, apart, equal, alone, without, down, up, layers, layersUp } = result;
  const right = { align: 'right' } as const;
  const nats = (value: number) => formatNumber(value, 3);
  const knobTable = formatTable(
    [
      { heading: 'knob' },
      { heading: 'alone', ...right },
      { heading: 'all but it', ...right },
      { heading: 'going down', ...right },
      { heading: 'going up', ...right },
    ],
    alone.map(({ knob, meanAbsLogRatio }, i) => [
      knob,
      nats(meanAbsLogRatio),
      nats(without[i]!.meanAbsLogRatio),
      nats(down[i]!.meanAbsLogRatio),
      nats(up[i]!.meanAbsLogRatio),
    ]),
  );
  const layerTable = formatTable(
    [{ heading: 'layer' }, { heading: 'alone', ...right }, { heading: 'and those before', ...right }],
    layers.map(({ layer, meanAbsLogRatio }, i) => [
      layer === numLayers ? 'last norm, head' : String(layer),
      nats(meanAbsLogRatio),
      nats(layersUp[i]!.meanAbsLogRatio),
    ]),
  );
  const sum = alone.reduce((total, rung) => total + rung.meanAbsLogRatio, 0);
  return [
    `${precisionLabel(precision)}, ${tokens} tokens, mean |log pi - log mu| in nats per token:`,
    `all choices apart ${nats(apart.meanAbsLogRatio)}, all equal ${nats(equal.meanAbsLogRatio)}`,
    '',
    knobTable,
    '',
    ...wrap(
      '"alone": only this one apart; "all but it": only this one equal; "going down" starts with all apart and makes one ' +
        'after another equal; "going up" the reverse.' +
        // Of nothing there are no parts.
        (apart.meanAbsLogRatio === 0
          ? ''
          : ` Alone, the knobs sum to ${nats(sum)}: ${formatNumber(sum / apart.meanAbsLogRatio, 2)} times what all make ` +
            'together, since roundings act on one another.'),
    ),
    '',
    layerTable,
  ];
}
