/** The problems of a data set as an environment: prompts by a template, responses as text for a verifier. */
import type { Problem } from '../data/problems.js';
import { checkPromptTokens, encodePrompt, promptTemplate } from '../data/promptTemplates.js';
import { checkChoice, checkInteger, InvalidArgumentError, invalid } from '../errors.js';
import type { ModelText } from '../models/languageModel.js';
import { loadChatTemplate } from '../text/chatTemplate.js';
import { TextStream } from '../text/textStream.js';
import type { Environment, JudgedResponse } from './environment.js';
import { type OverlongPrompts, overlongPromptModes } from './overlongPrompts.js';
import { loadVerifier, type ResponseVerifier } from './verifier.js';

export interface ProblemSetOptions {
  /** Name of a prompt template; see `promptTemplates`. */
  readonly template: string;
  /** See {@link loadVerifier}; default `math`. */
  readonly verifier?: string | ResponseVerifier;
  /** Most tokens of a prompt. */
  readonly maxPromptLength: number;
  /** Default `error`. */
  readonly overlongPrompts?: OverlongPrompts;
  /** Most new tokens of a response. */
  readonly responseLength: number;
}

/** Problems to sample a model for. `await using` ends its verifier. */
export interface ProblemSet extends Environment, AsyncDisposable {
  readonly problems: readonly Problem[];
  /** How many problems were left out because their prompts are too long. */
  readonly leftOut: number;
  /** Of the verifier; runs record it. */
  readonly verifierVersion: string;
  /** A prompt or a response as text, special tokens included. */
  format(tokens: ArrayLike<number>): string;
  /** Some of the problems; the verifier is shared, and ends with the whole set. */
  subset(indices: readonly number[]): ProblemSet;
}

/**
 * Writes the prompts of problems and opens their verifier.
 *
 * A response ends with one of the model's own ends or a stop string of the template. The verifier reads all of its text
 * but special tokens: `</answer>`, a stop string, is part of an answer's markup.
 *
 * @throws InvalidArgumentError where the template is unknown or another model's, a prompt is too long (naming the problem) and
 *   not to be left out, or all are, a problem has no answer that the verifier needs, or there is nothing that ends a response
 */
export async function createProblemSet(
  text: ModelText,
  problems: readonly Problem[],
  options: ProblemSetOptions,
): Promise<ProblemSet> {
  const where = 'problemSet';
  const { tokenizer } = text;
  const maxPromptLength = checkInteger(where, 'maxPromptLength', options.maxPromptLength, 1);
  const responseLength = checkInteger(where, 'responseLength', options.responseLength, 1);
  const template = promptTemplate(options.template);
  checkPromptTokens(template, tokenizer);
  const chat = template.usesChatTemplate ? await loadChatTemplate(text.path) : undefined;
  if (tokenizer.eosIds.length === 0 && template.stop.length === 0) {
    invalid(where, `${text.path} to say what ends a response (eos_token_id, eos_token)`, 'nothing');
  }
  const overlongPrompts = options.overlongPrompts ?? 'error';
  checkChoice(where, 'overlongPrompts', overlongPrompts, overlongPromptModes);
  const all = problems.map((problem) => {
    const prompt = encodePrompt(template, template.render(problem, chat), tokenizer);
    if (prompt.length === 0) invalid(where, `the prompt of problem ${problem.id} to have tokens`, 'none');
    return { problem, prompt };
  });
  const fitting = all.filter(({ prompt }) => prompt.length <= maxPromptLength);
  if (fitting.length === 0 || (overlongPrompts === 'error' && fitting.length < all.length)) {
    throw tooLong(all, maxPromptLength);
  }
  const given = options.verifier ?? 'math';
  const verifier = typeof given === 'string' ? await loadVerifier(given) : given;
  const unanswered =
    verifier.needsAnswers && fitting.find(({ problem }) => problem.answers.length === 0)?.problem;
  if (unanswered) {
    await verifier[Symbol.asyncDispose]();
    invalid(
      where,
      `problem ${unanswered.id} to have an answer, which ${verifier.version} compares with`,
      'none',
    );
  }
  const shared = { text, template, responseLength, verifier, leftOut: all.length - fitting.length };
  return new Problems(
    shared,
    fitting.map(({ problem }) => problem),
    fitting.map(({ prompt }) => prompt),
  );
}

/** Names the first prompt that is too long, and says how many are and what can be done. */
function tooLong(
  all: readonly { readonly problem: Problem; readonly prompt: Int32Array }[],
  maxPromptLength: number,
): InvalidArgumentError {
  const long = all.filter(({ prompt }) => prompt.length > maxPromptLength);
  const { problem, prompt } = long[0]!;
  const longest = long.reduce((most, { prompt: { length } }) => Math.max(most, length), 0);
  const remedy =
    long.length < all.length
      ? "; overlongPrompts 'drop' (--overlong-prompts drop) leaves such problems out"
      : '';
  return new InvalidArgumentError(
    `[problemSet] expected the prompt of problem ${problem.id} to have at most maxPromptLength = ${maxPromptLength} tokens, ` +
      `got ${prompt.length} (${long.length} of ${all.length} prompts are longer, the longest has ${longest} tokens${remedy})`,
  );
}

interface Shared {
  readonly text: ModelText;
  readonly template: { readonly stop: readonly string[] };
  readonly responseLength: number;
  readonly verifier: ResponseVerifier;
  readonly leftOut: number;
}

class Problems implements ProblemSet {
  readonly #shared: Shared;
  readonly problems: readonly Problem[];
  readonly prompts: readonly Int32Array[];
  readonly responseLength: number;
  readonly stopTokens: readonly number[];
  readonly endOf?: () => (token: number) => boolean;

  constructor(shared: Shared, problems: readonly Problem[], prompts: readonly Int32Array[]) {
    const { text, template, responseLength } = shared;
    this.#shared = shared;
    this.problems = problems;
    this.prompts = prompts;
    this.responseLength = responseLength;
    this.stopTokens = text.tokenizer.eosIds;
    const { stop } = template;
    if (stop.length > 0) {
      this.endOf = () => {
        const stream = new TextStream(text.tokenizer, { continues: true, stop });
        return (token) => {
          stream.push(token);
          return stream.stopped !== undefined;
        };
      };
    }
  }

  get leftOut(): number {
    return this.#shared.leftOut;
  }

  get verifierVersion(): string {
    return this.#shared.verifier.version;
  }

  rewards(responses: readonly JudgedResponse[]): Promise<number[]> {
    const { text, verifier } = this.#shared;
    return Promise.all(
      responses.map(({ prompt, tokens }) => {
        const response = text.tokenizer.decode(tokens, { skipSpecialTokens: true, continues: true });
        return verifier.verify(response, this.problems[prompt]!);
      }),
    );
  }

  format(tokens: ArrayLike<number>): string {
    return this.#shared.text.tokenizer.decode(tokens);
  }

  subset(indices: readonly number[]): ProblemSet {
    const of = <T>(values: readonly T[]) => indices.map((index) => values[index]!);
    for (const index of indices) {
      checkInteger('subset', 'each of indices', index, 0, this.problems.length - 1);
    }
    return new Problems(this.#shared, of(this.problems), of(this.prompts));
  }

  [Symbol.asyncDispose](): PromiseLike<void> {
    return this.#shared.verifier[Symbol.asyncDispose]();
  }
}
