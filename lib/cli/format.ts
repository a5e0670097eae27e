/** Numbers, durations and tables as every command prints them. */
import { displayWidth } from './terminalText.js';

/** A table or a paragraph is at most this wide. */
export const PAGE_WIDTH = 80;

/**
 * A number in `digits` significant digits: plain between 0.001 and a million, `1.2e-6` beyond. Exactly 0 is `0`, and
 * nothing else is.
 */
export function formatNumber(value: number, digits = 3): string {
  if (value === 0 || !Number.isFinite(value)) return String(value === 0 ? 0 : value);
  const [mantissa, exponent] = value.toExponential(digits - 1).split('e') as [string, string];
  const power = Number(exponent);
  if (power < -3 || power >= 6) return `${mantissa}e${power}`;
  return power >= digits ? value.toFixed(0) : value.toFixed(digits - 1 - power);
}

/** A loss scale: a whole number as it is, any other as {@link formatNumber} has it. */
export function formatScale(scale: number): string {
  return Number.isInteger(scale) && Math.abs(scale) < 1e9 ? String(scale) : formatNumber(scale);
}

/** A share between 0 and 1, always in three decimals. */
export function formatShare(value: number): string {
  return value.toFixed(3);
}

/** A count in at most four characters and its unit of a thousand: 840, 8.4k, 84k, 1.2M. */
export function formatCount(value: number): string {
  if (!Number.isFinite(value)) return String(value);
  let scaled = value;
  for (const unit of ['', 'k', 'M', 'G']) {
    const text = unit === '' || Math.abs(scaled) >= 9.95 ? scaled.toFixed(0) : scaled.toFixed(1);
    if (Math.abs(Number(text)) < 1000) return `${text}${unit}`;
    scaled /= 1000;
  }
  return `${(scaled * 1000).toFixed(0)}G`;
}

export { formatBytes } from '../bytes.js';

/** Seconds as a clock, to the second: 0:21, 12:05, 1:02:03; a question mark where they are not known. */
export function formatClock(seconds: number): string {
  if (!Number.isFinite(seconds)) return '?';
  const whole = Math.max(0, Math.round(seconds));
  const two = (n: number) => String(n).padStart(2, '0');
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  return hours > 0 ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}

/** Seconds in words: 0.84 s, 58 s, 4 min 12 s, 1 h 3 min. */
export function formatDuration(seconds: number): string {
  if (seconds < 9.995) return `${formatNumber(Math.max(0, seconds), seconds < 1 ? 2 : 3)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  const minutes = Math.round(seconds / 60);
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/**
 * A value as one line of JSON; NaN and infinities are the strings that the run directory uses, integers of 64 bits strings,
 * too.
 */
export function toJson(value: unknown): string {
  return JSON.stringify(value, (_key, item) =>
    typeof item === 'bigint' || (typeof item === 'number' && !Number.isFinite(item)) ? String(item) : item,
  );
}

export interface Column {
  /** A line feed starts a second line of the heading. */
  readonly heading: string;
  readonly align?: 'left' | 'right';
}

/**
 * Rows under headings, two spaces between columns, one where two leave no room. The last column is wrapped at words so
 * that no line is longer than `width`, as long as the others leave it room for its longest word.
 */
export function formatTable(
  columns: readonly Column[],
  rows: readonly (readonly string[])[],
  width = PAGE_WIDTH,
): string {
  const headings = columns.map(({ heading }) => heading.split('\n'));
  const widths = columns.map((_, c) =>
    Math.max(...headings[c]!.map(displayWidth), ...rows.map((row) => displayWidth(row[c]!))),
  );
  const last = columns.length - 1;
  const others = widths.slice(0, last).reduce((sum, w) => sum + w, 0);
  const texts = rows.map((row) => row[last]!);
  // Numbers are not broken where they need not be.
  const whole = columns[last]!.align === 'right' && others + last + widths[last]! <= width;
  const parts = whole ? texts : texts.flatMap((text) => text.split(' '));
  const word = Math.max(...[...headings[last]!, ...parts].map(displayWidth));
  const gap = others + 2 * last + word > width ? 1 : 2;
  widths[last] = Math.max(1, word, Math.min(widths[last]!, width - others - gap * last));

  const lines: string[] = [];
  const addRow = (cells: readonly (readonly string[])[]) => {
    for (let i = 0; i < Math.max(...cells.map((cell) => cell.length)); i++) {
      const line = columns.map(({ align }, c) => {
        const text = cells[c]![i] ?? '';
        const rest = ' '.repeat(Math.max(0, widths[c]! - displayWidth(text)));
        return align === 'right' ? rest + text : text + rest;
      });
      lines.push(line.join(' '.repeat(gap)).trimEnd());
    }
  };
  addRow(headings);
  addRow(widths.map((w) => ['-'.repeat(w)]));
  for (const row of rows) {
    addRow(row.map((cell, c) => (c === last ? wrap(cell, widths[c]!) : [cell])));
  }
  return lines.join('\n');
}

/** Text in lines of at most `width`, broken at spaces; a longer word has a line of its own. */
export function wrap(text: string, width = PAGE_WIDTH): string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(' ')) {
    if (line !== '' && displayWidth(line) + 1 + displayWidth(word) > width) {
      lines.push(line);
      line = word;
    } else {
      line = line === '' ? word : `${line} ${word}`;
    }
  }
  return [...lines, line];
}

/** A number and its noun: 1 step, 2 steps. */
export function count(n: number, noun: string): string {
  return `${n} ${noun}${n === 1 ? '' : 's'}`;
}

/** A path as a shell takes it. */
export function quoted(path: string): string {
  return /^[\w@%+=:,./-]+$/.test(path) ? path : `'${path.replaceAll("'", "'\\''")}'`;
}

/** Whether a stream is a terminal whose user wants colour (no-color.org). */
export function wantsColor(stream: { readonly isTTY?: boolean }): boolean {
  return stream.isTTY === true && !process.env.NO_COLOR && process.env.TERM !== 'dumb';
}

const colors = { red: 31, green: 32, yellow: 33 } as const;

/** Text in a colour where `enabled`. */
export function colored(text: string, color: keyof typeof colors, enabled: boolean): string {
  return enabled ? `\x1b[${colors[color]}m${text}\x1b[39m` : text;
}
