import { Command } from 'commander';
import { invalid } from '../errors.js';
import { distinct } from '../instruments/distinct.js';
import type { ProfileConfig, ProfileGroup, ProfileSummary } from '../instruments/profile.js';
import type { Interval } from '../mismatch/bootstrap.js';
import { exitCodes } from './exitCodes.js';
import { type ExperimentFlags, experimentOptions, runExperiment } from './experiment.js';
import { formatNumber, formatTable, quoted, wrap } from './format.js';
import { mismatchTable } from './mismatchTable.js';
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
  readonly lengths?: readonly string[];
  readonly baseSeeds?: readonly string[];
  readonly samples?: number;
  readonly seed?: number;
}

interface Options extends SubjectOptions {
  readonly precisions?: readonly string[];
  readonly lengths?: readonly string[];
  readonly baseSeeds?: readonly string[];
  readonly samples?: number;
  readonly seed?: number;
}

/** `isopolicy mismatch`: figure 2 of arXiv 2510.26788. */
export function mismatchCommand(): Command {
  const command = new Command('mismatch')
    .summary('measure the mismatch: sample with one engine, score with the other')
    .description(
      'Sample responses with the rollout engine, score them with the training engine on the same weights, in each pair ' +
        'of precisions: divergences, drift with length, gradient bias and deployment gap.',
    )
    .addOption(
      listOption(
        '--precisions <pairs>',
        'comma-separated training:rollout, or one for both (default: bf16,fp16)',
      ),
    )
    .addOption(
      listOption('--lengths <list>', 'lengths of answers, each with a base of its own, for the slope'),
    )
    .addOption(listOption('--base-seeds <list>', 'seeds of bases (default: --base-seed)'))
    .addOption(integerOption('--samples <n>', 'responses in each setting, a multiple of 8 (default: 512)', 8))
    .addOption(integerOption('--seed <n>', 'seed of the responses (default: 1)', 0));
  experimentOptions(subjectOptions(command)).addHelpText(
    'after',
    `
Examples:
  $ isopolicy mismatch --task interleave:32:10
  $ isopolicy mismatch --lengths 16,32,64 --precisions bf16,fp16,bf16:fp32
  $ isopolicy mismatch --run runs/my-sanity-run
  $ isopolicy mismatch --model models/Qwen2.5-Math-1.5B --data math.jsonl

--model without --data asks some built-in questions; their responses have no
rewards, so that gradient bias and deployment gap are left out.`,
  );
  return command.action((flags: Flags) => mismatch(flags, command));
}

async function mismatch(flags: Flags, command: Command): Promise<void> {
  const { precisions, lengths, baseSeeds, samples, seed } = flags;
  const options: Options = {
    ...(precisions && { precisions }),
    ...(lengths && { lengths }),
    ...(baseSeeds && { baseSeeds }),
    ...(samples !== undefined && { samples }),
    ...(seed !== undefined && { seed }),
    ...subjectOptionsOf('mismatch', flags),
  };
  await runExperiment<Options, ProfileConfig, ProfileSummary>(
    command,
    flags,
    {
      options,
      resolve: async (given) => ('subjects' in given ? (given as unknown as ProfileConfig) : resolve(given)),
      folders: { '--base': flags.base },
      name: () => 'mismatch',
      run: async (config, { directory, signal, progress }) => {
        const { profileMismatch } = await import('../instruments/profile.js');
        const { baseName } = await import('../grid/config.js');
        const { base } = flags;
        return profileMismatch(config, {
          directory,
          signal,
          ...(base !== undefined && {
            base: (own) => (config.subjects.length === 1 ? base : `${base}/${baseName(own)}`),
          }),
          report: ({ done, points, what }) =>
            progress({
              phase: 'mismatch',
              parts: [
                { text: `${done}/${points} settings`, importance: 2 },
                { text: what, importance: 1 },
              ],
            }),
        });
      },
      text: (summary, _config, path) => mismatchReport(summary, path),
      exitCode: ({ interrupted }) => (interrupted ? exitCodes.interrupted : exitCodes.success),
    },
    ['base'],
  );
}

async function resolve(given: Options): Promise<ProfileConfig> {
  const { resolveBaseOptions } = await import('../sanity/baseConfig.js');
  const { parsePrecisionPair } = await import('../grid/config.js');
  const { GROUP } = await import('../instruments/profile.js');
  const samples = given.samples ?? 512;
  if (samples % GROUP !== 0) invalid('mismatch', `samples to be a multiple of ${GROUP}`, samples);
  const pairs = distinct(
    (given.precisions ?? ['bf16', 'fp16']).map((text) => parsePrecisionPair('mismatch', text)),
  );
  const common = { pairs, samples, seed: given.seed ?? 1 };
  if (given.run !== undefined || given.source !== undefined) {
    if (given.lengths || given.baseSeeds)
      invalid(
        'mismatch',
        'no --lengths or --base-seeds beside --run or --model',
        given.run ?? given.source?.model,
      );
    return { subjects: [await resolveSubject('mismatch', given)], ...common };
  }
  const base = resolveBaseOptions('mismatch', given.base);
  const [name, own, ...rest] = base.task.split(':') as [string, string, ...string[]];
  const tasks = (given.lengths ?? [own]).map((length) => [name, length, ...rest].join(':'));
  const seeds = (given.baseSeeds ?? [String(base.baseSeed)]).map((text) =>
    /^\d+$/.test(text) ? Number(text) : invalid('mismatch', '--base-seeds to be whole numbers', text),
  );
  return {
    subjects: distinct(
      tasks.flatMap((task) =>
        seeds.map((baseSeed) => ({ base: resolveBaseOptions('mismatch', { ...base, task, baseSeed }) })),
      ),
    ),
    ...common,
  };
}

/** Spread of lengths from which on a slope is shown. */
const LENGTH_SPREAD = 0.1;

const label = ({ training, rollout }: { training: string; rollout: string }) =>
  training === rollout ? training : `${training}:${rollout}`;

/** Numbers of each pair beside the paper's and the healthy ranges. */
export function mismatchReport(
  { groups, ratios, points, interrupted }: ProfileSummary,
  directory: string,
): string {
  const lines: string[] = [];
  if (interrupted)
    lines.push(`INTERRUPTED  resume with: isopolicy mismatch --resume ${quoted(directory)}`, '');
  if (groups.length > 0) {
    lines.push(
      groupTable(groups),
      '',
      ...wrap(
        'In nats, with 95 % intervals. L: sum of log pi - log mu over a response, pi of the training engine, mu of the rollout ' +
          'engine. Drift: mean of log pi - log mu over all tokens; slope: of L on the length of a response, where lengths differ; KL of responses: ' +
          'mean of -L.',
      ),
      '',
    );
  }
  for (const { klMuPiK3, meanAbsLogRatio } of ratios) {
    lines.push(
      ...wrap(
        `bf16 over fp16: ${times(meanAbsLogRatio)} in mean |log pi - log mu|, ${times(klMuPiK3)} in KL[mu||pi] (k3). ` +
          'Eight times finer rounding makes 8 and 64 expected. The paper (1.5B model, answers of thousands of tokens): ' +
          'slope -1.01 and -0.07 nats per 1,000 tokens, KL of responses 7.64 and 0.32, a ratio of 24.',
      ),
      '',
    );
  }
  lines.push(...entropyLines(groups));
  for (const task of new Set(points.map((point) => point.task))) {
    const own = points.filter((point) => point.task === task);
    const { baseSeed, accuracy, entropy } = own[0]!;
    const first = own.filter((point) => point.baseSeed === baseSeed);
    const settings = first.map((point) => ({ name: label(point), metrics: point.metrics }));
    const about = [
      task,
      ...(baseSeed === undefined ? [] : [`base seed ${baseSeed}`]),
      ...(accuracy === undefined ? [] : [`accuracy ${formatNumber(accuracy)}`]),
      `entropy ${formatNumber(entropy)} nats per token`,
    ];
    lines.push(...wrap(about.join(', ')));
    for (let i = 0; i < settings.length; i += 2) lines.push(mismatchTable(settings.slice(i, i + 2)), '');
    lines.push(
      ...biasLines(first),
      ...routingLines(first),
      ...(accuracy === undefined ? wrap(UNJUDGED) : []),
      '',
    );
  }
  lines.push(`run directory: ${directory}`);
  return lines.join('\n');
}

function groupTable(groups: readonly ProfileGroup[]): string {
  const right = { align: 'right' } as const;
  const interval = ({ value, low, high }: Interval) =>
    Number.isNaN(value)
      ? '-'
      : `${formatNumber(value, 2)} (${formatNumber(low, 2)}, ${formatNumber(high, 2)})`;
  return formatTable(
    [
      { heading: 'train:roll' },
      { heading: 'drift per 1k tokens', ...right },
      { heading: 'slope per 1k tokens', ...right },
      { heading: 'KL of responses', ...right },
    ],
    groups.map((group) => [
      label(group),
      interval(group.driftPer1k),
      // Of answers of one length a slope is noise.
      group.lengthSpread < LENGTH_SPREAD ? '-' : interval(group.slopePer1k),
      interval(group.sequenceKlMuPi),
    ]),
  );
}

/** Bins with fewer of the tokens are not shown. */
const SHARE_SHOWN = 0.001;

/** The mismatch against how open a token's choice is, two settings a table. */
function entropyLines(groups: readonly ProfileGroup[]): string[] {
  const lines: string[] = [];
  const measured = groups.flatMap((group) => (group.entropy ? [{ ...group, entropy: group.entropy }] : []));
  const right = { align: 'right' } as const;
  const percent = (share: number) => `${formatNumber(100 * share, 2)} %`;
  for (let i = 0; i < measured.length; i += 2) {
    const settings = measured.slice(i, i + 2);
    const edges = [...new Set(settings.flatMap(({ entropy }) => entropy.bins.map(({ low }) => low)))];
    const rows = edges
      .sort((a, b) => a - b)
      .map((edge) => settings.map(({ entropy }) => entropy.bins.find(({ low }) => low === edge)))
      .filter((bins) => bins.some((bin) => bin !== undefined && bin.share >= SHARE_SHOWN));
    lines.push(
      formatTable(
        [
          { heading: 'entropy, nats' },
          { heading: 'tokens', ...right },
          ...settings.flatMap((group) => [
            { heading: `${label(group)} |log r|`, ...right },
            { heading: 'of KL', ...right },
          ]),
        ],
        rows.map((bins) => {
          const { low, high, share } = bins.find((bin) => bin !== undefined)!;
          return [
            `${formatNumber(low, 2)} to ${Number.isFinite(high) ? formatNumber(high, 2) : 'any'}`,
            percent(share),
            ...bins.flatMap((bin) =>
              bin === undefined
                ? ['-', '-']
                : [formatNumber(bin.meanAbsLogRatio.value, 2), percent(bin.shareOfK3)],
            ),
          ];
        }),
      ),
      '',
      ...wrap(
        [
          'Tokens by the entropy of their distribution: mean |log pi - log mu|, and the share of KL[mu||pi] (k3) that is theirs.',
          ...settings
            // Too few tokens for a fit.
            .filter((group) => !Number.isNaN(group.entropy.exponent.value))
            .map(
              (group) =>
                `In ${label(group)} twice the entropy goes with ${times(powerOf2(group.entropy.exponent))} the mean |log r|.`,
            ),
        ].join(' '),
      ),
      '',
    );
  }
  return lines;
}

function powerOf2({ value, low, high }: Interval): Interval {
  return { value: 2 ** value, low: 2 ** low, high: 2 ** high };
}

/** Of a mixture of experts: how often the engines' routers part, and what that does. */
function routingLines(points: ProfileSummary['points']): string[] {
  return points.flatMap(({ routing, metrics, ...point }) =>
    routing === undefined
      ? []
      : wrap(
          `${label(point)}: the routers chose other experts for ${formatNumber(100 * routing.flipShare, 2)} % of tokens and layers; ` +
            `with the rollout's routes replayed (R3) mean |log pi - log mu| is ${formatNumber(routing.replayed.meanAbsLogRatio)} for ` +
            `${formatNumber(metrics.meanAbsLogRatio)}, KL[mu||pi] (k3) ${formatNumber(routing.replayed.klMuPiK3, 2)} for ${formatNumber(metrics.klMuPiK3, 2)}.`,
        ),
  );
}

function biasLines(points: ProfileSummary['points']): string[] {
  return points.flatMap((point) => {
    const { gradient, deployment, divergence } = point;
    const parts: string[] = [];
    if (gradient && deployment) {
      const seq = gradient.find(({ algorithm }) => algorithm === 'pg-seq-is');
      const { gap, rolloutAccuracy, trainingAccuracy } = deployment;
      parts.push(
        bias(seq?.cosine ?? Number.NaN),
        `accuracy ${formatNumber(rolloutAccuracy)} sampled from mu, ${formatNumber(trainingAccuracy)} from pi, a gap of ` +
          `${formatNumber(gap.value, 2)} (${formatNumber(gap.low, 2)} to ${formatNumber(gap.high, 2)})`,
      );
    }
    const { klMuPi, klPiMu, tokens } = divergence;
    parts.push(
      `over whole distributions${tokens === undefined ? '' : ` (of the first ${tokens} tokens)`} KL[mu||pi] ` +
        `${formatNumber(klMuPi, 2)}, KL[pi||mu] ${formatNumber(klPiMu, 2)}`,
    );
    return wrap(`${label(point)}: ${parts.join('; ')}.`);
  });
}

/** What is missing of responses that have no rewards. */
const UNJUDGED =
  'These responses have no rewards: no accuracy, gradient bias or deployment gap (--data brings them).';

/** What the correction does to the gradient; a cosine near 1 by how much it lacks, which rounding would hide. */
function bias(cosine: number): string {
  if (Number.isNaN(cosine)) return 'there is no gradient to compare, since no response has an advantage';
  const lack = cosine < 1 && cosine > 0.999 ? `1 - ${formatNumber(1 - cosine, 2)}` : formatNumber(cosine);
  return `the corrected gradient (PG-Seq-IS) lies at a cosine of ${lack} to the uncorrected one`;
}

function times({ value, low, high }: Interval): string {
  return `${formatNumber(value)} times (${formatNumber(low)} to ${formatNumber(high)})`;
}
