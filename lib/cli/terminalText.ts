/** Text of others (ids, tokens, paths) as a terminal can show it: nothing moves the cursor, and columns can be counted. */

/** What takes two columns: East Asian wide characters and emoji. */
const WIDE =
  /[\u1100-\u115f\u2329\u232a\u2e80-\u303e\u3041-\ua4cf\ua960-\ua97c\uac00-\ud7a3\uf900-\ufaff\ufe10-\ufe19\ufe30-\ufe6f\uff01-\uff60\uffe0-\uffe6\u{16fe0}-\u{18aff}\u{1b000}-\u{1b2ff}\u{1f300}-\u{1faff}\u{20000}-\u{3fffd}]|\p{Emoji_Presentation}|\p{Emoji_Modifier}/u;
const ASCII = /^[ -~]*$/;
const NAMES: Readonly<Record<string, string>> = { '\n': '\\n', '\r': '\\r', '\t': '\\t' };

/** Columns that text takes, or a few more: a combining mark counts as one. */
export function displayWidth(text: string): number {
  if (ASCII.test(text)) return text.length;
  let width = 0;
  for (const char of text) width += WIDE.test(char) ? 2 : 1;
  return width;
}

/**
 * Control characters, invisible ones, those that turn the direction of writing, and halves of characters as escapes
 * (`\n`, `\u202e`, `\u{e0001}`), spaces other than the usual one, too.
 */
export function printable(text: string): string {
  return text.replace(/\p{C}|\p{Zl}|\p{Zp}|(?! )\p{Zs}/gu, (char) => {
    const code = char.codePointAt(0)!.toString(16);
    return NAMES[char] ?? (code.length > 4 ? `\\u{${code}}` : `\\u${code.padStart(4, '0')}`);
  });
}

/** Printable text in at most `width` columns, with an ellipsis where something was cut off; escapes stay whole. */
export function clip(text: string, width: number): string {
  const shown = printable(text);
  return displayWidth(shown) <= width ? shown : `${firstColumns(shown, width - 1)}…`;
}

/** The same with the ellipsis in the middle: what matters of a path with a line, or of a long message, is at its end, too. */
export function clipMiddle(text: string, width: number): string {
  const shown = printable(text);
  if (displayWidth(shown) <= width) return shown;
  const units = unitsOf(shown);
  const head = firstUnits(units, Math.floor((width - 1) / 2));
  const tail = firstUnits(units.reverse(), width - 1 - displayWidth(head.join('')));
  return `${head.join('')}…${tail.reverse().join('')}`;
}

/** The same in the quotes of JSON, `"like \"this\""`; of cut text the ellipsis is behind them. */
export function clipQuoted(text: string, width: number): string {
  const shown = printable(JSON.stringify(text));
  return displayWidth(shown) <= width ? shown : `${firstColumns(shown.slice(0, -1), width - 2)}"…`;
}

function firstColumns(text: string, width: number): string {
  return firstUnits(unitsOf(text), width).join('');
}

/** Characters, and escapes in one piece. */
function unitsOf(text: string): string[] {
  return Array.from(text.matchAll(/\\u\{[0-9a-f]+\}|\\u[0-9a-f]{4}|\\.|./gsu), ([unit]) => unit);
}

function firstUnits(units: readonly string[], width: number): string[] {
  let columns = 0;
  const beyond = units.findIndex((unit) => {
    columns += displayWidth(unit);
    return columns > width;
  });
  return beyond < 0 ? [...units] : units.slice(0, beyond);
}
