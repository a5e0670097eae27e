/** Problems with known answers, from whatever columns a data set has them in. */
import { checkInteger, InvalidArgumentError, invalid } from '../errors.js';
import { kindOf } from '../io/jsonFile.js';
import { CounterRandom } from '../random.js';
import type { ChatMessage } from '../text/chatTemplate.js';
import { type Column, columnOf, findColumn, hasColumn } from './columns.js';
import type { Dataset } from './dataset.js';
import { DATA, type DatasetRow, placeOf } from './row.js';

/** Tells the random stream of a subset from those of orders. */
const SUBSET_STREAM = 0;
const ORDER_STREAM = 1;

/** The usual names of columns, in the order in which they are looked for. */
export const promptColumns: readonly string[] = ['problem', 'question', 'prompt'];
export const answerColumns: readonly string[] = ['answer', 'reward_model.ground_truth'];

/** A problem in normal form. */
export interface Problem {
  /** Its place in the data set, counted from 0, or what a column of ids has. No two are alike. */
  readonly id: string;
  /** The text of a question, or a conversation that ends where the model answers. */
  readonly prompt: string | readonly ChatMessage[];
  /** The answers that are right; at least one, but where the data set has no column of them. */
  readonly answers: readonly string[];
  /** The whole row, where it was asked for. */
  readonly row?: Readonly<Record<string, unknown>>;
}

export interface ProblemOptions {
  /** Column of the prompt; default the first of {@link promptColumns} that there is. */
  readonly promptColumn?: string;
  /** Column of the answer; default the first of {@link answerColumns} that there is. */
  readonly answerColumn?: string;
  /**
   * Whether problems keep their whole rows and need no answers, as for a verifier of one's own: what no column of answers has
   * been named for may then have any. Default false.
   */
  readonly rows?: boolean;
  /** Column of ids; without one, a problem's id is its place. */
  readonly idColumn?: string;
  /** How many problems to take, drawn by `seed`, in the order of the data set; default all. */
  readonly count?: number;
  /** Default 0. */
  readonly seed?: number;
}

/**
 * The problems of a data set, in its order. Prompts, ids and answers are kept in memory; of the rows only with `rows`.
 *
 * An answer is text, a number (written as JavaScript writes it: 142.0 is `142`), or a list of these, each of which is
 * right; other spellings of a right answer are a verifier's business.
 *
 * @throws InvalidArgumentError before the first row is read where a column is missing, and for a row whose prompt or answer
 * is none, naming it
 */
export async function loadProblems(dataset: Dataset, options: ProblemOptions = {}): Promise<Problem[]> {
  const { promptColumn, answerColumn, idColumn, rows: whole = false, count, seed = 0 } = options;
  if (count !== undefined) checkInteger(DATA, 'count', count, 1);
  const prompt = findColumn(dataset, 'prompt', promptColumn, promptColumns);
  const answerless =
    whole && answerColumn === undefined && !answerColumns.some((name) => hasColumn(dataset, name));
  const answer = answerless ? undefined : findColumn(dataset, 'answer', answerColumn, answerColumns);
  const id = idColumn === undefined ? undefined : findColumn(dataset, 'ids', idColumn, []);

  const problems: Problem[] = [];
  const places = new Map<string, string>();
  const answersIn = (row: DatasetRow, column: Column) => {
    if (!whole || answerColumn !== undefined) return answersOf(row, column.name, columnOf(row, column));
    // Nobody asked for them: what they are is the verifier's business, which has the row.
    try {
      return answersOf(row, column.name, columnOf(row, column));
    } catch (error) {
      if (!(error instanceof InvalidArgumentError)) throw error;
      return [];
    }
  };
  const wanted = [prompt, answer, id].flatMap((column) => column?.path[0] ?? []);
  for await (const row of dataset.rows(whole ? undefined : [...new Set(wanted)])) {
    const problem = {
      id: id === undefined ? String(problems.length) : idOf(row, columnOf(row, id)),
      prompt: promptOf(row, prompt.name, columnOf(row, prompt)),
      answers: answer === undefined ? [] : answersIn(row, answer),
      ...(whole && { row: row.values }),
    };
    const before = places.get(problem.id);
    if (before !== undefined) invalid(DATA, `${placeOf(row)} to have another id than ${before}`, problem.id);
    places.set(problem.id, placeOf(row));
    problems.push(problem);
  }
  if (problems.length === 0) invalid(DATA, `${dataset.path} to have rows`, 'none');
  if (count === undefined) return problems;
  if (count > problems.length) {
    invalid(DATA, `count to be at most ${problems.length}, the problems of ${dataset.path}`, count);
  }
  const drawn = new CounterRandom(seed, SUBSET_STREAM).shuffle(problems.map((_, i) => i)).slice(0, count);
  return drawn.sort((a, b) => a - b).map((i) => problems[i]!);
}

/**
 * Problems without end: pass after pass over them, each pass in an order of its own. Which problem comes at a position is a
 * function of the seed and the position alone, so a run goes on from a plain integer.
 */
export class ProblemOrder {
  readonly #problems: readonly Problem[];
  readonly #seed: number | undefined;
  #pass = -1;
  #order: Uint32Array = new Uint32Array(0);

  /** @param seed of the orders; undefined keeps the order of the problems in every pass */
  constructor(problems: readonly Problem[], seed?: number) {
    if (problems.length === 0) invalid('ProblemOrder', 'at least one problem', 0);
    if (seed !== undefined) checkInteger('ProblemOrder', 'seed', seed, 0, Number.MAX_SAFE_INTEGER);
    this.#problems = problems;
    this.#seed = seed;
  }

  /** @param position counted from 0 over all passes */
  at(position: number): Problem {
    checkInteger('ProblemOrder', 'position', position, 0, Number.MAX_SAFE_INTEGER);
    const count = this.#problems.length;
    const place = position % count;
    if (this.#seed === undefined) return this.#problems[place]!;
    const pass = (position - place) / count;
    if (pass !== this.#pass) {
      this.#order = new CounterRandom(this.#seed, ORDER_STREAM, pass).shuffle(
        Uint32Array.from({ length: count }, (_, i) => i),
      );
      this.#pass = pass;
    }
    return this.#problems[this.#order[place]!]!;
  }

  /** The problems at `position`, `position + 1`, ...: the prompts of one step. */
  take(position: number, count: number): Problem[] {
    checkInteger('ProblemOrder', 'count', count, 0);
    return Array.from({ length: count }, (_, i) => this.at(position + i));
  }
}

function idOf(row: DatasetRow, value: unknown): string {
  if (typeof value === 'string' || typeof value === 'number' || typeof value === 'bigint')
    return String(value);
  return invalid(DATA, `the id of ${placeOf(row)} to be text or a number`, kindOf(value));
}

function promptOf(row: DatasetRow, name: string, value: unknown): Problem['prompt'] {
  if (typeof value === 'string' && value.trim() !== '') return value;
  const isChat = Array.isArray(value) && value.length > 0 && value.every(isMessage);
  if (!isChat) invalid(DATA, `${name} of ${placeOf(row)} to be text or a list of messages`, kindOf(value));
  return value;
}

function isMessage(value: unknown): value is ChatMessage {
  const { role, content } = (value ?? {}) as { role?: unknown; content?: unknown };
  return typeof role === 'string' && typeof content === 'string';
}

function answersOf(row: DatasetRow, name: string, value: unknown): string[] {
  const values = Array.isArray(value) ? value : [value];
  const answers = values.map((item: unknown) => {
    if (typeof item === 'string' && item.trim() !== '') return item;
    if (typeof item === 'bigint') return String(item);
    if (typeof item === 'number' && Number.isFinite(item)) {
      if (Number.isInteger(item) && !Number.isSafeInteger(item)) {
        invalid(
          DATA,
          `${name} of ${placeOf(row)} to be written as text: it has more digits than a number keeps`,
          item,
        );
      }
      return String(item);
    }
    return invalid(DATA, `${name} of ${placeOf(row)} to be text, a number or a list of them`, kindOf(value));
  });
  if (answers.length === 0) invalid(DATA, `${name} of ${placeOf(row)} to have an answer`, kindOf(value));
  return answers;
}
