/** A model's folder with what text in and text out needs: weights and a tokenizer that fit. */
import { invalid } from '../errors.js';
import { loadTokenizer, type Tokenizer } from '../text/tokenizer.js';
import type { Decoder } from './decoder.js';
import type { HuggingFaceConfig } from './huggingFaceConfig.js';
import { type LoadOptions, loadModel, readHuggingFaceConfig } from './loadModel.js';

/** What a model's folder says beside its weights. Its chat template, if there is one, is `loadChatTemplate`'s. */
export interface ModelText {
  /** The folder. */
  readonly path: string;
  readonly config: HuggingFaceConfig;
  readonly tokenizer: Tokenizer;
}

/** A model that text goes into and comes out of. */
export interface LanguageModel extends ModelText, Disposable {
  readonly model: Decoder;
  dispose(): void;
}

/**
 * Reads what a model's folder says beside its weights, and checks that its tokens are among those of the model: in
 * milliseconds what else would show after minutes.
 *
 * @throws InvalidArgumentError for a folder without tokenizer, or a file that is damaged or does not fit
 */
export async function loadModelText(dir: string): Promise<ModelText> {
  const config = await readHuggingFaceConfig(dir);
  const tokenizer = await loadTokenizer(dir);
  checkVocabulary(dir, config, tokenizer);
  return { path: dir, config, tokenizer };
}

/** @throws InvalidArgumentError where a tokenizer has tokens that the model has not */
export function checkVocabulary(dir: string, config: HuggingFaceConfig, tokenizer: Tokenizer): void {
  const where = 'languageModel';
  const { vocabSize } = config.decoder;
  if (tokenizer.vocabSize > vocabSize) {
    const what = `${tokenizer.path} to have no more tokens than the model, whose vocab_size is ${vocabSize}`;
    invalid(where, what, tokenizer.vocabSize);
  }
  const foreign = tokenizer.eosIds.find((id) => id >= vocabSize);
  if (foreign !== undefined) {
    invalid(where, `the eos_token_id of ${dir} to be below the model's vocab_size ${vocabSize}`, foreign);
  }
}

/**
 * Loads a model and its tokenizer; see {@link loadModel}. The small files are checked before the weights are read.
 *
 * @throws InvalidArgumentError as loadModel does, and for a folder without tokenizer or with one that does not fit
 */
export async function loadLanguageModel(dir: string, options: LoadOptions = {}): Promise<LanguageModel> {
  const text = await loadModelText(dir);
  const { model } = await loadModel(dir, options);
  return { ...text, model, dispose: () => model.dispose(), [Symbol.dispose]: () => model.dispose() };
}
