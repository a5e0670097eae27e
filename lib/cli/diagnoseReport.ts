/** A diagnosis as text on stdout. */
import type { Diagnosis, Verdict } from '../diagnose/diagnosis.js';
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
import { colored, formatTable, PAGE_WIDTH, wrap } from './format.js';
import { clip, clipMiddle, clipQuoted, displayWidth, printable } from './terminalText.js';

const colorOf = { 'NOISE FLOOR': 'green', SUSPICIOUS: 'yellow', BROKEN: 'red' } as const satisfies Record<
  Verdict,
  string
>;

export interface DiagnosisTextOptions {
  /** Default false. */
  readonly color?: boolean;
  /** Columns; default 80, and no less than that. */
  readonly width?: number;
}

/**
 * A diagnosis in the order in which it is read: verdict, prechecks, signatures, effect on learning, worst tokens,
 * provenance. No line is longer than `width` columns: longer ids, texts, paths and commands are cut, with an ellipsis;
 * the JSON has them whole.
 */
export function diagnosisText(diagnosis: Diagnosis, options: DiagnosisTextOptions = {}): string {
  const { color = false } = options;
  const width = Math.max(options.width ?? PAGE_WIDTH, PAGE_WIDTH);
  return [
    verdictLines(diagnosis, color, width),
    precheckLines(diagnosis, width),
    signatureLines(diagnosis, width),
    effectLines(diagnosis, color, width),
    worstLines(diagnosis, width),
    provenanceLines(diagnosis, width),
  ]
    .map((lines) => lines.join('\n'))
    .join('\n\n');
}

/** Wrapped text behind a lead, the other lines under its beginning; of words too long for a line the middle is cut. */
function paragraph(text: string, width: number, lead = ''): string[] {
  const room = width - displayWidth(lead);
  return wrap(shortWords(text, room), room).map((line, i) =>
    `${i === 0 ? lead : ' '.repeat(displayWidth(lead))}${line}`.trimEnd(),
  );
}

/** Printable text, of whose words longer than `room` the middle is cut. */
function shortWords(text: string, room: number): string {
  return printable(text)
    .split(' ')
    .map((word) => clipMiddle(word, room))
    .join(' ');
}

function verdictLines(diagnosis: Diagnosis, color: boolean, width: number): string[] {
  const { verdict, causeText, confidence, action, alternatives } = diagnosis;
  const lines = paragraph(
    `${verdict}  most likely cause: ${causeText} (confidence ${percent(confidence)})`,
    width,
  );
  return [
    lines[0]!.replace(verdict, colored(verdict, colorOf[verdict], color)),
    ...lines.slice(1),
    ...paragraph(`Do: ${action}`, width),
    ...(alternatives.length === 0
      ? []
      : paragraph(`These data can't tell it from: ${alternatives.join(', ')}.`, width)),
    ...paragraph(comparedText(diagnosis), width),
  ];
}

/** Lines that an example takes at most, or one more: ids may be texts. */
const EXAMPLE_LINES = 4;

function precheckLines({ prechecks }: Diagnosis, width: number): string[] {
  if (prechecks.length === 0) return ['Prechecks: both sides align.'];
  return [
    'Prechecks:',
    ...prechecks.flatMap((precheck) => [
      ...paragraph(`${precheck.kind}: ${precheckText(precheck)}`, width, '- '),
      ...precheck.examples.flatMap((example) =>
        paragraph(clipMiddle(shortWords(example, width - 4), EXAMPLE_LINES * width), width, '  - '),
      ),
    ]),
  ];
}

function signatureLines({ signatures }: Diagnosis, width: number): string[] {
  const found = signatures.filter((signature) => signature.found);
  // How large the mismatch is beside the floor is of interest in any case.
  const told = signatures.filter((signature) => signature.found || signature.name === 'floor');
  const others = signatures.filter((signature) => !told.includes(signature)).map(({ name }) => name);
  return [
    found.length === 0 ? 'Signatures: none found.' : 'Signatures found:',
    ...told.flatMap((signature) => {
      const { name, title, evidence } = signature;
      const remarks = [signature.found ? '' : 'not found', explainedText(signature.explained)];
      const remark = remarks.filter((text) => text !== '').join(', ');
      return [
        ...paragraph(`${name}: ${title}${remark === '' ? '' : ` (${remark})`}`, width, '- '),
        ...paragraph(evidence, width, '    '),
      ];
    }),
    ...(others.length === 0 ? [] : paragraph(`not found: ${others.join(', ')}`, width, '- ')),
  ];
}

function effectLines({ effect }: Diagnosis, color: boolean, width: number): string[] {
  if (effect === null) return ['Effect on learning: nothing could be compared.'];
  const right = { align: 'right' } as const;
  const { frozen, text } = frozenText(effect);
  const warning = paragraph(text, width);
  return [
    'Effect on learning:',
    formatTable(
      effectHeadings.map((heading, c) => ({ heading, ...(c > 0 && right) })),
      effectRows(effect),
      width,
    ),
    ...paragraph(effectNote, width),
    '',
    formatTable(
      correctionHeadings.map((heading, c) => ({ heading, ...(c > 0 && c < 5 && right) })),
      correctionRows(effect),
      width,
    ),
    ...warning.map((line) => (frozen ? colored(line, 'red', color) : line)),
  ];
}

/** Columns that an id takes at most, and that the text of a token has at least. */
const ID_WIDTH = 18;
const TEXT_WIDTH = 8;

function worstLines({ worst }: Diagnosis, width: number): string[] {
  if (worst.length === 0) return ['Worst tokens: none, no two log-probs differ.'];
  const headings = ['position', 'token', 'log mu', 'log pi', 'mu - pi'];
  const numbers = worst.map(({ position, token, logMu, logPi }) => [
    String(position),
    token === null ? '-' : String(token),
    logprobText(logMu),
    logprobText(logPi),
    logprobText(logMu - logPi),
  ]);
  const taken = headings.reduce(
    (sum, heading, c) => sum + 2 + Math.max(heading.length, ...numbers.map((row) => row[c]!.length)),
    0,
  );
  const ids = worst.map(({ id }) => clip(id, Math.min(ID_WIDTH, width - taken - 2 - TEXT_WIDTH)));
  const room = width - taken - 2 - Math.max('sample'.length, ...ids.map(displayWidth));
  return [
    'Worst tokens, position from 0 in the response, log-probs in nats:',
    formatTable(
      [
        { heading: 'sample' },
        ...headings.map((heading) => ({ heading, align: 'right' as const })),
        { heading: 'text' },
      ],
      worst.map(({ text }, i) => [ids[i]!, ...numbers[i]!, text === null ? '-' : clipQuoted(text, room)]),
      width,
    ),
  ];
}

function provenanceLines(diagnosis: Diagnosis, width: number): string[] {
  const { files, command } = diagnosis.provenance;
  return [
    'Provenance:',
    ...files.flatMap((file) => [
      `- ${clipMiddle(`${file.side}: ${file.path}`, width - 2)}`.trimEnd(),
      ...paragraph(fileText(file), width, '    '),
      `    sha256 ${file.sha256}`,
    ]),
    `- ${madeByText(diagnosis)}`,
    ...paragraph(command, width, '- '),
  ];
}
