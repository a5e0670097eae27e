import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type { Problem } from '../../lib/data/problems.js';
import { loadVerifier, resolveVerifierSpec } from '../../lib/rl/verifier.js';
import { temporaryFolder } from '../text/fixtures.js';

const problem: Problem = { id: '7', prompt: 'Half of 1?', answers: ['1/2', 'a half'] };

async function file(name: string, text: string): Promise<string> {
  const path = join(await temporaryFolder(), name);
  await writeFile(path, text);
  return path;
}

async function verdicts(spec: string, responses: readonly string[], of = problem): Promise<number[]> {
  await using verifier = await loadVerifier(spec);
  return await Promise.all(responses.map((response) => verifier.verify(response, of)));
}

describe('loadVerifier', () => {
  it('judges by value, by form, by a statement, or letter by letter', async () => {
    const responses = [
      'so \\boxed{0.5}',
      '\\boxed{\\frac12}',
      'The answer is 1/2.',
      '\n1/2 ',
      'a half',
      '1/3',
    ];
    assert.deepEqual(await verdicts('math', responses), [1, 1, 0, 0, 0, 0]);
    assert.deepEqual(await verdicts('math-stated', responses), [1, 1, 1, 0, 0, 0]);
    assert.deepEqual(await verdicts('exact', responses), [0, 0, 0, 1, 1, 0]);
    const product = { ...problem, answers: ['(x-1)(x+1)'] };
    assert.deepEqual(await verdicts('math', ['\\boxed{x^2-1}', '\\boxed{(x+1)(x-1)}'], product), [1, 1]);
    assert.deepEqual(await verdicts('math-strict', ['\\boxed{x^2-1}'], product), [0]);
  });

  it("asks a user's own module, with the whole row", async () => {
    const spec = await file(
      'mine.ts',
      `import type { UserVerifier } from 'isopolicy';
       const verify: UserVerifier = async (response, { row, answers }) =>
         response === row?.word ? 0.25 : answers.length === 0;
       export default verify;`,
    );
    const own = { id: '1', prompt: 'x', answers: [], row: { word: 'yes' } };
    assert.deepEqual(await verdicts(spec, ['yes', 'no'], own), [0.25, 1]);
    const [first, second] = await Promise.all([loadVerifier(spec), loadVerifier(spec)]);
    assert.match(first.version, /^mine\.ts\/sha256-[0-9a-f]{16}$/);
    assert.equal(first.version, second.version);
    assert.equal(first.needsAnswers, false);
  });

  it('says what is wrong with one', async () => {
    const throwing = await file('throws.mjs', 'export default () => { throw new Error("no such row") };');
    await assert.rejects(
      verdicts(throwing, ['x']),
      /throws\.mjs to judge a response to problem 7, got no such row/,
    );
    const text = await file('text.mjs', 'export default () => "good";');
    await assert.rejects(verdicts(text, ['x']), /to return a finite number or a boolean, got "good"/);
    const nothing = await file('null.mjs', 'export default () => null;');
    await assert.rejects(verdicts(nothing, ['x']), /to return a finite number or a boolean, got null/);
    await assert.rejects(
      loadVerifier(await file('none.mjs', 'export const a = 1;')),
      /a default export, got none/,
    );
    await assert.rejects(loadVerifier(await file('object.mjs', 'export default {};')), /to be a function/);
    await assert.rejects(loadVerifier('/nowhere/verifier.js'), /expected a file that can be read/);
    assert.throws(
      () => resolveVerifierSpec('train', 'mth'),
      /\[train\] expected verifier to be .*did you mean math\?/,
    );
  });
});
