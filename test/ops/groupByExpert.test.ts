import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { groupByExpert } from '../../lib/ops/groupByExpert.js';
import { record } from '../../lib/runtime.js';
import { readTensors, type Tensor, tensor, zeros } from '../../lib/tensor/tensor.js';
import { ownTensors } from '../support/owned.js';

const own = ownTensors();

function ints(values: readonly number[], shape: readonly number[]): Tensor {
  return own(tensor(Int32Array.from(values), shape, 'int32'));
}

async function grouped(ids: Tensor, experts: number) {
  const { rows, tokens, offsets } = groupByExpert(ids, experts);
  const [r, t, o] = await readTensors([own(rows), own(tokens), own(offsets)]);
  assert.deepEqual([rows.shape, tokens.shape, offsets.shape], [ids.shape, [ids.size], [experts + 1]]);
  return { rows: [...r!], tokens: [...t!], offsets: [...o!] };
}

/** The same by a stable sort of the choices. */
function expected(ids: readonly number[], k: number, experts: number) {
  const order = ids.map((_, i) => i).sort((a, b) => ids[a]! - ids[b]! || a - b);
  return {
    rows: ids.map((_, i) => order.indexOf(i)),
    tokens: order.map((i) => Math.floor(i / k)),
    offsets: Array.from({ length: experts + 1 }, (_, e) => ids.filter((id) => id < e).length),
  };
}

describe('groupByExpert', () => {
  it('sorts choices by expert, those of one expert in their order', async () => {
    const ids = [2, 0, 0, 3, 2, 0];
    assert.deepEqual(await grouped(ints(ids, [3, 2]), 5), {
      rows: [3, 0, 1, 5, 4, 2],
      tokens: [0, 1, 2, 0, 2, 1],
      offsets: [0, 3, 3, 5, 6, 6],
    });
  });

  // Experts without rows, one row, all rows to one expert, one slot, all experts; thousands of choices, which a
  // GPU sorts in parts, of few experts and of more than a block has threads.
  for (const [tokens, k, experts, idOf] of [
    [40, 8, 128, (i: number) => (i * i + 7 * i) % 128],
    [1, 1, 1, () => 0],
    [1, 2, 9, (i: number) => 8 - i],
    [25, 3, 6, () => 4],
    [30, 1, 4, (i: number) => (i * 3) % 4],
    [12, 5, 5, (i: number) => (3 * i) % 5],
    [500, 4, 16, (i: number) => (i * 11 + (i >> 3)) % 16],
    [0, 2, 3, () => 0],
    [1001, 3, 40, (i: number) => (i * i + (i >> 4)) % 40],
    [450, 5, 1500, (i: number) => (i * 37 + (i >> 2)) % 1490],
  ] as const) {
    it(`${tokens} tokens to ${k} of ${experts} experts`, async () => {
      const ids = Array.from({ length: tokens * k }, (_, i) => idOf(i));
      assert.deepEqual(await grouped(ints(ids, [tokens, k]), experts), expected(ids, k, experts));
    });
  }

  it('can be recorded and replayed on new contents', async () => {
    const ids = ints([0, 1, 2, 0], [2, 2]);
    const { recording, result } = record(() => {
      const { rows, tokens, offsets } = groupByExpert(ids, 3);
      return [rows, tokens, offsets];
    });
    for (const t of result) own(t);
    ids.upload([2, 2, 1, 2]);
    recording.replay();
    const [rows, tokens, offsets] = await readTensors(result);
    recording.dispose();
    const { rows: r, tokens: t, offsets: o } = expected([2, 2, 1, 2], 2, 3);
    assert.deepEqual([[...rows!], [...tokens!], [...offsets!]], [r, t, o]);
  });

  it('names what is wrong with its arguments', async () => {
    const ids = ints([0, 1, 2, 3], [2, 2]);
    const fails = (body: () => unknown, message: RegExp) =>
      assert.throws(body, { code: 'ERR_INVALID_ARGUMENT', message });
    fails(
      () => groupByExpert(own(zeros([2, 2])), 4),
      /^\[groupByExpert\] expected ids of dtype int32, got fp32$/,
    );
    fails(() => groupByExpert(own(ids.reshape(4)), 4), /ids of 2 dimensions \[tokens, k\], got \[4\]/);
    fails(() => groupByExpert(ids, 0), /experts to be an integer of at least 1, got 0/);
    fails(() => groupByExpert(ids, 1.5), /experts to be an integer/);
    for (const [bad, at] of [
      [[0, 1, 3, 9], 2],
      [[-1, 0, 0, 0], 0],
    ] as const) {
      const { rows, tokens, offsets } = groupByExpert(ints(bad, [2, 2]), 3);
      own(rows);
      own(tokens);
      await assert.rejects(own(offsets).data(), {
        code: 'ERR_DEVICE',
        message: `[groupByExpert] expected expert ids from 0 to E - 1 = 2, got ${bad[at]} at position ${at}`,
      });
    }
  });
});
