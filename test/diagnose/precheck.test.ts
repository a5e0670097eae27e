import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import type { Precheck } from '../../lib/diagnose/diagnosis.js';
import { Prechecks } from '../../lib/diagnose/precheck.js';
import type { Pair } from '../../lib/diagnose/record.js';
import { lines, matchesOf } from './fixtures.js';

const BASE = { id: 'a', tokens: [5, 6, 7], logprobs: [-1, -2, -3] };

async function checkAll(
  rollout: readonly object[],
  training: readonly object[],
): Promise<{ pairs: Pair[]; results: Precheck[]; checks: Prechecks }> {
  const checks = new Prechecks();
  const aligned: Pair[] = [];
  for (const match of await matchesOf(lines(rollout), lines(training))) {
    const pair = checks.align(match);
    if (pair !== undefined) aligned.push(pair);
  }
  return { pairs: aligned, results: checks.results(), checks };
}

/** One response that differs from `BASE` on each side. */
const check = (rollout: object, training: object) =>
  checkAll([{ ...BASE, ...rollout }], [{ ...BASE, ...training }]);

describe('a response that aligns', () => {
  it('is a pair with all that either side says of it', async () => {
    const rollout = {
      step: 4,
      temperature: 0.7,
      topP: 0.9,
      topK: 20,
      weightsVersion: ['v1', 'v1', 'v2'],
      topLogprobs: [{ 5: -1 }, null, null],
    };
    const training = { logprobs: [-1.5, -2, -3.5], batch: 'b', mask: [1, 0, 1], text: ['a', 'b', 'c'] };
    const { pairs, results, checks } = await check(rollout, training);
    assert.deepEqual(results, []);
    assert.deepEqual(checks.compared, { responses: 1, tokens: 2, maskedTokens: 1 });
    const pair = pairs[0]!;
    assert.deepEqual([pair.id, pair.index, pair.step, pair.batch], ['a', 0, 4, 'b']);
    assert.deepEqual(
      [pair.tokens, pair.tokenTexts],
      [
        [5, 6, 7],
        ['a', 'b', 'c'],
      ],
    );
    assert.deepEqual([...pair.rollout], [-1, -2, -3]);
    assert.deepEqual([...pair.training], [-1.5, -2, -3.5]);
    assert.deepEqual([...pair.mask], [1, 0, 1]);
    assert.equal(pair.topLogprobs.rollout!.length, 3);
    assert.equal(pair.topLogprobs.training, null);
    assert.deepEqual(pair.settings.rollout, { temperature: 0.7, topP: 0.9, topK: 20 });
    assert.deepEqual(pair.weightsVersions, { rollout: ['v1', 'v1', 'v2'], training: null });
    assert.match(pair.places.training.file, /training\.jsonl$/);
  });

  it('may lack ids of tokens or texts on one side, or on both', async () => {
    const texts = ['x', 'y', 'z'];
    for (const [rollout, training] of [
      [{}, { tokens: undefined }],
      [{ tokens: undefined }, { tokens: undefined }],
      [
        { tokens: undefined, text: texts },
        { tokens: undefined, text: texts },
      ],
      [{ text: 'xyz' }, { text: texts }],
      [{ promptTokens: [1, 2] }, {}],
      [{ promptTokens: [0, 0, 1, 2] }, { promptTokens: [1, 2] }],
      [{ weightsVersion: 'v1' }, { weightsVersion: ['v1', 'v1', 'v1'] }],
      [{ topP: 0.9, topK: 5 }, { temperature: 1 }],
    ]) {
      const { pairs, results } = await check(rollout!, training!);
      assert.deepEqual([pairs.length, results], [1, []], JSON.stringify([rollout, training]));
    }
  });

  it('without an id has its number in the file', async () => {
    const { pairs } = await check({ id: undefined }, { id: undefined });
    assert.equal(pairs[0]!.id, '#1');
  });
});

describe('a response that does not align', () => {
  const long = { tokens: [1, 2, 5, 6, 7], logprobs: [-9, -9, -1, -2, -3] };
  const refused: [what: string, rollout: object, training: object, kind: string, found: RegExp][] = [
    ['other tokens', {}, { tokens: [5, 9, 8] }, 'token-ids', /position 1, 6 and 9$/],
    [
      'other texts',
      { tokens: undefined, text: ['a', 'b', 'c'] },
      { tokens: undefined, text: ['a', 'b', 'd'] },
      'token-ids',
      /position 2, "c" and "d"$/,
    ],
    [
      'another prompt',
      { promptTokens: [1, 2] },
      { promptTokens: [1, 3] },
      'token-ids',
      /position 1 of the prompt, 2 and 3$/,
    ],
    [
      'a prompt with a token of its beginning',
      { promptTokens: [1, 2] },
      { promptTokens: [9, 1, 2] },
      'token-ids',
      /position 0 of the prompt, 1 and 9$/,
    ],
    [
      'the same text in as many tokens',
      { text: 'xyz' },
      { tokens: [5, 8, 9], text: ['x', 'y', 'z'] },
      'retokenised',
      /position 1, 6 and 8$/,
    ],
    [
      'the same text in fewer tokens',
      { text: 'xyz' },
      { tokens: [5, 8], logprobs: [-1, -2], text: 'xyz' },
      'retokenised',
      /3 tokens in rollout, 2 in training; position 1 is the first that differs$/,
    ],
    [
      'the prompt in training',
      {},
      { ...long, promptTokens: [1, 2] },
      'prompt-counted',
      /3 tokens in rollout, 5 in training: the first 2 of training are the prompt's$/,
    ],
    [
      'the prompt in rollout',
      { ...long, promptTokens: [0, 1, 2] },
      {},
      'prompt-counted',
      /the first 2 of rollout are the prompt's$/,
    ],
    ['tokens before it', {}, long, 'prompt-counted', /the last 3 of training are the other side's$/],
    [
      'as many more tokens as the prompt has',
      { tokens: undefined, promptTokens: [1, 2] },
      long,
      'prompt-counted',
      /training has as many more as the prompt has tokens$/,
    ],
    [
      'a token more at its end',
      {},
      { tokens: [5, 6, 7, 8], logprobs: [-1, -2, -3, -4] },
      'length',
      /3 tokens in rollout, 4 in training; the first 3 are the same$/,
    ],
    [
      'a repeated token more',
      { tokens: [5, 5, 5] },
      { tokens: [5, 5, 5, 5], logprobs: [-1, -2, -3, -4] },
      'length',
      /the first 3 are the same$/,
    ],
    [
      'its last token alone',
      {},
      { tokens: [7], logprobs: [-3] },
      'length',
      /position 0 is the first that differs$/,
    ],
    ['nothing on one side', {}, { tokens: [], logprobs: [] }, 'length', /the first 0 are the same$/],
    [
      'another number of unknown tokens',
      {},
      { tokens: undefined, logprobs: [-1] },
      'length',
      /3 tokens in rollout, 1 in training$/,
    ],
    ['another mask', { mask: [1, 1, 0] }, { mask: [1, 1, 1] }, 'mask', /differs from position 2 on$/],
    [
      'a shifted mask',
      { mask: [0, 1, 0] },
      { mask: [0, 0, 1] },
      'mask-shifted',
      /training's is rollout's, 1 position later$/,
    ],
    ['a mask of zeros', { mask: [0, 0, 0] }, {}, 'nothing-counts', /a mask of zeros$/],
    ['no tokens', { tokens: [], logprobs: [] }, { tokens: [], logprobs: [] }, 'nothing-counts', /no tokens$/],
  ];
  for (const [what, rollout, training, kind, found] of refused) {
    it(`for ${what} is refused`, async () => {
      const { pairs, results, checks } = await check(rollout, training);
      assert.deepEqual(pairs, []);
      assert.equal(results.length, 1, JSON.stringify(results));
      const { kind: was, count, of, unit, leftOut, examples, text } = results[0]!;
      assert.deepEqual([was, count, of, unit, leftOut], [kind, 1, 1, 'responses', true]);
      assert.match(text, /^expected /);
      assert.match(examples[0]!, /^.*rollout\.jsonl:1, .*training\.jsonl:1, id a: /);
      assert.match(examples[0]!, found);
      assert.deepEqual(checks.compared, { responses: 0, tokens: 0, maskedTokens: 0 });
    });
  }

  it('since one side lacks it is counted, with the first three of each side', async () => {
    const rows = (ids: number[]) => ids.map((id) => ({ ...BASE, id }));
    const { pairs, results } = await checkAll(rows([1, 2, 3, 4, 5, 6]), rows([6, 7, 1]));
    assert.deepEqual(
      pairs.map(({ id }) => id),
      ['1', '6'],
    );
    const { kind, count, of, text, examples } = results[0]!;
    assert.deepEqual([kind, count, of, examples.length], ['missing', 5, 7, 4]);
    assert.match(text, /got 1 that rollout lacks and 4 that training lacks$/);
    assert.match(examples[0]!, /rollout\.jsonl:2, id 2: not in training$/);
  });
});

describe('what no log-prob can be', () => {
  it('is left out where it is not finite, on either side, unless masked', async () => {
    const rollout = { logprobs: [null, -2, 'Infinity'], mask: [1, 1, 0] };
    const { pairs, results, checks } = await check(rollout, { logprobs: [-1, -2, 'NaN'] });
    assert.deepEqual([...pairs[0]!.mask], [0, 1, 0]);
    assert.deepEqual(checks.compared, { responses: 1, tokens: 1, maskedTokens: 1 });
    const { kind, count, of, unit, leftOut, examples } = results[0]!;
    assert.deepEqual(
      [results.length, kind, count, of, unit, leftOut],
      [1, 'not-finite', 1, 2, 'tokens', true],
    );
    assert.match(examples[0]!, /id a: position 0, NaN and -1$/);
  });

  it('leaves nothing where no token is finite', async () => {
    const { pairs, results } = await check({ logprobs: [null, null, null] }, {});
    assert.deepEqual(pairs, []);
    assert.deepEqual(
      results.map(({ kind, count, of }) => [kind, count, of]),
      [
        ['nothing-counts', 1, 1],
        ['not-finite', 3, 3],
      ],
    );
    assert.match(results[0]!.examples[0]!, /none is finite$/);
  });

  it('is counted and kept where it is exactly 0 beside another, or above 0', async () => {
    const { pairs, results } = await check({ logprobs: [0, 0, 2e-6] }, { logprobs: [-0.5, -0.009, 0.25] });
    assert.deepEqual([...pairs[0]!.mask], [1, 1, 1]);
    assert.deepEqual(
      results.map(({ kind, count, of, leftOut }) => [kind, count, of, leftOut]),
      [
        ['exact-zero', 1, 3, false],
        ['above-zero', 1, 3, false],
      ],
    );
    assert.match(results[1]!.text, /got up to 0\.250$/);
    assert.deepEqual((await check({ logprobs: [-1, -2, 9e-7] }, {})).results, []);
  });
});

describe('settings and weights', () => {
  it('that differ are told, and the response is kept', async () => {
    const { pairs, results } = await check(
      { temperature: 0.6, topP: 0.9, topK: 5, weightsVersion: ['1', '1', '2'] },
      { temperature: 1, topP: 0.9, topK: 0, weightsVersion: 1 },
    );
    assert.equal(pairs.length, 1);
    assert.deepEqual(
      results.map(({ kind, count, of, leftOut }) => [kind, count, of, leftOut]),
      [
        ['settings', 1, 1, false],
        ['weights-version', 1, 1, false],
      ],
    );
    assert.match(results[0]!.examples[0]!, /temperature 0\.6 and 1, topK 5 and -1$/);
    assert.match(results[1]!.examples[0]!, /position 2, 2 and 1$/);
  });
});

describe('a mask that moved', () => {
  it('is told from one that changed', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.nat(1), { minLength: 6, maxLength: 40 }),
        fc.constantFrom(1, 2, -1, -2),
        async (mask, by) => {
          const inner = mask.slice(2, -2);
          fc.pre(inner.some((value) => value !== inner[0]));
          const moved = mask.map((_, t) => mask[t - by] ?? 0);
          fc.pre(moved.some((value, t) => value !== mask[t]));
          const row = { id: 1, logprobs: mask.map(() => -1) };
          const { results } = await checkAll([{ ...row, mask }], [{ ...row, mask: moved }]);
          assert.equal(results[0]!.kind, 'mask-shifted');
          // A pattern of period two or three moves both ways at once.
          assert.match(results[0]!.examples[0]!, /[12] positions? (later|earlier)$/);
        },
      ),
      { numRuns: 50, seed: 4 },
    );
  });
});
