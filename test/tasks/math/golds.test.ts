import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { tableFromIPC } from 'apache-arrow';
import { CounterRandom } from '../../../lib/random.js';
import { parseAnswer } from '../../../lib/tasks/math/answer.js';
import { compareAnswers, mathEqual } from '../../../lib/tasks/math/equal.js';
import { MathVerifier } from '../../../lib/tasks/math/verifier.js';

/** The gold answers of the perfectible set, where the data folder stands beside the checkout. */
const file = fileURLToPath(new URL('../../../../../shared/data/sanity-math-1460.arrow', import.meta.url));
const skip = existsSync(file) ? false : `no ${file}`;
const LARGEST_RATE = 1 / 2000;
const SAMPLED = 100_000;

describe('1,460 gold answers of MATH', { skip }, () => {
  const answers = skip ? [] : [...tableFromIPC(readFileSync(file)).getChild('answer')!].map(String);
  const texts = [...new Set(answers)];

  it('equal themselves, in both modes', async () => {
    assert.equal(answers.length, 1460);
    for (const mode of ['strict', 'symbolic'] as const) {
      const verifier = new MathVerifier({ mode });
      for (const text of texts) {
        const { correct, how } = await verifier.verify(`We get $\\boxed{${text}}$.`, text);
        assert.deepEqual([correct, how], [true, 'same text'], text);
      }
    }
  });

  it('are all read as more than text', () => {
    assert.deepEqual(
      texts.filter((text) => parseAnswer(text).form.kind === 'opaque'),
      [],
    );
  });

  it('become others with a digit, a sign, a letter or a kind of bracket changed', () => {
    const changes: readonly (readonly [RegExp, (sign: string) => string])[] = [
      [/\d/g, (digit) => `${(Number(digit) + 1) % 10}`],
      [/[-+]/g, (sign) => (sign === '-' ? '+' : '-')],
      [/-/g, () => ''],
      [/[()[\]]/g, (bracket) => '()[]'['[]()'.indexOf(bracket)]!],
      // Letters of formulas, not of commands and words.
      [/(?<![\\a-zA-Z])[a-zA-Z](?![a-zA-Z])/g, (letter) => (letter === 'q' ? 'w' : 'q')],
    ];
    const called: string[] = [];
    let changed = 0;
    for (const text of texts) {
      for (const [pattern, change] of changes) {
        for (const { index, 0: sign } of text.matchAll(pattern)) {
          const other = text.slice(0, index) + change(sign) + text.slice(index + 1);
          changed++;
          if (mathEqual(text, other, 'value')) called.push(`${text} | ${other}`);
        }
      }
    }
    assert.ok(changed > 3000, `${changed}`);
    assert.deepEqual(called, []);
  });

  it('are hardly ever called equal when they are not the same text', () => {
    const parsed = texts.map((text) => parseAnswer(text));
    const random = new CounterRandom(1);
    for (const comparison of ['form', 'value'] as const) {
      const equal: string[] = [];
      for (let n = 0; n < SAMPLED; n++) {
        const i = random.integer(texts.length);
        const j = (i + 1 + random.integer(texts.length - 1)) % texts.length;
        if (compareAnswers(parsed[i]!, parsed[j]!, comparison).startsWith('same'))
          equal.push(`${texts[i]} | ${texts[j]}`);
      }
      assert.ok(equal.length <= SAMPLED * LARGEST_RATE, equal.join('\n'));
    }
  });
});
