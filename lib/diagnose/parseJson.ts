/**
 * JSON as Python writes it, too: with the bare words NaN, Infinity and -Infinity, which become strings.
 *
 * @throws SyntaxError for anything else, as JSON.parse does
 */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    const quoted = quoteBareWords(text);
    if (quoted === text) throw error;
    try {
      return JSON.parse(quoted);
    } catch {
      throw error;
    }
  }
}

/** Puts the words in quotes wherever they stand outside of a string. */
function quoteBareWords(text: string): string {
  let out = '';
  for (let start = 0; ; ) {
    const quote = text.indexOf('"', start);
    const end = quote < 0 ? text.length : quote;
    out += text.slice(start, end).replace(/(?<![\w.+-])(?:NaN|-?Infinity)(?![\w.+-])/g, '"$&"');
    if (quote < 0) return out;
    start = endOfString(text, quote);
    out += text.slice(quote, start);
  }
}

/** The place after the string that begins at `quote`. */
function endOfString(text: string, quote: number): number {
  for (let close = quote; ; ) {
    close = text.indexOf('"', close + 1);
    if (close < 0) return text.length;
    let escapes = 0;
    while (text[close - 1 - escapes] === '\\') escapes++;
    if (escapes % 2 === 0) return close + 1;
  }
}
