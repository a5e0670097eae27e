import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { embedding } from '../../lib/ops/embedding.js';
import { info, memory, type Recording, record, setThreads } from '../../lib/runtime.js';
import { tidy } from '../../lib/tensor/scope.js';
import { cast, copy, fill, full, type Tensor, tensor, zeros } from '../../lib/tensor/tensor.js';

describe('record', () => {
  it('runs nothing at first, and each replay on the contents that inputs have then', async () => {
    const x = tensor([1, 2.25]);
    const out = full([2], -1);
    const { recording, result } = record(() => {
      const half = cast(x, 'bf16');
      cast(half, 'fp32', out);
      return half;
    });
    assert.deepEqual([...(await out.data())], [-1, -1]);
    for (const values of [
      [1, 2.25],
      [3, 4],
      [-5, 1 / 3],
    ]) {
      x.upload(values);
      recording.replay();
      const [a, b] = [await out.floats(), await result.floats()];
      assert.deepEqual(a, b);
      assert.ok(Math.abs(a[1]! - values[1]!) < 2e-3 && a[0] === values[0]);
    }
    for (const t of [x, out, result]) t.dispose();
    recording.dispose();
  });

  it('replays in order with other work, as often as asked', async () => {
    const x = full([3], 1);
    const sum = zeros([1, 3]);
    const { recording } = record(() => tidy(() => copy(copy(x), sum.reshape(3))).dispose());
    const seen: Tensor[] = [];
    for (let i = 0; i < 50; i++) {
      fill(x, i);
      recording.replay();
      fill(x, -1);
      seen.push(copy(sum));
    }
    for (const [i, t] of seen.entries()) assert.deepEqual([...(await t.data())], [i, i, i]);
    for (const t of [x, sum, ...seen]) t.dispose();
    recording.dispose();
  });

  it('keeps the memory of its tensors until it is disposed of, and gives it back then', async () => {
    const before = memory();
    const x = full([10_000], 2);
    const out = zeros([10_000]);
    const { recording } = record(() => {
      tidy(() => {
        copy(copy(x), out);
      });
    });
    x.dispose();
    // Nothing else may take over x or the intermediate copy.
    const others = Array.from({ length: 8 }, () => full([10_000], 9));
    recording.replay();
    assert.ok((await out.data()).every((v) => v === 2));
    assert.equal(memory().tensors, before.tensors + 9);
    const held = memory().bytes;
    recording.dispose();
    recording.dispose();
    assert.ok(memory().bytes <= held - 80_000);
    for (const t of [out, ...others]) t.dispose();
    assert.deepEqual([memory().tensors, memory().bytes], [before.tensors, before.bytes]);
    assert.throws(
      () => recording.replay(),
      /^InvalidArgumentError: \[replay\] expected a live recording, got one that was disposed of$/,
    );
  });

  it('has memory for the intermediates that live at once, not for all of them', async () => {
    const x = tensor(Float32Array.from({ length: 10_000 }, (_, i) => i));
    const out = zeros([10_000]);
    const before = memory().bytes;
    const { recording, result } = record(() =>
      tidy(() => {
        const kept = copy(x);
        for (let last = kept, i = 0; i < 20; i++) {
          const next = copy(last);
          if (last !== kept) last.dispose();
          last = i < 19 ? next : copy(next, out);
        }
        return kept;
      }),
    );
    // `kept`, and two that the chain uses in turn: 40 kB each, rounded up.
    assert.ok(memory().bytes - before < 4 * 41_000, `${memory().bytes - before} bytes`);
    for (const factor of [1, -2]) {
      x.upload(Float32Array.from({ length: 10_000 }, (_, i) => factor * i));
      recording.replay();
      for (const t of [out, result]) assert.ok((await t.data()).every((v, i) => v === factor * i));
    }
    // A tensor that outlives the recording keeps its memory to itself.
    recording.dispose();
    const others = Array.from({ length: 4 }, () => full([10_000], 7));
    assert.ok((await result.data()).every((v, i) => v === -2 * i));
    for (const t of [x, out, result, ...others]) t.dispose();
  });

  it('may be disposed of while a replay is queued', async () => {
    const x = full([100_000], 3);
    const out = zeros([100_000]);
    const { recording } = record(() => {
      tidy(() => {
        copy(copy(x), out);
      });
    });
    recording.replay();
    recording[Symbol.dispose]();
    const later = full([100_000], 8);
    assert.ok((await out.data()).every((v) => v === 3));
    for (const t of [x, out, later]) t.dispose();
  });

  it('has the same bits at any thread count', async () => {
    const { threads } = info();
    const x = tensor(Float32Array.from({ length: 100_000 }, (_, i) => Math.sin(i)));
    const { recording, result } = record(() => cast(x, 'fp16'));
    recording.replay();
    const expected = await result.bits();
    setThreads(3);
    recording.replay();
    assert.deepEqual(await result.bits(), expected);
    setThreads(threads);
    for (const t of [x, result]) t.dispose();
    recording.dispose();
  });

  it('fails at the read after a replay on bad data, with a stack that points to the replay', async () => {
    const weight = tensor([1, 2, 3], [3, 1]);
    const ids = tensor([0, 2], [2], 'int32');
    const { recording, result } = record(() => embedding(weight, ids));
    ids.upload([0, 3]);
    const replayBadIds = () => recording.replay();
    replayBadIds();
    await assert.rejects(result.data(), (error: Error) => {
      assert.match(error.message, /\[embedding\] id 3 at position 1 is outside the vocabulary of 3/);
      assert.match(error.stack!, /replayBadIds/);
      return true;
    });
    ids.upload([2, 0]);
    recording.replay();
    assert.deepEqual([...(await result.data())], [3, 1]);
    for (const t of [weight, ids, result]) t.dispose();
    recording.dispose();
  });

  it('ends when its body throws, and gives the memory back', async () => {
    const before = memory();
    assert.throws(
      () =>
        record(() =>
          tidy(() => {
            copy(zeros([5000]));
            throw new RangeError('from the body');
          }),
        ),
      /RangeError: from the body/,
    );
    assert.deepEqual([memory().tensors, memory().bytes], [before.tensors, before.bytes]);
    const t = full([1], 6);
    assert.equal(await t.item(), 6);
    t.dispose();
  });

  it('refuses reads, uploads, replays and recordings while it records, and promises', async () => {
    const before = memory();
    const x = zeros([2]);
    const inner = record(() => fill(x, 1)).recording;
    const pending: Promise<unknown>[] = [];
    const { recording } = record(() => {
      assert.throws(() => x.upload([1, 2]), /\[upload\] expected no upload while recording, got one/);
      assert.throws(() => tensor([1], [1], 'bf16'), /\[upload\] expected no upload while recording/);
      assert.throws(() => inner.replay(), /\[replay\] expected no replay while recording, got one/);
      assert.throws(() => record(() => {}), /\[record\] expected one recording at a time, got a second one/);
      pending.push(assert.rejects(x.data(), /\[read\] expected no read while recording, got one/));
    });
    await Promise.all(pending);
    assert.throws(
      () => record(async () => fill(x, 1)),
      /^InvalidArgumentError: \[record\] expected a synchronous function, got one that returns a promise$/,
    );
    assert.deepEqual([...(await x.data())], [0, 0]);
    for (const d of [x, inner, recording] as (Tensor | Recording)[]) d.dispose();
    assert.deepEqual([memory().tensors, memory().bytes], [before.tensors, before.bytes]);
  });
});
