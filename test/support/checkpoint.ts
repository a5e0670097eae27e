/** A model's folder as Hugging Face lays it out: a small random decoder and a tokenizer of one token a character. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { DecoderConfig } from '../../lib/models/config.js';
import { Decoder } from '../../lib/models/decoder.js';
import { saveModel } from '../../lib/models/saveModel.js';
import type { NativeFloatDType } from '../../lib/tensor/dtype.js';

/** Every character is a token, in this order; then come `<eos>`, `<|user|>` and `<|assistant|>`. */
export const CHARACTERS =
  '0123456789+-*/=()., abcdefghijklmnopqrstuvwxyz?:{}\\<>ABCDEFGHIJKLMNOPQRSTUVWXYZ\n';
const SPECIAL = ['<eos>', '<|user|>', '<|assistant|>'];
export const EOS = CHARACTERS.length;

/** Where a byte-level vocabulary has a character. */
function inVocabulary(character: string): string {
  return { ' ': 'Ġ', '\n': 'Ċ' }[character] ?? character;
}

/** `tokenizer.json` and what goes with it. */
export const tokenizerFiles: Readonly<Record<string, unknown>> = {
  'tokenizer.json': {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: SPECIAL.map((content, i) => ({
      id: CHARACTERS.length + i,
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    })),
    normalizer: null,
    pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true },
    post_processor: { type: 'ByteLevel', add_prefix_space: true, trim_offsets: false, use_regex: true },
    decoder: { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      vocab: Object.fromEntries([...CHARACTERS].map((character, id) => [inVocabulary(character), id])),
      merges: [],
    },
  },
  'tokenizer_config.json': { tokenizer_class: 'PreTrainedTokenizerFast', eos_token: '<eos>' },
  'generation_config.json': { eos_token_id: EOS },
  'chat_template.jinja':
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}",
};

/** A Qwen2-shaped decoder that fits the tokenizer. */
export const checkpointConfig: DecoderConfig = {
  vocabSize: CHARACTERS.length + SPECIAL.length + 2,
  hiddenSize: 32,
  intermediateSize: 48,
  numLayers: 2,
  numHeads: 2,
  numKvHeads: 1,
  maxPositionEmbeddings: 96,
  attentionBias: true,
};

/** Lays out the folder `dir`; `changes` to its files beside the weights (undefined takes one away). */
export async function writeCheckpointFolder(
  dir: string,
  options: {
    config?: Partial<DecoderConfig>;
    seed?: number;
    dtype?: NativeFloatDType;
    changes?: Readonly<Record<string, unknown>>;
  } = {},
): Promise<string> {
  const { config = {}, seed = 1, dtype = 'fp32', changes = {} } = options;
  using model = new Decoder({ ...checkpointConfig, ...config }, { seed });
  await saveModel(dir, model, { dtype });
  for (const [name, content] of Object.entries({ ...tokenizerFiles, ...changes })) {
    if (content === undefined) continue;
    await writeFile(join(dir, name), typeof content === 'string' ? content : JSON.stringify(content));
  }
  return dir;
}
