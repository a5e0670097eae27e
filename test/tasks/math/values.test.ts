import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { parseAnswer } from '../../../lib/tasks/math/answer.js';
import { type Complex, callComplex, complexNumber, exp, log } from '../../../lib/tasks/math/complex.js';
import { mathEqual } from '../../../lib/tasks/math/equal.js';
import { normalForm, rationalOf } from '../../../lib/tasks/math/normalForm.js';
import {
  format,
  parseDecimal,
  type Rational,
  rational,
  wholeRoot,
} from '../../../lib/tasks/math/rational.js';

/** A fraction worked out along with its text, by arithmetic that shares nothing with lib. */
interface Worked {
  readonly text: string;
  readonly n: bigint;
  readonly d: bigint;
}

const literal = fc.oneof(
  fc.integer({ min: 0, max: 30 }).map((n): Worked => ({ text: `${n}`, n: BigInt(n), d: 1n })),
  fc
    .tuple(fc.integer({ min: 1, max: 20 }), fc.integer({ min: 1, max: 20 }))
    .map(([n, d]): Worked => ({ text: `\\frac{${n}}{${d}}`, n: BigInt(n), d: BigInt(d) })),
  fc
    .integer({ min: 0, max: 999 })
    .map((n): Worked => ({ text: (n / 100).toFixed(2), n: BigInt(n), d: 100n })),
);

const { sums } = fc.letrec<{ sums: Worked }>((tie) => ({
  sums: fc.oneof(
    { maxDepth: 4 },
    literal,
    fc.tuple(tie('sums'), tie('sums')).map(([a, b]): Worked => {
      return { text: `(${a.text})+(${b.text})`, n: a.n * b.d + b.n * a.d, d: a.d * b.d };
    }),
    fc.tuple(tie('sums'), tie('sums')).map(([a, b]): Worked => {
      return { text: `(${a.text} - {${b.text}})`, n: a.n * b.d - b.n * a.d, d: a.d * b.d };
    }),
    fc.tuple(tie('sums'), tie('sums')).map(([a, b]): Worked => {
      return { text: `\\left(${a.text}\\right) \\cdot (${b.text})`, n: a.n * b.n, d: a.d * b.d };
    }),
    fc.tuple(tie('sums'), tie('sums')).map(([a, b]): Worked => {
      return b.n === 0n ? a : { text: `\\frac{${a.text}}{${b.text}}`, n: a.n * b.d, d: a.d * b.n };
    }),
    fc.tuple(tie('sums'), fc.integer({ min: 1, max: 3 })).map(([a, k]): Worked => {
      return { text: `(${a.text})^{${k}}`, n: a.n ** BigInt(k), d: a.d ** BigInt(k) };
    }),
  ),
}));

describe('exact arithmetic', () => {
  it('works out sums, differences, products, quotients and powers as hand-made fractions do', () => {
    fc.assert(
      fc.property(sums, ({ text, n, d }) => {
        const { form } = parseAnswer(text);
        if (form.kind !== 'quantity') return assert.equal(form.kind, 'opaque', text);
        const value = rationalOf(normalForm(form.value)!)!;
        assert.equal(value.numerator * d, n * value.denominator, text);
      }),
      { numRuns: 500 },
    );
  });

  it('tells a number from its neighbours', () => {
    fc.assert(
      fc.property(fc.bigInt(-(10n ** 40n), 10n ** 40n), fc.bigInt(1n, 10n ** 20n), (n, d) => {
        assert.equal(mathEqual(`\\frac{${n}}{${d}}`, `${2n * n}/${2n * d}`), true);
        assert.equal(mathEqual(`\\frac{${n}}{${d}}`, `\\frac{${n + 1n}}{${d}}`, 'value'), false);
      }),
    );
  });

  it('reads decimals', () => {
    for (const [text, value] of [
      ['12', '12'],
      ['.5', '1/2'],
      ['0.125', '1/8'],
      ['1.5e3', '1500'],
      ['25e-4', '1/400'],
      ['0.0', '0'],
    ] as const) {
      assert.equal(format(parseDecimal(text)), value);
    }
    assert.throws(() => rational(1, 0));
    assert.throws(() => parseDecimal(`1e${9e9}`));
  });

  it('takes whole roots', () => {
    fc.assert(
      fc.property(fc.bigInt(0n, 10n ** 60n), fc.bigInt(1n, 9n), (value, k) => {
        const root = wholeRoot(value, k);
        assert.ok(root ** k <= value && (root + 1n) ** k > value);
      }),
    );
  });
});

describe('fixed-point functions', () => {
  const of = (value: Rational | number) => complexNumber(typeof value === 'number' ? rational(value) : value);
  /** A value to 50 digits behind the point. */
  const digits = ({ re }: Complex) => {
    const scaled = (re * 10n ** 50n) >> 384n;
    const text = `${scaled < 0n ? -scaled : scaled}`.padStart(51, '0');
    return `${scaled < 0n ? '-' : ''}${text.slice(0, -50)}.${text.slice(-50)}`;
  };

  // Digits from tables of mathematical constants.
  const constants: readonly (readonly [string, Complex, string])[] = [
    ['e', exp(of(1)), '2.71828182845904523536028747135266249775724709369995'],
    ['ln 2', log(of(2)), '0.69314718055994530941723212145817656807550013436025'],
    ['ln 10', log(of(10)), '2.30258509299404568401799145468436420760110148862877'],
    ['sin 1', callComplex('sin', [of(1)]), '0.84147098480789650665250232163029899962256306079837'],
    ['cos 1', callComplex('cos', [of(1)]), '0.54030230586813971740093660744297660373231042061792'],
    ['pi/4', callComplex('arctan', [of(1)]), '0.78539816339744830961566084581987572104929234984377'],
    ['pi/2', callComplex('arcsin', [of(1)]), '1.57079632679489661923132169163975144209858469968755'],
  ];
  for (const [name, value, expected] of constants) {
    // The last digits here are cut, there rounded.
    it(name, () => assert.equal(digits(value).slice(0, 48), expected.slice(0, 48)));
  }

  it('agree with Math', () => {
    const names = ['sin', 'cos', 'tan', 'sinh', 'cosh', 'tanh', 'arctan', 'arcsin', 'arccos'] as const;
    fc.assert(
      fc.property(fc.constantFrom(...names), fc.integer({ min: -1000, max: 1000 }), (name, n) => {
        const scale = name === 'arcsin' || name === 'arccos' ? 1000 : 200;
        if (n === 0 && name === 'tan') return;
        const value = callComplex(name, [of(rational(n, scale))]);
        const builtin = Math[name.replace('arc', 'a') as 'sin'](n / scale);
        assert.ok(
          Math.abs(Number(digits(value)) - builtin) <= 1e-13 * (1 + Math.abs(builtin)),
          `${name} ${n}`,
        );
      }),
    );
  });

  it('undo each other in the complex plane', () => {
    fc.assert(
      fc.property(fc.integer({ min: -300, max: 300 }), fc.integer({ min: -300, max: 300 }), (x, y) => {
        const z = { re: of(rational(x, 100)).re, im: of(rational(y, 100)).re };
        const back = log(exp(z));
        const error = (a: bigint, b: bigint) => (a > b ? a - b : b - a) >> 40n;
        assert.equal(error(back.re, z.re), 0n);
        assert.equal(error(back.im, z.im), 0n);
      }),
    );
  });
});

/** A constant with its value by doubles. */
interface Estimated {
  readonly text: string;
  readonly re: number;
  readonly im: number;
}

const times = (a: Estimated, b: Estimated) => ({
  re: a.re * b.re - a.im * b.im,
  im: a.re * b.im + a.im * b.re,
});
const size = (a: { re: number; im: number }) => Math.hypot(a.re, a.im);
const inverse = (a: Estimated) => ({ re: a.re / size(a) ** 2, im: -a.im / size(a) ** 2 });
const root = (a: Estimated) => {
  const [radius, angle] = [Math.sqrt(size(a)), Math.atan2(a.im, a.re) / 2];
  return { re: radius * Math.cos(angle), im: radius * Math.sin(angle) };
};

const { constants: estimated } = fc.letrec<{ constants: Estimated }>((tie) => {
  const pair = fc.tuple(tie('constants'), tie('constants'));
  return {
    constants: fc.oneof(
      { maxDepth: 3, withCrossShrink: true },
      fc.integer({ min: 1, max: 4 }).map((n): Estimated => ({ text: `${n}`, re: n, im: 0 })),
      fc.constantFrom(2, 3, 8, 12).map((n): Estimated => ({ text: `\\sqrt{${n}}`, re: Math.sqrt(n), im: 0 })),
      fc.constant<Estimated>({ text: 'i', re: 0, im: 1 }),
      fc.constant<Estimated>({ text: '\\pi', re: Math.PI, im: 0 }),
      pair.map(([a, b]) => ({ text: `(${a.text}+${b.text})`, re: a.re + b.re, im: a.im + b.im })),
      pair.map(([a, b]) => ({ text: `(${a.text}-${b.text})`, re: a.re - b.re, im: a.im - b.im })),
      pair.map(([a, b]) => ({ text: `(${a.text})(${b.text})`, ...times(a, b) })),
      tie('constants').map((a) => (size(a) < 1e-9 ? a : { text: `\\frac{1}{${a.text}}`, ...inverse(a) })),
      // Beside the negative axis, where the root jumps, a double may be on the other side.
      tie('constants').map((a) =>
        a.re < 0 && Math.abs(a.im) < 1e-9 ? a : { text: `\\sqrt{${a.text}}`, ...root(a) },
      ),
    ),
  };
});

describe('constants with roots, pi and i', () => {
  it('are the same where their doubles agree, and not where they do not', () => {
    let same = 0;
    fc.assert(
      fc.property(estimated, estimated, (a, b) => {
        const distance = size({ re: a.re - b.re, im: a.im - b.im });
        const near = distance <= 1e-9 * (size(a) + size(b) + 1e-3);
        if (near) same++;
        assert.equal(mathEqual(a.text, b.text, 'value'), near, `${a.text}  ${b.text}`);
        if (mathEqual(a.text, b.text)) assert.ok(near);
      }),
      { numRuns: 2500, seed: 7 },
    );
    assert.ok(same > 20, `${same} pairs were the same`);
  });
});

describe('functions of letters', () => {
  const coefficients = fc.array(fc.integer({ min: -9, max: 9 }), { minLength: 2, maxLength: 5 });
  const factored = (roots: readonly number[]) => roots.map((root) => `(x - {${root}})`).join('');
  /** The product multiplied out by hand. */
  const expanded = (roots: readonly number[]) => {
    let poly = [1];
    for (const root of roots) {
      const next = [...poly.map((c) => -root * c), 0];
      for (const [i, c] of poly.entries()) next[i + 1]! += c;
      poly = next;
    }
    return poly;
  };
  const written = (poly: readonly number[]) => poly.map((c, i) => `{${c}}x^{${i}}`).join(' + ');

  it('are the same by value in factors and multiplied out, and no other', () => {
    fc.assert(
      fc.property(coefficients, fc.nat(), fc.constantFrom(-1, 1), (roots, at, step) => {
        const poly = expanded(roots);
        assert.equal(mathEqual(factored(roots), written(poly), 'value'), true);
        const other = poly.map((c, i) => (i === at % poly.length ? c + step : c));
        assert.equal(mathEqual(factored(roots), written(other), 'value'), false);
      }),
    );
  });

  it('keep their form in any order of terms and factors', () => {
    fc.assert(
      fc.property(coefficients, fc.infiniteStream(fc.nat()), (roots, keys) => {
        const shuffled = [...roots]
          .map((root) => [root, keys.next().value] as const)
          .sort((a, b) => a[1] - b[1]);
        assert.equal(mathEqual(factored(roots), factored(shuffled.map(([root]) => root))), true);
      }),
    );
  });
});
