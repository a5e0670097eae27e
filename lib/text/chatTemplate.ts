/** A model's own way to write a conversation as one text: the Jinja template in its folder. */
import { join } from 'node:path';
import { InvalidArgumentError, invalid } from '../errors.js';
import { checkFolder } from '../io/folder.js';
import { kindOf, readJsonObjectIfThere, readTextIfThere } from '../io/jsonFile.js';
import { type JinjaProgram, jinja } from './huggingface.js';
import { readSpecialTokens, readTokenizerConfig, type SpecialTokens } from './specialTokens.js';
import { strftime } from './strftime.js';

const WHERE = 'chat template';
/** Python's sandbox has the same limit on `range`. */
const MAX_RANGE = 100_000;

/** One message; templates read other members (tool calls, reasoning) where they know them. */
export interface ChatMessage {
  readonly role: string;
  readonly content: string;
  readonly [member: string]: unknown;
}

export interface ChatOptions {
  /** Whether the text ends where the model's answer begins; default true. */
  readonly addGenerationPrompt?: boolean;
  /** Tools that the model may call, as JSON schemas, for the template to list. */
  readonly tools?: readonly unknown[];
  /** Other variables that the template knows: `enable_thinking`, `date_string`, ... */
  readonly variables?: Readonly<Record<string, unknown>>;
  /**
   * The time that `strftime_now` tells; default the present one. Templates that write today's date give another prompt
   * on another day: a run that is to be repeated keeps this.
   */
  readonly now?: Date;
}

export interface ChatTemplateOptions {
  /** A file with a template to take instead of the model's. */
  readonly file?: string;
  /** Which of several templates; default `tool_use` where tools are given and there is one, otherwise `default`. */
  readonly name?: string;
}

/** The chat templates of a model; made by {@link loadChatTemplate}. */
export class ChatTemplate {
  /** The file that the templates were read from. */
  readonly path: string;
  readonly #programs: ReadonlyMap<string, JinjaProgram>;
  readonly #name: string | undefined;
  readonly #special: SpecialTokens;

  /**
   * @internal use {@link loadChatTemplate}
   * @throws InvalidArgumentError for a template that is no Jinja, or a `name` that there is not
   */
  constructor(path: string, sources: ReadonlyMap<string, string>, special: SpecialTokens, name?: string) {
    this.path = path;
    this.#special = special;
    this.#programs = new Map([...sources].map(([key, source]) => [key, parseTemplate(path, source)]));
    if (name !== undefined && !sources.has(name)) {
      invalid(WHERE, `one of the templates ${[...sources.keys()].join(', ')} of ${path}`, name);
    }
    this.#name = name;
  }

  /**
   * The text of a conversation, special tokens and all: encode it with `addSpecialTokens: false`.
   *
   * @throws InvalidArgumentError with the template's own complaint (a role that it does not know, ...)
   */
  render(messages: readonly ChatMessage[], options: ChatOptions = {}): string {
    const { addGenerationPrompt = true, tools, variables = {}, now = new Date() } = options;
    if (!Array.isArray(messages) || messages.length === 0) invalid(WHERE, 'messages', kindOf(messages));
    const environment = new jinja.Environment();
    const all: Record<string, unknown> = {
      ...globals(now),
      ...Object.fromEntries(Object.entries(this.#special).map(([name, token]) => [`${name}_token`, token])),
      messages,
      tools: tools ?? null,
      add_generation_prompt: addGenerationPrompt,
      ...variables,
    };
    const program = this.#program(tools !== undefined);
    try {
      for (const [name, value] of Object.entries(all)) environment.set(name, value);
      return String(new jinja.Interpreter(environment).run(program).value);
    } catch (cause) {
      throw new InvalidArgumentError(
        `[${WHERE}] expected ${this.path} to take these messages, got: ${(cause as Error).message}`,
        { cause },
      );
    }
  }

  #program(withTools: boolean): JinjaProgram {
    const names = this.#name !== undefined ? [this.#name] : withTools ? ['tool_use', 'default'] : ['default'];
    const name = names.find((candidate) => this.#programs.has(candidate));
    if (name === undefined) {
      const known = [...this.#programs.keys()].join(', ');
      invalid(WHERE, `a default among the templates of ${this.path}, or a choice`, `only ${known}`);
    }
    return this.#programs.get(name)!;
  }
}

/**
 * The chat template of a model's folder: `chat_template.jinja`, else `chat_template.json`, else `chat_template` in
 * `tokenizer_config.json` (a text, or a list of named ones).
 *
 * @throws InvalidArgumentError where there is none, saying what can be done, or naming the file that is damaged
 */
export async function loadChatTemplate(
  folder: string,
  { file, name }: ChatTemplateOptions = {},
): Promise<ChatTemplate> {
  await checkFolder(WHERE, 'the folder of a model', folder);
  const config = await readTokenizerConfig(folder);
  const special = await readSpecialTokens(folder, config);
  if (file !== undefined) {
    const text = await readTextIfThere(WHERE, file);
    if (text === undefined) invalid(WHERE, 'the file of a template', file);
    return new ChatTemplate(file, new Map([['default', text]]), special, name);
  }
  const alone = join(folder, 'chat_template.jinja');
  const text = await readTextIfThere(WHERE, alone);
  if (text !== undefined) return new ChatTemplate(alone, new Map([['default', text]]), special, name);
  for (const [path, value] of [
    [
      join(folder, 'chat_template.json'),
      (await readJsonObjectIfThere(WHERE, join(folder, 'chat_template.json')))?.chat_template,
    ],
    [join(folder, 'tokenizer_config.json'), config.chat_template],
  ] as const) {
    if (value === undefined || value === null) continue;
    return new ChatTemplate(path, namedTemplates(path, value), special, name);
  }
  throw new InvalidArgumentError(
    `[${WHERE}] expected ${folder} to have a chat template (chat_template.jinja, or chat_template in ` +
      'tokenizer_config.json), got none: base models are trained without. Give the file of a template, or choose a ' +
      'prompt template that needs none',
  );
}

function namedTemplates(path: string, value: unknown): Map<string, string> {
  if (typeof value === 'string') return new Map([['default', value]]);
  const pairs = Array.isArray(value)
    ? value.map((entry: unknown) => {
        const { name, template } = (entry ?? {}) as { name?: unknown; template?: unknown };
        return [name, template] as const;
      })
    : [];
  const isFine = pairs.length > 0 && pairs.every((pair) => pair.every((text) => typeof text === 'string'));
  if (!isFine)
    invalid(WHERE, `chat_template of ${path} to be a text or a list of name and template`, kindOf(value));
  return new Map(pairs as (readonly [string, string])[]);
}

function parseTemplate(path: string, source: string): JinjaProgram {
  try {
    return jinja.parse(jinja.tokenize(source, { lstrip_blocks: true, trim_blocks: true }));
  } catch (cause) {
    throw new InvalidArgumentError(
      `[${WHERE}] expected ${path} to be a Jinja template, got: ${(cause as Error).message}`,
      { cause },
    );
  }
}

/** What every template can use. The library's own set takes neither another clock nor a limit on `range`. */
function globals(now: Date): Record<string, unknown> {
  return {
    true: true,
    True: true,
    false: false,
    False: false,
    none: null,
    None: null,
    raise_exception: (message: unknown) => {
      throw new Error(String(message));
    },
    strftime_now: (format: unknown) => strftime(now, String(format)),
    range,
  };
}

function range(first: number, second?: number, step = 1): number[] {
  const [start, stop] = second === undefined ? [0, first] : [first, second];
  const count = Math.ceil((stop - start) / step);
  if (!(count <= MAX_RANGE)) throw new Error(`range of more than ${MAX_RANGE} numbers`);
  return Array.from({ length: Math.max(count, 0) }, (_, i) => start + i * step);
}
