import assert from 'node:assert/strict';
import { after, describe, it } from 'node:test';
import { DeviceError } from '../../lib/errors.js';
import { rope, ropeBackward, ropeTable } from '../../lib/ops/rope.js';
import { memory, setThreads, setVectorLevel } from '../../lib/runtime.js';
import { floatDtypes, type NativeFloatDType } from '../../lib/tensor/dtype.js';
import { copy, randomNormal, readTensors, type Tensor, tensor, zeros } from '../../lib/tensor/tensor.js';
import { assertClose, assertSameBits, normals } from '../support/compare.js';
import { vectorLevels } from '../support/levels.js';
import { roundTo } from '../support/rounding.js';

const f = Math.fround;
const headDims = [2, 10, 32, 66, 128, 200];
const theta = 10000;
const start = memory().tensors;
after(() => assert.equal(memory().tensors, start));

const disposeAll = (...tensors: Tensor[]) => {
  for (const t of tensors) t.dispose();
};

interface Model {
  heads: number;
  headDim: number;
  rotatedHeads: number;
  roundings: 1 | 3;
  table16: boolean;
  inverse: boolean;
  dtype: NativeFloatDType;
}

/** The rotation in the arithmetic the op promises, every step rounded. */
function model(
  x: ArrayLike<number>,
  table: ArrayLike<number>,
  positions: readonly number[],
  m: Model,
): number[] {
  const half = m.headDim / 2;
  const product = (a: number, b: number) => (m.roundings === 3 ? roundTo(f(a * b), m.dtype) : f(a * b));
  const y = Array.from(x);
  positions.forEach((position, token) => {
    for (let head = 0; head < m.rotatedHeads; head++) {
      const at = (token * m.heads + head) * m.headDim;
      for (let i = 0; i < half; i++) {
        let c = table[(position * half + i) * 2]!;
        let s = table[(position * half + i) * 2 + 1]! * (m.inverse ? -1 : 1);
        if (m.table16) [c, s] = [roundTo(c, m.dtype), roundTo(s, m.dtype)];
        const [x1, x2] = [x[at + i]!, x[at + half + i]!];
        y[at + i] = roundTo(f(product(x1, c) - product(x2, s)), m.dtype);
        y[at + half + i] = roundTo(f(product(x2, c) + product(x1, s)), m.dtype);
      }
    }
  });
  return y;
}

/** y = R(position) x in fp64 with a rotation matrix of angle position * theta^(-2i / headDim). */
function rotate64(x: ArrayLike<number>, positions: readonly number[], heads: number, headDim: number) {
  const y = new Float64Array(x.length);
  const half = headDim / 2;
  for (let k = 0; k < x.length; k++) {
    const i = k % headDim;
    const angle = positions[Math.floor(k / (heads * headDim))]! / theta ** ((2 * (i % half)) / headDim);
    y[k] = Math.cos(angle) * x[k]! + Math.sin(angle) * (i < half ? -x[k + half]! : x[k - half]!);
  }
  return y;
}

for (const level of vectorLevels()) {
  describe(`rope at ${level}`, () => {
    for (const dtype of floatDtypes) {
      it(`${dtype}: equals the model of its roundings to the bit, and copies the other heads`, async () => {
        setVectorLevel(level);
        const heads = 5;
        const places = [0, 17, 3, 511];
        for (const headDim of headDims) {
          const table = ropeTable(512, headDim, theta);
          const x = tensor(normals(4 * heads * headDim, headDim), [4, heads, headDim], dtype);
          const positions = tensor(places, [4], 'int32');
          const kept = copy(x);
          const [values, angles] = await readTensors([x, table]);
          for (const rotatedHeads of [0, 3, 5]) {
            for (const table16 of [false, true]) {
              const of = { heads, headDim, rotatedHeads, table16, dtype };
              const where = `headDim ${headDim}, rotated ${rotatedHeads}, table16 ${table16}`;
              for (const roundings of [1, 3] as const) {
                const y = rope(x, table, positions, { rotatedHeads, roundings, table16 });
                const expected = model(values!, angles!, places, { ...of, roundings, inverse: false });
                assertSameBits(await y.data(), expected, `${where}, roundings ${roundings}`);
                y.dispose();
              }
              const back = ropeBackward(x, table, positions, { rotatedHeads, table16 });
              const expected = model(values!, angles!, places, { ...of, roundings: 1, inverse: true });
              assertSameBits(await back.data(), expected, `${where}, backward`);
              // In place, and into other memory.
              const same = copy(x);
              assert.equal(rope(same, table, positions, { rotatedHeads, table16, out: same }), same);
              const other = zeros(x.shape, dtype);
              rope(x, table, positions, { rotatedHeads, table16, out: other });
              const forward = model(values!, angles!, places, { ...of, roundings: 1, inverse: false });
              for (const y of [same, other]) assertSameBits(await y.data(), forward, `${where}, out`);
              ropeBackward(x, table, positions, { rotatedHeads, table16, out: x });
              assertSameBits(await x.data(), expected, `${where}, backward in place`);
              copy(kept, x);
              disposeAll(back, same, other);
            }
          }
          disposeAll(table, x, positions, kept);
        }
      });

      it(`${dtype}: agrees with an fp64 rotation, and its gradient with the transposed one`, async () => {
        setVectorLevel(level);
        const [heads, headDim, places] = [3, 66, [5, 1, 300]];
        const table = ropeTable(301, headDim, theta);
        const positions = tensor(places, [3], 'int32');
        const x = tensor(normals(3 * heads * headDim, 1), [3, heads, headDim], dtype);
        const y = rope(x, table, positions);
        const rough = rope(x, table, positions, { roundings: 3, table16: true });
        const dx = ropeBackward(x, table, positions);
        const [values, out, roughOut, gradient] = await readTensors([x, y, rough, dx]);
        const reference = rotate64(values!, places, heads, headDim);
        assertClose(out!, reference, dtype, 'forward');
        assertClose(roughOut!, reference, dtype, 'three roundings');
        // Rotations are orthogonal: the transpose turns back.
        assertClose(
          gradient!,
          rotate64(
            values!,
            places.map((p) => -p),
            heads,
            headDim,
          ),
          dtype,
          'backward',
        );
        disposeAll(table, positions, x, y, rough, dx);
      });

      it(`${dtype}: a token is the same in any batch and at 1 and 3 threads`, async () => {
        setVectorLevel(level);
        const x = randomNormal([700, 4, 66], { seed: 1, dtype });
        const places = Array.from({ length: 700 }, (_, i) => (i * 37) % 64);
        const positions = tensor(places, [700], 'int32');
        const table = ropeTable(64, 66, theta);
        const results = [];
        for (const threads of [1, 3]) {
          setThreads(threads);
          const y = rope(x, table, positions, { rotatedHeads: 3 });
          results.push(await y.data());
          y.dispose();
        }
        setThreads(2);
        assertSameBits(results[1]!, results[0]!, 'threads');
        const [row, place] = [x.rows(401, 402), positions.rows(401, 402)];
        const alone = rope(row, table, place, { rotatedHeads: 3 });
        assertSameBits(await alone.data(), results[0]!.subarray(401 * 264, 402 * 264), 'alone');
        disposeAll(x, positions, table, row, place, alone);
      });
    }

    it('fails at the read, pointing to the call, for a position outside the table', async () => {
      setVectorLevel(level);
      const table = ropeTable(8, 4, theta);
      const x = zeros([3, 2, 4]);
      for (const [bad, run] of [
        [8, rope],
        [-1, ropeBackward],
      ] as const) {
        const positions = tensor([1, bad, 99], [3], 'int32');
        const y = run(x, table, positions);
        await assert.rejects(y.data(), (error: Error) => {
          assert.ok(error instanceof DeviceError);
          assert.match(
            error.message,
            new RegExp(`\\[${run.name}\\] expected positions from 0 to 7, got ${bad} for token 1`),
          );
          assert.match(error.stack ?? '', /rope\.test/);
          return true;
        });
        disposeAll(positions, y);
      }
      disposeAll(table, x);
    });
  });
}

describe('rope', () => {
  it('has a gradient that agrees with finite differences', async () => {
    const [heads, headDim, places] = [2, 6, [4, 9]];
    const x = normals(24, 1);
    const dy = normals(24, 2).map(f);
    const table = ropeTable(10, headDim, theta);
    const positions = tensor(places, [2], 'int32');
    const out = tensor(dy, [2, heads, headDim]);
    const dx = ropeBackward(out, table, positions);
    const gradient = await dx.data();
    const loss = (v: Float64Array) =>
      rotate64(v, places, heads, headDim).reduce((l, y, i) => l + y * dy[i]!, 0);
    for (let i = 0; i < 24; i++) {
      const slope = (loss(x.with(i, x[i]! + 1e-4)) - loss(x.with(i, x[i]! - 1e-4))) / 2e-4;
      assert.ok(Math.abs(slope - gradient[i]!) < 1e-5, `${i}: ${slope} and ${gradient[i]}`);
    }
    disposeAll(table, positions, out, dx);
  });

  it('makes scores depend on the distance of positions alone', async () => {
    const table = ropeTable(100, 64, theta);
    const q = tensor(normals(64, 1), [1, 1, 64]);
    const k = tensor(normals(64, 2), [1, 1, 64]);
    const score = async (m: number, n: number) => {
      const [pm, pn] = [tensor([m], [1], 'int32'), tensor([n], [1], 'int32')];
      const [a, b] = [rope(q, table, pm), rope(k, table, pn)];
      const [u, v] = await readTensors([a, b]);
      disposeAll(pm, pn, a, b);
      return (u as Float32Array).reduce((sum, value, i) => sum + value * v![i]!, 0);
    };
    const near = await score(7, 3);
    assert.ok(Math.abs(near - (await score(91, 87))) < 1e-4);
    assert.ok(Math.abs(near - (await score(91, 3))) > 1e-2);
    disposeAll(table, q, k);
  });

  it('makes tables of cos and sin in fp64, rounded once to the dtype asked for', async () => {
    for (const dtype of floatDtypes) {
      const table = ropeTable(1000, 12, 500000, dtype);
      assert.deepEqual([table.shape, table.dtype], [[1000, 6, 2], 'fp32']);
      const values = await table.floats();
      for (let p = 0; p < 1000; p += 37) {
        for (let i = 0; i < 6; i++) {
          const angle = p * 500000 ** ((-2 * i) / 12);
          assert.equal(values[(p * 6 + i) * 2], roundTo(f(Math.cos(angle)), dtype), `cos ${p} ${i}`);
          assert.equal(values[(p * 6 + i) * 2 + 1], roundTo(f(Math.sin(angle)), dtype), `sin ${p} ${i}`);
        }
      }
      table.dispose();
    }
  });

  it('takes no tokens', async () => {
    const table = ropeTable(1, 4, theta);
    const x = zeros([0, 2, 4]);
    const positions = zeros([0], 'int32');
    const y = rope(x, table, positions);
    assert.equal((await y.data()).length, 0);
    disposeAll(table, x, positions, y);
  });

  it('names the argument that does not fit', () => {
    const table = ropeTable(8, 4, theta);
    const x = zeros([3, 2, 4]);
    const flat = zeros([6, 4]);
    const odd = zeros([3, 2, 5]);
    const wide = zeros([3, 2, 8]);
    const table16 = zeros([8, 2, 2], 'fp16');
    const positions = zeros([3], 'int32');
    const two = zeros([2], 'int32');
    const floats = zeros([3]);
    const whole = zeros([4, 2, 4]);
    const [first, second] = [whole.rows(0, 3), whole.rows(1, 4)];
    const live = memory().tensors;
    const cases: [() => void, RegExp][] = [
      [
        () => rope(flat, table, positions),
        /^\[rope\] expected x of 3 dimensions \[N, heads, headDim\], got \[6, 4\]$/,
      ],
      [() => ropeBackward(flat, table, positions), /^\[ropeBackward\] expected dy of 3 dimensions/],
      [() => rope(odd, table, positions), /expected x of an even headDim of at least 2, got 5/],
      [() => rope(positions, table, positions), /expected x of dtype/],
      [
        () => rope(wide, table, positions),
        /expected table of shape .* with headDim \/ 2 = 4, got \[8, 2, 2\]/,
      ],
      [() => rope(x, table16, positions), /expected table of dtype fp32, got fp16/],
      [() => rope(x, table, floats), /expected positions of dtype int32, got fp32/],
      [() => rope(x, table, two), /expected positions of shape \[N\] = \[3\], got \[2\]/],
      [
        () => rope(x, table, positions, { rotatedHeads: 3 }),
        /expected rotatedHeads to be an integer from 0 to 2, got 3/,
      ],
      [() => rope(x, table, positions, { roundings: 2 as 1 }), /expected roundings to be 1 or 3, got 2/],
      [() => rope(x, table, positions, { out: wide }), /expected out of shape \[3, 2, 4\], got/],
      [
        () => rope(first, table, positions, { out: second }),
        /expected out to be x or to have memory of its own, got memory that x uses in part/,
      ],
      [() => ropeBackward(first, table, positions, { out: second }), /expected out to be dy or to have/],
      [() => ropeTable(0, 4, theta), /^\[ropeTable\] expected maxPositions/],
      [() => ropeTable(8, 5, theta), /^\[ropeTable\] expected headDim to be even, got 5$/],
      [() => ropeTable(8, 4, 0), /^\[ropeTable\] expected theta above 0, got 0$/],
    ];
    for (const [call, message] of cases) assert.throws(call, { code: 'ERR_INVALID_ARGUMENT', message });
    assert.equal(memory().tensors, live);
    disposeAll(table, x, flat, odd, wide, table16, positions, two, floats, whole, first, second);
  });
});
