import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { InvalidArgumentError } from '../../lib/errors.js';
import { StopMatcher } from '../../lib/text/stopMatcher.js';
import { TextStream, type TextStreamOptions } from '../../lib/text/textStream.js';
import { loadTokenizer, type Tokenizer } from '../../lib/text/tokenizer.js';
import { layOut, readFixture, shapes } from './fixtures.js';

function pieces(tokenizer: Tokenizer, ids: ArrayLike<number>, options?: TextStreamOptions): string[] {
  const stream = new TextStream(tokenizer, options);
  return [...Array.from(ids, (id) => stream.push(id)), stream.end()];
}

for (const shape of shapes) {
  describe(`a stream with the tokenizer of ${shape}`, async () => {
    const { files, size, encoded } = await readFixture(shape);
    const tokenizer = await loadTokenizer(await layOut(files));
    // Single bytes and spaces of every kind are as likely as words, so that characters are often cut and never end.
    const bytes = Array.from({ length: size }, (_, id) => id).filter((id) => {
      const length = tokenizer.detokenizer.bytes(id, false).length;
      return length === 1 || /^[▁Ġ]+$/.test(tokenizer.idToToken(id) ?? '');
    });
    const anyId = fc.oneof(fc.constantFrom(...bytes), fc.integer({ min: 0, max: size + 5 }));
    const anyOptions = fc.record({ skipSpecialTokens: fc.boolean(), continues: fc.boolean() });

    it('gives together what decode gives', () => {
      fc.assert(
        fc.property(fc.array(anyId, { maxLength: 24 }), anyOptions, (ids, options) => {
          assert.equal(pieces(tokenizer, ids, options).join(''), tokenizer.decode(ids, options));
        }),
        { numRuns: 2000, seed: 11 },
      );
    });

    it('holds back nothing but a character that may still be completed', () => {
      for (const { ids } of encoded) {
        const stream = new TextStream(tokenizer);
        let sofar = '';
        ids.forEach((id, i) => {
          sofar += stream.push(id);
          const text = tokenizer.decode(ids.slice(0, i + 1));
          const rest = text.slice(sofar.length);
          assert.ok(
            text.startsWith(sofar) && (rest === '' || rest === '\ufffd'),
            JSON.stringify([sofar, text]),
          );
        });
      }
    });

    it('looks at each token once, however long the text is', () => {
      let looks = 0;
      const counted = Object.create(tokenizer, {
        detokenizer: {
          value: {
            ...tokenizer.detokenizer,
            bytes: (id: number, first: boolean) => {
              looks++;
              return tokenizer.detokenizer.bytes(id, first);
            },
          },
        },
        idToToken: { value: (id: number) => tokenizer.idToToken(id) },
        isSpecial: { value: (id: number) => tokenizer.isSpecial(id) },
      }) as Tokenizer;
      pieces(counted, Array<number>(1000).fill(bytes[0]!), { stop: ['stop'] });
      assert.equal(looks, 1000);
    });

    it('ends at the first stop string, wherever tokens are cut', () => {
      const text = 'the answer is 42. the answer is 42.</answer> and more';
      const ids = tokenizer.encode(text, { addSpecialTokens: false });
      const stream = new TextStream(tokenizer, { stop: ['nowhere', '</answer>', '42.<'] });
      const got = Array.from(ids, (id) => stream.push(id)).join('') + stream.end();
      assert.equal(got, 'the answer is 42. the answer is ');
      assert.equal(stream.stopped, '42.<');
      // Nothing of the text is given out that may be the beginning of a stop string.
      const held = new TextStream(tokenizer, { stop: ['is 42.</answer> and more!'] });
      const before = Array.from(ids, (id) => held.push(id)).join('');
      assert.equal(before, 'the answer is 42. the answer ');
      assert.equal(before + held.end(), text);
      assert.equal(held.stopped, undefined);
    });
  });
}

describe('a stream', () => {
  it('gives out a character with its last byte, and U+FFFD for one that can never end', async () => {
    const tokenizer = await loadTokenizer(await layOut((await readFixture('mixtral')).files));
    const bytes = (...values: number[]) => values.map((value) => 3 + value);
    assert.deepEqual(pieces(tokenizer, bytes(0xf0, 0x9f, 0x98, 0x80)), ['', '', '', '😀', '']);
    assert.deepEqual(pieces(tokenizer, bytes(0xe2, 0x82, 0x41)), ['', '', '\ufffdA', '']);
    assert.deepEqual(pieces(tokenizer, bytes(0xe2, 0x82)), ['', '', '\ufffd']);
    assert.deepEqual(pieces(tokenizer, bytes(0xff, 0x41)), ['\ufffd', 'A', '']);
    assert.deepEqual(pieces(tokenizer, bytes(0xef, 0xbb, 0xbf)), ['', '', '\ufeff', '']);
  });

  it('loses the space that encoding put before a text, not the one before a response', async () => {
    const tokenizer = await loadTokenizer(await layOut((await readFixture('mixtral')).files));
    const ids = tokenizer.encode('the river', { addSpecialTokens: false });
    assert.equal(pieces(tokenizer, ids).join(''), 'the river');
    assert.equal(pieces(tokenizer, ids, { continues: true }).join(''), ' the river');
    // A special token that is skipped is no beginning; one that is shown is.
    assert.equal(pieces(tokenizer, [1, ...ids], { skipSpecialTokens: true }).join(''), 'the river');
    assert.equal(pieces(tokenizer, [1, ...ids]).join(''), '<s> the river');
    const metaspace = await loadTokenizer(await layOut((await readFixture('metaspace')).files));
    const spaces = [metaspace.tokenToId('▁▁')!, metaspace.tokenToId('▁')!];
    assert.deepEqual(pieces(metaspace, spaces), ['', ' ', '']);
    assert.deepEqual(pieces(metaspace, spaces, { continues: true }), ['  ', ' ', '']);
  });

  it('refuses what is no id and no stop string', async () => {
    const tokenizer = await loadTokenizer(await layOut((await readFixture('llama3')).files));
    assert.throws(() => new TextStream(tokenizer).push(-1), /\[TextStream\] expected a token id, got -1/);
    assert.throws(() => new TextStream(tokenizer, { stop: [''] }), InvalidArgumentError);
  });
});

describe('StopMatcher', () => {
  /** Character by character: the first place at which some stop string is complete; of several, the longest. */
  function naive(text: string, stops: readonly string[]): [before: string, found: string | undefined] {
    for (let end = 1; end <= text.length; end++) {
      const done = stops
        .filter((stop) => text.slice(0, end).endsWith(stop))
        .sort((a, b) => b.length - a.length);
      if (done[0] !== undefined) return [text.slice(0, end - done[0].length), done[0]];
    }
    return [text, undefined];
  }

  it('finds what a search character by character finds, however the text is cut', () => {
    const letters = (min: number, max: number) =>
      fc.string({ unit: fc.constantFrom('a', 'b', 'c'), minLength: min, maxLength: max });
    fc.assert(
      fc.property(
        fc.array(letters(0, 4), { maxLength: 12 }),
        fc.array(letters(1, 5), { maxLength: 4 }),
        (cut, stops) => {
          const matcher = new StopMatcher(stops);
          let given = '';
          const text = cut.join('');
          const [before, found] = naive(text, stops);
          for (const piece of cut) {
            given += matcher.push(piece);
            assert.ok(before.startsWith(given));
          }
          given += matcher.end();
          assert.deepEqual([given, matcher.found], [before, found]);
        },
      ),
      { numRuns: 5000, seed: 3 },
    );
  });

  it('holds back no more than what a stop string may begin with', () => {
    const matcher = new StopMatcher(['abcd', 'cdx']);
    assert.deepEqual(
      ['xa', 'b', 'c', 'x', 'ab', 'cd', 'more'].map((piece) => matcher.push(piece)),
      ['x', '', '', 'abcx', '', '', ''],
    );
    assert.equal(matcher.found, 'abcd');
    assert.equal(matcher.end(), '');
  });
});
