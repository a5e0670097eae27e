/** The prompts of `isopolicy generate`: from the command line, a file, a data set or stdin. */

import { openDataset } from '../data/dataset.js';
import { loadProblems, type Problem } from '../data/problems.js';
import { checkPromptTokens, encodePrompt, type PromptTemplate } from '../data/promptTemplates.js';
import { invalid } from '../errors.js';
import { readTextIfThere } from '../io/jsonFile.js';
import type { ModelText } from '../models/languageModel.js';
import { type ChatMessage, loadChatTemplate } from '../text/chatTemplate.js';

const WHERE = 'generate';

export interface PromptFlags {
  /** Texts; `-` is stdin. */
  readonly prompt?: readonly string[];
  /** A text file of a prompt a line, or a data set. */
  readonly prompts?: string;
  readonly promptColumn?: string;
  readonly split?: string;
}

export interface ChatFlags {
  /** What a chat begins with. */
  readonly system?: string;
  /** A file with a template in place of the model's. */
  readonly chatTemplate?: string;
}

/** A prompt as the model sees it. */
export interface EncodedPrompt {
  /** Of the data set, else its place. */
  readonly id: string;
  /** After the template. */
  readonly text: string;
  readonly tokens: Int32Array;
}

/**
 * The prompts that flags name; stdin where they name none and it is no terminal.
 *
 * @throws InvalidArgumentError where there is no prompt, or the file or a row of it is none
 */
export async function readPrompts(flags: PromptFlags): Promise<Problem[]> {
  const { prompt = [], prompts, promptColumn, split } = flags;
  if (prompts === undefined) {
    for (const [option, value] of Object.entries({ '--prompt-column': promptColumn, '--split': split })) {
      if (value !== undefined) invalid(WHERE, `no ${option} without --prompts`, value);
    }
    if (prompt.length === 0 && process.stdin.isTTY) {
      invalid(WHERE, 'a prompt: --prompt <text>, --prompts <file>, or text on stdin', 'none');
    }
    const texts: string[] = [];
    for (const text of prompt.length === 0 ? ['-'] : prompt)
      texts.push(text === '-' ? await readStdin() : text);
    return texts.map(problemOf);
  }
  if (prompt.length > 0) invalid(WHERE, 'either --prompt or --prompts', 'both');
  if (/\.txt$/i.test(prompts)) {
    const text = await readTextIfThere(WHERE, prompts);
    if (text === undefined) invalid(WHERE, '--prompts to be a file that is there', prompts);
    const lines = text.split(/\r?\n/).filter((line) => line.trim() !== '');
    if (lines.length === 0) invalid(WHERE, `${prompts} to have a prompt a line`, 'none');
    return lines.map(problemOf);
  }
  const dataset = await openDataset(prompts, split === undefined ? {} : { split });
  return loadProblems(dataset, { rows: true, ...(promptColumn !== undefined && { promptColumn }) });
}

function problemOf(prompt: string, place: number): Problem {
  return { id: String(place), prompt, answers: [] };
}

/** All of stdin, without the line feed that a shell puts at its end. */
async function readStdin(): Promise<string> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of process.stdin) chunks.push(chunk as Uint8Array);
  const text = Buffer.concat(chunks)
    .toString('utf8')
    .replace(/\r?\n$/, '');
  if (text === '') invalid(WHERE, 'a prompt on stdin (or --prompt <text>, --prompts <file>)', 'nothing');
  return text;
}

/**
 * Prompts as a template writes them.
 *
 * @throws InvalidArgumentError where the template does not fit the model or a prompt, or a prompt has no tokens
 */
export async function encodePrompts(
  { path, tokenizer }: ModelText,
  problems: readonly Problem[],
  template: PromptTemplate,
  { system, chatTemplate }: ChatFlags = {},
): Promise<EncodedPrompt[]> {
  checkPromptTokens(template, tokenizer);
  const file = chatTemplate === undefined ? {} : { file: chatTemplate };
  const chat = template.usesChatTemplate ? await loadChatTemplate(path, file) : undefined;
  for (const [option, value] of Object.entries({ '--system': system, '--chat-template': chatTemplate })) {
    if (chat !== undefined || value === undefined) continue;
    invalid(WHERE, `no ${option} without a chat (--chat, --template chat-math)`, template.name);
  }
  return problems.map((problem) => {
    const text = template.render(system === undefined ? problem : withSystem(problem, system), chat);
    const tokens = encodePrompt(template, text, tokenizer);
    if (tokens.length === 0) invalid(WHERE, `prompt ${problem.id} to have tokens`, 'none');
    return { id: problem.id, text, tokens };
  });
}

function withSystem(problem: Problem, system: string): Problem {
  const { id, prompt } = problem;
  const messages: readonly ChatMessage[] =
    typeof prompt === 'string' ? [{ role: 'user', content: prompt }] : prompt;
  if (messages.some(({ role }) => role === 'system')) {
    invalid(WHERE, 'no --system beside prompts that have a system message', `prompt ${id}`);
  }
  return { ...problem, prompt: [{ role: 'system', content: system }, ...messages] };
}
