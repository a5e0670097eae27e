/**
 * Whether two answers say the same.
 *
 * What is forgiven: a unit, a name (`x =`) or a constant of integration that one of the two leaves out; `52\%` is 52 and
 * 0.52; the letter of multiple choice or what it stands for is enough. What is not: other units, other names, open ends
 * for closed ones, a list for a point, digits of a base for the number, rounded decimals.
 */
import { MAX_LENGTH, parseAnswer } from './answer.js';
import { proportional, sameValue } from './evaluate.js';
import { type Expression, lettersOf, number, quotient, sum } from './expression.js';
import type { Answer, Form } from './form.js';
import { hasGroupedDigits } from './lexer.js';
import { normalForm, primitive, rationalOf, textOf } from './normalForm.js';
import { absolute, sign } from './rational.js';

/**
 * - `form`: formulas are the same when they have the same normal form (normalForm.ts): exact, and a product is no sum.
 * - `value`: also when they have the same values (evaluate.ts): `x^2 - 1` is `(x - 1)(x + 1)`.
 */
export type Comparison = 'form' | 'value';

/** How two answers are alike; `undecided` where nothing here can tell. */
export type Likeness = 'same text' | 'same form' | 'same value' | 'different' | 'undecided';

/**
 * Whether two answers in LaTeX or plain text say the same; a pure function that never throws.
 *
 * Symmetric and reflexive, but not transitive: `5` is `5 \text{ cm}` and `5 \text{ m}`, which are not each other.
 */
export function mathEqual(a: string, b: string, comparison: Comparison = 'form'): boolean {
  return likeness(a, b, comparison).startsWith('same');
}

/** In which way two answers in LaTeX or plain text are the same; see {@link mathEqual}. */
export function likeness(a: string, b: string, comparison: Comparison = 'form'): Likeness {
  const found = compareAnswers(parseAnswer(a), parseAnswer(b), comparison);
  const isShort = a.length <= MAX_LENGTH && b.length <= MAX_LENGTH;
  if (found.startsWith('same') || !isShort || !(hasGroupedDigits(a) || hasGroupedDigits(b))) return found;
  // `100,200` may be two numbers after all, where the other answer is a list.
  const [left, right] = [parseAnswer(a, 'list'), parseAnswer(b, 'list')];
  return isCollection(left.form) && isCollection(right.form)
    ? compareAnswers(left, right, comparison)
    : found;
}

/** {@link likeness} of answers that are read already; what was worked out of them is kept with them. */
export function compareAnswers(a: Answer, b: Answer, comparison: Comparison = 'form'): Likeness {
  if (a.text === b.text) return 'same text';
  let verdict = compareForms(a.form, b.form, byForm);
  if (verdict === true) return 'same form';
  if (comparison === 'value') verdict = compareForms(a.form, b.form, byValue);
  return verdict === true ? 'same value' : verdict === false ? 'different' : 'undecided';
}

/** Undefined where nothing here can tell. */
type Verdict = boolean | undefined;

/** What it means for two formulas to be the same, and for two equations `a = 0` and `b = 0`. */
interface Sameness {
  formulas(a: Expression, b: Expression): Verdict;
  equations(a: Expression, b: Expression): Verdict;
}

const byForm: Sameness = {
  formulas: (a, b) => sameText(formTextOf(a), formTextOf(b)),
  equations: (a, b) => sameText(relationText(a, '='), relationText(b, '=')),
};

const byValue: Sameness = {
  formulas: (a, b) => byForm.formulas(a, b) || sameValue(a, b),
  equations: (a, b) => byForm.equations(a, b) || proportional(a, b),
};

function sameText(a: string | undefined, b: string | undefined): Verdict {
  return a === undefined || b === undefined ? undefined : a === b;
}

const formTexts = new WeakMap<Expression, string | null>();

/** The normal form as text, kept with the formula. */
function formTextOf(expression: Expression): string | undefined {
  let text = formTexts.get(expression);
  if (text === undefined) {
    const form = normalForm(expression);
    text = form ? textOf(form) : null;
    formTexts.set(expression, text);
  }
  return text ?? undefined;
}

/** `difference operator 0` up to a factor: one text for `x < y` and `2y > 2x`. */
function relationText(difference: Expression, operator: string): string | undefined {
  const form = normalForm(difference);
  if (!form) return undefined;
  const { form: terms, content } = primitive(form);
  const turned = sign(content) < 0 ? operator.replace(/[<>]/, (c) => (c === '<' ? '>' : '<')) : operator;
  return `${textOf(terms)} ${turned}`;
}

function compareForms(a: Form, b: Form, same: Sameness): Verdict {
  if (a.kind === 'opaque' || b.kind === 'opaque') return undefined;
  if (a.kind === 'choice' || b.kind === 'choice') return compareChoices(a, b, same);
  if (a.kind === 'named' || b.kind === 'named') return compareNamed(a, b, same);
  if (isCollection(a) && isCollection(b)) return compareCollections(a, b, same);
  if (a.kind === 'set' && a.items.length === 1) return compareForms(a.items[0]!, b, same);
  if (b.kind === 'set' && b.items.length === 1) return compareForms(a, b.items[0]!, same);
  if (a.kind === 'quantity' && b.kind === 'quantity') return compareQuantities(a, b, same);
  if (a.kind === 'relation' && b.kind === 'relation') return compareRelations(a, b, same);
  if (a.kind === 'tuple' && b.kind === 'tuple') {
    return a.brackets === b.brackets && compareInOrder(a.items, b.items, same);
  }
  if (a.kind === 'union' && b.kind === 'union') return compareInAnyOrder(a.items, b.items, same);
  if (a.kind === 'matrix' && b.kind === 'matrix') return compareMatrices(a.rows, b.rows, same);
  if (a.kind === 'ratio' && b.kind === 'ratio') {
    return unitsAgree(a.unit, b.unit) && all(a.parts, b.parts, same.formulas);
  }
  if (a.kind === 'digits' && b.kind === 'digits') return a.digits === b.digits && a.base === b.base;
  return a.kind === 'words' && b.kind === 'words' && a.text === b.text;
}

/** True where one is, false where both are. */
function either(a: Verdict, b: () => Verdict): Verdict {
  if (a === true) return true;
  const other = b();
  return other === true ? true : a === undefined ? undefined : other;
}

/** False where one pair is, or where the numbers of items differ; true where all pairs are. */
function all<T>(a: readonly T[], b: readonly T[], compare: (x: T, y: T) => Verdict): Verdict {
  if (a.length !== b.length) return false;
  let verdict: Verdict = true;
  for (const [i, item] of a.entries()) {
    const one = compare(item, b[i]!);
    if (one === false) return false;
    if (one === undefined) verdict = undefined;
  }
  return verdict;
}

function compareInOrder(a: readonly Form[], b: readonly Form[], same: Sameness): Verdict {
  return all(a, b, (x, y) => compareForms(x, y, same));
}

function compareMatrices(
  a: readonly (readonly Form[])[],
  b: readonly (readonly Form[])[],
  same: Sameness,
): Verdict {
  return all(a, b, (x, y) => compareInOrder(x, y, same));
}

function compareChoices(a: Form, b: Form, same: Sameness): Verdict {
  if (a.kind !== 'choice') return compareChoices(b, a, same);
  if (b.kind === 'choice') {
    return same.formulas(a.letter, b.letter) && compareForms(a.content, b.content, same);
  }
  const letterAlone: Form = { kind: 'quantity', value: a.letter };
  return either(compareForms(letterAlone, b, same), () => compareForms(a.content, b, same));
}

/** A name that one of the two leaves out is forgiven; equations are the same also when they are solved otherwise. */
function compareNamed(a: Form, b: Form, same: Sameness): Verdict {
  if (a.kind !== 'named') return compareNamed(b, a, same);
  if (b.kind === 'named') {
    const values = a.name === b.name && compareForms(a.value, b.value, same);
    return either(values, () => (a.equation && b.equation ? same.equations(a.equation, b.equation) : false));
  }
  if (b.kind === 'relation') {
    return a.equation !== undefined && b.operator === '=' && same.equations(a.equation, b.difference);
  }
  // Names within a list are compareCollections' to drop.
  return compareForms(a.value, b, same);
}

type Collection = Extract<Form, { kind: 'list' | 'set' }>;

function isCollection(form: Form): form is Collection {
  return form.kind === 'list' || form.kind === 'set';
}

function compareCollections(a: Collection, b: Collection, same: Sameness): Verdict {
  const [left, right] = [withoutCommonName(a), withoutCommonName(b)];
  if (left.name !== undefined && right.name !== undefined && left.name !== right.name) return false;
  const hasNames = (items: readonly Form[]) => items.some((item) => item.kind === 'named');
  // `x = 1, y = 2` without its names would be in an order.
  if (hasNames(left.items) !== hasNames(right.items)) return false;
  const distinct = a.kind === 'set' || b.kind === 'set';
  const [x, y] = [left.items, right.items].map((items) => (distinct ? withoutRepeats(items, same) : items));
  return compareInAnyOrder(x!, y!, same);
}

/** The items of `x = 1, x = 2`, or `x = 1, 2`, as 1 and 2. */
function withoutCommonName({ items }: Collection): { name?: string; items: readonly Form[] } {
  const [first, ...rest] = items;
  if (first?.kind !== 'named') return { items };
  const named = rest.every((item) => item.kind === 'named' && item.name === first.name);
  const onlyFirst = rest.every((item) => item.kind !== 'named');
  if (!named && !onlyFirst) return { items };
  return { name: first.name, items: items.map((item) => (item.kind === 'named' ? item.value : item)) };
}

function withoutRepeats(items: readonly Form[], same: Sameness): readonly Form[] {
  return items.filter(
    (item, i) => !items.slice(0, i).some((before) => compareForms(before, item, same) === true),
  );
}

/** Whether the items can be paired off: by pairs that are the same, or else by pairs that may be. */
function compareInAnyOrder(a: readonly Form[], b: readonly Form[], same: Sameness): Verdict {
  if (a.length !== b.length) return false;
  const verdicts = a.map((x) => b.map((y) => compareForms(x, y, same)));
  if (canPairOff(verdicts, (verdict) => verdict === true)) return true;
  return canPairOff(verdicts, (verdict) => verdict !== false) ? undefined : false;
}

/** Kuhn's algorithm for a perfect matching: what is forgiven makes one item the same as several others. */
function canPairOff(verdicts: readonly (readonly Verdict[])[], fits: (verdict: Verdict) => boolean): boolean {
  const partner = new Map<number, number>();
  const place = (row: number, tried: Set<number>): boolean =>
    verdicts[row]!.some((verdict, column) => {
      if (!fits(verdict) || tried.has(column)) return false;
      tried.add(column);
      const other = partner.get(column);
      if (other !== undefined && !place(other, tried)) return false;
      partner.set(column, row);
      return true;
    });
  return verdicts.every((_, row) => place(row, new Set()));
}

type Quantity = Extract<Form, { kind: 'quantity' }>;

function unitsAgree(a: string | undefined, b: string | undefined): boolean {
  return a === undefined || b === undefined || a === b;
}

function compareQuantities(a: Quantity, b: Quantity, same: Sameness): Verdict {
  if (!unitsAgree(a.unit, b.unit)) return false;
  if (a.unit !== b.unit && (a.unit === '%' || b.unit === '%')) return comparePercent(a, b, same);
  return either(same.formulas(a.value, b.value), () => compareIntegrals(a.value, b.value, same));
}

/** `52\%` is 0.52, and 52 to a question for percent; but a number below one is a share, not its percent. */
function comparePercent(a: Quantity, b: Quantity, same: Sameness): Verdict {
  const [percent, plain] = a.unit === '%' ? [a.value, b.value] : [b.value, a.value];
  const asShare = same.formulas(quotient(percent, number(100)), plain);
  const form = normalForm(plain);
  const value = form && rationalOf(form);
  return value && absolute(value.numerator) >= value.denominator
    ? either(asShare, () => same.formulas(percent, plain))
    : asShare;
}

/** Whether two formulas are the same but for the constant of integration, `+ C`, that one of them lacks. */
function compareIntegrals(a: Expression, b: Expression, same: Sameness): Verdict {
  const [left, right] = [withoutConstant(a), withoutConstant(b)];
  if ((left === undefined) === (right === undefined)) return false;
  return same.formulas(left ?? a, right ?? b);
}

/** A function of a small letter without its `+ C`; undefined where there is none, or where C may be a quantity. */
function withoutConstant(value: Expression): Expression | undefined {
  if (value.kind !== 'sum') return undefined;
  const isC = (term: Expression) => term.kind === 'letter' && term.name === 'C';
  const rest = sum(...value.terms.filter((term) => !isC(term)));
  const letters = [...lettersOf(rest)];
  const isIntegral =
    value.terms.filter(isC).length === 1 && letters.some((name) => /^[r-z]$|^theta$/.test(name));
  return isIntegral && !letters.some((name) => /^[A-Z]$/.test(name)) ? rest : undefined;
}

type Relation = Extract<Form, { kind: 'relation' }>;

function compareRelations(a: Relation, b: Relation, same: Sameness): Verdict {
  if (a.operator === '=' && b.operator === '=') return same.equations(a.difference, b.difference);
  return sameText(relationText(a.difference, a.operator), relationText(b.difference, b.operator));
}
