import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { attention, pagedAttention, writeKvCache } from '../../lib/ops/attention.js';
import { memory } from '../../lib/runtime.js';
import { tensor, zeros } from '../../lib/tensor/tensor.js';
import { cuSeqlensOf, int32, pagedCache, randomQkv } from '../support/attention.js';

describe('attention, wrong arguments', () => {
  const c = { lengths: [3, 2], numHeads: 4, numKvHeads: 2, headDim: 8 };
  const heads = { numHeads: 4, numKvHeads: 2 };
  const qkv = randomQkv(c, 'fp16');
  const cu = cuSeqlensOf(c.lengths);
  const cache = {
    ...pagedCache(c, 'fp16', 2),
    slots: int32([0, 0, 0, 1, 1]),
    positions: int32([0, 1, 2, 0, 1]),
  };
  const wrong: [string, () => unknown, RegExp][] = [
    ['qkv dtype', () => attention(int32([1]), cu, heads), /^\[attention\] expected qkv of dtype fp32/],
    ['qkv rank', () => attention(zeros([5, 64]), cu, heads), /qkv of 3 dimensions/],
    [
      'heads',
      () => attention(qkv, cu, { ...heads, numKvHeads: 3 }),
      /numHeads to be a multiple of numKvHeads = 3, got 4/,
    ],
    ['no heads', () => attention(qkv, cu, { ...heads, numHeads: 0 }), /numHeads to be an integer from 1/],
    [
      'head count',
      () => attention(qkv, cu, { numHeads: 2, numKvHeads: 2 }),
      /qkv of shape .*\[5, 6, 8\], got \[5, 8, 8\]/,
    ],
    [
      'odd headDim',
      () => attention(zeros([5, 8, 7]), cu, heads),
      /headDim, .* to be even and from 2 to 256, got 7/,
    ],
    ['wide headDim', () => attention(zeros([5, 8, 258]), cu, heads), /headDim.*got 258/],
    [
      'scale',
      () => attention(qkv, cu, { ...heads, scale: Number.NaN }),
      /scale to be a finite number, got NaN/,
    ],
    ['tile', () => attention(qkv, cu, { ...heads, tile: 24 }), /tile to be a multiple of 16, got 24/],
    [
      'no tile',
      () => attention(qkv, cu, { ...heads, tile: 0 }),
      /tile to be an integer from 16 to 4096, got 0/,
    ],
    [
      'chunk',
      () => attention(qkv, cu, { ...heads, chunk: 48, tile: 32 }),
      /chunk to be 0 or a multiple of tile = 32, got 48/,
    ],
    ['cuSeqlens dtype', () => attention(qkv, zeros([3]), heads), /cuSeqlens of dtype int32/],
    ['cuSeqlens rank', () => attention(qkv, zeros([3, 1], 'int32'), heads), /cuSeqlens of 1 dimensions/],
    ['cuSeqlens size', () => attention(qkv, zeros([0], 'int32'), heads), /cuSeqlens of at least one element/],
    [
      'keyCache',
      () => pagedAttention(qkv, { ...cache, keyCache: zeros([4, 2, 16, 8], 'fp16') }, heads),
      /keyCache of shape .*\[4, 2, 8, 16\]/,
    ],
    [
      'keyCache dtype',
      () => pagedAttention(qkv, { ...cache, keyCache: zeros([4, 2, 8, 16]) }, heads),
      /keyCache of dtype fp16|valueCache of shape/,
    ],
    [
      'valueCache',
      () => pagedAttention(qkv, { ...cache, valueCache: zeros([1, 2, 16, 8], 'fp16') }, heads),
      /valueCache of shape/,
    ],
    [
      'blockTable',
      () => pagedAttention(qkv, { ...cache, blockTable: int32([0]) }, heads),
      /blockTable of 2 dimensions/,
    ],
    [
      'slots',
      () => pagedAttention(qkv, { ...cache, slots: int32([0]) }, heads),
      /slots of shape \[tokens\] = \[5\], got \[1\]/,
    ],
    [
      'positions',
      () => writeKvCache(qkv, { ...cache, positions: zeros([5]) }, heads),
      /^\[writeKvCache\] expected positions of dtype int32/,
    ],
  ];
  for (const [name, act, message] of wrong)
    it(name, () => {
      const before = memory().tensors;
      assert.throws(act, { code: 'ERR_INVALID_ARGUMENT', message });
      assert.ok(memory().tensors - before <= 1, 'only the argument made here is left');
    });

  const failing: [string, () => unknown, RegExp][] = [
    ['first offset', () => attention(qkv, int32([1, 3, 5]), heads).out, /cuSeqlens to start at 0, got 1/],
    [
      'order of offsets',
      () => attention(qkv, int32([0, 4, 3, 5]), heads).out,
      /cuSeqlens not to decrease, got 3 after 4/,
    ],
    ['last offset', () => attention(qkv, int32([0, 3, 6]), heads).out, /cuSeqlens to end at 5 tokens, got 6/],
    [
      'slot',
      () => pagedAttention(qkv, { ...cache, slots: int32([0, 0, 2, 1, 1]) }, heads),
      /slots below 2, got 2 for token 2/,
    ],
    [
      'position',
      () => pagedAttention(qkv, { ...cache, positions: int32([0, 1, 16, 0, 1]) }, heads),
      /positions from 0 to 15, got 16 for token 2/,
    ],
    [
      'negative position',
      () => writeKvCache(qkv, { ...cache, positions: int32([0, -1, 2, 0, 1]) }, heads),
      /positions from 0 to 15, got -1 for token 1/,
    ],
    [
      'page',
      () => writeKvCache(qkv, { ...cache, blockTable: tensor([0, 99], [2, 1], 'int32') }, heads),
      /pages from 0 to 4, got 99 for position 0 of slot 1/,
    ],
    [
      'page read',
      () => pagedAttention(qkv, { ...cache, blockTable: tensor([-1, 1], [2, 1], 'int32') }, heads),
      /pages from 0 to 4, got -1 for position 0 of slot 0/,
    ],
  ];
  for (const [name, act, message] of failing)
    it(`${name}, in the data`, async () => {
      act();
      const error = await qkv.data().then(
        () => assert.fail('no error'),
        (e: Error) => e,
      );
      assert.match(error.message, message);
      assert.equal((error as Error & { code?: string }).code, 'ERR_DEVICE');
      assert.match(error.stack ?? '', /attentionArguments\.test/, 'the stack points to the call');
    });

  it('no tokens, no sequences', async () => {
    const none = zeros([0, 8, 8], 'fp16');
    const { out, lse } = attention(none, int32([0]), heads);
    assert.equal((await out.floats()).length, 0);
    assert.deepEqual(lse.shape, [4, 0]);
    const paged = pagedAttention(none, { ...cache, slots: int32([]), positions: int32([]) }, heads);
    assert.equal((await paged.floats()).length, 0);
  });
});
