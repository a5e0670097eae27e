import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { parseJson } from '../../lib/diagnose/parseJson.js';
import { openDump } from '../../lib/diagnose/readDump.js';
import { fileOf, refuses } from '../data/fixtures.js';
import { temporaryFolder } from '../text/fixtures.js';
import { collectAll, lines, response } from './fixtures.js';

const rows = [response('a', [-1, -0.5]), response(7, [-2]), response('c', [])];

async function read(content: string | Uint8Array, name = 'dump.jsonl') {
  return collectAll(await openDump(await fileOf(name, content)));
}

const idsOf = async (content: string | Uint8Array) => (await read(content)).map(({ id }) => id);

describe('a dump', () => {
  it('is read from JSON lines or an array, with what editors and Windows add', async () => {
    for (const content of [
      lines(rows),
      lines(rows).trimEnd(),
      `\ufeff${lines(rows).replaceAll('\n', '\r\n\r\n')}`,
      JSON.stringify(rows),
      `\ufeff\n ${JSON.stringify(rows, null, 2)}\n`,
    ]) {
      assert.deepEqual(await idsOf(content), ['a', '7', 'c']);
    }
    const records = await read(lines(rows));
    assert.deepEqual(
      records.map(({ place, tokens, own }) => [place.line, tokens, [...own!.logprobs]]),
      [
        [1, [100, 101], [-1, -0.5]],
        [2, [100], [-2]],
        [3, [], []],
      ],
    );
  });

  it('may be packed with gzip, in one member or several, whatever its name', async () => {
    const text = lines(rows);
    const parts = [text.slice(0, 20), '', text.slice(20, 21), text.slice(21)].map((part) => gzipSync(part));
    for (const content of [gzipSync(text), Buffer.concat(parts), gzipSync(JSON.stringify(rows))]) {
      assert.deepEqual(await idsOf(content), ['a', '7', 'c']);
    }
  });

  it('may have a member of gzip that ends where a read ends', async () => {
    const text = lines(rows);
    const first = gzipSync(text);
    // A name in the header (RFC 1952) fills the member up to the bytes of one read.
    const name = Buffer.alloc(2 ** 20 - first.length, 'n');
    name[name.length - 1] = 0;
    const named = Buffer.concat([first.subarray(0, 10), name, first.subarray(10)]);
    named[3] = 8;
    assert.equal(named.length, 2 ** 20);
    assert.deepEqual(await idsOf(Buffer.concat([named, gzipSync(text)])), ['a', '7', 'c', 'a', '7', 'c']);
  });

  it('may have lines far longer than what is read at once', async () => {
    const long = Array.from({ length: 300_000 }, (_, t) => -(t + 1) / 7);
    const [first, second] = await read(lines([response('long', long), response('next', [-1])]));
    assert.deepEqual([...first!.own!.logprobs], long);
    assert.equal(second!.id, 'next');
  });

  it("may have Python's bare words, and keeps them in texts", async () => {
    const text =
      '{"id": "NaN, -Infinity \\" NaN", "logprobs": [NaN, -Infinity,Infinity, -1.5], "text":"\\\\"}\n';
    const [record] = await read(text);
    assert.equal(record!.id, 'NaN, -Infinity " NaN');
    assert.equal(record!.text, '\\');
    assert.deepEqual([...record!.own!.logprobs], [Number.NaN, -Infinity, Infinity, -1.5]);
  });

  it('is hashed and counted on the way', async () => {
    for (const content of [Buffer.from(lines(rows)), gzipSync(lines(rows))]) {
      const dump = await openDump(await fileOf('dump.jsonl', content));
      assert.throws(() => dump.whole, /has not been read/);
      for (let time = 0; time < 2; time++) {
        await collectAll(dump);
        const sha256 = createHash('sha256').update(content).digest('hex');
        assert.deepEqual(dump.whole, { bytes: content.length, sha256, responses: 3 });
        assert.equal(dump.format.name, 'plain');
      }
    }
  });

  it('is closed and left where a reader stops early', async () => {
    const many = lines(Array.from({ length: 5000 }, (_, i) => response(i, [-1, -2, -3])));
    for (const content of [many, gzipSync(many)]) {
      const dump = await openDump(await fileOf('dump.jsonl', content));
      for await (const { id } of dump) if (id === '3') break;
      const stop = AbortSignal.abort(new Error('stopped'));
      await assert.rejects(collectAll(dump.entries(stop)), /^Error: stopped$/);
      await assert.rejects(collectAll(dump.entries(AbortSignal.abort())), { name: 'AbortError' });
    }
  });
});

describe('parseJson', () => {
  it('gives what JSON.parse gives, and words in any place where a value can be', () => {
    fc.assert(
      fc.property(fc.jsonValue(), fc.constantFrom('NaN', 'Infinity', '-Infinity'), (value, word) => {
        const json = JSON.stringify(value);
        assert.deepEqual(parseJson(json), JSON.parse(json));
        const bare = `[${json}, ${word},{"a":${word}},${json}]`;
        assert.deepEqual(
          parseJson(bare),
          JSON.parse(bare.replace(`, ${word},{"a":${word}}`, `, "${word}",{"a":"${word}"}`)),
        );
      }),
      { numRuns: 500, seed: 1 },
    );
  });

  it('refuses what is no value', () => {
    for (const text of [
      '[nan]',
      '[+Infinity]',
      '[-NaN]',
      '[NaNs]',
      '[1NaN]',
      '[1.Infinity]',
      '"NaN',
      '[NaN',
      'x',
    ]) {
      assert.throws(() => parseJson(text), SyntaxError, text);
    }
  });
});

describe('a dump that cannot be read', () => {
  const good = JSON.stringify(rows[0]);
  const bad: [what: string, content: string | Uint8Array, message: RegExp][] = [
    [
      'cut short',
      `${good}\n{"id": "b", "logpr`,
      /^\[diagnose\] expected .*dump\.jsonl:2 to be JSON, got "\{\\"id\\": \\"b\\", \\"logpr" \(the file ends there: is it cut short\?\)$/,
    ],
    [
      'cut in a character',
      Buffer.concat([Buffer.from(`${good}\n{"id": "`), Buffer.of(0xe2, 0x82)]),
      /dump\.jsonl:2 to be UTF-8, got other bytes \(the file ends there: is it cut short\?\)$/,
    ],
    [
      'an array cut short',
      `[${good},\n${good.slice(0, 9)}`,
      /the array of .*dump\.jsonl to end with \], got .*line 2 \(is it cut short\?\)/,
    ],
    ['damaged', `${good}\n\n{"id": x}\n${good}\n`, /dump\.jsonl:3 to be JSON, got "\{\\"id\\": x\}"$/],
    ['a value', `${good}\n17\n`, /dump\.jsonl:2 to be a JSON object, got "the number 17"/],
    [
      'one object over lines',
      '{\n "id": 1\n}\n',
      /dump\.jsonl:1 to be JSON, got "\{" \(is it an object over several lines\?/,
    ],
    ['empty', '', /dump\.jsonl to hold responses, got "an empty file"$/],
    ['blank', '\n \r\n\n', /dump\.jsonl to hold responses, got "none"$/],
    ['an empty array', '[]', /dump\.jsonl to hold responses, got "none"$/],
    ['packed and empty', gzipSync(''), /dump\.jsonl to hold responses, got "none"$/],
    [
      'of no known format',
      '{"a": 1}\n',
      /dump\.jsonl:1 to be in one of the formats plain, verl, .*, got "an object with a"$/,
    ],
    [
      'of no known format later on',
      `${good}\n{"a": 1}\n`,
      /dump\.jsonl:2 to be in the format plain, as .*dump\.jsonl:1 is, got "an object with a"$/,
    ],
    [
      'of two formats',
      `${good}\n\n${good}\n{"id": "v", "choices": []}\n`,
      /dump\.jsonl:4 to be in the format plain, as .*dump\.jsonl:1 is, got "the format vllm"$/,
    ],
    [
      'a pointer',
      'version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n',
      /to hold its content, got "a Git LFS pointer/,
    ],
    [
      'of Zstandard',
      Buffer.from('28b52ffd0458', 'hex'),
      /got "a file packed with Zstandard \(unpack it: zstd -d\)"$/,
    ],
    ['of xz', Buffer.from('fd377a585a000004', 'hex'), /got "a file packed with xz/],
    ['of bzip2', 'BZh91AY&SY', /got "a file packed with bzip2/],
    ['a zip archive', 'PK\x03\x04....', /got "a zip archive, as of torch\.save/],
    ['of Parquet', 'PAR1....', /got "a Parquet table/],
    ['of UTF-16', Buffer.from('\ufeff{"id": 1}', 'utf16le'), /got "UTF-16/],
    [
      'of gzip, cut short',
      gzipSync(lines(rows)).subarray(0, -5),
      /dump\.jsonl to be whole, got "gzip that ends too early \(is it cut short\?\)"$/,
    ],
    [
      'of gzip, cut in its head',
      gzipSync(lines(rows)).subarray(0, 5),
      /dump\.jsonl to be whole, got "gzip that ends too early/,
    ],
    [
      'of gzip, with more behind',
      Buffer.concat([gzipSync(good), Buffer.from('more')]),
      /dump\.jsonl to be gzip, got "damaged data/,
    ],
    [
      'of gzip, with more behind zeros',
      Buffer.concat([gzipSync(good), Buffer.alloc(9), gzipSync(good)]),
      /dump\.jsonl to end with its gzip data, got "\d+ bytes more"$/,
    ],
  ];
  for (const [what, content, message] of bad) {
    it(`since it is ${what} is told with its place`, async () => {
      await assert.rejects(read(content), refuses(/^\[diagnose\] expected /, message));
    });
  }

  it('for damage within gzip is told at every place of it', async () => {
    const packed = gzipSync(lines(rows));
    const path = await fileOf('dump.jsonl', packed);
    for (let i = 10; i < packed.length; i++) {
      const damaged = Buffer.from(packed);
      damaged[i]! ^= 0x55;
      await writeFile(path, damaged);
      await assert.rejects(openDump(path).then(collectAll), refuses(/dump\.jsonl/));
    }
  });

  it('since it is a folder names its files', async () => {
    const folder = await temporaryFolder();
    await assert.rejects(openDump(folder), refuses(/to be a file, got "an empty folder"$/));
    await mkdir(join(folder, 'verl'));
    for (const step of [1, 2]) await writeFile(join(folder, 'verl', `${step}.jsonl`), lines(rows));
    await assert.rejects(
      openDump(join(folder, 'verl')),
      refuses(/verl to be a file, got "a folder \(1\.jsonl, 2\.jsonl\): give one file/),
    );
  });

  it('since there is none is told', async () => {
    await assert.rejects(
      openDump('/nowhere/at all.jsonl'),
      refuses(/\(ENOENT\), got "\/nowhere\/at all\.jsonl"/),
    );
    await assert.rejects(
      openDump(await fileOf('dump.jsonl', lines(rows)), { format: 'plan' as 'plain' }),
      refuses(/format to be one of plain, .*got "plan" \(did you mean plain\?\)/),
    );
  });
});
