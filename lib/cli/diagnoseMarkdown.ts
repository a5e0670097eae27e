/** A diagnosis as GitHub Markdown, for an issue or a pull request. */
import type { Diagnosis } from '../diagnose/diagnosis.js';
import {
  comparedText,
  correctionHeadings,
  correctionRows,
  effectHeadings,
  effectNote,
  effectRows,
  explainedText,
  fileText,
  frozenText,
  logprobText,
  madeByText,
  percent,
  precheckText,
} from './diagnoseRows.js';
import { printable } from './terminalText.js';

/** The same as the text of a diagnosis, in the same order, and nothing in it is cut. */
export function diagnosisMarkdown(diagnosis: Diagnosis): string {
  return `${[
    ...verdictParts(diagnosis),
    ...precheckParts(diagnosis),
    ...signatureParts(diagnosis),
    ...effectParts(diagnosis),
    ...worstParts(diagnosis),
    ...provenanceParts(diagnosis),
  ].join('\n\n')}\n`;
}

/** Text that is no markup: on one line, what Markdown or HTML might take for a sign of their own as an entity. */
function plain(text: string): string {
  return printable(text).replace(/[&<>|`*_[\]\\~#$@]/g, (char) => `&#${char.charCodeAt(0)};`);
}

/** Data of others, in which no name may become a mention and no address a link. */
function code(text: string): string {
  return text === '' ? '' : `<code>${plain(text)}</code>`;
}

function table(headings: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`;
  return [
    line(headings.map((heading) => plain(heading.replaceAll('\n', ' ')))),
    line(headings.map(() => '---')),
    ...rows.map(line),
  ].join('\n');
}

function verdictParts(diagnosis: Diagnosis): string[] {
  const { verdict, causeText, confidence, action, alternatives } = diagnosis;
  return [
    `## ${verdict}`,
    `**Most likely cause:** ${plain(causeText)} (confidence ${percent(confidence)})`,
    `**Do:** ${plain(action)}`,
    ...(alternatives.length === 0
      ? []
      : [`These data can't tell it from: ${plain(alternatives.join(', '))}.`]),
    plain(comparedText(diagnosis)),
  ];
}

function precheckParts({ prechecks }: Diagnosis): string[] {
  if (prechecks.length === 0) return ['### Prechecks', 'Both sides align.'];
  const items = prechecks.flatMap((precheck) => [
    `- **${precheck.kind}**: ${plain(precheckText(precheck))}`,
    ...precheck.examples.map((example) => `  - ${code(example)}`),
  ]);
  return ['### Prechecks', items.join('\n')];
}

function signatureParts({ signatures }: Diagnosis): string[] {
  const sorted = [...signatures].sort((a, b) => Number(b.found) - Number(a.found));
  return [
    '### Signatures',
    table(
      ['signature', 'found', 'explains', 'evidence'],
      sorted.map(({ name, title, found, explained, evidence }) => [
        `${name}: ${plain(title)}`,
        found ? '**yes**' : 'no',
        explainedText(explained).replace('explains ', ''),
        plain(evidence),
      ]),
    ),
  ];
}

function effectParts({ effect }: Diagnosis): string[] {
  if (effect === null) return ['### Effect on learning', 'Nothing could be compared.'];
  const { frozen, text } = frozenText(effect);
  return [
    '### Effect on learning',
    table(
      effectHeadings,
      effectRows(effect).map((row) => row.map((cell) => plain(cell.trimEnd()))),
    ),
    plain(effectNote),
    table(
      correctionHeadings,
      correctionRows(effect).map((row) => row.map(plain)),
    ),
    frozen ? `**${plain(text)}**` : plain(text),
  ];
}

function worstParts({ worst }: Diagnosis): string[] {
  if (worst.length === 0) return ['### Worst tokens', 'None, no two log-probs differ.'];
  return [
    '### Worst tokens',
    table(
      ['sample', 'position', 'token', 'text', 'log mu', 'log pi', 'log mu - log pi', 'where'],
      worst.map(({ id, position, length, token, text, logMu, logPi, places }) => [
        code(id),
        `${position} of ${length}`,
        token === null ? '' : String(token),
        text === null ? '' : code(JSON.stringify(text)),
        logprobText(logMu),
        logprobText(logPi),
        logprobText(logMu - logPi),
        places.rollout === places.training
          ? code(places.rollout)
          : `${code(places.rollout)}, ${code(places.training)}`,
      ]),
    ),
  ];
}

function provenanceParts(diagnosis: Diagnosis): string[] {
  const { files, command } = diagnosis.provenance;
  return [
    '### Provenance',
    table(
      ['side', 'file', 'what', 'sha256'],
      files.map((file) => [file.side, code(file.path), plain(fileText(file)), `<code>${file.sha256}</code>`]),
    ),
    `${plain(madeByText(diagnosis))}: ${code(command)}`,
  ];
}
