/** The end of a grid as text on stdout. */
import { basename } from 'node:path';
import type { GridConfig } from '../grid/config.js';
import type { GridGroup, GridSummary } from '../grid/summary.js';
import { colored, formatNumber, formatShare, formatTable, quoted, wrap } from './format.js';

/** A table of the groups, what the runs say together, and what a step costs. */
export function gridReport(
  summary: GridSummary,
  _config: GridConfig,
  directory: string,
  color: boolean,
): string {
  const { cells, groups, interrupted, failed, task, steps } = summary;
  const count = (status: string) => cells.filter((cell) => cell.status === status).length;
  const state = interrupted
    ? `${colored('INTERRUPTED', 'red', color)}  resume with: isopolicy grid --resume ${quoted(directory)}`
    : failed > 0
      ? colored(`${failed} OF ${cells.length} RUNS FAILED`, 'red', color)
      : `${count('finished')} runs done`;
  const lines = [
    state,
    `${task}, at most ${steps} steps a run, ${count('finished')} of ${cells.length} runs finished`,
  ];
  if (groups.length > 0) {
    lines.push('', groupTable(groups), '');
    lines.push('Nats per token: mean |log pi - log mu| of the last ten steps.', ...wrap(verdict(groups)));
  }
  if (summary.thresholds.length > 0) {
    lines.push('', thresholdTable(summary.thresholds), '');
    lines.push(
      ...wrap(
        'Slowed: every seed less accurate over the run than every seed of the least mismatch. Collapsed: some seed did.',
      ),
    );
  }
  for (const { failure, directory: run } of cells) {
    if (failure !== undefined) lines.push(...wrap(`${run}: ${failure}`));
  }
  const costs = costLines(summary);
  if (costs.length > 0) lines.push('', ...costs);
  lines.push('', `run directory: ${directory}`);
  return lines.join('\n');
}

/** A row a pair of precisions below the name of its algorithm, which may be long. */
function groupTable(groups: readonly GridGroup[]): string {
  const right = { align: 'right' } as const;
  const range = ({ mean, min, max }: { mean: number; min: number; max: number }) =>
    min === max ? formatShare(mean) : `${formatShare(mean)} (${formatShare(min)}-${formatShare(max)})`;
  const byAlgorithm = [...new Set(groups.map(({ algorithm }) => algorithm))].map((algorithm) =>
    groups.filter((group) => group.algorithm === algorithm),
  );
  const table = formatTable(
    [
      { heading: 'train:roll' },
      { heading: 'seeds', ...right },
      { heading: 'final accuracy', ...right },
      { heading: 'peak', ...right },
      { heading: 'collapsed', ...right },
      { heading: 'nats per\ntoken', ...right },
    ],
    byAlgorithm
      .flat()
      .map((group) => [
        `${group.training}:${group.rollout}`,
        String(group.seeds.length),
        range(group.finalAccuracy),
        formatShare(group.peakAccuracy.mean),
        collapses(group),
        formatNumber(group.meanAbsLogRatio.mean, 2),
      ]),
  );
  const lines = table.split('\n');
  const rows = lines.splice(lines.length - groups.length);
  const sections = byAlgorithm.flatMap((own) => [basename(own[0]!.algorithm), ...rows.splice(0, own.length)]);
  return [...lines, ...sections].join('\n');
}

/** The spread of responses at the start of a run that each algorithm bore, and what slowed or broke it. */
function thresholdTable(thresholds: GridSummary['thresholds']): string {
  const right = { align: 'right' } as const;
  const nats = (value: number | null) => (value === null ? '-' : formatNumber(value, 2));
  return formatTable(
    [
      { heading: 'std of log pi(y) - log mu(y)\nat the start, in nats' },
      { heading: 'unharmed\nup to', ...right },
      { heading: 'slowed\nfrom', ...right },
      { heading: 'collapsed\nfrom', ...right },
    ],
    thresholds.map(({ algorithm, unharmedUpTo, slowedFrom, collapsedFrom }) => [
      basename(algorithm),
      nats(unharmedUpTo),
      nats(slowedFrom),
      nats(collapsedFrom),
    ]),
  );
}

/** What the grid shows and no more: which groups collapsed, and what limits the comparison. */
function verdict(groups: readonly GridGroup[]): string {
  const name = (group: GridGroup) => `${basename(group.algorithm)} in ${group.training}:${group.rollout}`;
  const collapsed = groups.filter((group) => group.collapsedAt.length > 0);
  const sentences = [
    collapsed.length === 0
      ? 'No run collapsed.'
      : `Collapsed: ${collapsed.map((group) => `${name(group)} (${collapses(group)})`).join(', ')}.`,
  ];
  for (const algorithm of new Set(collapsed.map((group) => group.algorithm))) {
    const [least, ...others] = groups
      .filter((group) => group.algorithm === algorithm)
      .sort((a, b) => a.startSpread.mean - b.startSpread.mean);
    if (others.length === 0) {
      sentences.push(
        `${basename(algorithm)} has no twin in another precision: the learning rate may be to blame.`,
      );
    } else if (least!.collapsedAt.length > 0) {
      sentences.push(
        `${name(least!)}, its least mismatch, collapsed too: the learning rate may be to blame.`,
      );
    }
  }
  if (groups.some(({ recovered = 0 }) => recovered > 0)) {
    sentences.push('Back: above 80 % of its peak again at the end.');
  }
  const open = groups.filter((group) => group.finished < group.seeds.length);
  if (open.length > 0) sentences.push(`Not at their last step: ${open.map(name).join(', ')}.`);
  const few = groups.filter((group) => group.seeds.length < 3);
  if (few.length > 0) sentences.push('Fewer than three seeds in some groups: differences may be chance.');
  return sentences.join(' ');
}

/** How many runs collapsed, and how many of them were back above 80 % of their peak at the end. */
function collapses({ collapsedAt, seeds, recovered = 0 }: GridGroup): string {
  return `${collapsedAt.length} of ${seeds.length}${recovered > 0 ? `, ${recovered} back` : ''}`;
}

function costLines({ costs, groups }: GridSummary): string[] {
  if (groups.length === 0 || !Number.isFinite(costs.oldPassShare)) return [];
  const percent = (share: number) => `${(100 * share).toFixed(0)} %`;
  const text =
    `The pass for pi_old takes ${percent(costs.oldPassShare)} of the training engine's time and ` +
    `${percent(costs.oldPassShareOfStep)} of a step (the paper: about 25 % of training).`;
  const fp32 =
    costs.fp32RolloutCost === null
      ? ''
      : ` Rollout in fp32 takes ${formatNumber(costs.fp32RolloutCost)} times as long as in 16 bits (the paper: about 3).`;
  return wrap(text + fp32);
}
