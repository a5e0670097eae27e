/** What may stand behind a number: units, in one spelling each, and words such as `million` that belong to the number. */
import { Unreadable } from './budget.js';
import type { Token } from './lexer.js';
import { NO_UNIT, SCALES, UNITS } from './vocabulary.js';

/** Most words of a unit or a description such as `distinct integers`. */
const MAX_WORDS = 4;

/** Signs before or behind a number that are units. */
export const CURRENCIES: ReadonlySet<string> = new Set(['$', '€', '£', '¥', '¢']);

/** Takes `million` and the like off the front of `tail`; the number that it multiplies by. */
export function takeScale(tail: Token[]): bigint {
  let scale = 1n;
  while (tail[0]?.kind === 'word' && SCALES.has(tail[0].text)) {
    scale *= SCALES.get(tail.shift()!.text)!;
    if (scale > 10n ** 30n) throw new Unreadable('number too long');
  }
  return scale;
}

/**
 * The unit that `tail` names, `cm^2` for `square centimeters` and `cm^{2}` alike; words that are no known unit stay, in
 * the singular. Undefined for no tokens.
 *
 * @throws Unreadable for anything that is more than a unit
 */
export function unitOf(tail: readonly Token[]): string | undefined {
  const parts: string[] = [];
  let words = 0;
  for (const [i, token] of tail.entries()) {
    const { kind, text } = token;
    if (kind === 'word' && isUnitWord(text) && ++words <= MAX_WORDS)
      parts.push(UNITS.get(text) ?? singular(text));
    else if (kind === 'mark' && (text === '%' || text === '°' || CURRENCIES.has(text))) parts.push(text);
    else if (kind === 'mark' && text === '/' && i > 0 && i < tail.length - 1) parts.push('/');
    else if (
      kind === 'mark' &&
      (text === '^' || text === '{' || text === '}' || text === '.' || text === '-') &&
      i > 0
    ) {
      if (text === '^') parts.push('^');
    } else if (kind === 'number' && parts.at(-1) === '^') parts.push(text);
    else throw new Unreadable(`no unit: ${text}`);
  }
  return parts.length === 0 ? undefined : withPowers(parts).join(' ');
}

/** `square cm` and `cm square` as `cm^2`. */
function withPowers(parts: readonly string[]): string[] {
  const units: string[] = [];
  let exponent = '';
  for (const part of parts) {
    const named = part === 'square' ? '^2' : part === 'cubic' ? '^3' : undefined;
    if (part === '^' || (named && units.length > 0)) units.push(`${units.pop() ?? ''}${named ?? '^'}`);
    else if (named) exponent = named;
    else if (units.at(-1)?.endsWith('^')) units.push(`${units.pop()}${part}`);
    else {
      units.push(`${part}${exponent}`);
      exponent = '';
    }
  }
  if (exponent) throw new Unreadable('a square of nothing');
  return units;
}

/** Any word but those that are mathematics; of letters those that are units. */
function isUnitWord(word: string): boolean {
  return word.length > 1 ? !NO_UNIT.has(word) : /[msghlLACFJKNVW]/.test(word);
}

function singular(word: string): string {
  return word.length > 3 && word.endsWith('s') && !word.endsWith('ss') ? word.slice(0, -1) : word;
}
