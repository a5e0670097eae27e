import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  colored,
  count,
  formatBytes,
  formatClock,
  formatCount,
  formatDuration,
  formatNumber,
  formatScale,
  formatTable,
  quoted,
  toJson,
  wantsColor,
  wrap,
} from '../../lib/cli/format.js';
import { timelineText } from '../../lib/cli/headroom.js';

/** Checks `format` on rows of input and expected text. */
function assertTable<T>(format: (value: T) => string, rows: readonly [T, string][]): void {
  for (const [value, expected] of rows) assert.equal(format(value), expected, `of ${value}`);
}

test('numbers have three significant digits, and only 0 is 0', () => {
  assertTable(formatNumber, [
    [0, '0'],
    [-0, '0'],
    [1, '1.00'],
    [12.345, '12.3'],
    [123.4, '123'],
    [65536, '65536'],
    [999999.6, '1.00e6'],
    [1234567, '1.23e6'],
    [0.5, '0.500'],
    [0.001, '0.00100'],
    [0.00099951, '0.00100'],
    [0.000999, '9.99e-4'],
    [1.234e-6, '1.23e-6'],
    [-1.234e-6, '-1.23e-6'],
    [5e-324, '4.94e-324'],
    [Number.NaN, 'NaN'],
    [Number.NEGATIVE_INFINITY, '-Infinity'],
  ]);
  assert.equal(formatNumber(1.25e-6, 2), '1.3e-6');
  fc.assert(
    fc.property(fc.double({ noNaN: true, noDefaultInfinity: true }), (value) => {
      const text = formatNumber(value);
      assert.equal(text === '0', value === 0);
      assert.ok(text.length <= 10, text);
      const shown = Number(text);
      if (Math.abs(value) > 1e-300 && Math.abs(value) < 1e300) {
        assert.ok(Math.abs(shown - value) <= 0.00501 * Math.abs(value), `${text} for ${value}`);
      }
    }),
  );
});

test('scales, counts, bytes', () => {
  assertTable(formatScale, [
    [65536, '65536'],
    [1, '1'],
    [0.5, '0.500'],
    [2 ** 40, '1.10e12'],
  ]);
  assertTable(formatCount, [
    [0, '0'],
    [840.4, '840'],
    [999.6, '1.0k'],
    [8400, '8.4k'],
    [9949, '9.9k'],
    [9960, '10k'],
    [84000, '84k'],
    [999_900, '1.0M'],
    [1.2e6, '1.2M'],
    [5e13, '50000G'],
    [Number.NaN, 'NaN'],
  ]);
  assertTable(formatBytes, [
    [0, '0 B'],
    [1023, '1023 B'],
    [1024, '1.0 KiB'],
    [3.2 * 2 ** 20, '3.2 MiB'],
    [2 ** 30 - 1, '1.0 GiB'],
    [3 * 2 ** 40, '3.0 TiB'],
  ]);
});

test('times as a clock and in words', () => {
  assertTable(formatClock, [
    [0, '0:00'],
    [21.4, '0:21'],
    [59.6, '1:00'],
    [725, '12:05'],
    [3599.7, '1:00:00'],
    [3723, '1:02:03'],
    [-3, '0:00'],
    [Number.NaN, '?'],
  ]);
  assertTable(formatDuration, [
    [0, '0 s'],
    [0.8412, '0.84 s'],
    [3.456, '3.46 s'],
    [9.996, '10 s'],
    [58.2, '58 s'],
    [59.7, '1 min 0 s'],
    [252, '4 min 12 s'],
    [3599.6, '1 h 0 min'],
    [3780, '1 h 3 min'],
    [7199, '2 h 0 min'],
  ]);
});

test('a table aligns its columns and wraps the last', () => {
  const columns = [
    { heading: 'name' },
    { heading: 'how\nmany', align: 'right' as const },
    { heading: 'meaning' },
  ];
  const rows = [
    ['one', '1', 'short'],
    ['two', '22', 'a meaning of several words'],
  ];
  assert.equal(
    formatTable(columns, rows, 26),
    [
      'name   how  meaning',
      '      many',
      '----  ----  --------------',
      'one      1  short',
      'two     22  a meaning of',
      '            several words',
    ].join('\n'),
  );
});

test('a table too wide for two spaces has one, and its last column is never narrower than a word or a number', () => {
  const wide = [{ heading: 'a' }, { heading: 'b' }, { heading: 'accuracy', align: 'right' }] as const;
  assert.equal(
    formatTable(wide, [['aaaa', 'bbbb', '0.447']], 19),
    ['a    b    accuracy', '---- ---- --------', 'aaaa bbbb    0.447'].join('\n'),
  );
  assert.equal(
    formatTable(wide, [['aaaa', 'bbbb', '0.1 (0.05, 0.2)']], 25).split('\n')[2],
    'aaaa bbbb 0.1 (0.05, 0.2)',
  );
});

test('a count has its noun, a path is as a shell takes it', () => {
  assert.deepEqual([count(0, 'step'), count(1, 'step'), count(2, 'step')], ['0 steps', '1 step', '2 steps']);
  assert.equal(quoted('runs/a-1'), 'runs/a-1');
  assert.equal(quoted("my run's"), `'my run'\\''s'`);
});

test('no line of a table or paragraph is wider than the page, no word is lost', () => {
  const word = fc.stringMatching(/^[a-z]{1,9}$/);
  const words = fc.array(word, { minLength: 1, maxLength: 40 }).map((list) => list.join(' '));
  fc.assert(
    fc.property(fc.array(fc.tuple(word, word, words), { minLength: 1, maxLength: 8 }), (rows) => {
      const table = formatTable([{ heading: 'a' }, { heading: 'b', align: 'right' }, { heading: 'c' }], rows);
      for (const line of table.split('\n')) {
        assert.ok(line.length <= 80, line);
        assert.equal(line, line.trimEnd());
      }
      const count = rows.reduce((sum, row) => sum + row.join(' ').split(' ').length, 0);
      // Three headings and three rules.
      assert.equal(table.trim().split(/\s+/).length, count + 6);
    }),
  );
  fc.assert(
    fc.property(words, fc.integer({ min: 9, max: 100 }), (text, width) => {
      const lines = wrap(text, width);
      assert.equal(lines.join(' '), text);
      for (const line of lines) assert.ok(line.length <= width);
    }),
  );
});

test('the loss scale of a run is told as it was: absent, steady, moving', () => {
  const point = (step: number, scale: number, skippedUpdates = 0) => ({
    step,
    scale,
    skippedUpdates,
    savedUpdates: 0,
  });
  assert.equal(timelineText([point(0, 1), point(1, 1)]), 'The run trained without loss scaling, 2 steps.');
  assert.equal(
    timelineText([point(0, 65536)]),
    'In the run the scale stayed at 65536 over 1 step; 0 updates skipped, 0 saved by a retry.',
  );
  assert.equal(
    timelineText([point(0, 65536, 1), point(1, 32768)]),
    'In the run the scale went from 65536 to 32768 over 2 steps; 1 update skipped, 0 saved by a retry.',
  );
});

test('JSON keeps what is not finite as text', () => {
  const json = toJson({ a: Number.NaN, b: [Number.NEGATIVE_INFINITY], c: 0, d: null });
  assert.equal(json, '{"a":"NaN","b":["-Infinity"],"c":0,"d":null}');
});

test('colour on a terminal only, and not against NO_COLOR', () => {
  const { NO_COLOR, TERM } = process.env;
  const restore = (name: string, value: string | undefined) => {
    if (value === undefined) delete process.env[name];
    else process.env[name] = value;
  };
  try {
    delete process.env.NO_COLOR;
    process.env.TERM = 'xterm';
    assert.equal(wantsColor({ isTTY: true }), true);
    assert.equal(wantsColor({ isTTY: false }), false);
    assert.equal(wantsColor({}), false);
    process.env.NO_COLOR = '1';
    assert.equal(wantsColor({ isTTY: true }), false);
    process.env.NO_COLOR = '';
    assert.equal(wantsColor({ isTTY: true }), true, 'an empty NO_COLOR is none');
    process.env.TERM = 'dumb';
    assert.equal(wantsColor({ isTTY: true }), false);
  } finally {
    restore('NO_COLOR', NO_COLOR);
    restore('TERM', TERM);
  }
  assert.equal(colored('PASSED', 'green', false), 'PASSED');
  assert.equal(colored('PASSED', 'green', true), '\x1b[32mPASSED\x1b[39m');
});
