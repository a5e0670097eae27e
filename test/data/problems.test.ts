import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { openDataset } from '../../lib/data/dataset.js';
import { loadProblems, type Problem, type ProblemOptions, ProblemOrder } from '../../lib/data/problems.js';
import { fileOf, folderOf, refuses, tablePath } from './fixtures.js';

const load = async (rows: readonly object[], options?: ProblemOptions) =>
  loadProblems(
    await openDataset(await fileOf('data.jsonl', rows.map((row) => JSON.stringify(row)).join('\n'))),
    options,
  );

describe('problems', () => {
  it('have the usual columns, with answers of any kind', async () => {
    const answers: [answer: unknown, normal: string[]][] = [
      ['\\frac{1}{2}', ['\\frac{1}{2}']],
      [42, ['42']],
      [142.0, ['142']],
      [-0.5, ['-0.5']],
      [
        ['1', 2, '\\{3\\}'],
        ['1', '2', '\\{3\\}'],
      ],
    ];
    const problems = await load(answers.map(([answer], i) => ({ problem: `p${i}`, answer })));
    assert.deepEqual(
      problems,
      answers.map(([, normal], i) => ({ id: String(i), prompt: `p${i}`, answers: normal })),
    );
  });

  it("have whatever answers a verifier of one's own is to read", async () => {
    const rows = [
      { problem: 'p', answer: null },
      { problem: 'q', answer: { tests: [1] } },
      { problem: 'r', answer: 7 },
    ];
    assert.deepEqual(
      (await load(rows, { rows: true })).map(({ answers, row }) => [answers, row]),
      [
        [[], rows[0]],
        [[], rows[1]],
        [['7'], rows[2]],
      ],
    );
    await assert.rejects(load(rows, { rows: true, answerColumn: 'answer' }), refuses(/answer of line 1/));
    await assert.rejects(load(rows), refuses(/answer of line 1/));
  });

  it('have columns of other names, those of verl too', async () => {
    const messages = [{ role: 'user', content: 'q' }];
    const verl = [{ data_source: 'x', prompt: messages, reward_model: { style: 'rule', ground_truth: '7' } }];
    assert.deepEqual(await load(verl), [{ id: '0', prompt: messages, answers: ['7'] }]);
    assert.deepEqual(await load([{ question: 'q', answer: 'a' }]), [
      { id: '0', prompt: 'q', answers: ['a'] },
    ]);
    // The first of the usual names counts.
    assert.equal((await load([{ prompt: 'a', question: 'b', problem: 'c', answer: 1 }]))[0]!.prompt, 'c');
    const named = { promptColumn: 'extra.text', answerColumn: 'a.b', idColumn: 'key' };
    assert.deepEqual(await load([{ extra: { text: 'q' }, 'a.b': 3, key: 9 }], named), [
      { id: '9', prompt: 'q', answers: ['3'] },
    ]);
    const own = [{ problem: 'q', answer: 1, id: 'test/1.json' }];
    assert.equal((await load(own, { idColumn: 'id' }))[0]!.id, 'test/1.json');
    assert.equal((await load(own))[0]!.id, '0');
  });

  it('come from tables alike', async () => {
    const options = { promptColumn: 'prompt', answerColumn: 'int32' };
    await assert.rejects(
      loadProblems(await openDataset(tablePath('zstd.parquet')), options),
      refuses(/int32 of row 5 of .*zstd\.parquet to be text, a number or a list of them, got "null"/),
    );
    await assert.rejects(
      loadProblems(await openDataset(tablePath('stream.arrow')), {
        promptColumn: 'prompt',
        answerColumn: 'problem',
        idColumn: 'prompt',
      }),
      refuses(/the id of row 1 of .*stream\.arrow to be text or a number, got "an array of 1"/),
    );
    await assert.rejects(
      loadProblems(await openDataset(tablePath('stream.arrow')), { promptColumn: 'prompt' }),
      refuses(/answer of row 3 of .*stream\.arrow to be text/),
    );
    await assert.rejects(
      loadProblems(await openDataset(tablePath('zstd.parquet')), {
        promptColumn: 'prompt',
        answerColumn: 'reward_model.ground_truth',
      }),
      refuses(/row 3 of .*zstd\.parquet to have reward_model\.ground_truth, got "null"/),
    );
  });

  it('without the column are told with the columns that there are, before a row is read', async () => {
    await assert.rejects(
      load([{ problm: 'q', answer: 1 }, 3 as never]),
      refuses(
        /\[data\] expected .*data\.jsonl to have a column with the prompt, one of problem, question, prompt, got problm, answer \(did you mean problm\?\)/,
      ),
    );
    await assert.rejects(
      load([{ problem: 'q', Answers: 1 }], { answerColumn: 'answers' }),
      refuses(/column with the answer, answers, got problem, Answers \(did you mean Answers\?\)/),
    );
    await assert.rejects(load([]), refuses(/to have a column with the prompt, .*, got no rows/));
    await assert.rejects(
      loadProblems(await openDataset(tablePath('delta.parquet'))),
      refuses(
        /delta\.parquet to have a column with the answer, one of answer, reward_model\.ground_truth, got problem, int64, list/,
      ),
    );
    await assert.rejects(
      loadProblems(await openDataset(tablePath('empty.parquet'))),
      refuses(/empty\.parquet to have rows, got "none"/),
    );
  });

  it('that a later file or row lacks are told with the row', async () => {
    const folder = await folderOf({
      'a.jsonl': '{"problem": "q", "answer": 1}',
      'b.jsonl': '\n{"problem": "q", "solution": 1}',
    });
    await assert.rejects(
      loadProblems(await openDataset(folder)),
      refuses(/line 2 of .*b\.jsonl to have answer, got "problem, solution"/),
    );
  });

  const bad: [what: string, row: object, message: RegExp][] = [
    [
      'no prompt',
      { problem: '  ', answer: 1 },
      /problem of line 2 of .* to be text or a list of messages, got "the string \\" {2}\\""/,
    ],
    [
      'a prompt of other things',
      { problem: [{ role: 'user' }], answer: 1 },
      /problem of line 2 .*got "an array of 1"/,
    ],
    ['an empty conversation', { problem: [], answer: 1 }, /problem of line 2 .*got "an array of 0"/],
    ['no answer', { problem: 'q', answer: null }, /answer of line 2 .*got "null"/],
    ['an empty answer', { problem: 'q', answer: '' }, /answer of line 2 .*got "the string \\"\\""/],
    [
      'an empty list',
      { problem: 'q', answer: [] },
      /answer of line 2 of .* to have an answer, got "an array of 0"/,
    ],
    ['a list with a hole', { problem: 'q', answer: ['1', null] }, /answer of line 2 .*got "an array of 2"/],
    ['a truth value', { problem: 'q', answer: true }, /answer of line 2 .*got "the boolean true"/],
    [
      'more digits than a number has',
      { problem: 'q', answer: 2 ** 60 },
      /answer of line 2 of .* to be written as text: it has more digits/,
    ],
  ];
  for (const [what, row, message] of bad) {
    it(`with ${what} are told with the row`, async () => {
      await assert.rejects(load([{ problem: 'q', answer: 1 }, row]), refuses(message));
    });
  }

  it('have ids that differ', async () => {
    const rows = [1, 2, 1].map((id) => ({ problem: 'q', answer: 1, id }));
    await assert.rejects(
      load(rows, { idColumn: 'id' }),
      refuses(/line 3 of .* to have another id than line 1 of .*, got "1"/),
    );
  });

  it('can be a part, drawn by the seed, in their order', async () => {
    const rows = Array.from({ length: 50 }, (_, i) => ({ problem: `p${i}`, answer: i }));
    const ids = async (options: ProblemOptions) => (await load(rows, options)).map(({ id }) => Number(id));
    const some = await ids({ count: 20, seed: 7 });
    assert.equal(new Set(some).size, 20);
    assert.deepEqual(
      some,
      [...some].sort((a, b) => a - b),
    );
    assert.deepEqual(some, await ids({ count: 20, seed: 7 }));
    assert.notDeepEqual(some, await ids({ count: 20, seed: 8 }));
    // A larger part of the same seed has the smaller one in it.
    const more = new Set(await ids({ count: 30, seed: 7 }));
    assert.ok(some.every((id) => more.has(id)));
    await assert.rejects(
      load(rows, { count: 51 }),
      refuses(/count to be at most 50, the problems of .*, got 51/),
    );
    await assert.rejects(load(rows, { count: 0 }), refuses(/count to be an integer of at least 1, got 0/));
  });
});

describe('the order of problems', () => {
  const problems: Problem[] = Array.from({ length: 10 }, (_, i) => ({
    id: String(i),
    prompt: 'q',
    answers: ['a'],
  }));
  const ids = (order: ProblemOrder, position: number, count: number) =>
    order.take(position, count).map(({ id }) => Number(id));

  it('is that of the data set, over and over, without a seed', () => {
    assert.deepEqual(ids(new ProblemOrder(problems), 8, 5), [8, 9, 0, 1, 2]);
  });

  it('is another in each pass with one, and every problem comes once in each', () => {
    const order = new ProblemOrder(problems, 3);
    const passes = [0, 1, 2].map((pass) => ids(order, 10 * pass, 10));
    for (const pass of passes) assert.deepEqual([...pass].sort(), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert.notDeepEqual(passes[0], passes[1]);
    assert.notDeepEqual(passes[1], passes[2]);
    assert.notDeepEqual(ids(new ProblemOrder(problems, 4), 0, 10), passes[0]);
  });

  it('goes on from any position, whatever was asked for before', () => {
    const all = ids(new ProblemOrder(problems, 3), 0, 35);
    const order = new ProblemOrder(problems, 3);
    for (const position of [17, 3, 29, 0, 12, 34]) assert.equal(Number(order.at(position).id), all[position]);
    assert.deepEqual(ids(new ProblemOrder(problems, 3), 7, 12), all.slice(7, 19));
  });

  it('refuses what is no position', () => {
    assert.throws(() => new ProblemOrder(problems).at(-1), refuses(/\[ProblemOrder\] expected position/));
    assert.throws(() => new ProblemOrder([]), refuses(/at least one problem/));
    assert.throws(() => new ProblemOrder(problems, 0.5), refuses(/seed/));
  });
});
