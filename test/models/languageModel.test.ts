import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { loadLanguageModel, loadModelText } from '../../lib/models/languageModel.js';
import { CHARACTERS, checkpointConfig, EOS, writeCheckpointFolder } from '../support/checkpoint.js';
import { ownTensors } from '../support/owned.js';
import { temporaryFolder } from '../text/fixtures.js';

ownTensors();

async function folder(options: Parameters<typeof writeCheckpointFolder>[1] = {}): Promise<string> {
  return writeCheckpointFolder(join(await temporaryFolder(), 'model'), options);
}

describe('loadLanguageModel', () => {
  it('reads weights, tokenizer and ends of a folder', async () => {
    const dir = await folder();
    using language = await loadLanguageModel(dir, { maxLength: 20 });
    assert.equal(language.path, dir);
    assert.equal(language.model.config.maxPositionEmbeddings, 20);
    assert.equal(language.config.decoder.maxPositionEmbeddings, checkpointConfig.maxPositionEmbeddings);
    assert.deepEqual(
      [...language.tokenizer.encode('12+3\n')],
      [...'12+3\n'].map((c) => CHARACTERS.indexOf(c)),
    );
    assert.deepEqual(language.tokenizer.eosIds, [EOS]);
  });

  it('says what is wrong before it reads weights', async () => {
    const cases: [changes: Record<string, unknown>, config: object, RegExp][] = [
      [{ 'tokenizer.json': undefined }, {}, /\[tokenizer\] expected .* to have a tokenizer\.json/],
      [{ 'tokenizer.json': '{' }, {}, /\[tokenizer\] expected .*tokenizer\.json to be JSON/],
      [{}, { vocabSize: 50 }, /no more tokens than the model, whose vocab_size is 50, got 8\d/],
      [
        { 'generation_config.json': { eos_token_id: 500 } },
        {},
        /eos_token_id of .* below the model's vocab_size/,
      ],
    ];
    for (const [changes, config, message] of cases) {
      const dir = await folder({ changes: { ...changes, 'model.safetensors': 'no weights' }, config });
      await assert.rejects(loadLanguageModel(dir), message);
    }
    await assert.rejects(
      loadModelText(join(await temporaryFolder(), 'none')),
      /the folder of a model \(ENOENT\)/,
    );
  });
});
