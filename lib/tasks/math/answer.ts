/** Reads what an answer says: a number with a unit, a list, a point or interval, a matrix, words, ... */
import { closing, enclosed, splitAt } from './brackets.js';
import { spend, Unreadable, withBudget } from './budget.js';
import { type Expression, letter, lettersOf, negate, number, product } from './expression.js';
import type { Answer, Form } from './form.js';
import { readFormula, wholeFormula } from './formula.js';
import { type CommaReading, isMark, joinTokens, type Token, tokensOf } from './lexer.js';
import { nameOf, readRelation, realLine } from './relation.js';
import { CURRENCIES, takeScale, unitOf } from './units.js';
import { BASES, SETS_IN_WORDS } from './vocabulary.js';

/** Longest answer that is read as more than text, in characters. */
export const MAX_LENGTH = 2000;
/** Most items of a list, cells of a matrix and the like. */
const MAX_ITEMS = 64;

const emptySet: Form = { kind: 'set', items: [] };

const MATRICES = /^begin:(p|b|B|small)?matrix$|^begin:array$/;

/** Work of reading an answer: some tokens are read again for every sign of a `\pm` before them. */
const WORK = 50_000;

/** What `text`, LaTeX or plain, says. Never throws, and takes a few milliseconds at most. */
export function parseAnswer(text: string, commas: CommaReading = 'thousands'): Answer {
  const opaque: Form = { kind: 'opaque' };
  const all = text.length <= MAX_LENGTH && withBudget(WORK, () => tokensOf(text, commas));
  if (!all) return { text: text.trim(), form: opaque };
  const tokens = stripped(all);
  return { text: joinTokens(tokens), form: withBudget(WORK, () => readAll(tokens)) ?? opaque };
}

/** Leaves off what ends a sentence, a sign that the answer followed, and a TeX group around everything. */
function stripped(tokens: readonly Token[]): readonly Token[] {
  const start = isMark(tokens[0], '=', ':') ? 1 : 0;
  const end = tokens.findLastIndex((token) => !isMark(token, '.', ',', ';', ':')) + 1;
  const inner = tokens.slice(start, Math.max(start, end));
  const group = enclosed(inner, '{');
  return group ? stripped(group) : inner;
}

/** A whole answer: one item, or several with commas, `or` or `and` between them. */
function readAll(tokens: readonly Token[]): Form {
  const parts = splitAt(tokens, (token) => isMark(token, ',', ';') || isConjunction(token));
  const items = parts.filter((part) => part.length > 0).flatMap(readAlternatives);
  if (items.length === 0) throw new Unreadable('nothing');
  if (items.length === 1) return items[0]!;
  const isEither =
    tokens.some((token) => token.text === 'or') && !tokens.some((token) => isMark(token, ',', ';'));
  return (isEither && unionOfRegions(items)) || { kind: 'list', items: limited(items) };
}

function isConjunction(token: Token): boolean {
  return token.kind === 'word' && (token.text === 'or' || token.text === 'and');
}

/** `x < 1 or x > 2` as the union of two intervals. */
function unionOfRegions(items: readonly Form[]): Form | undefined {
  const regions: Form[] = [];
  const names = new Set<string>();
  for (const item of items) {
    if (item.kind !== 'named' || (item.value.kind !== 'tuple' && item.value.kind !== 'union'))
      return undefined;
    names.add(item.name);
    regions.push(...(item.value.kind === 'union' ? item.value.items : [item.value]));
  }
  const [name] = names;
  return names.size === 1
    ? { kind: 'named', name: name!, value: { kind: 'union', items: regions } }
    : undefined;
}

function limited<T>(items: readonly T[]): readonly T[] {
  if (items.length > MAX_ITEMS) throw new Unreadable('too many items');
  return items;
}

/** The forms that `\pm` stands for: all combinations of signs, or two where a `\mp` ties them. Braces keep theirs. */
function readAlternatives(tokens: readonly Token[]): Form[] {
  const signs: number[] = [];
  let braces = 0;
  for (const [i, token] of tokens.entries()) {
    if (isMark(token, '\\{')) braces++;
    else if (isMark(token, '\\}')) braces--;
    else if (isMark(token, '±', '∓') && braces === 0) signs.push(i);
  }
  if (signs.length === 0) return [readOne(tokens)];
  if (signs.length > 3) throw new Unreadable('too many signs');
  const tied = signs.some((i) => tokens[i]!.text === '∓');
  return Array.from({ length: tied ? 2 : 2 ** signs.length }, (_, choice) => {
    const chosen = [...tokens];
    for (const [k, i] of signs.entries()) {
      const isMinus = tied ? (choice === 1) !== (tokens[i]!.text === '∓') : ((choice >> k) & 1) === 1;
      chosen[i] = { kind: 'mark', text: isMinus ? '-' : '+' };
    }
    return readOne(chosen);
  });
}

function readOne(tokens: readonly Token[]): Form {
  spend(tokens.length);
  const group = enclosed(tokens, '{');
  if (group) return readAll(stripped(group));
  return (
    readWords(tokens) ??
    readChoice(tokens) ??
    readRelation(tokens, readOne) ??
    readUnion(tokens) ??
    readMatrix(tokens) ??
    readBracketed(tokens) ??
    readDigits(tokens) ??
    readRatio(tokens) ??
    readQuantity(tokens)
  );
}

/** Words, perhaps with numbers among them (`October 30`); a number first makes it a quantity. */
function readWords(tokens: readonly Token[]): Form | undefined {
  const [first] = tokens;
  if (first?.kind !== 'word' && first?.kind !== 'letter') return undefined;
  const isText = tokens.every(
    (token) => ['word', 'letter', 'number'].includes(token.kind) || isMark(token, '-', "'", '.'),
  );
  if (!isText || !tokens.some((token) => token.kind === 'word' && token.text.length > 1)) return undefined;
  const spoken = tokens.filter((token) => !isMark(token, '.'));
  const text = joinTokens(spoken).toLowerCase();
  const set = SETS_IN_WORDS.get(text);
  if (set) return set === 'reals' ? realLine : emptySet;
  return { kind: 'words', text };
}

/** `(C) 12`, `C) 12`, `C. 12`, `C: 12` */
function readChoice(tokens: readonly Token[]): Form | undefined {
  const isBracketed = isMark(tokens[0], '(');
  const name = tokens[isBracketed ? 1 : 0];
  const end = tokens[isBracketed ? 2 : 1];
  if (!/^[A-J]$/.test(name?.text ?? '') || !isMark(end, ')', ...(isBracketed ? [] : ['.', ':'])))
    return undefined;
  const content = tokens.slice(isBracketed ? 3 : 2);
  const [next] = content;
  // After a letter in brackets a sign would make a formula of it.
  if (!next || (next.kind === 'mark' && !CURRENCIES.has(next.text))) return undefined;
  const form = readAll(content);
  // Two letters would be two answers.
  if (form.kind === 'quantity' && form.value.kind === 'letter') throw new Unreadable('a choice of a choice');
  return { kind: 'choice', letter: letter(name!.text), content: form };
}

/** `A \cup B`, and `U` between brackets. */
function readUnion(tokens: readonly Token[]): Form | undefined {
  const parts = splitAt(
    tokens,
    (token, i) =>
      isMark(token, 'cup') ||
      (token.text === 'U' && isMark(tokens[i - 1], ')', ']') && isMark(tokens[i + 1], '(', '[')),
  );
  return parts.length > 1 ? { kind: 'union', items: limited(parts.map(readOne)) } : undefined;
}

/** A matrix, perhaps with a factor before it. */
function readMatrix(tokens: readonly Token[]): Form | undefined {
  const start = tokens.findIndex((token) => token.kind === 'command' && MATRICES.test(token.text));
  if (start < 0 || closing(tokens.slice(start)) !== tokens.length - 1 - start) return undefined;
  if (tokens.at(-1)!.text !== tokens[start]!.text.replace('begin', 'end'))
    throw new Unreadable('another end');
  const before = tokens.slice(0, isMark(tokens[start - 1], '*') ? start - 1 : start);
  const isMinus = before.length === 1 && isMark(before[0], '-');
  const factor = before.length === 0 ? undefined : isMinus ? number(-1) : wholeFormula(before);
  const rows = splitAt(tokens.slice(start + 1, -1), (token) => isMark(token, '\\\\'))
    .filter((row) => row.length > 0)
    .map((row) => splitAt(row, (token) => isMark(token, '&')).map((cell) => readCell(cell, factor)));
  limited(rows.flat());
  return { kind: 'matrix', rows };
}

function readCell(tokens: readonly Token[], factor: Expression | undefined): Form {
  const value = wholeFormula(tokens);
  return { kind: 'quantity', value: factor ? product(factor, value) : value };
}

/** A point, interval, vector, set, or one thing in brackets. */
function readBracketed(tokens: readonly Token[]): Form | undefined {
  const inner = enclosed(tokens, '(', '[', '\\{', '⟨');
  if (!inner) return undefined;
  const brackets = `${tokens[0]!.text}${tokens.at(-1)!.text}`;
  const parts = splitAt(inner, (token) => isMark(token, ',', ';'));
  if (brackets === '\\{\\}') return readSet(inner, parts);
  if (parts.length === 1) {
    if (brackets !== '()' && brackets !== '[]') throw new Unreadable('one thing in odd brackets');
    return readOne(inner);
  }
  if (!/^[([][)\]]$|^⟨⟩$/.test(brackets)) throw new Unreadable('odd brackets');
  return { kind: 'tuple', brackets: brackets === '⟨⟩' ? '()' : brackets, items: limited(parts.map(readOne)) };
}

function readSet(inner: readonly Token[], parts: readonly Token[][]): Form {
  if (inner.length === 0) return emptySet;
  // `\{x : x > 1\}`
  const [member, condition] = splitAt(inner, (token) => isMark(token, ':', '|'));
  if (condition) {
    const form = readOne(condition);
    const [variable] = splitAt(member!, (token) => isMark(token, 'in'));
    if (form.kind !== 'named' || form.name !== nameOf(variable!))
      throw new Unreadable('no set that is known here');
    return form;
  }
  return { kind: 'set', items: limited(parts.flatMap(readAlternatives)) };
}

/** `101_2`, `(101)_2`, `2E_{16}`, `101_{\text{two}}`, `101 base 2` */
function readDigits(tokens: readonly Token[]): Form | undefined {
  const split = tokens.findIndex((token) => isMark(token, '_') || token.text === 'base');
  if (split < 1) return undefined;
  const isNegative = isMark(tokens[0], '-');
  const front = tokens.slice(isNegative ? 1 : 0, split);
  const digits = (enclosed(front, '(') ?? front).map((token) => token.text).join('');
  if (!/^[0-9][0-9A-Z]*$|^[A-Z]+[0-9][0-9A-Z]*$/.test(digits)) return undefined;
  const name = tokens
    .slice(split + 1)
    .filter((token) => !isMark(token, '{', '}', '(', ')') && token.text !== 'base')
    .map((token) => token.text)
    .join('');
  const base = BASES.get(name) ?? (/^\d{1,2}$/.test(name) ? Number(name) : 0);
  if (base < 2 || base > 36 || [...digits].some((digit) => Number.parseInt(digit, 36) >= base)) {
    throw new Unreadable('no number of this base');
  }
  const significant = digits.replace(/^0+(?=.)/, '');
  return { kind: 'digits', digits: isNegative ? `-${significant}` : significant, base };
}

/** `3:2`, `3 to 2`, `8:34 p.m.` */
function readRatio(tokens: readonly Token[]): Form | undefined {
  const parts = splitAt(tokens, (token) => isMark(token, ':') || token.text === 'to');
  if (parts.length === 1) return undefined;
  const last = readQuantity(parts.pop()!);
  if (last.kind !== 'quantity') throw new Unreadable('no ratio');
  const { value, unit } = last;
  return {
    kind: 'ratio',
    parts: limited([...parts.map(wholeFormula), value]),
    ...(unit !== undefined && { unit }),
  };
}

/** A formula with what may stand around it: `\$5`, `30^\circ`, `12 \text{ cm}`, `5 million dollars`. */
function readQuantity(tokens: readonly Token[]): Form {
  const isNegative = isMark(tokens[0], '-') && isMark(tokens[1], ...CURRENCIES);
  const money = tokens[isNegative ? 1 : 0];
  const currency = isMark(money, ...CURRENCIES) ? money!.text : undefined;
  const { value: formula, end } = readFormula(tokens, currency === undefined ? 0 : isNegative ? 2 : 1);
  const tail = tokens.slice(end);
  const scale = takeScale(tail);
  const units = new Set([currency, unitOf(tail)].filter((unit) => unit !== undefined));
  let value = isNegative ? negate(formula) : formula;
  if (scale !== 1n) value = product(number(scale), value);
  if (value.kind === 'product' && value.factors.some(isDegree)) {
    units.add('°');
    value = product(...value.factors.filter((factor) => !isDegree(factor)));
  }
  return special(value) ?? { kind: 'quantity', value, ...(units.size > 0 && { unit: [...units].join(' ') }) };
}

function isDegree(value: Expression): boolean {
  return value.kind === 'letter' && value.name === 'deg';
}

/** Letters that stand for sets. */
function special(value: Expression): Form | undefined {
  if (value.kind === 'letter' && value.name === 'mathbb R') return realLine;
  if (value.kind === 'letter' && value.name === 'emptyset') return emptySet;
  const isInfinite = lettersOf(value).has('infinity');
  const [factor, ...rest] = value.kind === 'product' ? value.factors : [];
  const isEnd = value.kind === 'letter' || (factor?.kind === 'number' && rest.length === 1);
  if (isInfinite && !isEnd) throw new Unreadable('arithmetic with infinity');
  return undefined;
}
