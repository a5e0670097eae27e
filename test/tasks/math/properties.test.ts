import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { parseAnswer } from '../../../lib/tasks/math/answer.js';
import { likeness, mathEqual } from '../../../lib/tasks/math/equal.js';
import { pairsOfForms } from './pairsOfForms.js';
import { pairsOfNumbers } from './pairsOfNumbers.js';

const R = String.raw;

/** Pieces that answers are made of, in any order: much of it no answer at all. */
const piece = fc.constantFrom(
  ...[
    R`\frac`,
    R`\sqrt`,
    R`\text`,
    R`\left`,
    R`\right`,
    R`\pm`,
    R`\pi`,
    R`\infty`,
    R`\cup`,
    R`\in`,
    R`\le`,
    R`\cdot`,
  ],
  ...[
    R`\begin{pmatrix}`,
    R`\end{pmatrix}`,
    R`\\`,
    R`\{`,
    R`\}`,
    R`\%`,
    R`\$`,
    R`^\circ`,
    R`\sin`,
    R`\log`,
    R`\overline`,
  ],
  ...[
    '{',
    '}',
    '(',
    ')',
    '[',
    ']',
    '|',
    '^',
    '_',
    '&',
    ',',
    ';',
    ':',
    '.',
    '=',
    '<',
    '>',
    '!',
    '+',
    '-',
    '*',
    '/',
    '$',
  ],
  ...[
    '0',
    '1',
    '2',
    '12',
    '3.5',
    '1,000',
    'x',
    'y',
    'i',
    'e',
    'C',
    'f',
    'AB',
    'cm',
    ' or ',
    ' and ',
    'Monday',
    ' ',
    '\n',
    'π',
  ],
);
const jumble = fc.array(piece, { maxLength: 25 }).map((pieces) => pieces.join(''));
const text = fc.oneof(jumble, fc.string(), fc.string({ unit: 'binary' }));

const known = Object.values({ ...pairsOfNumbers, ...pairsOfForms }).flatMap(
  ({ same = [], value = [], different = [] }) => [...same, ...value, ...different].flat(),
);

describe('mathEqual of anything', () => {
  it('is true of a text and itself, and never throws', () => {
    fc.assert(
      fc.property(text, (a) => {
        assert.equal(mathEqual(a, a), true);
        assert.equal(mathEqual(a, a, 'value'), true);
      }),
      { numRuns: 1000 },
    );
  });

  it('is the same in both directions', () => {
    fc.assert(
      fc.property(
        fc.oneof(text, fc.constantFrom(...known)),
        fc.oneof(text, fc.constantFrom(...known)),
        (a, b) => {
          assert.equal(likeness(a, b), likeness(b, a));
          assert.equal(likeness(a, b, 'value'), likeness(b, a, 'value'));
        },
      ),
      { numRuns: 1000 },
    );
  });

  it('by value holds wherever it holds by form', () => {
    fc.assert(
      fc.property(fc.constantFrom(...known), fc.constantFrom(...known), (a, b) => {
        if (mathEqual(a, b)) assert.equal(mathEqual(a, b, 'value'), true);
      }),
      { numRuns: 1000 },
    );
  });

  it('sees through delimiters, spaces and sizes', () => {
    const wrap = fc.constantFrom(
      (a: string) => `$${a}$`,
      (a: string) => `\\(${a}\\)`,
      (a: string) => ` ${a} `,
      (a: string) => `{${a}}`,
      (a: string) => `\\displaystyle ${a}`,
      (a: string) => `\\boxed{${a}}`,
      (a: string) => `${a}\\,`,
    );
    const isWhole = (a: string) => parseAnswer(a).form.kind !== 'opaque' && !/\$|^[A-J]\)/.test(a);
    const balanced = known.filter(isWhole);
    fc.assert(
      fc.property(fc.constantFrom(...balanced), wrap, (a, around) => {
        assert.equal(mathEqual(a, around(a)), true, around(a));
      }),
      { numRuns: 1000 },
    );
  });

  it('is not made slow by what would be slow to work out', () => {
    const repeated = (part: string, count: number, middle: string, end = '') =>
      part.repeat(count) + middle + end.repeat(count);
    const heavy = [
      '9^{9^{9}}',
      '10^{10^{10}}',
      repeated('2^{', 60, 'x', '}'),
      repeated('x^{', 60, '2', '}'),
      repeated('(', 900, '1', ')'),
      repeated(R`\frac{1}{x+`, 55, '1', '}'),
      repeated(R`\sqrt{2+`, 55, '2', '}'),
      repeated(R`\sin(`, 55, '1', ')'),
      repeated('(', 6, R`1+\sqrt2+\sqrt3+\pi`, ')^{12}'),
      repeated('999!+', 300, '1'),
      repeated(R`\pm 1`, 300, ''),
      repeated(R`\{(\pm 1,`, 60, '1', R`)\}`),
      repeated('1,', 900, '1'),
      repeated('9', 1900, ''),
      repeated('$', 2000, ''),
      repeated('\\', 2001, ''),
      'a'.repeat(3_000_000),
    ];
    for (const a of heavy)
      for (const b of ['5', R`\sqrt2 + x`, `${a}+1`]) assert.equal(mathEqual(a, b, 'value'), false);
  });
});
