/** Judges responses to mathematical problems: MATH, AIME, AMC and data sets like them. */
import { checkChoice, checkInteger, checkNumber, invalid } from '../../errors.js';
import { type AnswerPlace, extractAnswer, goldOf } from './extract.js';
import { JudgePool } from './judgePool.js';
import type { Judgement, MathMode } from './judgeWorker.js';

export type { MathMode } from './judgeWorker.js';

/** Changes with every change that may change a verdict; runs record it. The number is that of the Compute Engine. */
export const mathVerifierVersion = 'isopolicy-math-2/compute-engine-0.27';

export interface MathVerifierOptions {
  /** Default `symbolic`. */
  readonly mode?: MathMode;
  /** Where in a response its answer may stand; default `boxed`. */
  readonly place?: AnswerPlace;
  /** Most threads, 1 to 64; default 2. */
  readonly threads?: number;
  /** Milliseconds that one pair of answers may take; then it is incorrect. Default 1000. */
  readonly timeLimit?: number;
}

/** Why a response counts as correct, or why not: there is no answer in it, or what comparing it came to. */
export type Reason = Judgement | 'no answer';

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
 * Answers are read and compared in threads that are killed at the time limit, some ten microseconds each, with a bound on
 * the work: tens of milliseconds for the worst. The Compute Engine, the last resort, knows no bound. Threads start when
 * first needed, and keep no process alive while idle. `close` ends them, as `await using` does.
 */
export class MathVerifier {
  readonly mode: MathMode;
  readonly place: AnswerPlace;
  readonly #pool: JudgePool;

  constructor(options: MathVerifierOptions = {}) {
    const { mode = 'symbolic', place = 'boxed', threads = 2, timeLimit = 1000 } = options;
    this.mode = checkChoice('MathVerifier', 'mode', mode, ['strict', 'symbolic']);
    this.place = checkChoice('MathVerifier', 'place', place, ['boxed', 'stated', 'plain']);
    checkInteger('MathVerifier', 'threads', threads, 1, 64);
    this.#pool = new JudgePool(threads, checkNumber('MathVerifier', 'timeLimit', timeLimit, 1, 600_000));
  }

  /**
   * @param response what the model wrote, of any length
   * @param gold the right answer, or several of which each is right; of a whole solution it is what the last `\boxed`
   *   holds, or what stands behind `####` in its last line
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
      const reason =
        extracted === answer.trim()
          ? 'same text'
          : await this.#pool.ask({ answer: extracted, gold: answer, mode: this.mode });
      if (isRight(reason)) return { correct: true, extracted, how: reason };
      if (reason !== 'different') how = reason;
    }
    return { correct: false, extracted, how };
  }

  /** Ends the threads for good; a verdict that needs one is rejected from then on. */
  close(): Promise<void> {
    return this.#pool.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

function isRight(reason: Reason): boolean {
  return reason.startsWith('same') || reason === 'compute engine';
}

/** A gold answer as it is compared. @throws InvalidArgumentError for none */
function goldAnswer(gold: string): string {
  const answer = typeof gold === 'string' ? goldOf(gold) : '';
  if (answer.trim() === '') invalid('MathVerifier', 'gold to be an answer, a string that is not empty', gold);
  return answer;
}
