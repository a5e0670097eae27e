/**
 * `tokenizer.json` under checks. `@huggingface/tokenizers` passes over some of what such a file can ask for; a file
 * that asks for it would give other token ids than the model was trained on, so it is refused.
 */
import { invalid } from '../errors.js';
import { checkObject, kindOf } from '../io/jsonFile.js';

const WHERE = 'tokenizer';

type Json = Readonly<Record<string, unknown>>;

/** A token that is found in a text before it is split: chat markers, bytes of other vocabularies, ... */
export interface AddedToken {
  readonly id: number;
  readonly content: string;
  /** Whether it is no part of the text: the beginning, the end, a turn. */
  readonly special: boolean;
}

/** A checked file, with all the members that the library wants. */
export interface TokenizerJson extends Json {
  readonly model: Json & { readonly vocab: Readonly<Record<string, number>> };
  readonly added_tokens: readonly (AddedToken & Json)[];
  readonly decoder: Json;
  readonly post_processor: Json | null;
}

/**
 * Checks a file of a byte pair encoding, as Llama, Qwen, DeepSeek, Mistral and Mixtral have.
 *
 * @param path names the file in errors
 * @throws InvalidArgumentError for whatever else
 */
export function checkTokenizerJson(path: string, file: Json): TokenizerJson {
  const vocab = checkModel(path, checkObject(WHERE, `model of ${path}`, file.model));
  const tokens = file.added_tokens ?? [];
  if (!Array.isArray(tokens)) invalid(WHERE, `added_tokens of ${path} to be a list`, kindOf(tokens));
  const member = (name: string): Json | null =>
    file[name] === undefined || file[name] === null
      ? null
      : checkObject(WHERE, `${name} of ${path}`, file[name]);
  const [normalizer, preTokenizer, postProcessor] = [
    member('normalizer'),
    member('pre_tokenizer'),
    member('post_processor'),
  ];
  checkSteps(path, 'normalizer', normalizer, 'normalizers', {
    NFC: isFine,
    NFD: isFine,
    NFKC: isFine,
    NFKD: isFine,
    Prepend: (step) => typeof step.prepend === 'string' || 'a text to prepend',
    Replace: (step) => (hasPattern(step) && typeof step.content === 'string') || 'a pattern and a content',
  });
  checkSteps(path, 'pre_tokenizer', preTokenizer, 'pretokenizers', {
    ByteLevel: isFine,
    Metaspace: (step) => step.split === false || 'split: false',
    // Pieces between matches are dropped only where they are said to be; what is left is cut around each match.
    Split: (step) =>
      (hasPattern(step) &&
        ((step.behavior === 'Isolated' && step.invert !== true) ||
          (step.behavior === 'Removed' && step.invert === true))) ||
      'a pattern and behavior: Isolated, or Removed with invert: true',
  });
  checkSteps(path, 'post_processor', postProcessor, 'processors', {
    ByteLevel: isFine,
    TemplateProcessing: (step) =>
      isTemplate(step.single) || 'single: a Sequence A, and each SpecialToken around it',
  });
  return {
    ...file,
    model: { ...(file.model as Json), vocab },
    added_tokens: tokens.map((token, i) =>
      checkAddedToken(
        `added_tokens[${i}] of ${path}`,
        checkObject(WHERE, `added_tokens[${i}] of ${path}`, token),
      ),
    ),
    normalizer,
    pre_tokenizer: preTokenizer,
    post_processor: postProcessor,
    decoder: checkObject(WHERE, `decoder of ${path}`, file.decoder),
  };
}

export function checkAddedToken(what: string, token: Json): AddedToken & Json {
  const { id, content, special = false } = token;
  if (!isId(id)) invalid(WHERE, `id of ${what} to be a token id`, kindOf(id));
  if (typeof content !== 'string' || content === '')
    invalid(WHERE, `content of ${what} to be text`, kindOf(content));
  if (token.single_word === true) invalid(WHERE, `single_word of ${what} to be false`, 'true');
  return { ...token, id, content, special: special === true };
}

function checkModel(path: string, model: Json): Record<string, number> {
  if (model.type !== 'BPE') {
    invalid(WHERE, `the model of ${path} to be a byte pair encoding (type BPE)`, kindOf(model.type));
  }
  if (model.dropout)
    invalid(WHERE, `dropout of ${path} to be 0: the same text, the same ids`, kindOf(model.dropout));
  for (const name of ['continuing_subword_prefix', 'end_of_word_suffix']) {
    if (model[name]) invalid(WHERE, `${path} to have no ${name}`, kindOf(model[name]));
  }
  const vocab = checkObject(WHERE, `vocab of ${path}`, model.vocab);
  for (const [token, id] of Object.entries(vocab)) {
    if (!isId(id))
      invalid(WHERE, `${JSON.stringify(token)} in the vocab of ${path} to be a token id`, kindOf(id));
  }
  const { unk_token: unk = null } = model;
  if (unk !== null && (typeof unk !== 'string' || !Object.hasOwn(vocab, unk))) {
    invalid(WHERE, `unk_token of ${path} to be a token of vocab`, kindOf(unk));
  }
  if (!Array.isArray(model.merges)) invalid(WHERE, `merges of ${path} to be a list`, kindOf(model.merges));
  for (const [i, merge] of model.merges.entries()) {
    const parts: unknown = typeof merge === 'string' ? merge.split(' ') : merge;
    const known =
      Array.isArray(parts) &&
      parts.length === 2 &&
      [...parts, parts.join('')].every((token) => Object.hasOwn(vocab, token));
    if (!known)
      invalid(WHERE, `merges[${i}] of ${path} to join two tokens of vocab to a third`, kindOf(merge));
  }
  return vocab as Record<string, number>;
}

/** Expects a step, or each step of a Sequence, to be of a known type and as its check wants it. */
function checkSteps(
  path: string,
  name: string,
  step: Json | null,
  members: string,
  known: Readonly<Record<string, (step: Json) => true | string>>,
): void {
  if (step === null) return;
  if (step.type === 'Sequence') {
    const steps = step[members];
    if (!Array.isArray(steps)) invalid(WHERE, `${members} of ${name} of ${path} to be a list`, kindOf(steps));
    for (const inner of steps)
      checkSteps(path, name, checkObject(WHERE, `${name} of ${path}`, inner), members, known);
    return;
  }
  const { type } = step;
  if (typeof type !== 'string' || !Object.hasOwn(known, type)) {
    invalid(
      WHERE,
      `${name} of ${path} to be of type ${Object.keys(known).join(', ')} or a Sequence of them`,
      kindOf(type),
    );
  }
  const verdict = known[type]!(step);
  if (verdict !== true)
    invalid(WHERE, `${type} in ${name} of ${path} to have ${verdict}`, JSON.stringify(step));
}

/** What the library takes for no pattern it would pass over. */
function hasPattern({ pattern }: Json): boolean {
  const { String: text, Regex: regex } = (pattern ?? {}) as { String?: unknown; Regex?: unknown };
  return typeof (regex ?? text) === 'string';
}

/** Whether items are the text, once, and tokens around it. */
function isTemplate(items: unknown): boolean {
  if (!Array.isArray(items)) return false;
  const kinds = items.map((item: unknown) => {
    const { SpecialToken: token, Sequence: text } = (item ?? {}) as Record<
      string,
      { id?: unknown } | undefined
    >;
    return typeof token?.id === 'string' ? 'token' : text?.id === 'A' ? 'text' : 'neither';
  });
  return !kinds.includes('neither') && kinds.filter((kind) => kind === 'text').length === 1;
}

function isFine(): true {
  return true;
}

function isId(value: unknown): value is number {
  return typeof value === 'number' && Number.isInteger(value) && value >= 0 && value < 2 ** 31;
}
