/** Rows of dumps one by one: padding and masks, and the ways in which projects write the same. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { detectFormat, type FormatName, formatOf } from '../../lib/diagnose/formats/index.js';
import type { DumpRecord } from '../../lib/diagnose/record.js';

type Row = Record<string, unknown>;

const place = { file: 'rollout.jsonl', line: 12 };
const records = (name: FormatName, row: Row): DumpRecord[] => formatOf(name).records(row, place);
const only = (name: FormatName, row: Row): DumpRecord => {
  const found = records(name, row);
  assert.equal(found.length, 1);
  return found[0]!;
};
const own = (name: FormatName, row: Row): number[] => [...only(name, row).own!.logprobs];

describe('padded rows and batches', () => {
  const shapes = [
    [
      'verl',
      { tokens: 'responses', rollout: 'rollout_log_probs', training: 'old_log_probs', mask: 'response_mask' },
    ],
    [
      'trl',
      {
        tokens: 'completion_ids',
        rollout: 'sampling_per_token_logps',
        training: 'old_per_token_logps',
        mask: 'completion_mask',
      },
    ],
  ] as const;
  const pad = (side: string, items: number[], length: number, filler: number) => {
    const padding = Array<number>(length - items.length).fill(filler);
    return side === 'left' ? [...padding, ...items] : [...items, ...padding];
  };

  for (const [format, names] of shapes) {
    for (const side of ['left', 'right']) {
      it(`of ${format} lose what is padded on the ${side}, and keep the mask within`, () => {
        const response = fc
          .array(
            fc.record({
              token: fc.nat(),
              rollout: fc.double({ max: 0, noNaN: true }),
              mask: fc.nat({ max: 1 }),
            }),
            {
              minLength: 1,
              maxLength: 9,
            },
          )
          // A mask alone tells padding from the rest where the first and the last token count.
          .map((tokens) =>
            tokens.map((one, t) => (t === 0 || t === tokens.length - 1 ? { ...one, mask: 1 } : one)),
          );
        fc.assert(
          fc.property(
            fc.array(response, { minLength: 1, maxLength: 4 }),
            fc.nat({ max: 3 }),
            (batch, more) => {
              const length = Math.max(...batch.map((tokens) => tokens.length)) + more;
              const column = (
                of: (token: { token: number; rollout: number; mask: number }) => number,
                filler: number,
              ) => batch.map((tokens) => pad(side, tokens.map(of), length, filler));
              const row = {
                [names.tokens]: column(({ token }) => token, -100),
                [names.rollout]: column(({ rollout }) => rollout, 0),
                [names.training]: column(({ rollout }) => rollout - 1, 0),
                [names.mask]: column(({ mask }) => mask, 0),
                id: batch.map((_, i) => `r${i}`),
                temperature: 0.5,
                step: batch.map((_, i) => i),
              };
              const found = records(format, row);
              assert.deepEqual(
                found.map(({ id, step, settings, tokens, mask, both }) => ({
                  id,
                  step,
                  temperature: settings.temperature,
                  tokens,
                  mask: [...mask!],
                  rollout: [...both!.rollout.logprobs],
                  training: [...both!.training.logprobs],
                })),
                batch.map((tokens, i) => ({
                  id: `r${i}`,
                  step: i,
                  temperature: 0.5,
                  tokens: tokens.map(({ token }) => token),
                  mask: tokens.map(({ mask }) => mask),
                  rollout: tokens.map(({ rollout }) => rollout),
                  training: tokens.map(({ rollout }) => rollout - 1),
                })),
              );
              // Each alone is the same.
              for (const [i, record] of found.entries()) {
                const alone = Object.entries(row).map(([name, values]) => [
                  name,
                  Array.isArray(values) ? values[i] : values,
                ]);
                assert.deepEqual(only(format, Object.fromEntries(alone) as Row), record);
              }
            },
          ),
        );
      });
    }
  }

  it("of verl keep a tool's last words, which the attention mask knows from padding", () => {
    const record = only('verl', {
      prompts: [0, 0, 5],
      responses: [1, 2, 3, 0, 0],
      response_mask: [1, 1, 0, 0, 0],
      attention_mask: [0, 0, 1, 1, 1, 1, 0, 0],
      rollout_log_probs: [-1, -2, 0, 0, 0],
    });
    assert.deepEqual(record.tokens, [1, 2, 3]);
    assert.deepEqual([...record.mask!], [1, 1, 0]);
    assert.deepEqual([...record.own!.logprobs], [-1, -2, 0]);
    assert.deepEqual(record.promptTokens, [5]);
  });

  it('of verl may be a whole DataProto', () => {
    const row = {
      batch: {
        responses: [
          [1, 0],
          [2, 3],
        ],
        response_mask: [
          [1, 0],
          [1, 1],
        ],
        rollout_log_probs: [
          [-1, 0],
          [-2, -3],
        ],
      },
      non_tensor_batch: { uid: ['a_0_0', 'a_1_0'], __num_turns__: [1, 1] },
      meta_info: { temperature: 0.5, global_steps: 4, timing: {} },
    };
    assert.equal(detectFormat(row)?.name, 'verl');
    assert.equal(formatOf('sglang').detects(row), false);
    assert.deepEqual(
      records('verl', row).map(({ id, tokens, own, step, settings }) => [
        id,
        tokens,
        [...own!.logprobs],
        step,
        settings.temperature,
      ]),
      [
        ['a_0_0', [1], [-1], 4, 0.5],
        ['a_1_0', [2, 3], [-2, -3], 4, 0.5],
      ],
    );
  });

  it('of which no token counts stay whole', () => {
    const record = only('trl', {
      completion_ids: [1, 2],
      completion_mask: [0, 0],
      old_per_token_logps: [-1, -2],
    });
    assert.deepEqual(
      [record.tokens, [...record.mask!]],
      [
        [1, 2],
        [0, 0],
      ],
    );
  });

  it('of TRL count neither padding nor the tokens of tools', () => {
    const record = only('trl', {
      completion_ids: [1, 2, 3, 0],
      completion_mask: [1, 1, 1, 0],
      tool_mask: [1, 0, 1, 1],
      sampling_per_token_logps: [-1, 0, -3, 0],
    });
    assert.deepEqual(
      [record.tokens, [...record.mask!]],
      [
        [1, 2, 3],
        [1, 0, 1],
      ],
    );
  });
});

describe('rows of one engine', () => {
  it('of verl are known by any of its names', () => {
    for (const row of [
      { responses: [1], rollout_log_probs: [-1] },
      { responses: [1], old_log_probs: [-1] },
      { prompt_ids: [2], response_ids: [1], response_mask: [1], response_logprobs: [-1] },
      { token_ids: [1], log_probs: [-1], stop_reason: 'completed' },
    ]) {
      const record = only('verl', row);
      assert.deepEqual([record.tokens, [...record.own!.logprobs], record.both], [[1], [-1], null]);
    }
  });

  it('of verl take uid for an id only where it is that of one sample', () => {
    const row = { rollout_log_probs: [-1] };
    assert.equal(only('verl', { ...row, uid: '0f8fad5b-d9cb-469f-a165-70867728950e' }).id, null);
    assert.equal(only('verl', { ...row, uid: '0f8fad5b_3_0' }).id, '0f8fad5b_3_0');
  });

  it('of the TRL server find the token drawn among the ranked, and the prompt of each response', () => {
    const found = records('trl', {
      prompt_ids: [[9], [8, 8]],
      completion_ids: [[1], [2], [3], [4]],
      logprobs: [[[-0.1, -2]], [[-0.2, null]], [[-0.3, -1]], [[-0.4, -1.5]]],
      logprob_token_ids: [[[7, 1]], [[2, 7]], [[7, 3]], [[4, 7]]],
    });
    assert.deepEqual(
      found.map(({ own }) => own!.logprobs[0]),
      [-2, -0.2, -1, -0.4],
    );
    assert.deepEqual(
      found.map(({ promptTokens }) => promptTokens),
      [[9], [9], [8, 8], [8, 8]],
    );
    assert.deepEqual(found[1]!.own!.topLogprobs, [{ tokens: [2, 7], logprobs: [-0.2, NaN] }]);
    const masked = only('trl', {
      completion_ids: [0, 5],
      completion_mask: [0, 1],
      logprobs: [[-1], [-2]],
      logprob_token_ids: [[0], [5]],
    });
    assert.deepEqual([masked.tokens, [...masked.own!.logprobs]], [[5], [-2]]);
    const single = records('trl', { completion_ids: [[1]], logprobs: [[[-1]]], logprob_token_ids: [[[1]]] });
    assert.equal(single[0]!.own!.topLogprobs, undefined);
  });

  it('of slime may be aborted, removed, or a whole batch', () => {
    const aborted = only('slime', {
      index: 4,
      tokens: [1, 2],
      response_length: 0,
      rollout_log_probs: null,
      status: 'aborted',
    });
    assert.deepEqual(
      [aborted.id, aborted.tokens, [...aborted.own!.logprobs], aborted.promptTokens],
      ['4', [], [], [1, 2]],
    );
    const removed = only('slime', {
      tokens: [1, 2],
      response_length: 1,
      rollout_log_probs: [-1],
      remove_sample: true,
    });
    assert.deepEqual([...removed.mask!], [0]);
    const batch = records('slime', {
      tokens: [[1, 2], [3]],
      response_lengths: [1, 1],
      loss_masks: [[1], [0]],
      rollout_log_probs: [[-1], [-2]],
      log_probs: [[-3], [-4]],
      sample_indices: [5, 6],
    });
    assert.deepEqual(
      batch.map(({ id, tokens, both }) => [id, tokens, both!.training.logprobs[0]]),
      [
        ['5', [2], -3],
        ['6', [3], -4],
      ],
    );
  });

  it('of prime-rl need no mask beside a completion', () => {
    const row = {
      completion_ids: [1, 2],
      completion_logprobs: [-1, -2],
      completion_temperatures: [0.5, 0.5],
    };
    const record = only('prime-rl', row);
    assert.deepEqual([record.mask, record.settings.temperature, record.promptTokens], [null, 0.5, null]);
  });

  it('of prime-rl traces may have no prompt, and no log-probs for what was sampled', () => {
    const record = only('prime-rl', { id: 't', nodes: [{ token_ids: [1], mask: [true], logprobs: [] }] });
    assert.deepEqual([record.id, record.promptTokens, [...record.own!.logprobs]], ['t', null, [NaN]]);
  });

  it('of prime-rl have the temperature of what counts, if it is one', () => {
    const row = { token_ids: [1, 2, 3], mask: [false, true, true], logprobs: [0, -1, -2] };
    assert.equal(only('prime-rl', { ...row, temperatures: [0, 0.5, 0.5] }).settings.temperature, 0.5);
    assert.equal(only('prime-rl', { ...row, temperatures: [0, 0.5, 0.6] }).settings.temperature, null);
    assert.equal(only('prime-rl', { ...row, temperatures: [] }).settings.temperature, null);
  });

  it('of prime-rl traces are paths; a node that two share counts once', () => {
    const node = (
      parent: number | undefined,
      tokens: number[],
      sampled: boolean,
      logprobs: number[] = [],
    ) => ({
      ...(parent !== undefined && { parent }),
      token_ids: tokens,
      mask: tokens.map((_, i) => sampled && i > 0),
      logprobs,
    });
    const nodes = [
      node(undefined, [1, 2], false),
      node(0, [3, 4], true, [-0.4]),
      node(1, [5], false),
      node(2, [6, 7], true, [-0.7]),
      node(1, [8, 9], true, [-0.9]),
      node(0, [10], false),
    ];
    const found = records('prime-rl', { id: 't', nodes });
    assert.deepEqual(
      found.map(({ id, promptTokens, tokens, mask, own }) => [
        id,
        promptTokens,
        tokens,
        [...mask!],
        [...own!.logprobs],
      ]),
      [
        ['t#0', [1, 2, 3], [4, 5, 6, 7], [1, 0, 0, 1], [-0.4, NaN, NaN, -0.7]],
        ['t#1', [1, 2, 3, 4, 8], [9], [1], [-0.9]],
      ],
    );
  });
});

describe("answers of OpenAI's API", () => {
  const completion = (logprobs: Row, more: Row = {}, row: Row = {}) => ({
    id: 'c',
    choices: [{ index: 0, text: 'a', logprobs, ...more }],
    ...row,
  });

  it('give a record for each choice', () => {
    const choice = (index: number) => ({
      index,
      logprobs: { content: [{ token: 'a', logprob: -index, top_logprobs: [] }] },
    });
    const found = records('vllm', { id: 'c', choices: [choice(1), choice(0)] });
    assert.deepEqual(
      found.map(({ id, own }) => [id, own!.logprobs[0]]),
      [
        ['c#1', -1],
        ['c#0', -0],
      ],
    );
    assert.equal(found[0]!.own!.topLogprobs, undefined);
    const unnumbered = { logprobs: { content: [] } };
    assert.deepEqual(
      records('vllm', { id: 'c', choices: [unnumbered, unnumbered] }).map(({ id }) => id),
      ['c#0', 'c#1'],
    );
    assert.deepEqual(records('vllm', { id: 'c', choices: [] }), []);
  });

  it('may be a choice alone', () => {
    const record = only('vllm', {
      index: 3,
      logprobs: { content: [{ token: 'a', logprob: -1 }] },
      token_ids: [5],
    });
    assert.deepEqual([record.tokens, [...record.own!.logprobs], record.tokenTexts], [[5], [-1], ['a']]);
  });

  it('have -9999 for minus infinity', () => {
    const content = [{ token: 'a', logprob: -9999, top_logprobs: [{ token: 'b', logprob: -9999.0 }] }];
    const record = only('vllm', { choices: [{ logprobs: { content } }] });
    assert.deepEqual(record.own, {
      logprobs: Float64Array.of(-Infinity),
      topLogprobs: [{ tokens: ['b'], logprobs: [-Infinity] }],
    });
  });

  it('lose an echoed prompt where the ids tell it', () => {
    const logprobs = {
      tokens: ['p', 'q', 'a'],
      token_logprobs: [null, -2, -1],
      top_logprobs: [null, { q: -2 }, { a: -1 }],
    };
    const record = only('vllm', completion(logprobs, { prompt_token_ids: [1, 2], token_ids: [3] }));
    assert.deepEqual(record.tokens, [3]);
    assert.deepEqual(record.tokenTexts, ['a']);
    assert.deepEqual(record.promptTokens, [1, 2]);
    assert.equal(record.text, null);
    assert.deepEqual(record.own, {
      logprobs: Float64Array.of(-1),
      topLogprobs: [{ tokens: ['a'], logprobs: [-1] }],
    });
    // Without ids nothing tells where the response begins: the prechecks will.
    assert.deepEqual(own('vllm', completion(logprobs)), [NaN, -2, -1]);
  });

  it('may have scored a text: as an echo or as prompt_logprobs', () => {
    const echo = completion(
      { tokens: ['p', 'q', 'a'], token_logprobs: [null, -2, -1] },
      { prompt_token_ids: [1, 2, 3], token_ids: [] },
    );
    assert.deepEqual(
      [only('vllm', echo).tokens, own('vllm', echo)],
      [
        [2, 3],
        [-2, -1],
      ],
    );
    assert.deepEqual(own('vllm', { ...echo, response_length: 1 }), [-1]);
    assert.deepEqual(only('vllm', { ...echo, response_length: 1 }).promptTokens, [1, 2]);
    const entry = (logprob: number) => ({ logprob, rank: 1, decoded_token: 'x' });
    const prompt_logprobs = [null, { 2: entry(-2), 9: entry(-0.1) }, { 3: entry(-9999) }];
    const scored = {
      choices: [{ logprobs: null }],
      prompt_token_ids: [1, 2, 3],
      prompt_logprobs,
      response_length: 2,
    };
    assert.deepEqual(only('vllm', scored).own, {
      logprobs: Float64Array.of(-2, -Infinity),
      topLogprobs: [
        { tokens: [2, 9], logprobs: [-2, -0.1] },
        { tokens: [3], logprobs: [-Infinity] },
      ],
    });
    assert.deepEqual(only('vllm', scored).promptTokens, [1]);
    const whole = only('vllm', { ...scored, response_length: 3 });
    assert.deepEqual(
      [whole.tokens, [...whole.own!.logprobs], whole.promptTokens],
      [[1, 2, 3], [NaN, -2, -Infinity], null],
    );
    const all = only('vllm', { ...echo, response_length: 3 });
    assert.deepEqual(
      [all.tokens, [...all.own!.logprobs], all.promptTokens],
      [[1, 2, 3], [NaN, -2, -1], null],
    );
    const idless = completion({ tokens: ['p', 'a'], token_logprobs: [null, -1] }, {}, { response_length: 1 });
    assert.deepEqual([only('vllm', idless).tokens, own('vllm', idless)], [null, [-1]]);
    const bare = { choices: [{ logprobs: null, prompt_logprobs: [null, { 2: entry(-2) }] }] };
    assert.deepEqual([only('vllm', bare).tokens, own('vllm', bare)], [[2], [-2]]);
    assert.equal(only('vllm', bare).promptTokens, null);
  });

  it('have no text where a parser took parts of it away', () => {
    const answer = (message: Row) => only('vllm', { choices: [{ message, logprobs: { content: [] } }] }).text;
    assert.equal(answer({ content: 'a', tool_calls: [] }), 'a');
    assert.equal(answer({ content: 'a', reasoning: 'b' }), null);
    assert.equal(answer({ content: null, tool_calls: [{}] }), null);
  });

  it("may have the version of SGLang's weights", () => {
    const answer = (metadata: Row) =>
      only('vllm', { metadata, choices: [{ logprobs: { content: [{ token: 'a', logprob: -1 }] } }] })
        .weightsVersion;
    assert.equal(answer({ weight_version: '7' }), '7');
    assert.equal(answer({ weight_version: 'default' }), null);
    assert.equal(answer({ user: 'x' }), null);
  });
});

describe("answers of SGLang's /generate", () => {
  const meta = (more: Row = {}) => ({
    meta_info: { id: 'g', output_token_logprobs: [[-1, 5, null]], ...more },
  });

  it('have ids, texts and the prompt where they are there', () => {
    assert.deepEqual([only('sglang', meta()).tokens, only('sglang', meta()).tokenTexts], [[5], null]);
    const input = {
      input_token_logprobs: [
        [null, 1, null],
        [-2, 2, null],
      ],
    };
    assert.deepEqual(only('sglang', meta({ ...input, prompt_tokens: 2 })).promptTokens, [1, 2]);
    assert.equal(only('sglang', meta({ ...input, prompt_tokens: 3 })).promptTokens, null);
    assert.deepEqual(only('sglang', { ...meta(input), prompt_token_ids: [0, 1, 2] }).promptTokens, [0, 1, 2]);
    assert.equal(only('sglang', { id: 'mine', ...meta() }).id, 'mine');
  });

  it('have the version of the weights of each token where it changed', () => {
    const two = {
      output_token_logprobs: [
        [-1, 5, null],
        [-1, 6, null],
      ],
    };
    const span = (version: string, start: number, end: number) => ({ version, start, end });
    assert.equal(only('sglang', meta({ weight_version: 'default' })).weightsVersion, null);
    assert.equal(only('sglang', meta({ weight_versions: [span('3', 0, 1)] })).weightsVersion, '3');
    assert.deepEqual(
      only('sglang', meta({ ...two, weight_versions: [span('3', 0, 1), span('4', 1, 2)] })).weightsVersion,
      ['3', '4'],
    );
  });

  it('may have scored a text', () => {
    const scored = {
      meta_info: {
        output_token_logprobs: [],
        input_token_logprobs: [
          [null, 1, 'p'],
          [-2, 2, 'q'],
          [-1, 3, 'a'],
        ],
        input_top_logprobs: [null, [[-2, 2, 'q']], [[-1, 3, 'a']]],
        weight_version: '3',
      },
    };
    assert.deepEqual(
      [only('sglang', scored).tokens, own('sglang', scored)],
      [
        [2, 3],
        [-2, -1],
      ],
    );
    const last = only('sglang', { ...scored, response_length: 1 });
    assert.deepEqual(
      [last.tokens, last.tokenTexts, last.promptTokens, last.weightsVersion],
      [[3], ['a'], [1, 2], '3'],
    );
    assert.deepEqual(last.own!.topLogprobs, [{ tokens: [3], logprobs: [-1] }]);
    const all = only('sglang', { ...scored, response_length: 3 });
    assert.deepEqual([all.tokens, all.promptTokens, all.own!.topLogprobs![0]], [[1, 2, 3], null, null]);
  });
});
