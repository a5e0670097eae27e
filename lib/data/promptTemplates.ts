/**
 * How a problem becomes the text that a model goes on from, by the family of the model. The wording is part of an
 * experiment's setting: these are the prompts of the paper's runs (sail-sg/Precision-RL, oat/main.py), letter by letter.
 */
import { checkChoice, invalid } from '../errors.js';
import type { ChatMessage, ChatOptions, ChatTemplate } from '../text/chatTemplate.js';
import type { Tokenizer } from '../text/tokenizer.js';
import type { Problem } from './problems.js';

const WHERE = 'prompt';
const BOXED = 'Please reason step by step, and put your final answer within \\boxed{}.';

export interface PromptTemplate {
  readonly name: string;
  /** For which models it is, in a line. */
  readonly summary: string;
  /** Special tokens that it writes, which the tokenizer must know. */
  readonly tokens: readonly string[];
  /** Strings that end a response, beside the model's own ends. */
  readonly stop: readonly string[];
  /** Whether the text is made by the model's own chat template. */
  readonly usesChatTemplate: boolean;
  /**
   * The text of a problem.
   *
   * @param chat the model's chat template, for those that use it
   * @throws InvalidArgumentError for a conversation where one question is wanted
   */
  render(problem: Problem, chat?: ChatTemplate, options?: ChatOptions): string;
}

/** A template that is text around the question. */
function around(
  name: string,
  summary: string,
  before: string,
  after: string,
  tokens: readonly string[] = [],
  stop: readonly string[] = [],
): PromptTemplate {
  return {
    name,
    summary,
    tokens,
    stop,
    usesChatTemplate: false,
    render: (problem) => `${before}${questionOf(name, problem)}${after}`,
  };
}

/** A template that is the model's own, with `instruction` after the question. */
function chatWith(name: string, summary: string, instruction: string): PromptTemplate {
  return {
    name,
    summary,
    tokens: [],
    stop: [],
    usesChatTemplate: true,
    render(problem, chat, options) {
      if (chat === undefined) invalid(WHERE, `a chat template for ${name}`, 'none');
      const messages = messagesOf(problem);
      const last = messages.at(-1)!;
      const asked = { ...last, content: `${last.content}${instruction}` };
      return chat.render([...messages.slice(0, -1), asked], options);
    },
  };
}

const templates = [
  around(
    'qwen-math',
    'Qwen2.5-Math and other Qwen base models',
    `<|im_start|>system\n${BOXED}<|im_end|>\n<|im_start|>user\n`,
    '<|im_end|>\n<|im_start|>assistant\n',
    ['<|im_start|>', '<|im_end|>'],
  ),
  around(
    'qwen3',
    'Qwen3 base models',
    '<|im_start|>user\nQuestion: ',
    `\n${BOXED}<|im_end|>\n<|im_start|>assistant\n`,
    ['<|im_start|>', '<|im_end|>'],
  ),
  around(
    'r1',
    'DeepSeek-R1-Distill: the sanity test of the paper',
    '<｜begin▁of▁sentence｜><｜User｜>',
    ` ${BOXED}\n<｜Assistant｜><think>\n`,
    ['<｜begin▁of▁sentence｜>', '<｜User｜>', '<｜Assistant｜>'],
  ),
  around(
    'octothinker',
    'OctoThinker and other base models: the prompt of DeepSeek-R1-Zero, with answers in <answer>',
    'A conversation between User and Assistant. The User asks a question, and the Assistant solves it. The Assistant ' +
      'first thinks about the reasoning process in the mind and then provides the User with the answer. The reasoning ' +
      'process is enclosed within <think> </think> and answer is enclosed within <answer> </answer> tags, ' +
      'respectively, i.e., <think> reasoning process here </think> <answer> answer here </answer>.\nUser: ',
    '\nAssistant: <think>',
    [],
    ['</answer>'],
  ),
  around('plain', 'any model: the question and nothing else', '', ''),
  chatWith('chat', "chat models: the model's own chat template", ''),
  chatWith('chat-math', 'chat models: the same, asking for the answer in \\boxed{}', ` ${BOXED}`),
] as const;

export const promptTemplates: ReadonlyMap<string, PromptTemplate> = new Map(
  templates.map((template) => [template.name, template]),
);

/** @throws InvalidArgumentError naming the templates that there are, and the nearest */
export function promptTemplate(name: string): PromptTemplate {
  return promptTemplates.get(checkChoice(WHERE, 'the template', name, [...promptTemplates.keys()]))!;
}

/** Expects a tokenizer to know the special tokens that a template writes: another model would read them as letters. */
export function checkPromptTokens(template: PromptTemplate, tokenizer: Tokenizer): void {
  const known = new Set([...tokenizer.addedTokens.values()].map((token) => token.content));
  const missing = template.tokens.filter((token) => !known.has(token));
  if (missing.length > 0) {
    invalid(
      WHERE,
      `a template for this model (${tokenizer.path} has no ${missing.join(', ')})`,
      template.name,
    );
  }
}

/**
 * The ids of a prompt's text. What the tokenizer puts at the beginning of a text is there once: where the text has it
 * already, or is a chat template's, nothing is added.
 */
export function encodePrompt(template: PromptTemplate, text: string, tokenizer: Tokenizer): Int32Array {
  const { bos } = tokenizer.named;
  const isWhole = template.usesChatTemplate || (bos !== undefined && text.startsWith(bos));
  return tokenizer.encode(text, { addSpecialTokens: !isWhole });
}

function messagesOf({ prompt }: Problem): readonly ChatMessage[] {
  return typeof prompt === 'string' ? [{ role: 'user', content: prompt }] : prompt;
}

function questionOf(name: string, problem: Problem): string {
  const messages = messagesOf(problem);
  if (messages.length !== 1) {
    const roles = messages.map((message) => message.role).join(', ');
    invalid(
      WHERE,
      `problem ${problem.id} to be one question, which ${name} can ask (chat takes conversations)`,
      roles,
    );
  }
  return messages[0]!.content;
}
