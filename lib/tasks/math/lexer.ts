/**
 * Answers as tokens: LaTeX or plain text with all that only changes its looks taken away (math delimiters, spacing,
 * `\left`, `\dfrac` for `\frac`, `\text` around words, thousands separators, signs outside ASCII).
 *
 * One pass from left to right, in time linear in the text.
 */
import { Unreadable } from './budget.js';
import {
  FUNCTIONS,
  IGNORED_COMMANDS,
  LETTERS,
  MARKS,
  SHORT_UNITS,
  SHORT_WORDS,
  TEXT_COMMANDS,
  UNICODE,
} from './vocabulary.js';

/**
 * - `number`: decimal digits with at most one point, without separators; `1.5e3` too.
 * - `letter`: one quantity, a letter of any alphabet; `pi`, `infinity`, `emptyset`.
 * - `word`: letters that are text; lower case where there is more than one, but `ABC` stays.
 * - `command`: `frac`, `sqrt`, a function such as `sin`, `begin:pmatrix`, or a command unknown here.
 * - `mark`: any other sign. `{` and `}` are TeX's groups, `\{` and `\}` braces that are seen.
 */
export interface Token {
  readonly kind: 'number' | 'letter' | 'word' | 'command' | 'mark';
  readonly text: string;
}

/** Most tokens of an answer that is read as more than text. */
export const MAX_TOKENS = 1000;

/** How a comma between a digit and three more is read where no bracket is open: as in `1,000`, or as in `(1,000)`. */
export type CommaReading = 'thousands' | 'list';

/** The tokens of `text`. @throws Unreadable for more than {@link MAX_TOKENS} */
export function tokensOf(text: string, commas: CommaReading = 'thousands'): Token[] {
  const lexer = new Lexer(withoutDecoration(text), commas);
  lexer.readAll();
  return lexer.tokens;
}

export function isMark(token: Token | undefined, ...texts: string[]): boolean {
  return token?.kind === 'mark' && texts.includes(token.text);
}

/** One text for all spellings that differ in looks only. */
export function joinTokens(tokens: readonly Token[]): string {
  return tokens.map(({ kind, text }) => (kind === 'command' ? `\\${text}` : text)).join(' ');
}

/** Whether commas may be read in two ways: `1,234`, but not `1, 234`, `12,34` or `1,000`. */
export function hasGroupedDigits(text: string): boolean {
  return /\d,[1-9]\d\d(?!\d)/.test(text) && !/\d,0\d\d(?!\d)/.test(text);
}

/** Signs as ASCII and LaTeX, and separators of thousands that mean nothing else taken away. */
function withoutDecoration(text: string): string {
  return (
    Array.from(text, (sign) => UNICODE.get(sign) ?? (sign > '\u007f' ? sign.normalize('NFKC') : sign))
      .join('')
      // `1{,}000`, `1,\!000`, `1\,000`: a comma in a group or with its space taken back is no separator of items.
      .replace(/(?<=\d)(?:\{,\}|,\\!|\\,|\\ |~)(?=\d{3}(?!\d))/g, '')
  );
}

const ENVIRONMENT = /\\(begin|end)\s*\{([a-zA-Z]+\*?)\}/y;
const COMMAND = /\\([a-zA-Z]+)/y;
const NUMBER = /\d+(?:\.\d+)?|\.\d+/y;
const GROUPED = /\d{1,3}(?:(?:,\d{3})+|(?: \d{3})+)(?!,?\d)(?:\.\d+)?/y;
const EXPONENT = /[eE]([+-]?)\d+(?![\d.])/y;
const LETTER_RUN = /[a-zA-Z]+/y;
const TEXT_RUN = /\p{L}+/uy;
const HALF_OF_DAY = /([ap])\.\s*m\b\.?/iy;
const ARRAY_COLUMNS = /\s*\{[^{}]*\}/y;
const GROUP_START = /\s*\{/y;
const BLACKBOARD = /\s*\{?\s*([A-Z])\s*\}?/y;
/** `\mathrm{e}` and `\mathrm{i}` are numbers, not units. */
const UPRIGHT_CONSTANT = /\s*\{\s*([ei])\s*\}/y;
const ROW_SPACE = /\s*\[\s*-?[\d.]+\s*(?:pt|em|ex|mm|cm)\s*\]/y;
/** `^\circ`, `^{\circ}`, and an `o` in its place. */
const DEGREE =
  /\^\s*(?:\\(?:circ|degree)(?![a-zA-Z])|\{\s*\\(?:circ|degree)\s*\}|o(?![a-zA-Z])|\{\s*o\s*\})/y;

class Lexer {
  readonly tokens: Token[] = [];
  readonly #source: string;
  readonly #commas: CommaReading;
  #at = 0;
  /** Open ( [ \{ : within them a comma separates items. */
  #brackets = 0;
  /** For each open TeX group, whether it holds text. */
  readonly #groups: { isText: boolean; readonly isShown: boolean }[] = [];

  constructor(source: string, commas: CommaReading) {
    this.#source = source;
    this.#commas = commas;
  }

  readAll(): void {
    while (this.#at < this.#source.length) {
      this.#readOne();
      if (this.tokens.length > MAX_TOKENS) throw new Unreadable('too long');
    }
  }

  get #inText(): boolean {
    return this.#groups.at(-1)?.isText ?? false;
  }

  #readOne(): void {
    const sign = this.#source[this.#at]!;
    if (/\s/.test(sign) || sign === '~') this.#at++;
    else if (sign === '\\') this.#readCommand();
    else if (this.#match(DEGREE)) this.#mark('°');
    else if (/[\d.]/.test(sign) && this.#readNumber()) return;
    else if (/\p{L}/u.test(sign)) this.#readLetters();
    else {
      this.#at++;
      this.#readSign(sign);
    }
  }

  #readSign(sign: string): void {
    if (sign === '$') {
      // It delimits math, also within `\text{...}`; alone before a number it is money.
      const group = this.#groups.at(-1);
      if (group && !group.isShown) group.isText = !group.isText;
      else if (/\d/.test(this.#source[this.#at] ?? '') && !this.#source.includes('$', this.#at))
        this.#mark('$');
    } else if (sign === '{') {
      // Among words a group means nothing, unless it is the argument of a command, a power or an index.
      const before = this.tokens.at(-1);
      this.#open(!this.#inText || before?.kind === 'command' || isMark(before, '^', '_', '}'));
    } else if (sign === '}') {
      if (this.#groups.pop()?.isShown ?? true) this.#mark('}');
    } else if (sign === '<' || sign === '>' || sign === '!') {
      // In `5!=120` the sign is a factorial's; in `x != 5` it begins a sign of its own.
      const equals =
        this.#source[this.#at] === '=' && (sign !== '!' || /\s/.test(this.#source[this.#at - 2] ?? ''));
      if (equals) this.#at++;
      this.#mark(equals ? `${sign}=` : sign);
    } else if (sign === '*' && this.#source[this.#at] === '*') {
      this.#at++;
      this.#mark('^');
    } else if (sign === '+' && this.#source.startsWith('/-', this.#at)) {
      this.#at += 2;
      this.#mark('±');
    } else this.#mark(sign);
  }

  #mark(text: string): void {
    if (text === '(' || text === '[' || text === '\\{') this.#brackets++;
    else if (text === ')' || text === ']' || text === '\\}') this.#brackets--;
    this.tokens.push({ kind: 'mark', text });
  }

  /** A TeX group; one around words leaves no braces among the tokens. */
  #open(isShown: boolean, isText = this.#inText): void {
    this.#groups.push({ isText, isShown });
    if (isShown) this.#mark('{');
  }

  #readCommand(): void {
    const environment = this.#match(ENVIRONMENT);
    if (environment) {
      this.tokens.push({ kind: 'command', text: `${environment[1]}:${environment[2]}` });
      if (environment[1] === 'begin' && environment[2] === 'array') this.#match(ARRAY_COLUMNS);
      return;
    }
    const name = this.#match(COMMAND)?.[1];
    if (name === undefined) this.#readEscape();
    else if (TEXT_COMMANDS.has(name)) {
      const constant = this.#match(UPRIGHT_CONSTANT)?.[1];
      if (constant !== undefined) this.tokens.push({ kind: 'letter', text: constant });
      else if (this.#match(GROUP_START)) this.#open(false, true);
    } else if (name === 'mathbb') {
      const letter = this.#match(BLACKBOARD)?.[1] ?? '';
      this.tokens.push({ kind: 'letter', text: `mathbb ${letter}` });
    } else if (IGNORED_COMMANDS.has(name)) {
      // `\left.` and `\right.` are brackets that are not there.
      if ((name === 'left' || name === 'right') && this.#source[this.#at] === '.') this.#at++;
    } else if (/^[dtc]?frac$/.test(name)) this.tokens.push({ kind: 'command', text: 'frac' });
    else if (/^[dt]?binom$/.test(name)) this.tokens.push({ kind: 'command', text: 'binom' });
    else if (MARKS.has(name)) this.#mark(MARKS.get(name)!);
    else if (LETTERS.has(name)) this.tokens.push({ kind: 'letter', text: LETTERS.get(name)! });
    else this.tokens.push({ kind: 'command', text: FUNCTIONS.get(name) ?? name });
  }

  /** A backslash before anything but a letter. */
  #readEscape(): void {
    const sign = this.#source[this.#at + 1];
    this.#at += 2;
    if (sign === '\\') {
      this.#mark('\\\\');
      // The space after a row, as in `\\[2pt]`.
      this.#match(ROW_SPACE);
    } else if (sign === '{' || sign === '}') this.#mark(`\\${sign}`);
    else if (sign === '|') this.#mark('‖');
    else if (sign !== undefined && '%$&#_'.includes(sign)) this.#mark(sign);
    // `\(`, `\[` and their ends delimit math; `\,`, `\;`, `\!` and the like are space.
  }

  #readNumber(): boolean {
    const { tokens } = this;
    const separated = this.#commas === 'thousands' && this.#brackets <= 0;
    const digits = ((separated && this.#match(GROUPED)) || this.#match(NUMBER))?.[0];
    if (digits === undefined) return false;
    let text = digits.replace(/[, ]/g, '');
    const start = this.#at;
    const exponent = this.#match(EXPONENT);
    // `3e+2` and `3e-2` may well be sums with e; `1.5e-3`, `1e-5` and `3e-10` are not.
    const scientific =
      exponent && (exponent[1] === '' || text.includes('.') || text === '1' || /\d\d/.test(exponent[0]));
    if (scientific) text += exponent[0];
    else this.#at = start;
    tokens.push({ kind: 'number', text });
    return true;
  }

  #readLetters(): void {
    const { tokens } = this;
    if (this.#inText) {
      const half = this.#match(HALF_OF_DAY);
      const run = half ? `${half[1]}m` : this.#match(TEXT_RUN)![0];
      tokens.push(textToken(run));
      return;
    }
    const afterNumber = tokens.at(-1)?.kind === 'number';
    const half = afterNumber && this.#match(HALF_OF_DAY);
    const run = half ? `${half[1]}m` : this.#match(LETTER_RUN)?.[0];
    if (run === undefined) {
      // A letter of another script: a quantity of its own.
      const sign = String.fromCodePoint(this.#source.codePointAt(this.#at)!);
      this.#at += sign.length;
      tokens.push({ kind: 'letter', text: sign });
    } else if (run === 'sqrt') tokens.push({ kind: 'command', text: 'sqrt' });
    else if (run === 'pi') tokens.push({ kind: 'letter', text: 'pi' });
    else if (run === 'infinity' || run === 'infty') tokens.push({ kind: 'letter', text: 'infinity' });
    else if (FUNCTIONS.has(run) && (run !== 'sec' || this.#source[this.#at] === '(')) {
      tokens.push({ kind: 'command', text: FUNCTIONS.get(run)! });
    } else if (isWord(run) || (afterNumber && SHORT_UNITS.has(run))) {
      tokens.push(textToken(run));
    } else {
      for (const letter of run) tokens.push({ kind: 'letter', text: letter });
    }
  }

  #match(pattern: RegExp): RegExpExecArray | null {
    pattern.lastIndex = this.#at;
    const match = pattern.exec(this.#source);
    if (match) this.#at = pattern.lastIndex;
    return match;
  }
}

/** Whether a run of letters outside `\text` is a word, or the name of a figure (`ABC`), and not a product. */
function isWord(run: string): boolean {
  return run.length >= 4 || /^[A-Z]{2,}$|^[A-Z][a-z]{2}$/.test(run) || SHORT_WORDS.has(run.toLowerCase());
}

function textToken(run: string): Token {
  return { kind: 'word', text: run.length === 1 || /^[A-Z]{2,}$/.test(run) ? run : run.toLowerCase() };
}
