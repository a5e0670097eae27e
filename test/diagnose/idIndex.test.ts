import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { IdIndex } from '../../lib/diagnose/idIndex.js';
import { CounterRandom } from '../../lib/random.js';

const locationOf = (i: number) => ({ start: i * 2 ** 20 + 7, bytes: i + 1, line: 2 * i + 1, part: i % 3 });

describe('IdIndex', () => {
  it('finds each of very many ids where it was added, and no other', () => {
    const index = new IdIndex();
    const count = 300_000;
    const random = new CounterRandom(1);
    // Ids as people write them: numbers, and long ones that differ in a few places.
    const ids = Array.from({ length: count }, (_, i) =>
      i % 2 === 0 ? `${i}` : `chatcmpl-${i}-${random.next().toString(16)}`,
    );
    for (const [i, id] of ids.entries()) {
      assert.deepEqual([...index.candidates(id)], []);
      assert.equal(index.add(id, locationOf(i)), i);
    }
    assert.equal(index.length, count);
    for (const [i, id] of ids.entries()) {
      assert.deepEqual([...index.candidates(id)], [i]);
      if (i % 1000 === 0) assert.deepEqual(index.location(i), locationOf(i));
    }
    assert.deepEqual([...index.candidates('not there')], []);
  });

  it('keeps places beyond 4 GB, and partners', () => {
    const index = new IdIndex();
    const location = { start: 2 ** 45 + 1, bytes: 2 ** 28, line: 4e9, part: 0 };
    const at = index.add('a', location);
    assert.deepEqual(index.location(at), location);
    assert.equal(index.partner(at), 0);
    index.setPartner(at, 4e9);
    assert.equal(index.partner(at), 4e9);
  });

  it('gives all ids of one hash, whatever the table has grown to', () => {
    const index = new IdIndex((id) => (id.startsWith('x') ? 2 ** 52 + 5 : Number(id)));
    const added: number[] = [];
    for (let i = 0; i < 5000; i++) {
      if (i % 100 === 0) added.push(index.add(`x${i}`, locationOf(i)));
      else index.add(`${i}`, locationOf(i));
    }
    assert.deepEqual(
      [...index.candidates('x')].sort((a, b) => a - b),
      added,
    );
    assert.deepEqual([...index.candidates('5')], [5]);
  });
});
