/** The words and signs of mathematical answers: what the lexer and the readers look up. */

/** A table for looking up what others wrote: a plain object would find `constructor`. */
function table<T>(entries: Readonly<Record<string, T>>): ReadonlyMap<string, T> {
  return new Map(Object.entries(entries));
}

/** Signs outside ASCII, as the LaTeX that means the same. */
export const UNICODE = table<string>({
  '\u2212': '-',
  '\u2013': '-',
  '\u2014': '-',
  '\u2010': '-',
  '\u2011': '-',
  '×': '\\times ',
  '·': '\\cdot ',
  '⋅': '\\cdot ',
  '∙': '\\cdot ',
  '•': '\\cdot ',
  '÷': '\\div ',
  '∕': '/',
  '±': '\\pm ',
  '∓': '\\mp ',
  '√': '\\sqrt ',
  '∛': '\\sqrt[3]',
  '∞': '\\infty ',
  '°': '^\\circ ',
  º: '^\\circ ',
  '≤': '\\le ',
  '≥': '\\ge ',
  '⩽': '\\le ',
  '⩾': '\\ge ',
  '≠': '\\ne ',
  '≈': '\\approx ',
  '≡': '\\equiv ',
  '∪': '\\cup ',
  '∩': '\\cap ',
  '∈': '\\in ',
  '∅': '\\emptyset ',
  ø: '\\emptyset ',
  ℝ: '\\mathbb{R}',
  ℤ: '\\mathbb{Z}',
  ℚ: '\\mathbb{Q}',
  ℕ: '\\mathbb{N}',
  ℂ: '\\mathbb{C}',
  '⟨': '\\langle ',
  '⟩': '\\rangle ',
  '⌊': '\\lfloor ',
  '⌋': '\\rfloor ',
  '⌈': '\\lceil ',
  '⌉': '\\rceil ',
  '∠': '\\angle ',
  '′': "'",
  '’': "'",
  '½': '\\frac{1}{2}',
  '⅓': '\\frac{1}{3}',
  '⅔': '\\frac{2}{3}',
  '¼': '\\frac{1}{4}',
  '¾': '\\frac{3}{4}',
  '⁰': '^{0}',
  '¹': '^{1}',
  '²': '^{2}',
  '³': '^{3}',
  '⁴': '^{4}',
  '⁵': '^{5}',
  '⁶': '^{6}',
  '⁷': '^{7}',
  '⁸': '^{8}',
  '⁹': '^{9}',
  α: '\\alpha ',
  β: '\\beta ',
  γ: '\\gamma ',
  δ: '\\delta ',
  ε: '\\epsilon ',
  θ: '\\theta ',
  λ: '\\lambda ',
  μ: '\\mu ',
  π: '\\pi ',
  ρ: '\\rho ',
  σ: '\\sigma ',
  τ: '\\tau ',
  φ: '\\phi ',
  ω: '\\omega ',
});

/** Commands that stand for one sign. */
export const MARKS = table<string>({
  cdot: '*',
  times: '*',
  ast: '*',
  div: '/',
  le: '<=',
  leq: '<=',
  leqslant: '<=',
  ge: '>=',
  geq: '>=',
  geqslant: '>=',
  lt: '<',
  gt: '>',
  ne: '!=',
  neq: '!=',
  approx: 'approx',
  equiv: 'equiv',
  pm: '±',
  mp: '∓',
  cup: 'cup',
  in: 'in',
  circ: '°',
  degree: '°',
  prime: "'",
  colon: ':',
  vert: '|',
  lvert: '|',
  rvert: '|',
  mid: '|',
  lbrace: '\\{',
  rbrace: '\\}',
  lbrack: '[',
  rbrack: ']',
  lparen: '(',
  rparen: ')',
  langle: '⟨',
  rangle: '⟩',
  lfloor: '⌊',
  rfloor: '⌋',
  lceil: '⌈',
  rceil: '⌉',
  ldots: '…',
  cdots: '…',
  dots: '…',
});

/** Commands that name one quantity; every other Greek letter is itself. */
export const LETTERS = table<string>({
  pi: 'pi',
  infty: 'infinity',
  emptyset: 'emptyset',
  varnothing: 'emptyset',
  varepsilon: 'epsilon',
  vartheta: 'theta',
  varphi: 'phi',
  ell: 'ell',
  ...Object.fromEntries(
    [
      ...['alpha', 'beta', 'gamma', 'delta', 'epsilon', 'zeta', 'eta', 'theta', 'iota', 'kappa', 'lambda'],
      ...['mu', 'nu', 'xi', 'rho', 'sigma', 'tau', 'upsilon', 'phi', 'chi', 'psi', 'omega'],
      ...['Gamma', 'Delta', 'Theta', 'Lambda', 'Xi', 'Pi', 'Sigma', 'Phi', 'Psi', 'Omega'],
    ].map((name) => [name, name]),
  ),
});

/** Commands whose braces hold plain text. */
export const TEXT_COMMANDS: ReadonlySet<string> = new Set(
  'text textbf textit textrm textsf texttt textnormal textup mbox hbox mathrm operatorname mathsf mathtt'.split(
    ' ',
  ),
);

/** Commands that change how something looks, and nothing else. */
export const IGNORED_COMMANDS: ReadonlySet<string> = new Set(
  [
    'left right middle big Big bigg Bigg bigl bigr bigm Bigl Bigr Bigm biggl biggr Biggl Biggr',
    'displaystyle textstyle scriptstyle limits nolimits quad qquad thinspace enspace hfill',
    'mathbf boldsymbol bm bf rm it mathit mathcal boxed fbox ensuremath underline underbrace',
  ].flatMap((line) => line.split(' ')),
);

/** Named functions of one argument, by every spelling. */
export const FUNCTIONS = table<string>({
  ...Object.fromEntries(
    ['sin', 'cos', 'tan', 'cot', 'sec', 'csc', 'sinh', 'cosh', 'tanh', 'log', 'ln', 'exp'].map((name) => [
      name,
      name,
    ]),
  ),
  lg: 'log',
  arcsin: 'arcsin',
  arccos: 'arccos',
  arctan: 'arctan',
  asin: 'arcsin',
  acos: 'arccos',
  atan: 'arctan',
});

/** The function that `\name^{-1}` is. */
export const INVERSES = table<string>({ sin: 'arcsin', cos: 'arccos', tan: 'arctan' });

/** Short words that may stand in an answer without `\text`; longer runs of letters are words anyway. */
export const SHORT_WORDS: ReadonlySet<string> = new Set(
  'or and no yes odd not none all any two six ten one red may sun mon tue wed thu fri sat usd'.split(' '),
);

/** Short units that may follow a number without `\text`. */
export const SHORT_UNITS: ReadonlySet<string> = new Set(
  'cm mm km in ft yd kg mg lb oz hr min sec mph deg am pm'.split(' '),
);

/** Words that change what stands before them, so that they are no mere unit. */
export const NO_UNIT: ReadonlySet<string> = new Set(
  [
    'not no than more less least most over under times minus plus or and if mod base remainder only of except to',
    'half halves third thirds fourth fourths fifth fifths sixth sixths eighth eighths tenth tenths hundredth',
    'hundredths thousandth thousandths factorial negative root infinity because',
  ].flatMap((line) => line.split(' ')),
);

/** Number words that multiply what stands before them, as a power of ten or a dozen. */
export const SCALES = table<bigint>({
  dozen: 12n,
  hundred: 100n,
  thousand: 1000n,
  million: 10n ** 6n,
  billion: 10n ** 9n,
  trillion: 10n ** 12n,
});

/** Bases by name, as in `101_{\text{two}}`. */
export const BASES = table<number>(
  Object.fromEntries(
    'two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen'
      .split(' ')
      .map((word, i) => [word, i + 2]),
  ),
);

/** Sets that answers say in words. */
export const SETS_IN_WORDS = table<'reals' | 'empty'>({
  'all real numbers': 'reals',
  'all reals': 'reals',
  'real numbers': 'reals',
  'no solution': 'empty',
  'no solutions': 'empty',
  'empty set': 'empty',
  'the empty set': 'empty',
});

const SPELLINGS: Readonly<Record<string, string>> = {
  '%': 'percent percents',
  '°': 'degree degrees deg degs',
  $: 'dollar dollars usd buck bucks',
  '¢': 'cent cents',
  mm: 'millimeter millimeters millimetre millimetres',
  cm: 'centimeter centimeters centimetre centimetres cms',
  m: 'meter meters metre metres',
  km: 'kilometer kilometers kilometre kilometres kms',
  in: 'inch inches',
  ft: 'foot feet',
  yd: 'yard yards yds',
  mi: 'mile miles',
  mg: 'milligram milligrams',
  g: 'gram grams',
  kg: 'kilogram kilograms kgs',
  lb: 'pound pounds lbs',
  oz: 'ounce ounces',
  s: 'second seconds sec secs',
  min: 'minute minutes mins',
  h: 'hour hours hr hrs',
  day: 'days',
  week: 'weeks',
  month: 'months',
  year: 'years yr yrs',
  L: 'l liter liters litre litres',
  mL: 'ml milliliter milliliters millilitre millilitres',
  gal: 'gallon gallons',
  unit: 'units',
  square: 'sq squared',
  cubic: 'cu cubed',
  am: 'AM',
  pm: 'PM',
  '/': 'per',
};

/** A unit by every spelling. */
export const UNITS = table<string>(
  Object.fromEntries(
    Object.entries(SPELLINGS).flatMap(([unit, others]) =>
      others.split(' ').map((spelling) => [spelling, unit]),
    ),
  ),
);
