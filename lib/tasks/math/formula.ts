/**
 * Reads formulas: tokens to an {@link Expression}, by recursive descent.
 *
 * Multiplication that is not written binds as one that is, so `1/2x` is half of x. `\frac12` takes a digit each, as TeX
 * does; `x^10` and `\sqrt12` take the whole number, as their authors mean. A whole number before a proper fraction is
 * a mixed number.
 */
import { Unreadable } from './budget.js';
import {
  call,
  type Expression,
  letter,
  negate,
  number,
  power,
  product,
  quotient,
  root,
  sum,
} from './expression.js';
import { isMark, joinTokens, type Token } from './lexer.js';
import { add, divide, parseDecimal, power as powerOf, type Rational, rational } from './rational.js';
import { FUNCTIONS, INVERSES } from './vocabulary.js';

/** Deepest nesting of brackets, groups and arguments. */
const MAX_DEPTH = 60;

/** Letters that stand for a function where a bracket follows. */
const FUNCTION_LETTERS: ReadonlySet<string> = new Set(['f', 'g', 'h']);

/** Signs above a letter, which make it another letter. */
export const ACCENTS: ReadonlySet<string> = new Set(
  'overline bar vec hat tilde dot widehat widetilde overrightarrow mathbf'.split(' '),
);

const CLOSERS: ReadonlyMap<string, string> = new Map([
  ['(', ')'],
  ['[', ']'],
  ['{', '}'],
  ['⌊', '⌋'],
  ['⌈', '⌉'],
  ['|', '|'],
]);

/**
 * The longest formula that starts at `tokens[start]`, and the index of the token after it.
 *
 * @throws Unreadable where no formula stands there
 */
export function readFormula(tokens: readonly Token[], start = 0): { value: Expression; end: number } {
  const reader = new FormulaReader(tokens, start);
  return { value: reader.readSum(), end: reader.end };
}

/** All of `tokens` as one formula. @throws Unreadable where it is none */
export function wholeFormula(tokens: readonly Token[]): Expression {
  const { value, end } = readFormula(tokens);
  if (end !== tokens.length) throw new Unreadable(`not a formula from ${tokens[end]!.text} on`);
  return value;
}

class FormulaReader {
  readonly #tokens: Token[];
  readonly #surplus: number;
  #at = 0;
  #depth = 0;
  #openBars = 0;

  constructor(tokens: readonly Token[], start: number) {
    this.#tokens = tokens.slice(start);
    this.#surplus = tokens.length - this.#tokens.length;
  }

  /** Only whole tokens are left behind: a number of which `\frac` took a digit is read on as a factor. */
  get end(): number {
    return this.#at + this.#surplus;
  }

  readSum(): Expression {
    const terms: Expression[] = [];
    let negative = this.#takeSign() ?? false;
    for (;;) {
      const term = this.#readProduct();
      terms.push(negative ? negate(term) : term);
      const next = this.#takeSign();
      if (next === undefined) return sum(...terms);
      negative = next;
    }
  }

  /** Whether the sign here is a minus; undefined where there is none. */
  #takeSign(): boolean | undefined {
    if (this.#take('+')) return false;
    return this.#take('-') ? true : undefined;
  }

  #readProduct(): Expression {
    let value = this.#readPower();
    for (;;) {
      if (this.#take('*')) value = product(value, this.#readFactor());
      else if (this.#take('/')) value = quotient(value, this.#readFactor());
      else if (this.#followsUnwritten()) value = product(value, this.#readPower());
      else return value;
    }
  }

  #readFactor(): Expression {
    return this.#take('-') ? negate(this.#readPower()) : this.#readPower();
  }

  /** Whether the next token may be multiplied without a sign to the one before it. */
  #followsUnwritten(): boolean {
    const token = this.#peek();
    if (!token || !this.#startsOperand(token)) return false;
    if (token.kind !== 'number') return true;
    const before = this.#tokens[this.#at - 1]!;
    return before.kind === 'mark' && before.text !== '°';
  }

  #startsOperand(token: Token): boolean {
    switch (token.kind) {
      case 'number':
      case 'letter':
        return true;
      case 'command':
        return FUNCTIONS.has(token.text) || ACCENTS.has(token.text) || /^(frac|sqrt|binom)$/.test(token.text);
      case 'mark':
        // A bar closes the one that is open.
        return token.text === '|' ? this.#openBars === 0 : CLOSERS.has(token.text);
      default:
        return false;
    }
  }

  #readPower(): Expression {
    let base = this.#readPrimary();
    for (;;) {
      if (isMark(this.#peek(), '!') && !isMark(this.#peek(1), '!')) {
        this.#at++;
        base = call('factorial', base);
      } else if (this.#take('°')) base = product(base, letter('deg'));
      else break;
    }
    return this.#take('^') ? power(base, this.#readSuperscript()) : base;
  }

  #readSuperscript(): Expression {
    if (this.#take('-')) return negate(this.#readSuperscript());
    const base = this.#readScript();
    return this.#take('^') ? power(base, this.#readSuperscript()) : base;
  }

  #readPrimary(): Expression {
    if (++this.#depth > MAX_DEPTH) throw new Unreadable('nested too deeply');
    const value = this.#readUncounted();
    this.#depth--;
    return value;
  }

  #readUncounted(): Expression {
    const token = this.#peek();
    if (!token) throw new Unreadable('ends too early');
    this.#at++;
    switch (token.kind) {
      case 'number':
        return this.#readNumber(token.text);
      case 'letter':
        return this.#readLetter(token.text);
      case 'word':
        // `\text{A}` where a quantity has to stand, or `AB`, a distance.
        if (/^([a-zA-Z]|[A-Z]+)$/.test(token.text)) return this.#readLetter(token.text);
        throw new Unreadable(`a word: ${token.text}`);
      case 'command':
        return this.#readCommand(token.text);
      default:
        return this.#readBracketed(token.text);
    }
  }

  #readBracketed(opener: string): Expression {
    if (opener === '.' && this.#peek()?.text === 'overline') return number(this.#repeating('0.'));
    const closer = CLOSERS.get(opener);
    if (closer === undefined) throw new Unreadable(`no operand: ${opener}`);
    const bars = this.#openBars;
    this.#openBars = opener === '|' ? bars + 1 : 0;
    const value = this.readSum();
    this.#expect(closer);
    this.#openBars = bars;
    if (opener === '|') return call('abs', value);
    if (opener === '⌊') return call('floor', value);
    return opener === '⌈' ? call('ceil', value) : value;
  }

  #readNumber(text: string): Expression {
    if (this.#peek()?.text === 'overline')
      return number(this.#repeating(text.includes('.') ? text : `${text}.`));
    if (isMark(this.#peek(), '.') && this.#peek(1)?.text === 'overline') {
      this.#at++;
      return number(this.#repeating(`${text}.`));
    }
    const value = parseDecimal(text);
    const fraction = /^\d+$/.test(text) ? this.#properFraction() : undefined;
    return number(fraction ? add(value, fraction) : value);
  }

  /** What `\overline{digits}` after a decimal says: digits / 99...9, shifted behind those before it. */
  #repeating(text: string): Rational {
    const [, open, digits, close] = this.#tokens.slice(this.#at, this.#at + 4);
    if (!isMark(open, '{') || !/^\d+$/.test(digits?.text ?? '') || !isMark(close, '}')) {
      throw new Unreadable('no repeating decimal');
    }
    this.#at += 4;
    const ten = rational(10);
    const nines = add(powerOf(ten, BigInt(digits!.text.length)), rational(-1));
    const shift = powerOf(ten, BigInt(text.length - 1 - text.indexOf('.')));
    return add(
      parseDecimal(text.replace(/\.$/, '')),
      divide(divide(parseDecimal(digits!.text), nines), shift),
    );
  }

  /** The fraction below one that makes a mixed number of the whole one before it, as `\frac{1}{2}` or `1/2`. */
  #properFraction(): Rational | undefined {
    const next = this.#peek();
    let parts: readonly (Token | undefined)[] = [];
    let length = 0;
    if (next?.text === 'frac') {
      const [, open, numerator, close, open2, denominator, close2] = this.#tokens.slice(
        this.#at,
        this.#at + 7,
      );
      if (isMark(open, '{') && isMark(close, '}') && isMark(open2, '{') && isMark(close2, '}')) {
        parts = [numerator, denominator];
        length = 7;
      } else if (/^\d\d$/.test(open?.text ?? '')) {
        parts = [...open!.text].map((text) => ({ kind: 'number', text }));
        length = 2;
      }
    } else if (next?.kind === 'number' && isMark(this.#peek(1), '/')) {
      parts = [next, this.#peek(2)];
      length = 3;
    }
    const [numerator, denominator] = parts.map((part) =>
      /^\d{1,9}$/.test(part?.text ?? '') ? Number(part!.text) : 0,
    );
    if (!numerator || !denominator || numerator >= denominator) return undefined;
    this.#at += length;
    return rational(numerator, denominator);
  }

  #readLetter(name: string): Expression {
    let full = name;
    if (this.#take('_')) full += `_${joinTokens(this.#takeArgument())}`;
    while (this.#take("'")) full += "'";
    if (FUNCTION_LETTERS.has(name) && isMark(this.#peek(), '(')) return call(full, this.#readPrimary());
    return letter(full);
  }

  #readCommand(name: string): Expression {
    if (name === 'frac') {
      const numerator = this.#readArgument();
      return quotient(numerator, this.#readArgument());
    }
    if (name === 'binom') {
      const from = this.#readArgument();
      return call('binom', from, this.#readArgument());
    }
    if (name === 'sqrt') {
      let index: Expression = number(2);
      if (this.#take('[')) {
        index = this.readSum();
        this.#expect(']');
      }
      return root(this.#readPrimary(), index);
    }
    if (ACCENTS.has(name)) return letter(`${name} ${joinTokens(this.#takeArgument())}`);
    if (FUNCTIONS.has(name)) return this.#readFunction(name);
    throw new Unreadable(`a command: ${name}`);
  }

  #readFunction(name: string): Expression {
    let exponent: Expression | undefined;
    let base: Expression | undefined;
    for (;;) {
      if (this.#take('^')) exponent = this.#readSuperscript();
      else if (name === 'log' && this.#take('_')) base = this.#readScript();
      else break;
    }
    const inverse = exponent?.kind === 'number' && exponent.value.numerator === -1n && INVERSES.get(name);
    const value = named(inverse || name, this.#readFunctionArgument(), base);
    return exponent && !inverse ? power(value, exponent) : value;
  }

  /** A bracket, or factors up to the next sign, bracket or function: `\sin 2x \cos x` is a product of two functions. */
  #readFunctionArgument(): Expression {
    if (isMark(this.#peek(), '(', '{', '[')) return this.#readPrimary();
    let argument = this.#readPower();
    for (;;) {
      const token = this.#peek();
      const more = token?.kind === 'letter' || token?.text === 'frac' || token?.text === 'sqrt';
      if (!more) return argument;
      argument = product(argument, this.#readPower());
    }
  }

  /** What TeX takes as an argument: a group, or one digit or letter, or a command with its own. */
  #readArgument(): Expression {
    const token = this.#peek();
    if (token?.kind === 'number' && /^\d\d+$/.test(token.text)) {
      this.#tokens[this.#at] = { kind: 'number', text: token.text.slice(1) };
      return number(rational(BigInt(token.text[0]!)));
    }
    if (token?.kind === 'letter') {
      this.#at++;
      return letter(token.text);
    }
    if (isMark(token, '(', '[')) throw new Unreadable('an argument without braces');
    return this.#readScript();
  }

  /** A number as it stands, whatever follows it; or anything else that can be an operand. */
  #readScript(): Expression {
    const token = this.#peek();
    if (token?.kind !== 'number') return this.#readPrimary();
    this.#at++;
    return number(parseDecimal(token.text));
  }

  /** The tokens of a group, or a single token. */
  #takeArgument(): Token[] {
    const first = this.#peek();
    if (!first) throw new Unreadable('ends too early');
    this.#at++;
    if (!isMark(first, '{')) return [first];
    const inner: Token[] = [];
    for (let depth = 1; ; this.#at++) {
      const token = this.#peek();
      if (!token) throw new Unreadable('an open group');
      if (isMark(token, '{')) depth++;
      else if (isMark(token, '}') && --depth === 0) break;
      inner.push(token);
    }
    this.#at++;
    return inner;
  }

  #peek(ahead = 0): Token | undefined {
    return this.#tokens[this.#at + ahead];
  }

  #take(text: string): boolean {
    if (!isMark(this.#peek(), text)) return false;
    this.#at++;
    return true;
  }

  #expect(text: string): void {
    if (!this.#take(text)) throw new Unreadable(`no ${text}`);
  }
}

/** The function `name` of `argument`; logarithms with their base, exp as a power of e. */
function named(name: string, argument: Expression, base: Expression | undefined): Expression {
  if (name === 'exp') return power(letter('e'), argument);
  if (name === 'ln') return call('log', argument, letter('e'));
  return name === 'log' ? call('log', argument, base ?? number(10)) : call(name, argument);
}
