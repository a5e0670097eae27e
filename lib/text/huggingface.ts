/**
 * The parts of `@huggingface/tokenizers` and `@huggingface/jinja` that are used here, with their types. The packages'
 * own declarations import each other without file extensions, which TypeScript refuses under `nodenext`.
 */
import { createRequire } from 'node:module';

/** A tokenizer's encoding half (ids to text is {@link Detokenizer}, which can stream). */
export interface LibraryTokenizer {
  encode(text: string, options: { readonly add_special_tokens: boolean }): { readonly ids: number[] };
  token_to_id(token: string): number | undefined;
  id_to_token(id: number): string | undefined;
}

/** A parsed Jinja template. */
export interface JinjaProgram {
  readonly type: 'Program';
}

/** The variables of a Jinja template. */
export interface JinjaEnvironment {
  set(name: string, value: unknown): unknown;
}

interface TokenizersPackage {
  readonly Tokenizer: new (tokenizer: object, config: object) => LibraryTokenizer;
}

interface JinjaPackage {
  tokenize(source: string, options: { lstrip_blocks: boolean; trim_blocks: boolean }): unknown[];
  parse(tokens: unknown[]): JinjaProgram;
  readonly Environment: new () => JinjaEnvironment;
  readonly Interpreter: new (
    environment: JinjaEnvironment,
  ) => { run(program: JinjaProgram): { readonly value: unknown } };
}

const require = createRequire(import.meta.url);

export const tokenizers: TokenizersPackage = require('@huggingface/tokenizers');
export const jinja: JinjaPackage = require('@huggingface/jinja');
