import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { clip, clipMiddle, clipQuoted, displayWidth, printable } from '../../lib/cli/terminalText.js';

const anyText = fc.string({ unit: 'binary', maxLength: 60 });

describe('text of others on a terminal', () => {
  it('has escapes for what cannot be seen or moves the cursor', () => {
    for (const [text, expected] of [
      ['plain "text"', 'plain "text"'],
      ['a\nb\tc\r', 'a\\nb\\tc\\r'],
      ['\u001b[31mred', '\\u001b[31mred'],
      ['\u0085\u2028\u00a0\u200d\u202e\ufeff', '\\u0085\\u2028\\u00a0\\u200d\\u202e\\ufeff'],
      ['\ud800x\u{e0001}\u{10ffff}', '\\ud800x\\u{e0001}\\u{10ffff}'],
      ['é 漢字 🙂', 'é 漢字 🙂'],
    ] as const) {
      assert.equal(printable(text), expected);
    }
  });

  it('takes as many columns as a terminal gives it', () => {
    for (const [text, expected] of [
      ['', 0],
      ['abc', 3],
      ['é', 1],
      ['漢字', 4],
      ['한국어', 6],
      ['🙂', 2],
      ['ｆｕｌｌ', 8],
      ['𝒳', 1],
    ] as const) {
      assert.equal(displayWidth(text), expected, text);
    }
  });

  it('is cut at the width, with an ellipsis and whole escapes', () => {
    assert.equal(clip('abcdef', 6), 'abcdef');
    assert.equal(clip('abcdefg', 6), 'abcde…');
    assert.equal(clip('漢字漢字', 6), '漢字…');
    assert.equal(clip('ab\u202ecd', 6), 'ab…');
    assert.equal(clipMiddle('abcdef', 6), 'abcdef');
    assert.equal(clipMiddle('abcdefghi', 6), 'ab…ghi');
    assert.equal(clipMiddle('漢字漢字', 6), '漢…字');
    assert.equal(clipMiddle('a\nb\u202ecd', 6), 'a…cd');
    assert.equal(clipQuoted('ab"c', 7), '"ab\\"c"');
    assert.equal(clipQuoted('ab"cdef', 7), '"ab\\""…');
    assert.equal(clipQuoted('\n\n\n\n', 7), '"\\n\\n"…');
    fc.assert(
      fc.property(anyText, fc.integer({ min: 3, max: 40 }), (text, width) => {
        for (const shown of [clip(text, width), clipMiddle(text, width), clipQuoted(text, width)]) {
          assert.ok(displayWidth(shown) <= width, shown);
          assert.doesNotMatch(shown, /\p{C}/u);
        }
        if (!clipQuoted(text, width).endsWith('"…')) assert.ok(clipQuoted(text, width).endsWith('"'));
      }),
    );
  });
});
