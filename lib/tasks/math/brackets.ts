/** Tokens by their brackets: what stands between separators, and what one pair of brackets encloses. */
import { isMark, type Token } from './lexer.js';

const OPENING: ReadonlySet<string> = new Set(['(', '[', '{', '\\{', '⟨', '⌊', '⌈']);
const CLOSING: ReadonlySet<string> = new Set([')', ']', '}', '\\}', '⟩', '⌋', '⌉']);

/** +1 for a token that opens a bracket, group or environment, -1 for one that closes it. Intervals may mix brackets. */
function nesting({ kind, text }: Token): number {
  if (kind === 'command') return text.startsWith('begin:') ? 1 : text.startsWith('end:') ? -1 : 0;
  if (kind !== 'mark') return 0;
  return OPENING.has(text) ? 1 : CLOSING.has(text) ? -1 : 0;
}

/** The runs of tokens between separators that stand outside of all brackets; one run where there is none. */
export function splitAt(
  tokens: readonly Token[],
  separates: (token: Token, index: number) => boolean,
): Token[][] {
  const parts: Token[][] = [[]];
  let depth = 0;
  for (const [i, token] of tokens.entries()) {
    depth += nesting(token);
    if (depth === 0 && separates(token, i)) parts.push([]);
    else parts.at(-1)!.push(token);
  }
  return parts;
}

/** The index of the token that closes what the first one opens; undefined where it opens nothing or is not closed. */
export function closing(tokens: readonly Token[]): number | undefined {
  let depth = 0;
  for (const [i, token] of tokens.entries()) {
    depth += nesting(token);
    if (depth <= 0) return i > 0 ? i : undefined;
  }
  return undefined;
}

/** What stands between the first token, one of `openers`, and the last, where that closes it. */
export function enclosed(tokens: readonly Token[], ...openers: string[]): readonly Token[] | undefined {
  const isWhole = isMark(tokens[0], ...openers) && closing(tokens) === tokens.length - 1;
  return isWhole ? tokens.slice(1, -1) : undefined;
}
