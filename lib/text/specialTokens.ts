/** Which tokens begin, end and pad a text: what a model's folder says of them beside `tokenizer.json`. */
import { join } from 'node:path';
import { invalid } from '../errors.js';
import { kindOf, readJsonObjectIfThere } from '../io/jsonFile.js';

const WHERE = 'tokenizer';

/** The tokens with a name, as their text. Templates know them as `bos_token`, `eos_token`, ... */
export interface SpecialTokens {
  readonly bos?: string;
  readonly eos?: string;
  readonly pad?: string;
  readonly unk?: string;
}

/** `tokenizer_config.json`, as far as it is used; an empty object where the file is missing. */
export type TokenizerConfig = Readonly<Record<string, unknown>>;

export async function readTokenizerConfig(folder: string): Promise<TokenizerConfig> {
  return (await readJsonObjectIfThere(WHERE, join(folder, 'tokenizer_config.json'))) ?? {};
}

/**
 * The named tokens of a model: `tokenizer_config.json`, and `special_tokens_map.json` for those that it does not
 * mention. A token is a string or an object with `content`; null says that there is none.
 */
export async function readSpecialTokens(folder: string, config: TokenizerConfig): Promise<SpecialTokens> {
  const mapPath = join(folder, 'special_tokens_map.json');
  const map = (await readJsonObjectIfThere(WHERE, mapPath)) ?? {};
  const token = (name: string): string | undefined => {
    const [path, value] =
      `${name}_token` in config
        ? [join(folder, 'tokenizer_config.json'), config[`${name}_token`]]
        : [mapPath, map[`${name}_token`]];
    if (value === undefined || value === null) return undefined;
    const content = typeof value === 'object' ? (value as { content?: unknown }).content : value;
    if (typeof content !== 'string') {
      invalid(WHERE, `${name}_token of ${path} to be a string or to have a content`, kindOf(value));
    }
    return content;
  };
  const [bos, eos, pad, unk] = [token('bos'), token('eos'), token('pad'), token('unk')];
  return {
    ...(bos !== undefined && { bos }),
    ...(eos !== undefined && { eos }),
    ...(pad !== undefined && { pad }),
    ...(unk !== undefined && { unk }),
  };
}

/**
 * The ids that end a generation by `generation_config.json`, or by `config.json` where that has none: a number or a
 * list. A chat model often has several (the end of a turn, the end of a text).
 */
export async function readEosIds(folder: string): Promise<number[]> {
  for (const name of ['generation_config.json', 'config.json']) {
    const path = join(folder, name);
    const value = (await readJsonObjectIfThere(WHERE, path))?.eos_token_id;
    if (value === undefined || value === null) continue;
    const ids: unknown[] = Array.isArray(value) ? value : [value];
    for (const id of ids) {
      if (typeof id !== 'number' || !Number.isSafeInteger(id) || id < 0) {
        invalid(WHERE, `eos_token_id of ${path} to be a token id or a list of them`, kindOf(id));
      }
    }
    return ids as number[];
  }
  return [];
}
