import assert from 'node:assert/strict';
import { truncate, writeFile } from 'node:fs/promises';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { jsonRows } from '../../lib/data/json.js';
import { CounterRandom } from '../../lib/random.js';
import { collect, comparable, fileOf, refuses } from './fixtures.js';

const read = async (content: string | Uint8Array) => collect(jsonRows(await fileOf('data.jsonl', content)));

describe('JSON lines', () => {
  it('are rows, with the line that each is on', async () => {
    const rows = await read('{"a": 1}\n{"a": "zwei"}\n\n  \n{"a": null, "b": [1, {"c": 2}]}');
    assert.deepEqual(comparable(rows), [{ a: 1 }, { a: 'zwei' }, { a: null, b: [1, { c: 2 }] }]);
    assert.deepEqual(
      rows.map((row) => row.number),
      [1, 2, 5],
    );
    assert.equal(rows[0]!.unit, 'line');
  });

  it('may have a byte order mark, carriage returns and an end of line at the end', async () => {
    const rows = await read('\ufeff{"a": 1}\r\n\r\n{"a": "\ufeff"}\r\n');
    assert.deepEqual(comparable(rows), [{ a: 1 }, { a: '\ufeff' }]);
    assert.deepEqual(await read(''), []);
    assert.deepEqual(await read('\n\n'), []);
  });

  it('can be longer than what is read at once, with characters across the cut', async () => {
    const long = '€😀é'.repeat(250_000);
    const rows = await read(`{"a": "${long}"}\n{"a": "x${long}"}\n{"a": 3}\n`);
    assert.deepEqual(
      rows.map(({ values }) => values.a),
      [long, `x${long}`, 3],
    );
  });

  const bad: [what: string, content: string | Uint8Array, message: RegExp][] = [
    [
      'no JSON',
      '{"a": 1}\n{"a": x}\n',
      /\[data\] expected line 2 of .*data\.jsonl to be JSON, got "\{\\"a\\": x\}"/,
    ],
    [
      'cut short',
      '{"a": 1}\n{"a": "the beg',
      /line 2 of .*data\.jsonl to be JSON, got "\{\\"a\\": \\"the beg"/,
    ],
    ['a list', '{"a": 1}\n\n[1]\n', /line 3 of .* to be a JSON object, got "an array of 1"/],
    ['null', 'null\n', /line 1 of .* to be a JSON object, got "null"/],
    ['text', '"abc"\n', /line 1 of .* to be a JSON object, got "the string \\"abc\\""/],
    ['two on a line', '{"a": 1} {"a": 2}\n', /line 1 of .* to be JSON/],
    ['no UTF-8', Uint8Array.of(0x7b, 0x7d, 0x0a, 0x7b, 0xff, 0x7d), /line 2 of .* to be UTF-8/],
    ['long and wrong', `{"a": ${'1'.repeat(200)}x}`, /got "\{\\"a\\": 1{44} \.\.\. 1{23}x\}"/],
  ];
  for (const [what, content, message] of bad) {
    it(`that are ${what} are told with file and line`, async () => {
      await assert.rejects(read(content), refuses(message));
    });
  }
});

describe('a JSON array', () => {
  it('is read element by element', async () => {
    const rows = await read(' \n[\n  {"a": "],}\\"[{"},\n\n  {"a": {"b": [[], {}]}},{"a":3}\n]\n');
    assert.deepEqual(comparable(rows), [{ a: '],}"[{' }, { a: { b: [[], {}] } }, { a: 3 }]);
    assert.deepEqual(
      rows.map((row) => [row.unit, row.number]),
      [
        ['element', 1],
        ['element', 2],
        ['element', 3],
      ],
    );
    assert.deepEqual(await read('[]'), []);
    assert.deepEqual(await read('\ufeff [ \n ] '), []);
  });

  it('can have elements longer than what is read at once', async () => {
    const long = 'ab😀,]}\\"'.repeat(200_000);
    const rows = await read(JSON.stringify([{ a: long }, { a: 1 }, { a: `x${long}` }]));
    assert.deepEqual(
      rows.map(({ values }) => values.a),
      [long, 1, `x${long}`],
    );
  });

  const bad: [what: string, content: string, message: RegExp][] = [
    [
      'an element that is no JSON',
      '[{"a": 1},\n\n{"a": x}]',
      /element 2 \(line 3\) of .* to be JSON, got "\{\\"a\\": x\}"/,
    ],
    [
      'an element that is no object',
      '[1]',
      /element 1 \(line 1\) of .* to be a JSON object, got "the number 1"/,
    ],
    ['a comma at the end', '[{"a": 1},]', /element 2 \(line 1\) of .* to be JSON, got nothing/],
    ['a missing comma', '[{"a": 1} {"a": 2}]', /element 1 .* to be JSON/],
    [
      'no end',
      '[{"a": 1},\n{"a": 2}\n',
      /array of .* to end with \], got "the end of the file on line 3 \(is it cut short\?\)"/,
    ],
    ['an end of another kind', '[{"a": 1}}', /array of .* to end with \], got "\} on line 1"/],
    ['something after it', '[{"a": 1}]\n{"a": 2}', /nothing after the array of .*, got "\\"\{\\" on line 2"/],
    ['two arrays', '[][]', /nothing after the array/],
  ];
  for (const [what, content, message] of bad) {
    it(`with ${what} is told with file and place`, async () => {
      await assert.rejects(read(content), refuses(message));
    });
  }

  it('gives what JSON.parse gives, for any objects in any layout', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.dictionary(fc.string(), fc.jsonValue()), { maxLength: 6 }),
        fc.constantFrom(undefined, 1, '\t', '\n'),
        async (objects, space) => {
          const text = JSON.stringify(objects, null, space);
          assert.deepEqual(comparable(await read(text)), JSON.parse(text));
        },
      ),
      { numRuns: 200, seed: 5 },
    );
  });
});

describe('damaged JSON', () => {
  const rows = Array.from({ length: 4 }, (_, i) => ({
    problem: `Wieviel ist ${i} + "1"? €`,
    answer: [i, `${i}`],
  }));
  const forms = {
    lines: rows.map((row) => JSON.stringify(row)).join('\n'),
    array: JSON.stringify(rows, null, 1),
  };
  for (const [form, text] of Object.entries(forms)) {
    const bytes = Buffer.from(text);

    it(`in ${form}, cut at every length, is rows or one error that names the file`, async () => {
      const path = await fileOf('data.json', bytes);
      for (let length = bytes.length - 1; length >= 0; length--) {
        await truncate(path, length);
        const got = await collect(jsonRows(path)).catch(refuses(/data\.json/));
        if (got === true) continue;
        const whole = comparable(got as Awaited<ReturnType<typeof collect>>);
        assert.deepEqual(whole, rows.slice(0, whole.length));
        // An array without its end is never taken for whole; lines are, where the cut is at the end of one.
        assert.ok(form === 'lines' || length === 0, `${length}`);
      }
    });

    it(`in ${form}, with other bytes in it, is rows or one error that names the file`, async () => {
      const path = await fileOf('data.json', bytes);
      let refused = 0;
      for (let i = 0; i < 500; i++) {
        const random = new CounterRandom(1, i);
        const damaged = Buffer.from(bytes);
        for (let flips = random.integer(3); flips >= 0; flips--) {
          damaged[random.integer(damaged.length)] = random.integer(256);
        }
        await writeFile(path, damaged);
        const got = await collect(jsonRows(path)).catch(refuses(/data\.json/));
        if (got === true) refused++;
      }
      assert.ok(refused > 100, `${refused}`);
    });
  }
});
