import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { info, setVectorLevel, type VectorLevel } from '../../lib/runtime.js';
import { bf16ToNumber, fp16ToNumber } from '../../lib/tensor/dtype.js';
import { cast, tensor, tensorFromBits } from '../../lib/tensor/tensor.js';
import { vectorLevels } from '../support/levels.js';

const all = Uint16Array.from({ length: 65536 }, (_, i) => i);
const isNan16 = { fp16: (b: number) => (b & 0x7fff) > 0x7c00, bf16: (b: number) => (b & 0x7fff) > 0x7f80 };
const quiet = { fp16: 0x200, bf16: 0x40 };
const toNumber = { fp16: fp16ToNumber, bf16: bf16ToNumber };

for (const level of vectorLevels()) {
  describe(`conversions at ${level}`, () => {
    it('runs at the level asked for', () => {
      setVectorLevel(level as VectorLevel);
      assert.equal(info().vectorLevel, level);
    });

    for (const dtype of ['fp16', 'bf16'] as const) {
      it(`${dtype} -> fp32 -> ${dtype} keeps all 65,536 bit patterns`, async () => {
        setVectorLevel(level);
        const t = tensorFromBits(all, [65536], dtype);
        const wide = cast(t, 'fp32');
        const back = cast(wide, dtype);
        const values = await wide.floats();
        const bits = await back.bits();
        for (let b = 0; b < 65536; b++) {
          const expected = isNan16[dtype](b) ? b | quiet[dtype] : b;
          assert.equal(bits[b], expected, `pattern ${b.toString(16)}`);
          if (isNan16[dtype](b)) assert.ok(Number.isNaN(values[b]));
          else assert.ok(Object.is(values[b], Math.fround(toNumber[dtype](b))), `value of ${b.toString(16)}`);
        }
        for (const x of [t, wide, back]) x.dispose();
      });

      it(`fp32 -> ${dtype} rounds to nearest even at, above and below every midpoint`, async () => {
        setVectorLevel(level);
        // Between each pair of neighbours: the midpoint, and the fp32 values just beside it.
        const inputs: number[] = [];
        const expected: number[] = [];
        const scratch = new DataView(new ArrayBuffer(4));
        const step = (x: number, by: number) => {
          scratch.setFloat32(0, x);
          scratch.setInt32(0, scratch.getInt32(0) + by);
          return scratch.getFloat32(0);
        };
        const infinity = dtype === 'fp16' ? 0x7c00 : 0x7f80;
        for (let b = 0; b < infinity - 1; b++) {
          const low = toNumber[dtype](b);
          const middle = (low + toNumber[dtype](b + 1)) / 2;
          inputs.push(middle, step(middle, -1), step(middle, 1));
          expected.push(b % 2 === 0 ? b : b + 1, b, b + 1);
        }
        // Beyond the largest finite value.
        const last = toNumber[dtype](infinity - 1);
        const beyond = last + (last - toNumber[dtype](infinity - 2)) / 2;
        inputs.push(beyond, step(beyond, -1));
        expected.push(infinity, infinity - 1);
        const count = inputs.length;
        const t = tensor([...inputs, ...inputs.map((x) => -x)]);
        const narrow = cast(t, dtype);
        const bits = await narrow.bits();
        for (let i = 0; i < count; i++) {
          assert.equal(bits[i], expected[i], `${inputs[i]}`);
          assert.equal(bits[i + count], expected[i]! | 0x8000, `-${inputs[i]}`);
        }
        t.dispose();
        narrow.dispose();
      });
    }
  });
}
