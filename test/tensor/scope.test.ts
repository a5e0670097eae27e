import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { memory } from '../../lib/runtime.js';
import { keep, tidy } from '../../lib/tensor/scope.js';
import { full, type Tensor, zeros } from '../../lib/tensor/tensor.js';

const live = () => memory().tensors;

describe('tidy', () => {
  it('disposes of everything but what is returned', async () => {
    const before = live();
    let inner: Tensor | undefined;
    const out = tidy(() => {
      inner = zeros([2]);
      zeros([3]).dispose();
      return full([2], 4);
    });
    assert.ok(inner?.disposed);
    assert.ok(!out.disposed);
    assert.equal(live(), before + 1);
    assert.deepEqual([...(await out.data())], [4, 4]);
    out.dispose();
    assert.equal(live(), before);
    assert.equal(
      tidy(() => 42),
      42,
    );
  });

  it('keeps tensors in arrays, nested arrays, maps and plain objects', () => {
    const before = live();
    const array = tidy(() => [zeros([1]), [zeros([1]), 3]] as const);
    const map = tidy(() => new Map([['a', zeros([1])]]));
    const object = tidy(() => ({ loss: zeros([1]), name: 'x', none: null }));
    const kept = [array[0], array[1][0], map.get('a')!, object.loss];
    assert.ok(kept.every((t) => !t.disposed));
    assert.equal(live(), before + 4);
    for (const t of kept) t.dispose();
    assert.equal(live(), before);
  });

  it('nests: what an inner scope returns belongs to the outer one', () => {
    const before = live();
    const seen: Tensor[] = [];
    const out = tidy(() => {
      const middle = tidy(() => {
        seen.push(zeros([1]));
        return zeros([1]);
      });
      assert.ok(seen[0]!.disposed && !middle.disposed);
      seen.push(middle);
      return tidy(() => zeros([1]));
    });
    assert.ok(seen[1]!.disposed);
    assert.equal(live(), before + 1);
    out.dispose();
  });

  it('leaves alone what was made outside', () => {
    const outside = zeros([1]);
    const returned = tidy(() => outside);
    assert.equal(returned, outside);
    assert.ok(!outside.disposed);
    outside.dispose();
  });

  it('disposes of everything when the body throws, and works on afterwards', () => {
    const before = live();
    assert.throws(
      () =>
        tidy(() => {
          zeros([1]);
          tidy(() => {
            zeros([1]);
            throw new RangeError('from the body');
          });
        }),
      /RangeError: from the body/,
    );
    assert.equal(live(), before);
    const after = zeros([1]);
    assert.ok(!after.disposed);
    after.dispose();
  });

  it('refuses a body that returns a promise, and disposes of what it made', () => {
    const before = live();
    assert.throws(
      () => tidy(async () => zeros([1])),
      /^InvalidArgumentError: \[tidy\] expected a synchronous function, got one that returns a promise$/,
    );
    assert.equal(live(), before);
  });
});

describe('keep', () => {
  it('takes a tensor out of the scope it was made in, however deep', () => {
    const before = live();
    const kept: Tensor[] = [];
    tidy(() => {
      const outer = zeros([1]);
      tidy(() => {
        kept.push(keep(zeros([1])), keep(outer));
      });
    });
    assert.ok(kept.every((t) => !t.disposed));
    assert.equal(live(), before + 2);
    for (const t of kept) t.dispose();
    const free = zeros([1]);
    assert.equal(keep(free), free);
    free.dispose();
    assert.equal(live(), before);
  });
});

describe('Symbol.dispose', () => {
  it('disposes, as a using declaration does at the end of its block', () => {
    const before = live();
    let seen: Tensor;
    {
      using t = zeros([4]);
      seen = t;
      assert.ok(!seen.disposed);
    }
    assert.ok(seen.disposed);
    assert.throws(() => {
      using t = zeros([4]);
      seen = t;
      throw new Error('out of the block');
    }, /out of the block/);
    assert.ok(seen.disposed);
    assert.equal(live(), before);
  });
});
