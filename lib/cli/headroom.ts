import { Command } from 'commander';
import { InvalidArgumentError, invalid } from '../errors.js';
import type { Headroom, HeadroomConfig, HeadroomSummary } from '../instruments/headroom.js';
import { checkFloatDtype, type FloatDType, precisionLabel } from '../tensor/dtype.js';
import { createLossScaler } from '../training/lossScaler.js';
import { exitCodes } from './exitCodes.js';
import { type ExperimentFlags, experimentOptions, runExperiment } from './experiment.js';
import { count, formatNumber, formatScale, formatShare, formatTable, quoted, wrap } from './format.js';
import { checkedOption, integerOption, precisionOption } from './options.js';
import {
  resolveSubject,
  type SubjectFlags,
  type SubjectOptions,
  subjectOptions,
  subjectOptionsOf,
} from './subjectOptions.js';

interface Flags extends SubjectFlags, ExperimentFlags {
  readonly precision?: FloatDType;
  readonly lossScaler?: string;
  readonly samples?: number;
  readonly seed?: number;
}

interface Options extends SubjectOptions {
  readonly precision?: FloatDType;
  readonly lossScaler?: string;
  readonly samples?: number;
  readonly seed?: number;
}

/** What a measurement that was stopped before it began leaves. */
const nothing = {
  ...{ step: 0, scale: 1, logitsBits: 0, suggestedScale: 1, overflowed: null },
  ...{ places: [], scales: [], timeline: [], interrupted: true },
} as const;
const nowhere = { log2Scale: 0, underflow: 0, subnormal: 0, parameterUnderflow: 0, bits: 0 } as const;

/** `isopolicy headroom`: the room that the format leaves, layer by layer. */
export function headroomCommand(): Command {
  const command = new Command('headroom')
    .summary('show how much of the format’s range each layer leaves, forward and backward')
    .description(
      'Pass one batch forward and backward in the training precision and in fp32: bits left to the largest number, ' +
        'gradients that underflow at the present loss scale, and the scale to begin with.',
    )
    .addOption(precisionOption('--precision <type>', 'precision of training (default: fp16)'))
    .addOption(
      checkedOption(
        '--loss-scaler <spec>',
        'torch, verl, deepspeed, none or static:N (default: the present scale of a --run of this precision; else verl where fp16 trains, none elsewhere)',
        createLossScaler,
      ),
    )
    .addOption(integerOption('--samples <n>', 'responses of the batch, a multiple of 8 (default: 64)', 8))
    .addOption(integerOption('--seed <n>', 'seed of the responses (default: 1)', 0));
  experimentOptions(subjectOptions(command)).addHelpText(
    'after',
    `
Examples:
  $ isopolicy headroom --run runs/my-sanity-run
  $ isopolicy headroom --model models/Qwen2.5-Math-1.5B --data math.jsonl`,
  );
  return command.action((flags: Flags) => headroom(flags, command));
}

async function headroom(flags: Flags, command: Command): Promise<void> {
  const { precision, lossScaler, samples, seed } = flags;
  const options: Options = {
    ...(precision && { precision }),
    ...(lossScaler !== undefined && { lossScaler }),
    ...(samples !== undefined && { samples }),
    ...(seed !== undefined && { seed }),
    ...subjectOptionsOf('headroom', flags),
  };
  await runExperiment<Options | HeadroomConfig, HeadroomConfig, HeadroomSummary>(
    command,
    flags,
    {
      options,
      resolve: async (given) => ('subject' in given ? given : resolve(given)),
      folders: { '--base': flags.base },
      name: () => 'headroom',
      run: async (config, { directory, signal, progress }) => {
        const { measureHeadroom } = await import('../instruments/headroom.js');
        const summary = await measureHeadroom(config, {
          directory,
          signal,
          ...(flags.base !== undefined && { base: flags.base }),
          report: (what) => progress({ phase: 'headroom', parts: [{ text: what, importance: 1 }] }),
        });
        return summary ?? { ...nothing, present: nowhere, suggested: nowhere, precision: config.precision };
      },
      text: (summary, _config, path) => headroomReport(summary, path),
      exitCode: ({ interrupted }) => (interrupted ? exitCodes.interrupted : exitCodes.success),
    },
    ['base'],
  );
}

async function resolve(given: Options): Promise<HeadroomConfig> {
  const samples = given.samples ?? 64;
  if (samples % 8 !== 0) invalid('headroom', 'samples to be a multiple of 8', samples);
  const { presentScaler } = await import('../instruments/headroom.js');
  if (given.source && !given.source.judged) {
    throw new InvalidArgumentError(
      '[headroom] expected --data beside --model: there is no gradient without rewards',
    );
  }
  const subject = await resolveSubject('headroom', given);
  const precision = checkFloatDtype('headroom', 'precision', given.precision ?? 'fp16');
  return {
    subject,
    precision,
    lossScaler: given.lossScaler ?? (await presentScaler(subject, precision)),
    samples,
    seed: given.seed ?? 1,
  };
}

/** A row a layer, and what follows for the scale. */
export function headroomReport(summary: HeadroomSummary, directory: string): string {
  if (summary.interrupted)
    return `INTERRUPTED  resume with: isopolicy headroom --resume ${quoted(directory)}`;
  const { precision, scale, places, scales, logitsBits, present, suggested, suggestedScale, overflowed } =
    summary;
  const { timeline } = summary;
  const right = { align: 'right' } as const;
  const layers = [...new Set(places.map(({ layer }) => layer))];
  // Of equals the last, which the backward pass comes to first.
  const worst = (own: readonly Headroom[], of: (place: Headroom) => number) =>
    own.reduce((least, place) => (of(place) <= of(least) ? place : least));
  const table = formatTable(
    [
      { heading: 'layer' },
      { heading: 'bits left\nforward', ...right },
      { heading: 'at' },
      { heading: 'bits left\nbackward', ...right },
      { heading: 'at' },
      { heading: 'underflow', ...right },
      { heading: 'subnormal', ...right },
    ],
    layers.map((layer) => {
      const own = places.filter((place) => place.layer === layer);
      const forward = worst(own, (place) => place.forwardBits);
      const backward = worst(own, (place) => place.backwardBits);
      return [
        layer < 0 ? 'outside' : String(layer),
        formatNumber(forward.forwardBits),
        forward.point,
        formatNumber(backward.backwardBits),
        backward.point,
        formatShare(Math.max(...own.map(({ underflow }) => underflow))),
        formatShare(Math.max(...own.map(({ subnormal }) => subnormal))),
      ];
    }),
  );
  const forward = worst(places, (place) => place.forwardBits);
  const backward = worst(places, (place) => place.backwardBits);
  const place = ({ point, layer }: Headroom) => (layer < 0 ? point : `${point} of layer ${layer}`);
  const atLogits = logitsBits < backward.backwardBits;
  const share = (value: number) => `${formatNumber(100 * value, 2)} %`;
  const top = 2 ** scales.at(-1)!.log2Scale;
  return [
    `${precisionLabel(precision)}, loss scale ${formatScale(scale)}`,
    '',
    table,
    '',
    ...wrap(
      'Bits left: how many times the largest number at a place could double before it overflows; the place with the fewest is ' +
        'named (outside of the layers: embedding, final norm). Underflow and subnormal: shares of activation gradients that ' +
        'become 0, and that lose bits, where they are most.',
    ),
    '',
    ...wrap(
      `Nearest to the top: forward ${place(forward)} with ${formatNumber(forward.forwardBits)} bits` +
        (overflowed !== null
          ? `. OVERFLOW at this scale, first of ${overflowed}.`
          : Number.isNaN(suggestedScale)
            ? '. No response has an advantage: there is no gradient to measure.'
            : `, backward ${atLogits ? 'the logits' : place(backward)} with ` +
              `${formatNumber(atLogits ? logitsBits : backward.backwardBits)} bits.`),
    ),
    ...(Number.isNaN(suggestedScale)
      ? []
      : wrap(
          `Of the activation gradients ${share(present.underflow)} underflow at this scale. ` +
            (suggestedScale > top
              ? `Even at a scale of ${formatScale(top)} none is near the largest number: this format needs no loss scaling.`
              : `Suggested initial scale: ${formatScale(suggestedScale)}, where ${share(suggested.underflow)} do and ` +
                `${formatNumber(suggested.bits)} bits are left above the largest.`),
        )),
    ...(timeline.length === 0 ? [] : wrap(timelineText(timeline))),
    '',
    `run directory: ${directory}`,
  ].join('\n');
}

/** What became of the loss scale in the run whose weights were measured. */
export function timelineText(timeline: HeadroomSummary['timeline']): string {
  const steps = count(timeline.length, 'step');
  const [first, last] = [timeline[0]!.scale, timeline.at(-1)!.scale];
  const steady = timeline.every(({ scale }) => scale === first);
  if (steady && first === 1) return `The run trained without loss scaling, ${steps}.`;
  const skipped = timeline.reduce((sum, point) => sum + point.skippedUpdates, 0);
  const saved = timeline.reduce((sum, point) => sum + point.savedUpdates, 0);
  const course = steady
    ? `stayed at ${formatScale(first)}`
    : `went from ${formatScale(first)} to ${formatScale(last)}`;
  return `In the run the scale ${course} over ${steps}; ${count(skipped, 'update')} skipped, ${saved} saved by a retry.`;
}
