/** Judges one pair of answers at a time, in a thread that may be killed. */
import { parentPort } from 'node:worker_threads';
import { parseAnswer } from './answer.js';
import { type Likeness, likeness } from './equal.js';

/**
 * - `strict`: the same text or the same normal form, exactly; `mathEqual` does the same at once. A product is not its
 *   expansion, so that a problem which asks for factors is not answered by restating it.
 * - `symbolic`: also the same value or function (`\cos 60^\circ` for 1/2, `x^2 - 1` for `(x - 1)(x + 1)`), and what the
 *   Compute Engine finds equal among formulas with `\sum`, `\prod`, `\max` and `\min`.
 */
export type MathMode = 'strict' | 'symbolic';

/** Whether two answers say the same, and how it was found; `failed` where the thread died of it, such as of its memory. */
export type Judgement =
  | 'same text'
  | 'same form'
  | 'same value'
  | 'compute engine'
  | 'different'
  | 'time limit'
  | 'failed';

export interface Question {
  readonly answer: string;
  readonly gold: string;
  readonly mode: MathMode;
}

/** What the thread tells: that it or the engine is ready, that it loads the engine, or what the last question came to. */
export type Reply = { readonly ready: true } | { readonly loading: true } | { readonly judgement: Judgement };

/** Longest formula that the engine is asked about, in characters. */
const MAX_QUESTION = 500;
/** What the engine knows and answer.ts does not. */
const ENGINE_COMMANDS = /\\(?:sum|prod|max|min)(?![a-zA-Z])/;
/** Sums and products from a first index on, without more conditions, which the engine would not heed. */
const PLAIN_SUMS = /\\(?:sum|prod)(?:\\limits)?\s*_\s*\{\s*[a-zA-Z]\s*=[^,;{}\\<>=]*\}/g;

let engine: typeof import('./computeEngine.js') | undefined;

parentPort!.on('message', async (question: Question) => tell({ judgement: await judge(question) }));
tell({ ready: true });

function tell(reply: Reply): void {
  parentPort!.postMessage(reply);
}

async function judge({ answer, gold, mode }: Question): Promise<Judgement> {
  const found = likeness(answer, gold, mode === 'strict' ? 'form' : 'value');
  if (mode === 'strict' || found !== 'undecided' || !isForEngine(answer) || !isForEngine(gold)) {
    return decided(found);
  }
  if (!engine) {
    tell({ loading: true });
    engine = await import('./computeEngine.js');
    tell({ ready: true });
  }
  return engine.sameByEngine(bare(answer), bare(gold)) ? 'compute engine' : 'different';
}

function decided(found: Likeness): Judgement {
  return found === 'undecided' ? 'different' : found;
}

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
