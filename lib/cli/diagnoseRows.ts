/** What the text and the Markdown of a diagnosis have in common: its numbers in words and in rows of tables. */
import type { Diagnosis, FileProvenance, LearningEffect, Precheck } from '../diagnose/diagnosis.js';
import type { Interval } from '../mismatch/bootstrap.js';
import { isHealthy, metricDefinitions, rangeText } from '../mismatch/definitions.js';
import type { MismatchMetrics } from '../mismatch/metrics.js';
import { FROZEN_SHARE } from '../rl/corrections/correct.js';
import { count, formatBytes, formatNumber, formatShare } from './format.js';

export function percent(share: number): string {
  return `${(100 * share).toFixed(0)} %`;
}

/** A whole number in groups of three digits. */
function grouped(value: number): string {
  return value.toLocaleString('en-US');
}

/** Below either, most signatures have too little to go by. */
const LITTLE = { responses: 8, tokens: 200 };
const littleNote = 'So little can clear nothing: faults may go unseen, give more responses.';

/** What was compared with what, and whether that is much. */
export function comparedText({ counts, dtype }: Diagnosis): string {
  const { responses, comparedResponses, comparedTokens, maskedTokens, signatureTokens } = counts;
  const isLittle =
    comparedTokens > 0 && (comparedResponses < LITTLE.responses || comparedTokens < LITTLE.tokens);
  const of =
    responses.rollout === responses.training
      ? grouped(responses.rollout)
      : `${grouped(responses.rollout)} (rollout) and ${grouped(responses.training)} (training)`;
  const looked =
    signatureTokens < comparedTokens ? `, ${grouped(signatureTokens)} of them for the signatures` : '';
  return (
    `Compared: ${grouped(comparedResponses)} of ${of} responses, ${grouped(comparedTokens)} tokens${looked}; ` +
    `${grouped(maskedTokens)} masked.${isLittle ? ` ${littleNote}` : ''} Floor: ${dtype.name}${dtype.declared ? '' : ' (not declared: told by the numbers)'}.`
  );
}

export function precheckText({ count: n, of, unit, leftOut, text }: Precheck): string {
  return `${grouped(n)} of ${grouped(of)} ${unit}${leftOut ? ', left out' : ''}: ${text}`;
}

/** How much of the mismatch a signature would account for; nothing where it doesn't say. */
export function explainedText(explained: number | null): string {
  return explained === null ? '' : `explains ${percent(explained)}`;
}

/** A ratio with as many digits as it takes to tell it from 1. */
function ratioText(ratio: number): string {
  const distance = Math.abs(ratio - 1);
  if (distance === 0 || !(distance < 0.1)) return formatNumber(ratio);
  return ratio.toFixed(Math.min(9, 2 - Math.floor(Math.log10(distance))));
}

export const effectHeadings = ['measure', 'value', '95 % interval', 'healthy'] as const;

/** Rows under {@link effectHeadings}; behind a value `!` where it is outside of its healthy range, else a space. */
export function effectRows(effect: LearningEffect): string[][] {
  const row = (
    label: string,
    { value, low, high }: Interval,
    text: (value: number) => string,
    mark = ' ',
    healthy = '',
  ) => [label, `${text(value)}${mark}`, `${text(low)} to ${text(high)}`, healthy];
  const metric = (name: keyof MismatchMetrics, interval: Interval) => {
    const { label, healthy } = metricDefinitions[name];
    const mark = isHealthy(name, interval.value) === false ? '!' : ' ';
    return row(label, interval, formatNumber, mark, healthy && rangeText(healthy));
  };
  const at = (q: number) => `${Number((100 * q).toPrecision(6))} %`;
  return [
    metric('klMuPiK1', effect.klMuPiK1),
    metric('klMuPiK3', effect.klMuPiK3),
    metric('chi2Token', effect.chi2Token),
    metric('chi2Sequence', effect.chi2Sequence),
    metric('essToken', effect.essToken),
    metric('ess', effect.essSequence),
    ...effect.ratioQuantiles.map(({ q, ...interval }) => row(`r, ${at(q)}`, interval, ratioText)),
    ...effect.seqLogRatioQuantiles.map(({ q, ...interval }) => row(`L, ${at(q)}`, interval, formatNumber)),
  ];
}

export const effectNote =
  'Raw, before any bound: r = pi / mu of a token, L = sum of log pi - log mu of a response, nats. Intervals are of whole ' +
  'responses drawn again. ESS: effective sample size, 1 where all weights are equal. !: outside of the healthy range.';

export const correctionHeadings = [
  'correction',
  'tokens\nkept',
  'responses\nkept',
  'signal\nleft',
  'ESS of\nweights',
  'rule',
] as const;

/** Rows under {@link correctionHeadings}. */
export function correctionRows({ corrections }: LearningEffect): string[][] {
  return corrections.map(({ correction, rule, keptTokens, keptResponses, signalShare, ess }) => [
    correction,
    formatShare(keptTokens),
    formatShare(keptResponses),
    formatShare(signalShare),
    Number.isNaN(ess) ? '-' : formatNumber(ess),
    rule,
  ]);
}

/** Which corrections would freeze the policy, or that none would. */
export function frozenText({ corrections, lengths }: LearningEffect): { frozen: boolean; text: string } {
  const names = corrections.filter(({ frozen }) => frozen).map(({ correction }) => correction);
  const { min, median, max } = lengths;
  const at =
    min === max
      ? `responses of ${count(max, 'token')}`
      : `responses of ${grouped(min)} to ${grouped(max)} tokens, median ${grouped(median)}`;
  return names.length === 0
    ? { frozen: false, text: `No correction would freeze the policy, at ${at}.` }
    : {
        frozen: true,
        text: `POLICY FROZEN: with ${names.join(', ')} less than ${percent(FROZEN_SHARE)} of the signal or of the responses is left, at ${at}.`,
      };
}

/** A log-prob, or a difference of two, in a table. */
export function logprobText(value: number): string {
  const size = Math.abs(value);
  return size >= 1e-3 && size < 1e4 ? value.toFixed(4) : formatNumber(value);
}

export function fileText({ bytes, format, compressed, responses }: FileProvenance): string {
  return `${formatBytes(bytes)}${compressed ? ' compressed' : ''}, format ${format}, ${grouped(responses)} response${responses === 1 ? '' : 's'}`;
}

export function madeByText({ provenance: { version, node } }: Diagnosis): string {
  return `isopolicy ${version} on Node ${node}`;
}
