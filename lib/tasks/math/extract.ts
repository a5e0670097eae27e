/** Finds the answer that a response gives. */

/**
 * Where an answer may stand:
 * - `boxed`: in the last `\boxed` alone, as the prompts of mathematical data sets ask for;
 * - `stated`: or, without a box, in the last `<answer>...</answer>` or behind the last `####`, `answer:` or `answer is`;
 * - `plain`: or else in the last line that is not empty.
 */
export type AnswerPlace = 'boxed' | 'stated' | 'plain';

/** Characters at the end of a response among which a statement is looked for: a few pages. */
const TAIL = 20_000;

const [BACKSLASH, OPEN, CLOSE] = [...'\\{}'].map((sign) => sign.charCodeAt(0));

/** The answer in `response`, in time linear in its length; undefined where there is none in the places allowed. */
export function extractAnswer(response: string, place: AnswerPlace = 'boxed'): string | undefined {
  const box = lastBox(response);
  if (box !== undefined) return boxContent(response, box);
  if (place === 'boxed') return undefined;
  const tail = response.slice(-TAIL);
  return statedAnswer(tail) ?? (place === 'plain' ? lastLine(tail) : undefined);
}

/**
 * What the last `\boxed{...}` of `text` encloses (`\fbox{...}` where there is no `\boxed`), by TeX's rules for braces:
 * `\{` is none of them.
 *
 * Without braces, as in `$\boxed 5$`, it is what follows up to the end of the formula or line. Undefined where there is
 * no box or where the last one is never closed; a box within another is the later one.
 */
export function lastBoxed(text: string): string | undefined {
  return extractAnswer(text, 'boxed');
}

/**
 * The answer in what a data set has for one: what the last box of a whole solution holds, or what stands behind the `####`
 * that begins its last line, as GSM8K has it; else all of it.
 */
export function goldOf(text: string): string {
  return lastBoxed(text) ?? /(?:^|\n)####[ \t]*([^\n]+)\s*$/.exec(text.slice(-TAIL))?.[1]?.trim() ?? text;
}

/** The index behind the command that opens the last box. */
function lastBox(text: string): number | undefined {
  return lastCommand(text, '\\boxed') ?? lastCommand(text, '\\fbox');
}

/** The index behind the last `command` that is not the beginning of a longer one, as of `\boxedarray`. */
function lastCommand(text: string, command: string): number | undefined {
  for (let at = text.lastIndexOf(command); at >= 0; at = at === 0 ? -1 : text.lastIndexOf(command, at - 1)) {
    const end = at + command.length;
    const next = (text.charCodeAt(end) || 0) | 0x20;
    if (next < 0x61 || next > 0x7a) return end;
  }
  return undefined;
}

function boxContent(text: string, start: number): string | undefined {
  let at = start;
  while (/\s/.test(text[at] ?? '')) at++;
  if (text[at] !== '{') {
    const rest = text.slice(at);
    const end = rest.search(/\$|\\\)|\\\]|\n/);
    return (end < 0 ? rest : rest.slice(0, end)).trim() || undefined;
  }
  const first = at + 1;
  for (let depth = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (code === BACKSLASH) at++;
    else if (code === OPEN) depth++;
    else if (code === CLOSE && --depth === 0) return text.slice(first, at).trim();
  }
  return undefined;
}

const STATEMENT = /#{4}|\banswer(?:\s+is)?\s*:|\banswer\s+is\b/gi;

function statedAnswer(text: string): string | undefined {
  const open = text.lastIndexOf('<answer>');
  const close = text.indexOf('</answer>', open);
  if (open >= 0 && close >= 0) return text.slice(open + '<answer>'.length, close).trim() || undefined;
  const statement = [...text.matchAll(STATEMENT)].at(-1);
  if (!statement) return undefined;
  const line = text
    .slice(statement.index + statement[0].length)
    .trimStart()
    .split('\n', 1)[0]!
    .replaceAll('**', '');
  // A formula is the answer by itself; else the rest of the sentence is.
  const formula = /^(\$\$?)([^$]+)\1/.exec(line) ?? /^(\\\()(.+?)\\\)/.exec(line);
  return (formula ? formula[2]! : line.split(/\.(?:\s|$)/, 1)[0]!).trim() || undefined;
}

function lastLine(text: string): string | undefined {
  return text.trim().split('\n').at(-1)!.trim() || undefined;
}
