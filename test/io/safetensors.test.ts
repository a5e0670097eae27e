import assert from 'node:assert/strict';
import { mkdtemp, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import fc from 'fast-check';
import { InvalidArgumentError } from '../../lib/errors.js';
import { openSafetensors, type SafetensorsEntry, writeSafetensors } from '../../lib/io/safetensors.js';
import {
  parseSafetensorsHeader,
  type SafetensorsDtype,
  safetensorsDtypes,
} from '../../lib/io/safetensorsHeader.js';

const encoder = new TextEncoder();

function parse(text: string, dataBytes: number) {
  return parseSafetensorsHeader(encoder.encode(text), dataBytes);
}

/** The bytes of a file: header length, header, data. */
function fileOf(header: string, data: Uint8Array, length = BigInt(encoder.encode(header).length)): Buffer {
  const prefix = Buffer.alloc(8);
  prefix.writeBigUInt64LE(length);
  return Buffer.concat([prefix, encoder.encode(header), data]);
}

function refuses(message: RegExp): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof InvalidArgumentError, String(error));
    assert.match(error.message, message);
    return true;
  };
}

describe('parseSafetensorsHeader', () => {
  it('reads tensors and metadata', () => {
    const { metadata, tensors } = parse(
      ' {"__metadata__":{"a":"1","":"\\u00fc\\n"},\n\t"w" : {"dtype":"F32","shape":[2, 3],"data_offsets":[4,28]} ,'.slice(
        1,
      ) +
        '"\\"q\\"":{"data_offsets":[0,4],"shape":[],"dtype":"I32"},"empty":{"dtype":"U8","shape":[0,7],"data_offsets":[28,28]}}  ',
      28,
    );
    assert.deepEqual(
      [...metadata],
      [
        ['a', '1'],
        ['', 'ü\n'],
      ],
    );
    assert.deepEqual(
      [...tensors],
      [
        ['w', { dtype: 'F32', shape: [2, 3], offset: 4, bytes: 24 }],
        ['"q"', { dtype: 'I32', shape: [], offset: 0, bytes: 4 }],
        ['empty', { dtype: 'U8', shape: [0, 7], offset: 28, bytes: 0 }],
      ],
    );
    assert.equal(parse('{}', 0).tensors.size, 0);
  });

  const tensor = (dtype: string, shape: string, range: string) =>
    `{"dtype":${dtype},"shape":${shape},"data_offsets":${range}}`;
  const good = tensor('"F32"', '[2]', '[0,8]');
  const bad: [what: string, header: string, dataBytes: number, message: RegExp][] = [
    ['an empty header', '', 0, /\{/],
    ['leading white space', ' {}', 0, /first character/],
    ['a byte order mark', '\ufeff{}', 0, /first character/],
    ['an array', '[]', 0, /first character/],
    ['text after the object', '{} x', 0, /nothing after/],
    ['zero bytes after the object', '{}\0\0', 0, /nothing after/],
    ['an unfinished object', '{"a"', 0, /:/],
    ['a trailing comma', `{"a":${good},}`, 8, /"/],
    ['an unfinished string', '{"a', 0, /string/],
    ['an unfinished escape', '{"a\\', 0, /string/],
    ['a wrong escape', '{"\\x":{}}', 0, /JSON string/],
    ['a line feed in a name', '{"a\n":{}}', 0, /control/],
    ['half a surrogate pair', `{"\\ud800":${good}}`, 8, /Unicode/],
    ['a name twice', `{"a":${good},"a":${good}}`, 8, /every key.*once, got "a"/],
    ['a name twice, once escaped', `{"a":${good},"\\u0061":${good}}`, 8, /every key.*once, got "a"/],
    ['a field twice', '{"a":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}', 8, /once/],
    ['metadata twice', '{"__metadata__":{},"__metadata__":{}}', 0, /once/],
    ['a metadata key twice', '{"__metadata__":{"k":"1","k":"2"}}', 0, /once/],
    ['a number in metadata', '{"__metadata__":{"k":1}}', 0, /"/],
    ['an object in metadata', '{"__metadata__":{"k":{}}}', 0, /"/],
    ['a tensor that is no object', '{"a":[1]}', 0, /\{/],
    ['null for a tensor', '{"a":null}', 0, /\{/],
    ['a missing field', '{"a":{"dtype":"F32","shape":[2]}}', 8, /dtype, shape and data_offsets/],
    ['an unknown field', '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":1}}', 8, /got "x"/],
    ['an unknown dtype', `{"a":${tensor('"F31"', '[2]', '[0,8]')}}`, 8, /dtype F64.*got "F31"/],
    ['a dtype in lower case', `{"a":${tensor('"f32"', '[2]', '[0,8]')}}`, 8, /dtype/],
    ['a dtype of Object', `{"a":${tensor('"toString"', '[2]', '[0,8]')}}`, 8, /dtype/],
    ['a negative dimension', `{"a":${tensor('"F32"', '[-2]', '[0,8]')}}`, 8, /non-negative integer/],
    ['two negative dimensions', `{"a":${tensor('"F32"', '[-1,-2]', '[0,8]')}}`, 8, /non-negative integer/],
    ['a fractional dimension', `{"a":${tensor('"F32"', '[2.5]', '[0,8]')}}`, 8, /non-negative integer/],
    ['2.0', `{"a":${tensor('"F32"', '[2.0]', '[0,8]')}}`, 8, /non-negative integer/],
    ['an exponent', `{"a":${tensor('"F32"', '[2e0]', '[0,8]')}}`, 8, /non-negative integer/],
    ['a leading zero', `{"a":${tensor('"F32"', '[02]', '[0,8]')}}`, 8, /non-negative integer/],
    ['a dimension in quotes', `{"a":${tensor('"F32"', '["2"]', '[0,8]')}}`, 8, /non-negative integer/],
    ['a dimension above 2^53', `{"a":${tensor('"F32"', '[9007199254740992]', '[0,8]')}}`, 8, /2\^53/],
    ['a dimension of 400 digits', `{"a":${tensor('"F32"', `[${'1'.repeat(400)}]`, '[0,8]')}}`, 8, /2\^53/],
    ['a size above 2^53', `{"a":${tensor('"F32"', '[134217728,134217728]', '[0,8]')}}`, 8, /2\^53/],
    ['a size above 2^53 times 0', `{"a":${tensor('"U8"', '[134217728,134217728,0]', '[0,0]')}}`, 0, /2\^53/],
    ['a range too short', `{"a":${tensor('"F32"', '[2]', '[0,7]')}}`, 7, /8 bytes apart/],
    ['a range backwards', `{"a":${tensor('"F32"', '[2]', '[8,0]')}}`, 8, /8 bytes apart/],
    ['a range of one', `{"a":${tensor('"U8"', '[0]', '[0]')}}`, 0, /0 bytes apart/],
    ['a range of three', `{"a":${tensor('"F32"', '[2]', '[0,8,8]')}}`, 8, /8 bytes apart/],
    ['a hole at the start', `{"a":${tensor('"F32"', '[2]', '[4,12]')}}`, 12, /"a".*begin at byte 0, got 4/],
    ['a hole', `{"a":${good},"b":${tensor('"U8"', '[1]', '[9,10]')}}`, 10, /"b".*begin at byte 8, got 9/],
    ['an overlap', `{"a":${good},"b":${tensor('"U8"', '[4]', '[7,11]')}}`, 11, /"b".*begin at byte 8, got 7/],
    ['the same range twice', `{"a":${good},"b":${good}}`, 8, /"b".*begin at byte 8, got 0/],
    [
      'an empty tensor inside another',
      `{"a":${good},"b":${tensor('"U8"', '[0]', '[4,4]')}}`,
      8,
      /begin at byte 8/,
    ],
    ['data left over', `{"a":${good}}`, 9, /the 8 bytes of data that its header describes, got 9/],
    ['data missing', `{"a":${good}}`, 7, /the 8 bytes of data .* \(the file is cut short.*, got 7/],
    ['data without tensors', '{}', 1, /the 0 bytes of data .*, got 1/],
  ];
  for (const [what, header, dataBytes, message] of bad) {
    it(`refuses ${what}`, () => assert.throws(() => parse(header, dataBytes), refuses(message)));
  }

  it('refuses bytes that are not UTF-8', () => {
    assert.throws(() => parseSafetensorsHeader(Uint8Array.of(0x7b, 0xff, 0x7d), 0), refuses(/UTF-8/));
  });

  it('is not troubled by depth, length or names of Object', () => {
    assert.throws(() => parse('{"a":'.repeat(200_000), 0), InvalidArgumentError);
    assert.throws(() => parse(`{"a":{"shape":${'['.repeat(1_000_000)}`, 0), InvalidArgumentError);
    const long = 'x'.repeat(5_000_000);
    assert.equal(parse(`{"__metadata__":{"${long}\\n":"${long}"}}`, 0).metadata.get(`${long}\n`), long);
    const { tensors } = parse(`{"__proto__":${good}}`, 8);
    assert.deepEqual([...tensors.keys()], ['__proto__']);
  });

  it('throws InvalidArgumentError and nothing else, for any text', () => {
    const token = fc.constantFrom(
      ...'{}[]:,"\\ \n0129.-eEu'.split(''),
      '"dtype":"F32"',
      '"shape":[',
      '"data_offsets":[0,8]',
      '"__metadata__":{',
      '"a":{',
      'null',
      'true',
      '\\u0041',
      '\ud800',
    );
    const anything = fc.oneof(
      fc.array(token, { maxLength: 60 }).map((tokens) => `{${tokens.join('')}`),
      fc.json().map((text) => `{"a":${text}}`),
      fc.string({ unit: 'binary' }),
    );
    const check = (bytes: Uint8Array, dataBytes: number) => {
      try {
        const { tensors } = parseSafetensorsHeader(bytes, dataBytes);
        let sum = 0;
        for (const { bytes: length } of tensors.values()) sum += length;
        assert.equal(sum, dataBytes, 'what is accepted covers the data');
      } catch (error) {
        if (!(error instanceof InvalidArgumentError)) throw error;
      }
    };
    fc.assert(
      fc.property(anything, fc.nat({ max: 40 }), (text, size) => check(encoder.encode(text), size)),
      { seed: 1, numRuns: 3000 },
    );
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 80 }), (bytes) => check(bytes, 0)),
      { seed: 2, numRuns: 1000 },
    );
    // One byte changed in a right header: many of these are still headers.
    const header = encoder.encode(
      `{"__metadata__":{"k":"v"},"a":${good},"b":${tensor('"F16"', '[1,2]', '[8,12]')}}  `,
    );
    let accepted = 0;
    for (let at = 0; at < header.length; at++) {
      for (let value = 0; value < 256; value++) {
        const changed = header.slice();
        changed[at] = value;
        try {
          parseSafetensorsHeader(changed, 12);
          accepted++;
        } catch (error) {
          if (!(error instanceof InvalidArgumentError)) throw error;
        }
      }
    }
    assert.ok(accepted > header.length, 'the unchanged ones and changed names at least');
  });
});

describe('safetensors files', () => {
  let folder: string;
  let path: string;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'isopolicy-safetensors-'));
    path = join(folder, 'model.safetensors');
  });
  afterEach(() => rm(folder, { recursive: true }));

  it('writes the bytes that the format asks for', async () => {
    await writeSafetensors(
      path,
      [
        { name: 'b', dtype: 'F16', shape: [1], data: Uint16Array.of(0x3c00) },
        { name: 'a', dtype: 'F32', shape: [1, 2], data: Float32Array.of(1, -2) },
      ],
      { format: 'pt' },
    );
    const json =
      '{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]},' +
      '"b":{"dtype":"F16","shape":[1],"data_offsets":[8,10]}}';
    const header = json + ' '.repeat((8 - (json.length % 8)) % 8);
    const data = Uint8Array.of(0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0, 0, 0x3c);
    assert.deepEqual(await readFile(path), fileOf(header, data));
    assert.equal(header.length % 8, 0);
  });

  it('reads back what it wrote, for any tensors', async () => {
    const dtype = fc.constantFrom(...(Object.keys(safetensorsDtypes) as SafetensorsDtype[]));
    const shape = fc.array(fc.integer({ min: 0, max: 4 }), { maxLength: 3 });
    const name = fc.oneof(fc.string({ unit: 'grapheme' }), fc.constantFrom('1', '0', '__proto__', 'a"b\\'));
    const specs = fc.uniqueArray(fc.record({ name, dtype, shape }), {
      selector: ({ name }) => name,
      maxLength: 8,
    });
    const text = fc.dictionary(fc.string({ unit: 'grapheme' }), fc.string({ unit: 'grapheme' }));
    await fc.assert(
      fc.asyncProperty(specs, text, fc.boolean(), async (tensors, metadata, lazy) => {
        let value = 1;
        const contents = new Map<string, Uint8Array>();
        const entries: SafetensorsEntry[] = tensors
          .filter(({ name }) => name !== '__metadata__')
          .map((spec) => {
            const bytes = spec.shape.reduce((product, dim) => product * dim, safetensorsDtypes[spec.dtype]);
            const data = Uint8Array.from({ length: bytes }, () => (value = (value * 167 + 13) % 251));
            contents.set(spec.name, data);
            return { ...spec, data: lazy ? async () => data.slice().buffer : data };
          });
        await writeSafetensors(path, entries, metadata);
        const file = await openSafetensors(path);
        try {
          assert.deepEqual(new Map(file.metadata), new Map(Object.entries(metadata)));
          assert.deepEqual([...file.tensors.keys()].sort(), [...contents.keys()].sort());
          for (const entry of entries) {
            const info = file.tensors.get(entry.name)!;
            assert.deepEqual([info.dtype, info.shape], [entry.dtype, entry.shape]);
            assert.equal(info.offset % safetensorsDtypes[entry.dtype], 0, 'aligned to its elements');
            assert.deepEqual(new Uint8Array(await file.read(entry.name)), contents.get(entry.name));
          }
        } finally {
          await file.close();
        }
      }),
      { seed: 4, numRuns: 60 },
    );
    assert.deepEqual(await readdir(folder), ['model.safetensors']);
  });

  it('reads a file that others wrote, unaligned and in any order', async () => {
    const header =
      '{"z":{"dtype":"BF16","shape":[2],"data_offsets":[1,5]},"y":{"dtype":"U8","shape":[],"data_offsets":[0,1]}}';
    await writeFile(path, fileOf(header, Uint8Array.of(7, 0x80, 0x3f, 0x40, 0xc0)));
    const file = await openSafetensors(path);
    assert.deepEqual(file.tensors.get('z'), {
      dtype: 'BF16',
      shape: [2],
      offset: 8 + header.length + 1,
      bytes: 4,
    });
    assert.deepEqual([...new Uint8Array(await file.read('y'))], [7]);
    assert.deepEqual([...new Uint16Array(await file.read('z'))], [0x3f80, 0xc040]);
    await assert.rejects(file.read('x'), refuses(/tensor of .*got "x"/));
    await file.close();
    await file.close();
    await assert.rejects(file.read('y'), refuses(/open/));
  });

  it('refuses files that are not what they should be', async () => {
    const header = '{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}';
    const whole = fileOf(header, Uint8Array.of(1, 2));
    const cases: [what: string, bytes: Uint8Array, message: RegExp][] = [
      ['empty', new Uint8Array(0), /at least 8 bytes/],
      ['seven bytes', whole.subarray(0, 7), /at least 8 bytes/],
      ['cut in the header', whole.subarray(0, 30), /at most 22 bytes/],
      ['cut in the data', whole.subarray(0, whole.length - 1), /the 2 bytes of data .*cut short.*, got 1/],
      ['data left over', Buffer.concat([whole, Uint8Array.of(3)]), /the 2 bytes of data .* describes, got 3/],
      [
        'a header length of 2^64 - 1',
        fileOf(header, Uint8Array.of(1, 2), 2n ** 64n - 1n),
        /header .*18446744073709551615/,
      ],
      ['a header length of 0', fileOf('', new Uint8Array(0)), /\{/],
      [
        'an LFS pointer',
        encoder.encode(
          `version https://git-lfs.github.com/spec/v1\noid sha256:${'0'.repeat(64)}\nsize 12345\n`,
        ),
        /Git LFS pointer/,
      ],
    ];
    for (const [, bytes, message] of cases) {
      await writeFile(path, bytes);
      await assert.rejects(openSafetensors(path), refuses(message));
    }
    await assert.rejects(openSafetensors(join(folder, 'missing')), refuses(/ENOENT/));
    await assert.rejects(openSafetensors(folder), refuses(/regular file/));
  });

  it('refuses a header above 100 MB without reading it', async () => {
    await writeFile(path, fileOf('', new Uint8Array(0), 100_000_001n));
    await truncate(path, 8 + 100_000_001);
    await assert.rejects(openSafetensors(path), refuses(/at most 100000000 bytes/));
  });

  it('notices a file that shrinks while it is open', async () => {
    await writeSafetensors(path, [{ name: 'a', dtype: 'U8', shape: [10], data: new Uint8Array(10) }]);
    const file = await openSafetensors(path);
    await truncate(path, file.tensors.get('a')!.offset + 4);
    await assert.rejects(file.read('a'), refuses(/bytes/));
    await file.close();
  });

  it('refuses to write what it would not read, and leaves the old file', async () => {
    const entry = (change: object) => [
      { name: 'a', dtype: 'F32', shape: [2], data: new Float32Array(2), ...change },
    ];
    await writeFile(path, 'old');
    const cases: [entries: object[], metadata: object, message: RegExp][] = [
      [entry({ name: '__metadata__' }), {}, /name/],
      [entry({ name: '\ud800' }), {}, /name/],
      [[...entry({}), ...entry({})], {}, /once, got "a"/],
      [entry({ dtype: 'F8' }), {}, /dtype/],
      [entry({ shape: [-2] }), {}, /dimensions/],
      [entry({ shape: [0.5, 4] }), {}, /dimensions/],
      [entry({ shape: [3] }), {}, /12 bytes, got 8/],
      [entry({ data: [1, 2] }), {}, /ArrayBuffer/],
      [entry({ data: () => new Float32Array(3) }), {}, /8 bytes, got 12/],
      [entry({}), { step: 3 }, /metadata "step"/],
    ];
    for (const [entries, metadata, message] of cases) {
      await assert.rejects(
        writeSafetensors(path, entries as SafetensorsEntry[], metadata as Record<string, string>),
        refuses(message),
      );
      assert.equal(await readFile(path, 'utf8'), 'old');
      assert.deepEqual(await readdir(folder), ['model.safetensors']);
    }
  });
});
