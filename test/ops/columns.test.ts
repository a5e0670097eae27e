import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { addToColumns, scaleColumns } from '../../lib/ops/columns.js';
import { add, scale } from '../../lib/ops/elementwise.js';
import { memory, setThreads, setVectorLevel } from '../../lib/runtime.js';
import { floatDtypes, formats } from '../../lib/tensor/dtype.js';
import { copy, readTensors, tensor, zeros } from '../../lib/tensor/tensor.js';
import { assertSameBits, normals } from '../support/compare.js';
import { vectorLevels } from '../support/levels.js';
import { ownTensors } from '../support/owned.js';
import { roundTo } from '../support/rounding.js';

const own = ownTensors();
const f = Math.fround;

/** rows, columns, offset, width */
const cases = [
  [1, 1, 0, 1],
  [3, 40, 7, 33],
  [5, 100, 0, 100],
  [2, 300, 130, 17],
  [70, 64, 16, 32],
] as const;

for (const level of vectorLevels()) {
  describe(`blocks of columns at ${level}`, () => {
    for (const dtype of floatDtypes) {
      it(`${dtype}: the product and the sum are rounded each, other columns stay`, async () => {
        setVectorLevel(level);
        for (const [rows, columns, offset, width] of cases) {
          const target = own(tensor(normals(rows * columns, 1), [rows, columns], dtype));
          const x = own(tensor(normals(rows * width, 2), [rows, width], dtype));
          const [before, added] = await readTensors([target, x]);
          const taken = own(scaleColumns(target, offset, width, 0.3));
          assert.deepEqual(taken.shape, [rows, width]);
          setThreads(rows > 50 ? 3 : 1);
          addToColumns(target, x, offset, 0.3);
          const [found, after] = await readTensors([taken, target]);
          const label = `${rows}x${columns}, ${width} from ${offset}`;
          const expected = before!.map((value, i) => {
            const column = (i % columns) - offset;
            if (column < 0 || column >= width) return value;
            const product = roundTo(f(added![Math.floor(i / columns) * width + column]! * f(0.3)), dtype);
            return roundTo(f(value + product), dtype);
          });
          assertSameBits(after!, expected, `added, ${label}`);
          const scaled = Array.from({ length: rows * width }, (_, i) => {
            const value = before![Math.floor(i / width) * columns + offset + (i % width)]!;
            return roundTo(f(value * f(0.3)), dtype);
          });
          assertSameBits(found!, scaled, `taken, ${label}`);
        }
      });

      it(`${dtype}: the bits of add and scale; overflow and NaN come out as they do there`, async () => {
        setVectorLevel(level);
        const { max } = formats[dtype];
        const target = own(tensor([max, 1, -0, Infinity, NaN, max], [2, 3], dtype));
        const x = own(tensor([max, NaN, -0, -Infinity, 1, -max], [2, 3], dtype));
        const whole = own(add(target, own(scale(x, 1.5))));
        const sum = own(copy(target));
        addToColumns(sum, x, 0, 1.5);
        const [expected, found] = await readTensors([whole, sum]);
        assertSameBits(found!, expected!, 'whole rows');
        assert.equal(found![0], Infinity);
      });
    }
  });
}

describe('blocks of columns', () => {
  it('names the argument that does not fit', () => {
    const target = own(zeros([2, 5]));
    const x = own(zeros([2, 3]));
    const half = own(zeros([2, 3], 'fp16'));
    const ids = own(zeros([2, 5], 'int32'));
    const live = memory().tensors;
    const refused: [() => void, RegExp][] = [
      [
        () => addToColumns(target, x, 3, 1),
        /^\[addToColumns\] expected columnOffset \+ width of at most the 5 /,
      ],
      [() => addToColumns(target, x, -1, 1), /^\[addToColumns\] expected columnOffset to be an integer/],
      [() => addToColumns(target, half, 0, 1), /^\[addToColumns\] expected x of dtype fp32, got fp16$/],
      [
        () => addToColumns(x, target, 0, 1),
        /^\[addToColumns\] expected columnOffset \+ width of at most the 3 /,
      ],
      [
        () => addToColumns(target, own(zeros([3, 3])), 0, 1),
        /expected x of shape \[rows, width\] with rows = 2/,
      ],
      [() => addToColumns(ids, ids, 0, 1), /^\[addToColumns\] expected target of dtype/],
      [
        () => addToColumns(target, target, 0, 1),
        /^\[addToColumns\] expected target to have memory of its own/,
      ],
      [() => addToColumns(target, x, 0, 1e39), /^\[addToColumns\] expected factor within the range of fp32/],
      [
        () => scaleColumns(target, 4, 2, 1),
        /^\[scaleColumns\] expected columnOffset \+ width of at most the 5 /,
      ],
      [
        () => scaleColumns(target, 0, 0, 1),
        /^\[scaleColumns\] expected width to be an integer of at least 1/,
      ],
      [() => scaleColumns(target, 0, 1, Number.NaN), /^\[scaleColumns\] expected factor/],
      [() => scaleColumns(ids, 0, 1, 1), /^\[scaleColumns\] expected x of dtype/],
    ];
    for (const [call, message] of refused) assert.throws(call, { code: 'ERR_INVALID_ARGUMENT', message });
    assert.equal(memory().tensors, live + 1);
  });
});
