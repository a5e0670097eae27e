import assert from 'node:assert/strict';
import { appendFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, describe, it } from 'node:test';
import { PointLog } from '../../lib/io/pointLog.js';

const folder = mkdtempSync(path.join(tmpdir(), 'isopolicy-points-'));
after(() => rmSync(folder, { recursive: true }));

describe('PointLog', () => {
  it('measures once and remembers, numbers that are not finite too', async () => {
    const file = path.join(folder, 'a.jsonl');
    const log = await PointLog.open<{ x: number }>(file);
    let measured = 0;
    const measure = (x: number) => async () => {
      measured++;
      return { x };
    };
    assert.deepEqual(await log.measured('one', measure(1)), { x: 1 });
    assert.deepEqual(await log.measured('two', measure(Number.NaN)), { x: Number.NaN });
    assert.deepEqual(await log.measured('one', measure(3)), { x: 1 });
    const again = await PointLog.open<{ x: number }>(file);
    assert.equal(again.size, 2);
    assert.deepEqual(await again.measured('two', measure(4)), { x: Number.NaN });
    assert.equal(measured, 2);
  });

  it('reads whole lines and leaves the file as it is', async () => {
    const file = path.join(folder, 'read.jsonl');
    assert.deepEqual(await PointLog.read(file), []);
    const text = '{"key":"a","value":1}\n{"key":"b","value":"NaN"}\n{"key":"a","value":3}\n{"key":"c","val';
    writeFileSync(file, text);
    assert.deepEqual(await PointLog.read(file), [3, Number.NaN]);
    assert.equal(readFileSync(file, 'utf8'), text);
  });

  it('cuts off a torn last line and goes on behind the whole ones', async () => {
    const file = path.join(folder, 'b.jsonl');
    const log = await PointLog.open<string>(file);
    await log.measured('ü', async () => 'whole');
    appendFileSync(file, '{"key":"torn","val');
    const again = await PointLog.open<string>(file);
    assert.equal(again.get('ü'), 'whole');
    assert.equal(again.get('torn'), undefined);
    await again.measured('next', async () => 'more');
    assert.equal(readFileSync(file, 'utf8'), '{"key":"ü","value":"whole"}\n{"key":"next","value":"more"}\n');
  });

  it('names a damaged line in the middle and leaves the file', async () => {
    const file = path.join(folder, 'c.jsonl');
    const text = '{"key":"a","value":1}\nnonsense\n{"key":"b","value":2}\n';
    writeFileSync(file, text);
    await assert.rejects(PointLog.open(file), /line 2 of .*c\.jsonl to be JSON/);
    assert.equal(readFileSync(file, 'utf8'), text);
  });
});
