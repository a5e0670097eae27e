/**
 * Whether two formulas in LaTeX are the same number by the Compute Engine; asked of what answer.ts does not read: sums,
 * products and extremes. It knows no bound on its work: import it in a thread that may be killed.
 *
 * The engine reads much that is no formula, drops conditions under a sum and estimates limits and integrals; so only the
 * operations below count, and every value is held to its digits.
 */
import { add, divide, multiply, negate, one, parseDecimal, type Rational, sign } from './rational.js';

const OPERATIONS: ReadonlySet<string> = new Set(
  [
    'Add Subtract Negate Multiply Divide Rational Power Square Sqrt Root Exp Ln Log Abs Floor Ceil Factorial',
    'Sin Cos Tan Cot Sec Csc Arcsin Arccos Arctan Max Min Half Delimiter',
  ].flatMap((line) => line.split(' ')),
);
/** Operations with an index: [operation, body, [Tuple, index, from, to]]. */
const BIG_OPERATIONS: ReadonlySet<string> = new Set(['Sum', 'Product']);
const CONSTANTS: ReadonlySet<string> = new Set([
  'Pi',
  'ExponentialE',
  'ImaginaryUnit',
  'PositiveInfinity',
  'Half',
]);

/** Decimal digits that the engine computes with; of its numbers only those count that they tell apart. */
const PRECISION = 60;
const SAME = parseDecimal('1e-45');
const LARGEST = parseDecimal('1e12');
/** Whole numbers that stand for the letters of a formula, at each of the points that must agree. */
const POINTS: readonly (readonly number[])[] = [
  [5, 8, 13],
  [7, 12, 4],
  [10, 3, 6],
  [4, 9, 11],
];

/** What is used of the engine here; its own type files do not compile under TypeScript's rules for Node. */
interface Formula {
  readonly isValid: boolean;
  readonly json: unknown;
  subs(values: Readonly<Record<string, Formula>>): Formula;
  N(): Formula;
  toString(): string;
}

interface Engine {
  precision: number;
  tolerance: number;
  parse(latex: string): Formula;
  number(value: number): Formula;
}

/** No literal below, or the compiler would read those files. */
const ENGINE: string = '@cortex-js/compute-engine';

const { ComputeEngine } = (await import(ENGINE)) as { readonly ComputeEngine: new () => Engine };
const engine = new ComputeEngine();
engine.precision = PRECISION;
// What is smaller counts as zero, by default below 1e-10.
engine.tolerance = 1e-50;

export function sameByEngine(a: string, b: string): boolean {
  try {
    const [left, right] = [engine.parse(a), engine.parse(b)];
    const letters = new Set<string>();
    if (![left, right].every((side) => side.isValid && isKnown(side.json, new Set(), letters))) return false;
    const points = letters.size === 0 ? [[]] : POINTS;
    return (
      letters.size <= POINTS[0]!.length && points.every((point) => agree(left, right, [...letters], point))
    );
  } catch {
    // The engine gave up: deep nesting, a number too long.
    return false;
  }
}

/** Whether `json` (MathJSON) has known operations alone; collects the letters that no sum or product binds. */
function isKnown(json: unknown, bound: ReadonlySet<string>, letters: Set<string>): boolean {
  if (typeof json === 'number') return true;
  if (typeof json === 'string') {
    if (json.startsWith("'") || json === 'NaN') return false;
    if (!CONSTANTS.has(json) && !bound.has(json)) letters.add(json);
    return true;
  }
  if (!Array.isArray(json)) return typeof json === 'object' && json !== null && 'num' in json;
  const [operation, ...operands] = json;
  if (BIG_OPERATIONS.has(operation)) {
    const [body, limits, ...more] = operands;
    if (more.length > 0 || !Array.isArray(limits) || limits.length !== 4 || typeof limits[1] !== 'string')
      return false;
    const inner = new Set([...bound, limits[1]]);
    return isKnown(body, inner, letters) && limits.slice(2).every((limit) => isKnown(limit, bound, letters));
  }
  return OPERATIONS.has(operation) && operands.every((operand) => isKnown(operand, bound, letters));
}

function agree(a: Formula, b: Formula, letters: readonly string[], point: readonly number[]): boolean {
  const values = Object.fromEntries(letters.map((letter, i) => [letter, engine.number(point[i]!)]));
  const [x, y] = [numberOf(a.subs(values)), numberOf(b.subs(values))];
  if (!x || !y) return false;
  const distance = magnitude(add(x, negate(y)));
  const size = magnitude(x);
  return isAtMost(size, LARGEST) && isAtMost(distance, multiply(SAME, isAtMost(size, one) ? size : one));
}

/** The engine's value, undefined where it is not one real number. */
function numberOf(formula: Formula): Rational | undefined {
  const text = formula.N().toString();
  const [numerator, denominator = '1', ...rest] = text.split('/');
  const isNumber = [numerator!, denominator].every((part) => /^-?\d+(\.\d+)?(e[+-]?\d+)?$/.test(part));
  return isNumber && rest.length === 0
    ? divide(parseDecimal(numerator!), parseDecimal(denominator))
    : undefined;
}

function magnitude(value: Rational): Rational {
  return sign(value) < 0 ? negate(value) : value;
}

function isAtMost(a: Rational, b: Rational): boolean {
  return sign(add(a, negate(b))) <= 0;
}
