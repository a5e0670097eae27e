import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, describe, it } from 'node:test';
import { crc32c, TensorBoardWriter } from '../../lib/io/tensorboard.js';

const root = mkdtempSync(path.join(tmpdir(), 'isopolicy-tensorboard-'));
after(() => rmSync(root, { recursive: true }));

/** Bit by bit, from the definition. */
function slowCrc(bytes: Uint8Array): number {
  let crc = 0xffffffffn;
  for (const byte of bytes) {
    crc ^= BigInt(byte);
    for (let k = 0; k < 8; k++) crc = crc & 1n ? (crc >> 1n) ^ 0x82f63b78n : crc >> 1n;
  }
  return Number(crc ^ 0xffffffffn);
}

interface Field {
  readonly field: number;
  readonly value: bigint | number | Buffer;
}

/** The fields of a protocol buffer message. */
function decode(message: Buffer): Field[] {
  const fields: Field[] = [];
  let at = 0;
  const varint = () => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = message[at++]!;
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
  };
  while (at < message.length) {
    const key = Number(varint());
    const field = key >> 3;
    if ((key & 7) === 0) fields.push({ field, value: varint() });
    else if ((key & 7) === 1) {
      fields.push({ field, value: message.readDoubleLE(at) });
      at += 8;
    } else if ((key & 7) === 5) {
      fields.push({ field, value: message.readFloatLE(at) });
      at += 4;
    } else {
      const length = Number(varint());
      fields.push({ field, value: message.subarray(at, at + length) });
      at += length;
    }
  }
  return fields;
}

/** Events of a file, its checksums verified. */
function events(file: string): Field[][] {
  const data = readFileSync(file);
  const masked = (bytes: Uint8Array) => {
    const crc = BigInt(slowCrc(bytes));
    return Number((((crc >> 15n) | (crc << 17n)) + 0xa282ead8n) & 0xffffffffn);
  };
  const all: Field[][] = [];
  let at = 0;
  while (at < data.length) {
    const length = Number(data.readBigUInt64LE(at));
    assert.equal(data.readUInt32LE(at + 8), masked(data.subarray(at, at + 8)));
    const message = data.subarray(at + 12, at + 12 + length);
    assert.equal(data.readUInt32LE(at + 12 + length), masked(message));
    all.push(decode(message));
    at += 16 + length;
  }
  return all;
}

describe('crc32c', () => {
  it('is that of the RFC, and of its definition', () => {
    assert.equal(crc32c(new Uint8Array(32)), 0x8a9136aa);
    assert.equal(crc32c(new Uint8Array(32).fill(0xff)), 0x62a8ab43);
    assert.equal(crc32c(Uint8Array.from({ length: 32 }, (_, i) => i)), 0x46dd794e);
    assert.equal(crc32c(Buffer.from('123456789')), 0xe3069283);
    for (let n = 0; n < 40; n++) {
      const bytes = Uint8Array.from({ length: n }, (_, i) => (i * 97 + n) & 0xff);
      assert.equal(crc32c(bytes), slowCrc(bytes));
    }
  });
});

describe('TensorBoardWriter', () => {
  it('writes the version and then an event a step, finite numbers alone', async () => {
    const writer = await TensorBoardWriter.open(path.join(root, 'deep'), 1700000000.5);
    await writer.scalars(0, { 'train/reward': 0.5, 'mismatch/ess': Number.NaN, word: 'x' }, 1700000001);
    await writer.scalars(300, { a: -1.25, b: 1e30 }, 1700000002);
    await writer.scalars(301, { a: Infinity });
    await writer.close();
    assert.match(path.basename(writer.path), /^events\.out\.tfevents\.1700000000\./);
    const [version, first, second, ...none] = events(writer.path);
    assert.deepEqual(none, []);
    assert.deepEqual(
      version!.map(({ field }) => field),
      [1, 3],
    );
    assert.equal(version![0]!.value, 1700000000.5);
    assert.equal(String(version![1]!.value), 'brain.Event:2');
    const scalars = (event: Field[]) =>
      decode(event.find(({ field }) => field === 5)!.value as Buffer).map(({ field, value }) => {
        assert.equal(field, 1);
        const [tag, number] = decode(value as Buffer);
        assert.deepEqual([tag!.field, number!.field], [1, 2]);
        return [String(tag!.value), number!.value];
      });
    assert.equal(first!.find(({ field }) => field === 2)!.value, 0n);
    assert.deepEqual(scalars(first!), [['train/reward', 0.5]]);
    assert.equal(second!.find(({ field }) => field === 2)!.value, 300n);
    assert.deepEqual(scalars(second!), [
      ['a', -1.25],
      ['b', Math.fround(1e30)],
    ]);
  });
});
