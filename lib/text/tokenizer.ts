/**
 * Text to token ids and back, with the tokenizer of a model's folder.
 *
 * Ids that a model has sampled are carried as they are, from the rollout to the training engine: text is made of them
 * for people and verifiers, and is never encoded again. Encoding is no inverse of decoding: two rows of tokens can have
 * one text, and bytes that are no UTF-8 have none. A policy scored on text encoded again would be scored on tokens that
 * it did not sample, and nothing would say that the ratios of such responses are wrong.
 */
import { join } from 'node:path';
import { InvalidArgumentError, invalid } from '../errors.js';
import { checkFolder } from '../io/folder.js';
import { checkObject, readJsonObjectIfThere } from '../io/jsonFile.js';
import { createDetokenizer, type Detokenizer } from './detokenizer.js';
import { type LibraryTokenizer, tokenizers } from './huggingface.js';
import {
  readEosIds,
  readSpecialTokens,
  readTokenizerConfig,
  type SpecialTokens,
  type TokenizerConfig,
} from './specialTokens.js';
import { type AddedToken, checkAddedToken, checkTokenizerJson, type TokenizerJson } from './tokenizerJson.js';

const WHERE = 'tokenizer';

export interface EncodeOptions {
  /**
   * Whether the tokens that the model wants around a text (most often one at the beginning) are added; default true.
   * The text of a chat template already has them.
   */
  readonly addSpecialTokens?: boolean;
}

export interface DecodeOptions {
  /** Whether special tokens are left out of the text; default false. */
  readonly skipSpecialTokens?: boolean;
  /**
   * Whether the text goes on after other tokens, a response after its prompt; default false. The first token of a text
   * of its own can lose a space that encoding has put there.
   */
  readonly continues?: boolean;
}

/** What {@link loadTokenizer} has read. */
interface Parts {
  readonly path: string;
  readonly library: LibraryTokenizer;
  readonly file: TokenizerJson;
  readonly named: SpecialTokens;
  readonly eosIds: readonly number[];
}

/** A model's tokenizer; made by {@link loadTokenizer}. */
export class Tokenizer {
  /** The file that it was read from. */
  readonly path: string;
  /** How many ids there are: the largest, and one. A model can have more rows than that. */
  readonly vocabSize: number;
  /** The token at the beginning of a text, if the model has one. */
  readonly bosId: number | undefined;
  /** The tokens that end a response: those of generation_config.json (or config.json), then the tokenizer's own. */
  readonly eosIds: readonly number[];
  /** The token that fills up short rows, if the model has one. */
  readonly padId: number | undefined;
  /** Tokens found in a text before it is split, by id. */
  readonly addedTokens: ReadonlyMap<number, AddedToken>;
  /** The texts of the named tokens, which chat templates use. */
  readonly named: SpecialTokens;
  /** Ids to bytes, for streams. */
  readonly detokenizer: Detokenizer;
  readonly #library: LibraryTokenizer;

  /** @internal use {@link loadTokenizer} */
  constructor({ path, library, file, named, eosIds }: Parts) {
    this.path = path;
    this.#library = library;
    this.named = named;
    let size = 0;
    for (const id of Object.values(file.model.vocab)) size = Math.max(size, id + 1);
    for (const { id } of file.added_tokens) size = Math.max(size, id + 1);
    this.vocabSize = size;
    this.addedTokens = new Map(
      file.added_tokens.map(({ id, content, special }) => [id, { id, content, special }]),
    );
    this.bosId = named.bos === undefined ? undefined : this.tokenToId(named.bos);
    this.padId = named.pad === undefined ? undefined : this.tokenToId(named.pad);
    const eosId = named.eos === undefined ? undefined : this.tokenToId(named.eos);
    this.eosIds = [...new Set(eosId === undefined ? eosIds : [...eosIds, eosId])];
    this.detokenizer = createDetokenizer(
      path,
      file.decoder,
      (id) => this.idToToken(id),
      (id) => this.addedTokens.has(id),
    );
  }

  /** The ids of a text. */
  encode(text: string, { addSpecialTokens = true }: EncodeOptions = {}): Int32Array {
    if (typeof text !== 'string') invalid('encode', 'text to be a string', text);
    return Int32Array.from(this.#library.encode(text, { add_special_tokens: addSpecialTokens }).ids);
  }

  /**
   * The text of ids. Ids without token add nothing. Spaces before punctuation stay: what
   * `clean_up_tokenization_spaces` would take away may be meant.
   */
  decode(
    ids: ArrayLike<number>,
    { skipSpecialTokens = false, continues = false }: DecodeOptions = {},
  ): string {
    const parts: Uint8Array[] = [];
    let first = !continues;
    for (let i = 0; i < ids.length; i++) {
      const id = checkId('decode', ids[i]);
      if ((skipSpecialTokens && this.isSpecial(id)) || this.idToToken(id) === undefined) continue;
      parts.push(this.detokenizer.bytes(id, first));
      first = false;
    }
    const text = new TextDecoder('utf-8', { ignoreBOM: true }).decode(Buffer.concat(parts));
    const { content, count } = this.detokenizer.strip;
    let start = 0;
    while (!continues && start < count * content.length && text.startsWith(content, start)) {
      start += content.length;
    }
    return text.slice(start);
  }

  /** The id of a token, as tokenizer.json writes it. */
  tokenToId(token: string): number | undefined {
    return this.#library.token_to_id(token);
  }

  /** A token as tokenizer.json writes it: not its text. Undefined for ids without token. */
  idToToken(id: number): string | undefined {
    return this.#library.id_to_token(id);
  }

  /** Whether an id is a special token: no part of the text. */
  isSpecial(id: number): boolean {
    return this.addedTokens.get(id)?.special === true;
  }
}

/** Expects a token id and returns it. */
export function checkId(where: string, id: unknown): number {
  if (typeof id !== 'number' || !Number.isInteger(id) || id < 0) invalid(where, 'a token id', id);
  return id;
}

/**
 * The tokenizer of a model's folder: `tokenizer.json`, with what `tokenizer_config.json`, `special_tokens_map.json`,
 * `generation_config.json` and `config.json` say of special tokens.
 *
 * @throws InvalidArgumentError naming the file that is missing, damaged or asks for what is not supported
 */
export async function loadTokenizer(folder: string): Promise<Tokenizer> {
  await checkFolder(WHERE, 'the folder of a model', folder);
  const path = join(folder, 'tokenizer.json');
  const json = await readJsonObjectIfThere(WHERE, path);
  if (json === undefined) {
    invalid(
      WHERE,
      `${folder} to have a tokenizer.json (other forms become one by save_pretrained of transformers)`,
      'none',
    );
  }
  const config = await readTokenizerConfig(folder);
  const named = await readSpecialTokens(folder, config);
  const eosIds = await readEosIds(folder);
  const file = withConfig(folder, checkTokenizerJson(path, json), config, named);
  let library: LibraryTokenizer;
  let around: readonly (number | undefined)[];
  try {
    library = new tokenizers.Tokenizer(file, {});
    around = library.encode('', { add_special_tokens: true }).ids;
  } catch (cause) {
    throw new InvalidArgumentError(
      `[${WHERE}] expected ${path} to be a tokenizer, got ${(cause as Error).message}`,
      { cause },
    );
  }
  const tokenizer = new Tokenizer({ path, library, file, named, eosIds });
  if (around.includes(undefined)) {
    invalid(WHERE, `the post_processor of ${path} to add tokens that there are`, 'others');
  }
  for (const [name, token] of [
    ['bos', named.bos],
    ['eos', named.eos],
  ] as const) {
    if (token !== undefined && tokenizer.tokenToId(token) === undefined) {
      invalid(WHERE, `${name}_token of ${folder} to be a token of ${path}`, token);
    }
  }
  return tokenizer;
}

/**
 * tokenizer.json with the tokens that tokenizer_config.json adds or marks, as transformers 5 takes both: `add_bos_token`
 * and `add_eos_token` count for nothing beside a tokenizer.json, whose post_processor has them.
 */
function withConfig(
  folder: string,
  file: TokenizerJson,
  config: TokenizerConfig,
  named: SpecialTokens,
): TokenizerJson {
  const path = join(folder, 'tokenizer_config.json');
  const tokens = new Map(file.added_tokens.map((token) => [token.content, token]));
  const vocab = new Map(Object.entries(file.model.vocab));
  const decoder = checkObject(WHERE, `added_tokens_decoder of ${path}`, config.added_tokens_decoder ?? {});
  for (const [id, value] of Object.entries(decoder)) {
    const what = `added_tokens_decoder[${id}] of ${path}`;
    const token = checkAddedToken(what, { ...checkObject(WHERE, what, value), id: Number(id) });
    const present = tokens.get(token.content)?.id ?? vocab.get(token.content);
    if (present !== undefined && present !== token.id) {
      invalid(WHERE, `${what} to have the id ${present} that tokenizer.json gives it`, token.id);
    }
    tokens.set(token.content, token);
  }
  for (const content of Object.values<string>({ ...named })) {
    const present = tokens.get(content);
    const id = present?.id ?? vocab.get(content);
    if (id !== undefined) tokens.set(content, { normalized: false, ...present, id, content, special: true });
  }
  return { ...file, added_tokens: [...tokens.values()] };
}
