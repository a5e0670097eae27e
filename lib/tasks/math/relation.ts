/** Reads equations, inequalities and memberships: `x = 5`, `2x + y = 3`, `1 < x \le 2`, `x \in [1, 2)`. */
import { splitAt } from './brackets.js';
import { Unreadable, withBudget } from './budget.js';
import { difference, isConstant, letter, negate } from './expression.js';
import type { Form } from './form.js';
import { ACCENTS, wholeFormula } from './formula.js';
import { isMark, joinTokens, type Token } from './lexer.js';
import { normalForm, textOf } from './normalForm.js';

const OPERATORS = ['=', '<', '>', '<=', '>=', '!=', 'in', 'equiv'];

const FLIPPED: ReadonlyMap<string, string> = new Map([
  ['<', '>'],
  ['>', '<'],
  ['<=', '>='],
  ['>=', '<='],
  ['!=', '!='],
]);

const infinity: Form = { kind: 'quantity', value: letter('infinity') };
const minusInfinity: Form = { kind: 'quantity', value: negate(letter('infinity')) };

/** All real numbers. */
export const realLine = interval('(', minusInfinity, infinity, ')');

/** Undefined where `tokens` has no relation sign outside of brackets. `read` reads what is neither name nor formula. */
export function readRelation(
  tokens: readonly Token[],
  read: (tokens: readonly Token[]) => Form,
): Form | undefined {
  // `\pi/4 \approx 0.785` says the exact value first; `x \approx 0.785` has no other.
  const [exact, rounded] = splitAt(tokens, (token) => isMark(token, 'approx'));
  if (rounded) {
    const name = nameOf(exact!);
    return name === undefined ? read(exact!) : { kind: 'named', name, value: read(rounded) };
  }
  const operators: string[] = [];
  const sides = splitAt(tokens, (token) => {
    const found = isMark(token, ...OPERATORS);
    if (found) operators.push(token.text);
    return found;
  });
  const [operator] = operators;
  if (operator === undefined) return undefined;
  if (operators.every((other) => other === '=')) return readEquation(sides, read);
  if (operator === 'in' && sides.length === 2) {
    const name = nameOf(sides[0]!);
    if (name === undefined) throw new Unreadable('no name');
    return { kind: 'named', name, value: read(sides[1]!) };
  }
  if (!operators.every((other) => FLIPPED.has(other))) throw new Unreadable('no plain relation');
  return readInequality(sides, operators);
}

function readEquation(sides: readonly Token[][], read: (tokens: readonly Token[]) => Form): Form {
  const swapped = sides.length === 2 && nameOf(sides[0]!) === undefined && nameOf(sides[1]!) !== undefined;
  const [first, ...rest] = (swapped ? [sides[1]!, sides[0]!] : sides) as [Token[], ...Token[][]];
  const name = nameOf(first);
  if (name !== undefined) {
    const value = sameThroughout(rest.map(read));
    if (value.kind !== 'quantity' || value.unit) return { kind: 'named', name, value };
    const left = withBudget(Infinity, () => wholeFormula(first));
    return { kind: 'named', name, value, ...(left && { equation: difference(left, value.value) }) };
  }
  const formulas = sides.map(wholeFormula);
  if (formulas.every(isConstant))
    return sameThroughout(formulas.map((value) => ({ kind: 'quantity', value })));
  if (formulas.length > 2) throw new Unreadable('a chain of equations');
  return { kind: 'relation', operator: '=', difference: difference(formulas[0]!, formulas[1]!) };
}

/** The last of several forms that say one number: `1/2 = 0.5` is one answer, where it is true. */
function sameThroughout(forms: readonly Form[]): Form {
  const last = forms.at(-1)!;
  if (forms.length === 1) return last;
  const texts = forms.map((form) => {
    const value = form.kind === 'quantity' ? normalForm(form.value) : undefined;
    if (!value) throw new Unreadable('a chain of equations');
    return textOf(value);
  });
  if (texts.some((text) => text !== texts[0])) throw new Unreadable('an equation that is not true');
  return last;
}

/** One letter on one side and constants on the others make an interval; anything else of two sides stays as it is. */
function readInequality(sides: readonly Token[][], operators: readonly string[]): Form {
  const formulas = sides.map(wholeFormula);
  const at = formulas.findIndex((side) => side.kind === 'letter' && !isConstant(side));
  const others = formulas.filter((_, i) => i !== at);
  const [first, second] = operators as [string, string];
  if (at >= 0 && others.every(isConstant)) {
    const name = joinTokens(sides[at]!);
    const [low, high] = others.map((value): Form => ({ kind: 'quantity', value })) as [Form, Form];
    if (sides.length === 2)
      return { kind: 'named', name, value: halfLine(at === 0 ? first : FLIPPED.get(first)!, low) };
    if (sides.length === 3 && at === 1 && first[0] === second[0] && first[0] !== '!') {
      const [open, close] = [first.endsWith('='), second.endsWith('=')];
      const value =
        first[0] === '<'
          ? interval(open ? '[' : '(', low, high, close ? ']' : ')')
          : interval(close ? '[' : '(', high, low, open ? ']' : ')');
      return { kind: 'named', name, value };
    }
  }
  if (sides.length > 2) throw new Unreadable('a chain of relations');
  return { kind: 'relation', operator: first, difference: difference(formulas[0]!, formulas[1]!) };
}

/** Where `letter operator bound` holds. */
function halfLine(operator: string, bound: Form): Form {
  const below = (bracket: string) => interval('(', minusInfinity, bound, bracket);
  const above = (bracket: string) => interval(bracket, bound, infinity, ')');
  switch (operator) {
    case '<':
      return below(')');
    case '<=':
      return below(']');
    case '>':
      return above('(');
    case '>=':
      return above('[');
    default:
      return { kind: 'union', items: [below(')'), above('(')] };
  }
}

function interval(open: string, low: Form, high: Form, close: string): Form {
  return { kind: 'tuple', brackets: `${open}${close}`, items: [low, high] };
}

/** Kinds of tokens by one sign each: L letter, N number, W word, A angle and the like, C an accent, else the mark. */
function shapeOf(tokens: readonly Token[]): string {
  return tokens
    .map(({ kind, text }) => {
      if (kind === 'command')
        return ACCENTS.has(text) ? 'C' : /^(measured)?angle$|^triangle$/.test(text) ? 'A' : '?';
      return kind === 'mark' ? (text.length === 1 ? text : '?') : kind[0]!.toUpperCase();
    })
    .join('');
}

const NAMES: readonly RegExp[] = [
  // x, x', x_1, x_{12}, f(x), f^{-1}(x), P(X, Y)
  /^L(_([LNW]|\{[LNW,]*\}))?'*(\^\{-N\})?(\([LN,]*\))?$/,
  // AB, Area, \angle ABC, \vec{v}
  /^L?A?[LW]*W$|^L?A[LW]+$|^C(L|\{[LW]+\})$/,
  // (x, y)
  /^\(L(,L)*\)$/,
];

/** What stands on one side of `=` and merely names the other; undefined for a formula. */
export function nameOf(tokens: readonly Token[]): string | undefined {
  const shape = shapeOf(tokens);
  const constant = tokens.length === 1 && /^(pi|e|i|infinity|emptyset)$/.test(tokens[0]!.text);
  return !constant && NAMES.some((pattern) => pattern.test(shape)) ? joinTokens(tokens) : undefined;
}
