import assert from 'node:assert/strict';
import { readFile, truncate, writeFile } from 'node:fs/promises';
import { describe, it } from 'node:test';
import { openArrow } from '../../lib/data/arrow.js';
import { openParquet } from '../../lib/data/parquet.js';
import type { DatasetRow } from '../../lib/data/row.js';
import { tableColumns, tableRows } from '../../lib/data/tables.js';
import { CounterRandom } from '../../lib/random.js';
import { collect, comparable, expectedRows, fileOf, refuses, tablePath } from './fixtures.js';

const opened = (path: string) => (path.endsWith('.parquet') ? openParquet(path) : openArrow(path));

/** The rows of a table, read in this process. */
async function rowsOf(path: string, columns?: readonly string[]): Promise<DatasetRow[]> {
  const table = await opened(path);
  try {
    const rows: DatasetRow[] = [];
    for await (const batch of table.batches(columns)) rows.push(...batch);
    return rows;
  } finally {
    await table.close();
  }
}

const whole = ['none', 'snappy', 'gzip', 'zstd', 'brotli', 'lz4'].map((codec) => `${codec}.parquet`);
const arrows = ['stream.arrow', 'file.arrow', 'replaced.arrow', 'delta.arrow'];

describe('a table', () => {
  for (const name of [...whole, 'v2.parquet', 'delta.parquet', ...arrows]) {
    it(`${name} has the rows that pyarrow reads`, async () => {
      const rows = await rowsOf(tablePath(name));
      const expected = expectedRows(name);
      assert.ok(expected.length > 0);
      assert.deepEqual(comparable(rows), expected);
      assert.deepEqual(
        rows.map((row) => row.number),
        expected.map((_, i) => i + 1),
      );
      assert.ok(rows.every((row) => row.file === tablePath(name) && row.unit === 'row'));
    });
  }

  for (const name of ['empty.parquet', 'empty.arrow']) {
    it(`${name} has columns and no rows`, async () => {
      const table = await opened(tablePath(name));
      assert.equal(table.columns.length, 12);
      assert.deepEqual(table.columns.slice(0, 2), ['problem', 'answer']);
      await table.close();
      assert.deepEqual(await rowsOf(tablePath(name)), []);
    });
  }

  for (const name of ['zstd.parquet', 'stream.arrow']) {
    it(`${name} has 64-bit integers as numbers where a number holds them`, async () => {
      const rows = await rowsOf(tablePath(name), ['int64', 'ints']);
      assert.deepEqual(
        rows.map(({ values }) => values.int64),
        [0, -1, 2 ** 53 - 1, 2n ** 62n, null, 7],
      );
      assert.deepEqual(rows[5]!.values.ints, [5, 2n ** 60n]);
      assert.deepEqual(Object.keys(rows[0]!.values), ['int64', 'ints']);
    });
  }

  it('of compressed Arrow buffers is refused with what to do', async () => {
    await assert.rejects(
      rowsOf(tablePath('compressed.arrow')),
      refuses(/compressed\.arrow to be uncompressed, as datasets writes it, got "compressed buffers"/),
    );
  });
});

describe('a table that is cut short', () => {
  for (const [name, step] of [
    ['v2.parquet', 1],
    ['delta.parquet', 1],
    ['snappy.parquet', 13],
    ['empty.arrow', 1],
    ['delta.arrow', 1],
    ['stream.arrow', 7],
    ['file.arrow', 7],
  ] as const) {
    it(`(${name}, at ${step === 1 ? 'every length' : `every ${step}th length`}) is one error that names the file`, async () => {
      const bytes = await readFile(tablePath(name));
      const path = await fileOf(name, bytes);
      for (let length = bytes.length - 1; length >= 0; length -= step) {
        await truncate(path, length);
        await assert.rejects(rowsOf(path), refuses(/^\[data\] expected/, new RegExp(name)), `${length}`);
      }
    });
  }

  it('says so', async () => {
    const bytes = await readFile(tablePath('stream.arrow'));
    const cut = async (name: string, content: Uint8Array) => rowsOf(await fileOf(name, content));
    await assert.rejects(
      cut('a.arrow', bytes.subarray(0, -8)),
      refuses(/a\.arrow to be a whole Arrow file, got "no mark at the end of its messages/),
    );
    await assert.rejects(
      cut('b.arrow', bytes.subarray(0, 3000)),
      refuses(/half a message at byte \d+ \(is it cut short\?\)/),
    );
    await assert.rejects(
      cut('c.arrow', Buffer.concat([bytes, bytes])),
      refuses(/5224 bytes after its last message/),
    );
    const file = await readFile(tablePath('file.arrow'));
    await assert.rejects(cut('d.arrow', file.subarray(0, -1)), refuses(/no ARROW1 at its end/));
    const parquet = await readFile(tablePath('zstd.parquet'));
    await assert.rejects(
      cut('e.parquet', parquet.subarray(0, -1)),
      refuses(/e\.parquet to be a whole Parquet file, got: .*PAR1/),
    );
    await assert.rejects(
      cut('f.parquet', parquet.subarray(0, 8)),
      refuses(/whole Parquet file, got "8 bytes"/),
    );
  });
});

/** A copy of a file with up to three other bytes, by number. */
function damage(bytes: Uint8Array, number: number): Buffer {
  const random = new CounterRandom(5, number);
  const damaged = Buffer.from(bytes);
  for (let flips = random.integer(3); flips >= 0; flips--) {
    damaged[random.integer(damaged.length)] = random.integer(256);
  }
  return damaged;
}

describe('a damaged table', () => {
  for (const name of ['stream.arrow', 'file.arrow', 'delta.arrow']) {
    it(`(${name}) is rows or one error that names the file`, async () => {
      const bytes = await readFile(tablePath(name));
      const path = await fileOf(name, bytes);
      let refused = 0;
      for (let i = 0; i < 120; i++) {
        await writeFile(path, damage(bytes, i));
        const got = await rowsOf(path).catch(refuses(/^\[data\] expected/, new RegExp(name)));
        if (got === true) refused++;
        // Damage to the data itself cannot be told; it must not make rows that there are no bytes for.
        else assert.ok((got as DatasetRow[]).length <= 8);
      }
      assert.ok(refused > 50, `${refused}`);
    });
  }

  it('of Parquet is rows or one error that names the file', async () => {
    for (const [k, name] of whole.entries()) {
      const bytes = await readFile(tablePath(name));
      const path = await fileOf(name, bytes);
      for (let i = 0; i < 2; i++) {
        await writeFile(path, damage(bytes, 1000 * k + i));
        await collect(tableRows([{ path, format: 'parquet' }], undefined, 10)).catch(
          refuses(new RegExp(name)),
        );
      }
    }
  });

  it('that its decoder never ends with is given up', async () => {
    const bytes = await readFile(tablePath('v2.parquet'));
    // The header of a page then has no size, and the decoder's place in the file is no number.
    assert.equal(bytes[233], 84);
    bytes[233] = 225;
    const path = await fileOf('endless.parquet', bytes);
    await assert.rejects(
      collect(tableRows([{ path, format: 'parquet' }], undefined, 1)),
      refuses(/endless\.parquet to be a whole file, got no rows within 1 s \(is it damaged\?\)/),
    );
  });

  it('that its decoder runs out of memory with ends that process alone', async () => {
    const bytes = await readFile(tablePath('none.parquet'));
    // Levels of a page: two bytes, a run of four ones. The run is made one of two billion.
    const levels = bytes.indexOf(Buffer.of(2, 0, 0, 0, 8, 1));
    assert.ok(levels > 0);
    bytes.set([0xfe, 0xff, 0xff, 0xff, 0x0f, 1], levels + 4);
    const path = await fileOf('huge.parquet', bytes);
    const { NODE_OPTIONS } = process.env;
    process.env.NODE_OPTIONS = '--max-old-space-size=64';
    try {
      await assert.rejects(
        collect(tableRows([{ path, format: 'parquet' }], undefined, 300)),
        refuses(
          /huge\.parquet to be a whole file, got bytes on which its reader ended \(.*\) \(is it damaged\?\)/,
        ),
      );
    } finally {
      if (NODE_OPTIONS === undefined) delete process.env.NODE_OPTIONS;
      else process.env.NODE_OPTIONS = NODE_OPTIONS;
    }
  });
});

describe('tables in another process', () => {
  const files = [
    { path: tablePath('snappy.parquet'), format: 'parquet' as const },
    { path: tablePath('stream.arrow'), format: 'arrow' as const },
  ];

  it('are read one after the other', async () => {
    assert.deepEqual((await tableColumns(files)).slice(0, 3), ['problem', 'answer', 'large']);
    const rows = await collect(tableRows(files, undefined));
    assert.deepEqual(comparable(rows), [...expectedRows('snappy.parquet'), ...expectedRows('stream.arrow')]);
    assert.equal(rows[9]!.values.int64, 2n ** 62n);
    assert.deepEqual([rows[6]!.file, rows[6]!.number], [files[1]!.path, 1]);
  });

  it('can be left before their end', async () => {
    for await (const { values } of tableRows(files, ['answer'])) {
      assert.deepEqual(values, { answer: '2' });
      break;
    }
  });

  it('name the file that cannot be read, the second too', async () => {
    const path = await fileOf('cut.parquet', (await readFile(tablePath('gzip.parquet'))).subarray(0, 4000));
    const reading = tableRows([files[0]!, { path, format: 'parquet' }], ['answer']);
    let rows = 0;
    await assert.rejects(
      async () => {
        for await (const _ of reading) rows++;
      },
      refuses(/cut\.parquet to be a whole Parquet file/),
    );
    assert.equal(rows, 6);
  });
});
