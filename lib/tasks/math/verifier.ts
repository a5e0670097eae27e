/** Judges responses to mathematical problems: MATH, AIME, AMC and data sets like them. */
import { checkChoice, checkInteger, checkNumber, invalid } from '../../errors.js';
import { parseAnswer } from './answer.js';
import { ComputeEnginePool } from './computeEnginePool.js';
import { type Likeness, likeness } from './equal.js';
import { type AnswerPlace, extractAnswer, lastBoxed } from './extract.js';

/** Changes with every change that may change a verdict; runs record it. The number is that of the Compute Engine. */
export const mathVerifierVersion = 'isopolicy-math-1/compute-engine-0.27';

/**
 * - `strict`: the same text or the same normal form, exactly; `mathEqual` does the same at once. A product is not its
 *   expansion, so that a problem which asks for factors is not answered by restating it.
 * - `symbolic`: also the same value or function (`\cos 60^\circ` for 1/2, `x^2 - 1` for `(x - 1)(x + 1)`), and what the
 *   Compute Engine finds equal among formulas with `\sum`, `\prod`, `\max` and `\min`.
 */
export type MathMode = 'strict' | 'symbolic';

export interface MathVerifierOptions {
  /** Default `symbolic`. */
  readonly mode?: MathMode;
  /** Where in a response its answer may stand; default `boxed`. */
  readonly place?: AnswerPlace;
  /** Most threads of the Compute Engine, 1 to 64; default 2. */
  readonly threads?: number;
  /** Milliseconds that the Compute Engine may take for one pair of answers; then it is incorrect. Default 1000. */
  readonly timeLimit?: number;
}

/**
 * Why a response counts as correct, or why not. `time limit` and `failed` are the Compute Engine's: it took too long, or
 * its thread died.
 */
export type Reason =
  | 'same text'
  | 'same form'
  | 'same value'
  | 'compute engine'
  | 'different'
  | 'no answer'
  | 'time limit'
  | 'failed';

export interface MathVerdict {
  readonly correct: boolean;
  /** The answer of the response as it is written there; null for none. */
  readonly extracted: string | null;
  readonly how: Reason;
}

/**
 * Whether responses give the gold answer. Verdicts depend on the pair alone, whatever was judged before or beside it, but
 * for the time limit.
 *
 * Nearly all are found at once, in some ten microseconds; answers are read and evaluated with a bound on the work, tens of
 * milliseconds for the worst. Only the Compute Engine knows no bound and runs in threads that are killed at the limit. They
 * start when first needed, and keep no process alive while idle. `close` ends them, as `await using` does.
 */
export class MathVerifier {
  readonly mode: MathMode;
  readonly place: AnswerPlace;
  readonly #pool: ComputeEnginePool;

  constructor(options: MathVerifierOptions = {}) {
    const { mode = 'symbolic', place = 'boxed', threads = 2, timeLimit = 1000 } = options;
    this.mode = checkChoice('MathVerifier', 'mode', mode, ['strict', 'symbolic']);
    this.place = checkChoice('MathVerifier', 'place', place, ['boxed', 'stated', 'plain']);
    checkInteger('MathVerifier', 'threads', threads, 1, 64);
    this.#pool = new ComputeEnginePool(
      threads,
      checkNumber('MathVerifier', 'timeLimit', timeLimit, 1, 600_000),
    );
  }

  /**
   * @param response what the model wrote, of any length
   * @param gold the right answer, or several of which each is right; a text with a `\boxed` (a whole solution) is what the
   *   last one holds
   * @throws InvalidArgumentError for a gold answer that is empty or no string
   */
  async verify(response: string, gold: string | readonly string[]): Promise<MathVerdict> {
    if (typeof response !== 'string') invalid('MathVerifier', 'response to be a string', response);
    const golds = (Array.isArray(gold) ? gold : [gold]).map(goldAnswer);
    if (golds.length === 0) invalid('MathVerifier', 'gold to have an answer', gold);
    const extracted = extractAnswer(response, this.place) ?? null;
    if (extracted === null || extracted === '') return { correct: false, extracted, how: 'no answer' };
    let how: Reason = 'different';
    for (const answer of golds) {
      const reason = await this.#judge(extracted, answer);
      if (isRight(reason)) return { correct: true, extracted, how: reason };
      if (reason !== 'different') how = reason;
    }
    return { correct: false, extracted, how };
  }

  async #judge(answer: string, gold: string): Promise<Reason> {
    if (this.mode === 'strict') return decided(likeness(answer, gold));
    const found = likeness(answer, gold, 'value');
    if (found !== 'undecided' || !isForEngine(answer) || !isForEngine(gold)) return decided(found);
    const outcome = await this.#pool.ask({ a: bare(answer), b: bare(gold) });
    return outcome === 'same' ? 'compute engine' : outcome;
  }

  /** Ends the threads for good; a verdict that needs one is rejected from then on. */
  close(): Promise<void> {
    return this.#pool.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

function decided(found: Likeness): Reason {
  return found === 'undecided' ? 'different' : found;
}

function isRight(reason: Reason): boolean {
  return reason.startsWith('same') || reason === 'compute engine';
}

/** A gold answer as it is compared. @throws InvalidArgumentError for none */
function goldAnswer(gold: string): string {
  const answer = typeof gold === 'string' ? (lastBoxed(gold) ?? gold) : '';
  if (answer.trim() === '') invalid('MathVerifier', 'gold to be an answer, a string that is not empty', gold);
  return answer;
}

/** Longest formula that the engine is asked about, in characters. */
const MAX_QUESTION = 500;
/** What the engine knows and answer.ts does not. */
const ENGINE_COMMANDS = /\\(?:sum|prod|max|min)(?![a-zA-Z])/;
/** Sums and products from a first index on, without more conditions, which the engine would not heed. */
const PLAIN_SUMS = /\\(?:sum|prod)(?:\\limits)?\s*_\s*\{\s*[a-zA-Z]\s*=[^,;{}\\<>=]*\}/g;

/** Whether an answer is a formula whose value is not known here, and may be known to the engine. */
function isForEngine(answer: string): boolean {
  if (answer.length > MAX_QUESTION) return false;
  const { form } = parseAnswer(answer);
  if (form.kind !== 'opaque') return form.kind === 'quantity' && !form.unit;
  return (
    ENGINE_COMMANDS.test(answer) && !/\\(?:sum|prod)(?![a-zA-Z])/.test(answer.replaceAll(PLAIN_SUMS, ''))
  );
}

/** A formula without the delimiters of math and final punctuation. */
function bare(answer: string): string {
  return answer
    .replaceAll(/(?<!\\)\$|\\[()]|\\(?:displaystyle|limits|left|right)(?![a-zA-Z])/g, ' ')
    .replace(/[\s.,;]+$/, '');
}
