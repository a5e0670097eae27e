import assert from 'node:assert/strict';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { InvalidArgumentError } from '../../lib/errors.js';
import { CounterRandom } from '../../lib/random.js';
import { loadTokenizer } from '../../lib/text/tokenizer.js';
import { layOut, readFixture, shapes, temporaryFolder } from './fixtures.js';

for (const shape of shapes) {
  describe(`a tokenizer of the shape of ${shape}`, async () => {
    const fixture = await readFixture(shape);
    const tokenizer = await loadTokenizer(await layOut(fixture.files));

    it('has as many ids as the Python packages count', () => {
      assert.equal(tokenizer.vocabSize, fixture.size);
    });

    it('encodes as the Python packages do', () => {
      assert.ok(fixture.encoded.length > 40);
      for (const { text, ids, plain } of fixture.encoded) {
        assert.deepEqual([...tokenizer.encode(text)], ids, JSON.stringify(text));
        assert.deepEqual(
          [...tokenizer.encode(text, { addSpecialTokens: false })],
          plain,
          JSON.stringify(text),
        );
      }
    });

    it('decodes as the Python packages do', () => {
      assert.ok(fixture.decoded.length > 300);
      for (const { ids, text, skipped } of fixture.decoded) {
        assert.equal(tokenizer.decode(ids), text, `${ids}`);
        assert.equal(tokenizer.decode(Int32Array.from(ids), { skipSpecialTokens: true }), skipped, `${ids}`);
      }
    });
  });
}

describe('special tokens', () => {
  const load = async (shape: (typeof shapes)[number], changes = {}) =>
    loadTokenizer(await layOut((await readFixture(shape)).files, changes));

  it('come from the configuration, the map and the generation configuration', async () => {
    const llama3 = await load('llama3');
    assert.equal(llama3.idToToken(llama3.bosId!), '<|begin_of_text|>');
    assert.deepEqual(
      llama3.eosIds.map((id) => llama3.idToToken(id)),
      ['<|end_of_text|>', '<|eot_id|>'],
    );
    assert.equal(llama3.padId, undefined);
    const qwen2 = await load('qwen2');
    assert.equal(qwen2.bosId, undefined);
    assert.deepEqual(
      qwen2.eosIds.map((id) => qwen2.idToToken(id)),
      ['<|im_end|>', '<|endoftext|>'],
    );
    assert.equal(qwen2.idToToken(qwen2.padId!), '<|endoftext|>');
    // Its token is an object with content, and the list of ends is in config.json.
    const r1 = await load('r1');
    assert.equal(r1.idToToken(r1.bosId!), '<｜begin▁of▁sentence｜>');
    assert.deepEqual(
      r1.eosIds.map((id) => r1.idToToken(id)),
      ['<｜end▁of▁sentence｜>'],
    );
    const mixtral = await load('mixtral');
    assert.deepEqual([mixtral.bosId, mixtral.eosIds, mixtral.padId], [1, [2], undefined]);
    // It has only a special_tokens_map.json.
    const metaspace = await load('metaspace');
    assert.deepEqual([metaspace.bosId, metaspace.eosIds, metaspace.named.unk], [1, [2], '<unk>']);
  });

  it('add the end of the tokenizer to those of the generation', async () => {
    const tokenizer = await load('llama3', { 'generation_config.json': { eos_token_id: 7 } });
    assert.deepEqual(tokenizer.eosIds, [7, tokenizer.tokenToId('<|eot_id|>')]);
  });

  it('are known by id, with their text', async () => {
    const tokenizer = await load('qwen2');
    const think = tokenizer.tokenToId('<think>')!;
    assert.deepEqual(tokenizer.addedTokens.get(think), { id: think, content: '<think>', special: false });
    assert.equal(tokenizer.isSpecial(think), false);
    assert.equal(tokenizer.isSpecial(tokenizer.tokenToId('<|im_start|>')!), true);
    assert.equal(tokenizer.addedTokens.size, 5);
  });

  it('can be added by the configuration alone', async () => {
    const { files, size } = await readFixture('qwen2');
    const added = { content: '<|new|>', special: true, normalized: false };
    const tokenizer = await loadTokenizer(
      await layOut(files, { 'tokenizer_config.json': { added_tokens_decoder: { [size + 3]: added } } }),
    );
    assert.equal(tokenizer.vocabSize, size + 4);
    const ids = tokenizer.encode('a<|new|>b');
    assert.deepEqual([...ids], [tokenizer.tokenToId('a'), size + 3, tokenizer.tokenToId('b')]);
    assert.equal(tokenizer.decode(ids), 'a<|new|>b');
    assert.equal(tokenizer.decode(ids, { skipSpecialTokens: true }), 'ab');
    // The ids between have no token, as rows of a model beyond its tokenizer: no text.
    assert.equal(tokenizer.decode([size + 1, size + 100, ids[0]!, 2 ** 31 - 1]), 'a');
  });
});

/** Worked out by hand: a byte-level vocabulary in which "Ġ" is the space and "ÃĹ" are the two bytes of "×". */
const byHand = {
  added_tokens: [{ id: 9, content: '<end>', special: true, normalized: false }],
  normalizer: null,
  pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, use_regex: true },
  post_processor: null,
  decoder: { type: 'ByteLevel' },
  model: {
    type: 'BPE',
    vocab: { a: 0, b: 1, Ġ: 2, Ã: 3, Ĺ: 4, ab: 5, Ġab: 6, ÃĹ: 7, aba: 8 },
    merges: ['a b', 'Ġ ab', 'Ã Ĺ', 'ab a'],
  },
};

describe('a vocabulary worked out by hand', () => {
  it('merges in order of rank within a word, and joins bytes to characters', async () => {
    const tokenizer = await loadTokenizer(await layOut(new Map([['tokenizer.json', byHand]])));
    const cases: [string, number[]][] = [
      ['ab', [5]],
      ['aba', [8]],
      ['abab', [5, 5]],
      // The space belongs to the word that follows; "Ġ ab" comes before "ab a".
      ['ab aba', [5, 6, 0]],
      ['×', [7]],
      ['b<end>a', [1, 9, 0]],
      ['', []],
    ];
    for (const [text, ids] of cases) {
      assert.deepEqual([...tokenizer.encode(text)], ids, text);
      assert.equal(tokenizer.decode(ids), text);
    }
    assert.equal(tokenizer.decode([3, 0, 4, 3]), '\ufffda\ufffd\ufffd');
    assert.equal(tokenizer.vocabSize, 10);
    assert.deepEqual(tokenizer.eosIds, []);
  });
});

describe('bytes that are no UTF-8 in a vocabulary with byte fallback', () => {
  it('become one U+FFFD for each beginning of a character; whole characters beside them stay', async () => {
    // The tokenizers package gives U+FFFD for every byte of such a run, whole characters too, which no stream could.
    const tokenizer = await loadTokenizer(await layOut((await readFixture('mixtral')).files));
    const bytes = (...values: number[]) =>
      values.map((value) => tokenizer.tokenToId(`<0x${value.toString(16).toUpperCase().padStart(2, '0')}>`)!);
    assert.equal(tokenizer.decode(bytes(0xc3, 0xa9, 0xff, 0xe2, 0x82)), 'é\ufffd\ufffd');
    assert.equal(tokenizer.decode(bytes(0xef, 0xbb, 0xbf, 0x41)), '\ufeffA');
    assert.equal(tokenizer.decode(bytes(0x20, 0x20, 0x41)), ' A');
    assert.equal(tokenizer.decode(bytes(0x20, 0x20, 0x41), { continues: true }), '  A');
  });
});

describe('what cannot be loaded', () => {
  const refuses = async (folder: string, message: RegExp) => {
    await assert.rejects(loadTokenizer(folder), (error: unknown) => {
      assert.ok(error instanceof InvalidArgumentError, String(error));
      assert.match(error.message, message);
      return true;
    });
  };
  const with_ = async (change: object) => layOut(new Map([['tokenizer.json', { ...byHand, ...change }]]));
  const model = (change: object) => with_({ model: { ...byHand.model, ...change } });

  it('names the folder and what is missing', async () => {
    const folder = await temporaryFolder();
    await refuses(
      join(folder, 'nowhere'),
      /\[tokenizer\] expected the folder of a model \(ENOENT\), got ".*nowhere"/,
    );
    await refuses(folder, /expected .* to have a tokenizer\.json .*save_pretrained/);
    const file = await layOut(new Map([['file', 'text']]));
    await refuses(join(file, 'file'), /expected the folder of a model, got ".*file"/);
    await mkdir(join(folder, 'tokenizer.json'));
    await refuses(folder, /expected a regular file, got ".*tokenizer\.json"/);
  });

  const files: [what: string, content: unknown, message: RegExp][] = [
    [
      'a pointer',
      'version https://git-lfs.github.com/spec/v1\noid sha256:0\n',
      /tokenizer\.json to hold its content, got "a Git LFS pointer/,
    ],
    ['half a file', JSON.stringify(byHand).slice(0, 200), /tokenizer\.json to be JSON, got .*JSON/],
    ['other bytes', Uint8Array.of(0x7b, 0xff, 0x7d), /tokenizer\.json to be UTF-8/],
    ['a list', [1, 2], /tokenizer\.json to be a JSON object, got "an array of 2"/],
    ['nothing', '', /tokenizer\.json to be JSON/],
    [
      'no model',
      { ...byHand, model: undefined },
      /model of .*tokenizer\.json to be a JSON object, got "nothing"/,
    ],
    ['no decoder', { ...byHand, decoder: null }, /decoder of .* to be a JSON object, got "null"/],
  ];
  for (const [what, content, message] of files) {
    it(`names a file that is ${what}`, async () =>
      refuses(await layOut(new Map([['tokenizer.json', content]])), message));
  }

  it('names what is not supported and would give other ids', async () => {
    await refuses(
      await model({ type: 'Unigram' }),
      /byte pair encoding \(type BPE\), got "the string \\"Unigram\\""/,
    );
    await refuses(await model({ dropout: 0.1 }), /dropout of .* to be 0/);
    await refuses(await model({ end_of_word_suffix: '</w>' }), /no end_of_word_suffix/);
    await refuses(await model({ continuing_subword_prefix: '##' }), /no continuing_subword_prefix/);
    await refuses(await model({ unk_token: '<unk>' }), /unk_token of .* to be a token of vocab/);
    await refuses(await model({ vocab: { a: 1.5 } }), /"a" in the vocab of .* to be a token id/);
    await refuses(
      await model({ merges: ['a b', 'a c'] }),
      /merges\[1\] of .* to join two tokens of vocab to a third/,
    );
    await refuses(await model({ merges: ['a b Ġ'] }), /merges\[0\]/);
    await refuses(
      await model({
        merges: [
          ['a', 'b'],
          [1, 2],
        ],
      }),
      /merges\[1\]/,
    );
    await refuses(
      await with_({ normalizer: { type: 'BertNormalizer' } }),
      /normalizer of .* to be of type NFC/,
    );
    await refuses(
      await with_({ pre_tokenizer: { type: 'Sequence', pretokenizers: [{ type: 'Punctuation' }] } }),
      /pre_tokenizer of .* to be of type ByteLevel, .*Sequence of them, got "the string \\"Punctuation\\""/,
    );
    await refuses(
      await with_({
        pre_tokenizer: { type: 'Split', pattern: { String: ' ' }, behavior: 'MergedWithPrevious' },
      }),
      /Split in pre_tokenizer of .* to have a pattern and behavior: Isolated/,
    );
    await refuses(
      await with_({ pre_tokenizer: { type: 'Metaspace', replacement: '▁' } }),
      /to have split: false/,
    );
    await refuses(
      await with_({ post_processor: { type: 'BertProcessing' } }),
      /post_processor of .* to be of type/,
    );
    await refuses(
      await with_({ added_tokens: [{ id: 9, content: 'x', single_word: true }] }),
      /single_word of added_tokens\[0\] of .* to be false/,
    );
    await refuses(await with_({ added_tokens: [{ content: 'x' }] }), /id of added_tokens\[0\] of/);
    await refuses(
      await with_({ decoder: { type: 'WordPiece' } }),
      /decoder of .* to be ByteLevel, Metaspace or a Sequence/,
    );
    await refuses(
      await with_({
        decoder: { type: 'Sequence', decoders: [{ type: 'Strip', content: ' ', start: 1, stop: 0 }] },
      }),
      /Strip in the decoder of .* to come after Fuse/,
    );
    await refuses(
      await with_({ decoder: { type: 'Sequence', decoders: [{ type: 'Fuse' }, { type: 'ByteFallback' }] } }),
      /no text after Fuse, got "the string \\"ByteFallback\\""/,
    );
    await refuses(
      await with_({ pre_tokenizer: { type: 'Split', pattern: { Regex: '(' }, behavior: 'Isolated' } }),
      /tokenizer\.json to be a tokenizer, got .*[Rr]egular expression/,
    );
  });

  it('names a special token that there is not', async () => {
    const files = new Map<string, unknown>([['tokenizer.json', byHand]]);
    const config = (value: object) => layOut(files, { 'tokenizer_config.json': value });
    await refuses(
      await config({ eos_token: '</s>' }),
      /eos_token of .* to be a token of .*tokenizer\.json, got "<\/s>"/,
    );
    await refuses(
      await config({ bos_token: 3 }),
      /bos_token of .*tokenizer_config\.json to be a string or to have a content, got "the number 3"/,
    );
    await refuses(
      await layOut(files, { 'generation_config.json': { eos_token_id: [1, '2'] } }),
      /eos_token_id of .*generation_config\.json/,
    );
    await refuses(
      await config({ added_tokens_decoder: { 4: { content: '<end>' } } }),
      /added_tokens_decoder\[4\] of .* to have the id 9 that tokenizer\.json gives it, got 4/,
    );
    const post_processor = {
      type: 'TemplateProcessing',
      single: [{ SpecialToken: { id: '<s>' } }, { Sequence: { id: 'A' } }],
      pair: [],
    };
    await refuses(await with_({ post_processor }), /post_processor of .* to add tokens that there are/);
    // A padding token is never needed, so one that is missing is none.
    const tokenizer = await loadTokenizer(await config({ pad_token: '[PAD]' }));
    assert.equal(tokenizer.padId, undefined);
  });

  it('refuses text that is none and ids that are none', async () => {
    const tokenizer = await loadTokenizer(await layOut(new Map([['tokenizer.json', byHand]])));
    assert.throws(() => tokenizer.encode(1 as never), /\[encode\] expected text to be a string, got 1/);
    for (const id of [-1, 0.5, Number.NaN, undefined]) {
      assert.throws(() => tokenizer.decode([id as number]), /\[decode\] expected a token id/);
    }
  });
});

describe('a damaged tokenizer.json', () => {
  for (const shape of ['llama3', 'mixtral'] as const) {
    it(`of the shape of ${shape} is a tokenizer or one error that names the file`, async () => {
      const { files } = await readFixture(shape);
      const bytes = Buffer.from(JSON.stringify(files.get('tokenizer.json')));
      const folder = await layOut(new Map([['tokenizer.json', bytes]]));
      const path = join(folder, 'tokenizer.json');
      let refused = 0;
      for (let i = 0; i < 150; i++) {
        const random = new CounterRandom(9, i);
        const damaged = Buffer.from(bytes);
        // Keys and types are at the ends of the file, the vocabulary between them.
        const at = random.integer(1500);
        damaged[random.integer(2) === 0 ? at : damaged.length - 1 - at] = random.integer(256);
        await writeFile(path, damaged);
        try {
          const tokenizer = await loadTokenizer(folder);
          tokenizer.decode(tokenizer.encode('The rain, 12 é 😀'));
        } catch (error) {
          assert.ok(error instanceof InvalidArgumentError, String((error as Error).stack));
          assert.match(error.message, /tokenizer\.json/);
          refused++;
        }
      }
      assert.ok(refused > 30, `${refused}`);
      for (let length = bytes.length - 1; length >= 0; length -= 211) {
        await writeFile(path, bytes.subarray(0, length));
        await assert.rejects(loadTokenizer(folder), /tokenizer\.json to be/);
      }
    });
  }
});
