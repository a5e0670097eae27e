import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { extractAnswer, lastBoxed } from '../../../lib/tasks/math/extract.js';

const R = String.raw;

describe('lastBoxed', () => {
  const cases: readonly (readonly [string, string | undefined])[] = [
    [R`The answer is $\boxed{42}$.`, '42'],
    [R`\boxed{1} then \boxed{2}`, '2'],
    [R`\boxed{\frac{1}{2}}`, R`\frac{1}{2}`],
    [R`\boxed{\text{a } {b} {{c}}}`, R`\text{a } {b} {{c}}`],
    [R`\boxed{ 5 }`, '5'],
    [R`\boxed {5}`, '5'],
    ['\\boxed\n{5}', '5'],
    [R`\boxed{\{1,2\}}`, R`\{1,2\}`],
    [R`\boxed{[1,2\}}`, R`[1,2\}`],
    [R`\boxed{\left\{x\right.}`, R`\left\{x\right.`],
    [R`\boxed{a\\b}`, R`a\\b`],
    [R`\boxed{\boxed{5}}`, '5'],
    [R`\fbox{5}`, '5'],
    [R`\boxed{5} \fbox{note}`, '5'],
    [R`$\boxed 5$ is it`, '5'],
    [R`\(\boxed 5\) is it`, '5'],
    [R`\[\boxed5\]`, '5'],
    [R`$\boxed\frac{1}{2}$`, R`\frac{1}{2}`],
    ['\\boxed 5\nnext line', '5'],
    [R`\boxed{}`, ''],
    [R`\boxed{1} and \boxed{2`, undefined],
    [R`\boxed{2`, undefined],
    [R`\boxed{\frac{1}{2}`, undefined],
    [R`\boxed`, undefined],
    [R`\boxed{a\}`, undefined],
    ['', undefined],
    ['boxed{5}', undefined],
    ['42', undefined],
    [R`\boxedarray{5}`, undefined],
    [R`\boxed{5} \boxedarray{6}`, '5'],
  ];
  for (const [text, answer] of cases) {
    it(`${JSON.stringify(text)} holds ${answer}`, () => assert.equal(lastBoxed(text), answer));
  }

  it('gives back whatever balanced text is boxed, whatever stands before it', () => {
    const piece = fc.constantFrom(R`\{`, R`\}`, R`\\ `, ' ', '5', 'x', R`\frac`, '$', '{y}', '\n');
    const inner = fc.array(piece, { maxLength: 12 }).map((parts) => parts.join(''));
    fc.assert(
      fc.property(fc.string(), inner, inner, (before, a, b) => {
        assert.equal(lastBoxed(`${before}\\boxed{${a}{${b}}} done`), `${a}{${b}}`.trim());
      }),
    );
  });

  it('reads megabytes', () => {
    assert.equal(lastBoxed(`${'{'.repeat(2_000_000)}\\boxed{7}`), '7');
    assert.equal(lastBoxed('\\boxed{'.repeat(300_000)), undefined);
    assert.equal(lastBoxed('\\boxedx'.repeat(300_000)), undefined);
  });
});

describe('extractAnswer', () => {
  it('takes boxes alone unless told otherwise', () => {
    assert.equal(extractAnswer('The answer is 42.'), undefined);
    assert.equal(extractAnswer('42', 'boxed'), undefined);
  });

  const stated: readonly (readonly [string, string | undefined])[] = [
    [R`The answer is 41. No, \boxed{42}`, '42'],
    ['The answer is 42.', '42'],
    ['So the final answer is: 42', '42'],
    ['**Final Answer:** 42', '42'],
    ['Answer: **42**', '42'],
    [R`The answer is $\frac{1}{2}$, as shown.`, R`\frac{1}{2}`],
    [R`The answer is \(\frac{1}{2}\), as shown.`, R`\frac{1}{2}`],
    ['The answer is 3.5. Check it.', '3.5'],
    ['the answer is 1. But wait: the answer is 2', '2'],
    ['Adding up gives\n#### 72', '72'],
    ['<think>1</think> <answer> 42 </answer>', '42'],
    ['<answer>41</answer> <answer>42</answer>', '42'],
    ['no statement', undefined],
    ['The answer is', undefined],
    [R`\boxed{2 and the answer is 3`, undefined],
  ];
  for (const [text, answer] of stated) {
    it(`${JSON.stringify(text)} states ${answer}`, () => assert.equal(extractAnswer(text, 'stated'), answer));
  }

  it('takes the last line where anything may be the answer', () => {
    assert.equal(extractAnswer('42', 'plain'), '42');
    assert.equal(extractAnswer('One line\n\n x = 3 \n', 'plain'), 'x = 3');
    assert.equal(extractAnswer('The answer is 4\nThat is all', 'plain'), '4');
    assert.equal(extractAnswer(' \n ', 'plain'), undefined);
  });
});
