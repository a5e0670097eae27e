/** Our own format, row by row. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { formatOf } from '../../lib/diagnose/formats/index.js';
import type { DumpRecord } from '../../lib/diagnose/record.js';

const { records } = formatOf('plain');
const place = { file: 'rollout.jsonl', line: 12 };
const only = (row: Record<string, unknown>): DumpRecord => {
  const found = records(row, place);
  assert.equal(found.length, 1);
  return found[0]!;
};
const own = (row: Record<string, unknown>): number[] => [...only(row).own!.logprobs];

describe('plain rows', () => {
  it('need nothing but log-probs', () => {
    assert.deepEqual(only({ logprobs: [-1, -0.5] }), {
      id: null,
      place,
      tokens: null,
      tokenTexts: null,
      text: null,
      own: { logprobs: Float64Array.of(-1, -0.5) },
      both: null,
      mask: null,
      promptTokens: null,
      step: null,
      batch: null,
      settings: { temperature: null, topP: null, topK: null },
      weightsVersion: null,
    });
    assert.deepEqual(own({ logprobs: [] }), []);
  });

  it('may have numbers that JSON has only as text', () => {
    const logprobs = [null, 'NaN', 'nan', 'Infinity', 'inf', '-Infinity', '-inf', -0, 1e-320];
    const found = own({ logprobs });
    const expected = [NaN, NaN, NaN, Infinity, Infinity, -Infinity, -Infinity, -0, 1e-320];
    assert.deepEqual(found, expected);
    assert.ok(Object.is(found[7], -0));
  });

  it('are the same in snake_case', () => {
    const camel = {
      rolloutLogprobs: [-1],
      trainingLogprobs: [-2],
      rolloutTopLogprobs: [{ '5': -1 }],
      trainingTopLogprobs: [null],
      promptTokens: [1, 2],
      weightsVersion: 3,
      topP: 0.9,
      topK: 20,
    };
    const snake = Object.fromEntries(
      Object.entries(camel).map(([name, value]) => [
        name.replace(/[A-Z]/g, (upper) => `_${upper.toLowerCase()}`),
        value,
      ]),
    );
    assert.notDeepEqual(Object.keys(camel), Object.keys(snake));
    assert.deepEqual(only(snake), only(camel));
    assert.equal(only(camel).weightsVersion, '3');
  });

  it('are of one engine where they name one alone', () => {
    for (const name of ['rolloutLogprobs', 'training_logprobs']) {
      const record = only({ [name]: [-1], tokens: [4] });
      assert.deepEqual(record.own, { logprobs: Float64Array.of(-1) });
      assert.equal(record.both, null);
    }
    const record = only({ trainingLogprobs: [-1], trainingTopLogprobs: [[[4, -1]]] });
    assert.deepEqual(record.own!.topLogprobs, [{ tokens: [4], logprobs: [-1] }]);
  });

  it('have top log-probs as objects or pairs, by id or by text', () => {
    const topLogprobs = [
      { '12': -1, '007': -2, ' a': 'NaN' },
      [
        [12, -1],
        [' b', null],
      ],
      null,
      {},
      [],
    ];
    assert.deepEqual(only({ logprobs: [-1, -1, -1, -1, -1], topLogprobs }).own!.topLogprobs, [
      { tokens: [12, '007', ' a'], logprobs: [-1, -2, NaN] },
      { tokens: [12, ' b'], logprobs: [-1, NaN] },
      null,
      { tokens: [], logprobs: [] },
      { tokens: [], logprobs: [] },
    ]);
  });

  it('have the text of the response or of each token', () => {
    assert.equal(only({ logprobs: [-1], text: 'a' }).text, 'a');
    const record = only({ logprobs: [-1, -2], text: ['a', 'b'] });
    assert.deepEqual([record.text, record.tokenTexts], [null, ['a', 'b']]);
  });

  it('keep a mask as it is, and take -1 and 0 as no top-k', () => {
    assert.deepEqual([...only({ logprobs: [-1, -2, -3], mask: [false, 1, 0] }).mask!], [0, 1, 0]);
    for (const topK of [0, -1]) assert.equal(only({ logprobs: [], top_k: topK }).settings.topK, -1);
  });

  it('come back from JSON to the bit', () => {
    const id = fc.nat({ max: 2 ** 40 });
    const logprob = fc.double({ max: 0, noNaN: true });
    const token = fc.record({
      id,
      mask: fc.nat({ max: 1 }),
      text: fc.string(),
      rollout: logprob,
      training: fc.oneof(logprob, fc.constant(Number.NaN)),
      top: fc.option(fc.array(fc.tuple(fc.oneof(id, fc.string()), logprob), { maxLength: 4 })),
      version: fc.string({ minLength: 1 }),
    });
    const asJson = (value: number) =>
      Number.isFinite(value) ? (Object.is(value, -0) ? 0 : value) : String(value);
    const row = fc.record({
      id: fc.oneof(fc.string({ minLength: 1 }), fc.integer()),
      tokens: fc.array(token, { maxLength: 12 }),
      promptTokens: fc.array(id),
      step: fc.nat(),
      batch: fc.string({ minLength: 1 }),
      temperature: fc.double({ min: 1e-3, max: 4, noNaN: true }),
      topP: fc.double({ min: 1e-3, max: 1, noNaN: true }),
      topK: fc.oneof(fc.constant(-1), fc.integer({ min: 1, max: 1000 })),
      extra: fc.json(),
    });
    fc.assert(
      fc.property(row, ({ tokens, extra, ...rest }) => {
        const series = (side: 'rollout' | 'training') => tokens.map((one) => asJson(one[side]));
        const text = JSON.stringify({
          ...rest,
          extra,
          tokens: tokens.map((one) => one.id),
          mask: tokens.map((one) => one.mask),
          text: tokens.map((one) => one.text),
          weightsVersion: tokens.map((one) => one.version),
          rolloutLogprobs: series('rollout'),
          trainingLogprobs: series('training'),
          rolloutTopLogprobs: tokens.map(
            (one) => one.top?.map(([key, value]) => [key, asJson(value)]) ?? null,
          ),
        });
        const zero = (value: number) => value + 0;
        assert.deepEqual(only(JSON.parse(text)), {
          id: String(rest.id),
          place,
          tokens: tokens.map((one) => one.id),
          tokenTexts: tokens.map((one) => one.text),
          text: null,
          own: null,
          both: {
            rollout: {
              logprobs: Float64Array.from(tokens, (one) => zero(one.rollout)),
              topLogprobs: tokens.map(
                ({ top }) =>
                  top && { tokens: top.map(([key]) => key), logprobs: top.map(([, value]) => zero(value)) },
              ),
            },
            training: { logprobs: Float64Array.from(tokens, (one) => zero(one.training)) },
          },
          mask: Uint8Array.from(tokens, (one) => one.mask),
          promptTokens: rest.promptTokens,
          step: rest.step,
          batch: rest.batch,
          settings: { temperature: rest.temperature, topP: rest.topP, topK: rest.topK },
          weightsVersion: tokens.map((one) => one.version),
        });
      }),
    );
  });
});
