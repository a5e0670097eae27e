import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readFile, symlink } from 'node:fs/promises';
import { basename, join, relative } from 'node:path';
import { describe, it } from 'node:test';
import { openDataset } from '../../lib/data/dataset.js';
import { findDataFiles } from '../../lib/data/files.js';
import { loadProblems } from '../../lib/data/problems.js';
import {
  collect,
  comparable,
  expectedRows,
  fileOf,
  folderOf,
  refuses,
  savedFolder,
  tablePath,
} from './fixtures.js';

describe('a data set of one file', () => {
  it('is what its bytes are: JSON, Parquet, Arrow streams and files', async () => {
    for (const name of ['zstd.parquet', 'stream.arrow', 'file.arrow']) {
      const dataset = await openDataset(tablePath(name));
      assert.deepEqual(dataset.files, [tablePath(name)]);
      assert.equal(dataset.columns.length, 12);
      assert.deepEqual(comparable(await collect(dataset.rows())), expectedRows(name));
    }
    const lines = await openDataset(
      await fileOf('a.jsonl', '\n{"problem": "p", "answer": 1}\n{"other": 2}\n'),
    );
    assert.deepEqual(lines.columns, ['problem', 'answer']);
    assert.deepEqual(comparable(await collect(lines.rows())), [{ problem: 'p', answer: 1 }, { other: 2 }]);
    assert.deepEqual((await openDataset(await fileOf('a.json', '[{"a": 1}]'))).columns, ['a']);
    // JSON lines are often named .json, and an array can be in a file of any name.
    assert.deepEqual((await openDataset(await fileOf('a.json', '{"a": 1}\n{"a": 2}'))).columns, ['a']);
  });

  it('needs no extension', async () => {
    const copies = { parquet: 'zstd.parquet', arrow: 'file.arrow' };
    for (const [name, source] of Object.entries(copies)) {
      const dataset = await openDataset(await fileOf(name, await readFile(tablePath(source))));
      assert.deepEqual(comparable(await collect(dataset.rows())), expectedRows(source));
    }
    assert.deepEqual((await openDataset(await fileOf('data', '\ufeff\n {"a": 1}'))).columns, ['a']);
  });

  const parquet = readFile(tablePath('zstd.parquet'));
  const bad: [
    what: string,
    name: string,
    content: () => string | Uint8Array | Promise<Uint8Array>,
    message: RegExp,
  ][] = [
    [
      'Parquet named JSON',
      'a.jsonl',
      () => parquet,
      /a\.jsonl to hold JSON, as its extension says, got "Parquet \(name it by what it holds\)"/,
    ],
    [
      'JSON named Parquet',
      'a.parquet',
      () => '{"a": 1}',
      /a\.parquet to hold Parquet, as its extension says, got "JSON/,
    ],
    [
      'Parquet named Arrow',
      'a.arrow',
      () => parquet,
      /a\.arrow to hold Arrow, as its extension says, got "Parquet/,
    ],
    [
      'Arrow named Parquet',
      'a.parquet',
      () => readFile(tablePath('stream.arrow')),
      /hold Parquet, as its extension says, got "Arrow/,
    ],
    [
      'a pointer',
      'a.parquet',
      () => 'version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n',
      /a\.parquet to hold its content, got "a Git LFS pointer \(fetch the real file: git lfs pull\)"/,
    ],
    [
      'packed',
      'a.jsonl.gz',
      () => Uint8Array.of(0x1f, 0x8b, 8, 0),
      /a\.jsonl\.gz to be unpacked, got "a gzip file"/,
    ],
    [
      'packed in another way',
      'a.jsonl',
      () => Uint8Array.of(0x28, 0xb5, 0x2f, 0xfd),
      /to be unpacked, got "a Zstandard file"/,
    ],
    [
      'of no known kind',
      'a.csv',
      () => 'problem,answer\n',
      /a\.csv to hold JSON lines, a JSON array, Parquet or Arrow, got .*problem,answer/,
    ],
    [
      'Parquet without its beginning',
      'a.parquet',
      () => 'PARX',
      /a\.parquet to begin with PAR1, as Parquet does/,
    ],
    [
      'Arrow of other bytes',
      'a.arrow',
      () => 'nonsense, and more of it',
      /a\.arrow to be a whole Arrow file/,
    ],
    ['empty Arrow', 'a.arrow', () => '', /a\.arrow to be a whole Arrow file/],
    ['no JSON', 'a.jsonl', () => 'problem: 1\n', /line 1 of .*a\.jsonl to be JSON, got "problem: 1"/],
  ];
  for (const [what, name, content, message] of bad) {
    it(`that is ${what} is told`, async () => {
      await assert.rejects(
        openDataset(await fileOf(name, await content())),
        refuses(/^\[data\] expected /, message),
      );
    });
  }

  it('that is missing, or has no splits, is told', async () => {
    await assert.rejects(
      openDataset('nowhere.jsonl'),
      refuses(/a file or folder of data \(ENOENT\), got "nowhere\.jsonl"/),
    );
    const file = await fileOf('a.jsonl', '{"a": 1}');
    await assert.rejects(
      openDataset(file, { split: 'train' }),
      refuses(/no split for one file \(.*a\.jsonl\), got "train"/),
    );
  });
});

describe('a folder saved by datasets', () => {
  it('has splits, each of which has its shards in order', async () => {
    const folder = await savedFolder();
    const train = await openDataset(folder, { split: 'train' });
    assert.deepEqual(
      comparable(await collect(train.rows())),
      [0, 1, 2, 3, 4].map((i) => ({ problem: `train ${i}`, answer: String(i) })),
    );
    assert.equal(train.files.length, 2);
    assert.equal((await collect((await openDataset(folder, { split: 'test' })).rows())).length, 2);
    assert.equal((await collect((await openDataset(join(folder, 'train'))).rows())).length, 5);
    await assert.rejects(openDataset(folder), refuses(/the split of .* to be chosen: train, test/));
    await assert.rejects(
      openDataset(folder, { split: 'tran' }),
      refuses(/one of train, test, got "tran" \(did you mean train\?\)/),
    );
    await assert.rejects(
      openDataset(join(folder, 'train'), { split: 'train' }),
      refuses(/no split for .*train, which is saved as one/),
    );
  });

  it('that names files elsewhere, or files that are not there, is told', async () => {
    const state = (value: object) => folderOf({ 'state.json': JSON.stringify(value) });
    for (const value of [
      {},
      { _data_files: [] },
      { _data_files: [{ filename: '../a.arrow' }] },
      { _data_files: ['a'] },
    ]) {
      await assert.rejects(
        openDataset(await state(value)),
        refuses(/_data_files of .*state\.json to be a list of files in that folder/),
      );
    }
    await assert.rejects(
      openDataset(await state({ _data_files: [{ filename: 'a.arrow' }] })),
      refuses(/file that can be read \(ENOENT\), got ".*a\.arrow"/),
    );
    await assert.rejects(
      openDataset(await folderOf({ 'dataset_dict.json': '{"splits": ["../x"]}' })),
      refuses(/splits of .*dataset_dict\.json to be a list of names/),
    );
    await assert.rejects(
      openDataset(await folderOf({ 'dataset_dict.json': '{"splits": ["train"' })),
      refuses(/dataset_dict\.json to be JSON/),
    );
  });
});

describe('a folder of shards', () => {
  const row = '{"a": 1}\n';
  const find = async (names: readonly string[], split?: string) => {
    const folder = await folderOf(Object.fromEntries(names.map((name) => [name, row])));
    return (await findDataFiles(folder, split)).map((path) => relative(folder, path));
  };

  it('is the files of one split, by the names of files or folders, in the order of names', async () => {
    const names = [
      'data/train-00001-of-00002.parquet',
      'data/train-00000-of-00002.parquet',
      'data/test-00000-of-00001.parquet',
      'README.md',
      '.cache/x.jsonl',
      'dataset_info.json',
    ];
    const train = ['data/train-00000-of-00002.parquet', 'data/train-00001-of-00002.parquet'];
    assert.deepEqual(await find(names, 'train'), train);
    assert.deepEqual(await find(names, 'test'), ['data/test-00000-of-00001.parquet']);
    assert.deepEqual(await find(['validation/a.jsonl', 'train/b.jsonl'], 'val'), ['validation/a.jsonl']);
    assert.deepEqual(await find(['math_test.jsonl', 'math_train.jsonl'], 'test'), ['math_test.jsonl']);
    // A word within a word is no split.
    assert.deepEqual(await find(['contest.jsonl', 'b.jsonl']), ['b.jsonl', 'contest.jsonl']);
    assert.deepEqual(await find(['train.jsonl']), ['train.jsonl']);
  });

  it('that leaves something open is told', async () => {
    await assert.rejects(
      find(['train.jsonl', 'test.jsonl']),
      refuses(/split of .* to be chosen: test, train/),
    );
    await assert.rejects(
      find(['train.jsonl', 'test.jsonl'], 'dev'),
      refuses(/one of test, train, got "validation"/),
    );
    await assert.rejects(
      find(['main/train.jsonl', 'socratic/train.jsonl'], 'train'),
      refuses(/files of .* to be in one folder, got "main, socratic"/),
    );
    await assert.rejects(
      find(['a.jsonl', 'a.parquet']),
      refuses(/files of .* to be of one format, got "json, parquet"/),
    );
    await assert.rejects(
      find(['train-00000-of-00003.parquet', 'train-00002-of-00003.parquet']),
      refuses(/train-\*-of-00003 to have all of its 3 shards, got "none of number 1"/),
    );
    await assert.rejects(
      find(['README.md', 'notes.txt']),
      refuses(/to have files of data \(\.jsonl, .*\), got "README\.md, notes\.txt"/),
    );
    await assert.rejects(findDataFiles(await folderOf({})), refuses(/got "an empty folder"/));
  });

  it('that leads back to itself ends', async () => {
    const folder = await folderOf({ 'a.jsonl': row });
    await mkdir(join(folder, 'sub'));
    await symlink(folder, join(folder, 'sub', 'loop'));
    assert.deepEqual(
      (await findDataFiles(folder)).map((path) => basename(path)),
      ['a.jsonl'],
    );
  });

  it('is read as one data set', async () => {
    const folder = await folderOf({ 'a-0.jsonl': '{"a": 1}\n{"a": 2}', 'a-1.jsonl': '{"a": 3}' });
    const rows = await collect((await openDataset(folder)).rows());
    assert.deepEqual(
      rows.map(({ file, number, values }) => [basename(file), number, values.a]),
      [
        ['a-0.jsonl', 1, 1],
        ['a-0.jsonl', 2, 2],
        ['a-1.jsonl', 1, 3],
      ],
    );
  });
});

it('a folder of tables reads the columns that are wanted, and leaves out what a later file lacks', async () => {
  const folder = await folderOf({
    'a-0.parquet': await readFile(tablePath('zstd.parquet')),
    'a-1.parquet': await readFile(tablePath('v2.parquet')),
  });
  const rows = await collect((await openDataset(folder)).rows(['problem', 'answer']));
  assert.equal(rows.length, 12);
  assert.deepEqual(Object.keys(rows[0]!.values), ['problem', 'answer']);
  assert.deepEqual(Object.keys(rows[6]!.values), ['problem']);
  const none = await collect((await openDataset(folder)).rows(['answer']));
  assert.deepEqual(
    none.slice(6).map(({ values }) => values),
    Array(6).fill({}),
  );
});

it('a pipe is refused, not waited for', {
  skip: process.platform === 'win32' && 'no named pipes',
}, async () => {
  const folder = await folderOf({});
  execFileSync('mkfifo', [join(folder, 'a.jsonl')]);
  await assert.rejects(openDataset(join(folder, 'a.jsonl')), refuses(/a regular file, got ".*a\.jsonl"/));
  await assert.rejects(openDataset(folder), refuses(/a regular file/));
});

const real = join(import.meta.dirname, '../../../../shared/data/sanity-math-1460.arrow');
const isThere = existsSync(real);
it('the real file of the sanity test has its 1,460 problems', {
  skip: isThere ? false : `${real} is absent`,
}, async () => {
  const dataset = await openDataset(real);
  assert.deepEqual(dataset.columns, ['problem', 'answer']);
  const problems = await loadProblems(dataset);
  assert.equal(problems.length, 1460);
  assert.deepEqual(
    problems.map(({ id }) => id),
    Array.from({ length: 1460 }, (_, i) => String(i)),
  );
  assert.ok(
    problems.every(
      ({ prompt, answers }) => typeof prompt === 'string' && prompt !== '' && answers.length === 1,
    ),
  );
  assert.equal(new Set(problems.map(({ prompt }) => prompt)).size, 1460);
  assert.match(problems[0]!.prompt as string, /^Let \$f\(x\) = \\left\\lceil/);
  assert.deepEqual(problems[0]!.answers, ['0']);
  // SHA-256 of every text followed by a zero byte, as pyarrow 25.0.1 reads them.
  const hash = createHash('sha256');
  for (const { prompt, answers } of problems) hash.update(`${prompt}\0${answers[0]}\0`);
  assert.equal(hash.digest('hex'), '9b68498fb74c5dc14ea2a39607dbbf2687b9fe79c7d5582ed9ae092e0d322a0c');
});
