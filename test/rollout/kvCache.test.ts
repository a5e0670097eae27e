import assert from 'node:assert/strict';
import { totalmem } from 'node:os';
import { it } from 'node:test';
import { Decoder } from '../../lib/models/decoder.js';
import { RolloutEngine } from '../../lib/rollout/engine.js';
import { KvCache } from '../../lib/rollout/kvCache.js';
import { memory } from '../../lib/runtime.js';
import { tinyModel } from '../sanity/tiny.js';

it('a cache of so many sequences takes no more bytes than it was given, one more would', () => {
  using model = tinyModel();
  for (const [dtype, length] of [
    ['fp32', 33],
    ['bf16', 16],
  ] as const) {
    const bytesOf = (slots: number) => {
      const before = memory().bytes;
      using cache = new KvCache(model.config, { slots, maxLength: length, dtype });
      const table = cache.blockTable.size * 4;
      return memory().bytes - before - table;
    };
    const bytes = 1_000_000;
    const fitting = KvCache.sequencesWithin(bytes, model.config, length, dtype);
    assert.ok(fitting > 1);
    // Blocks of memory are rounded up to a size that the allocator has.
    const one = bytesOf(16) / 16;
    assert.ok(fitting * one <= bytes * 1.01 && (fitting + 1) * one > bytes * 0.99, `${fitting}`);
    assert.equal(KvCache.sequencesWithin(1, model.config, length, dtype), 1);
  }
});

it('an engine decodes fewer sequences at once where their cache would fill the memory', () => {
  const config = { vocabSize: 16, hiddenSize: 64, intermediateSize: 32, numLayers: 1, numHeads: 1 };
  using small = tinyModel();
  using usual = new RolloutEngine(small, { precision: 'fp32' });
  assert.equal(usual.maxBatch, 256);
  // Keys and values of 64 fp32 numbers a position: a length at which 2.5 sequences fill a quarter of the memory.
  const length = Math.floor(totalmem() / 4 / 2.5 / (2 * 64 * 4));
  assert.equal(
    KvCache.sequencesWithin(
      totalmem() / 4,
      { ...small.config, ...config, numKvHeads: 1, headDim: 64 },
      length,
      'fp32',
    ),
    2,
  );
  using model = new Decoder({ ...config, maxPositionEmbeddings: 64 }, { seed: 1 });
  using asked = new RolloutEngine(model, { precision: 'fp32', maxBatch: 300, maxLength: 16 });
  assert.equal(asked.maxBatch, 300);
});
