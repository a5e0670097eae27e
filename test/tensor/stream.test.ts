import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { DeviceError } from '../../lib/errors.js';
import { embedding } from '../../lib/ops/embedding.js';
import { info, setThreads, setVectorLevel, type VectorLevel } from '../../lib/runtime.js';
import { cast, copy, fill, full, randomNormal, type Tensor, tensor, zeros } from '../../lib/tensor/tensor.js';
import { ownTensors } from '../support/owned.js';

const initial = info();
const own = ownTensors();
const ids = (...values: number[]) => own(tensor(values, [values.length], 'int32'));

/** The line of the file that calls this. */
function thisLine(): number {
  return Number(/:(\d+):\d+\)?$/.exec(new Error().stack!.split('\n')[2]!)![1]);
}

/** Expects a DeviceError whose stack has a frame on that line of this file. */
function failedAt(line: number, id: number) {
  return (error: unknown) => {
    assert.ok(error instanceof DeviceError);
    assert.equal(error.message, `[embedding] id ${id} at position 0 is outside the vocabulary of 3`);
    assert.match(error.stack!, new RegExp(`stream\\.test\\.[jt]s:${line}:`));
    assert.match(error.stack!, /^DeviceError: \[embedding\]/);
    return true;
  };
}

describe('the stream', () => {
  it('runs ops in the order of the calls', async () => {
    const x = own(zeros([50_000]));
    const seen: Tensor[] = [];
    for (let i = 1; i <= 200; i++) {
      fill(x, i);
      seen.push(own(copy(x)));
    }
    for (const [i, t] of seen.entries()) {
      const values = await t.data();
      assert.ok(
        values.every((v) => v === i + 1),
        `copy ${i}`,
      );
    }
  });

  it('reuses memory of disposed tensors only for later work', async () => {
    const a = full([100_000], 1);
    const b = own(copy(a));
    a.dispose();
    const c = own(full([100_000], 2));
    assert.ok((await b.data()).every((v) => v === 1));
    assert.ok((await c.data()).every((v) => v === 2));
  });

  it('reports a failure at the read, with a stack that points to the call that queued it', async () => {
    const weight = own(zeros([3, 2]));
    own(embedding(weight, ids(1)));
    const bad = own(embedding(weight, ids(9)));
    const line = thisLine() - 1;
    own(embedding(weight, ids(2)));
    await assert.rejects(bad.data(), failedAt(line, 9));
  });

  it('skips what was queued behind a failure (a GPU has gone on by then), and works on after the read that told', async () => {
    const weight = own(zeros([3, 2]));
    const x = own(full([2], 1));
    const bad = own(embedding(weight, ids(7)));
    const line = thisLine() - 1;
    fill(x, 2);
    await assert.rejects(x.data(), failedAt(line, 7));
    assert.deepEqual([...(await x.data())], x.device === 'cpu' ? [1, 1] : [2, 2]);
    fill(x, 3);
    assert.deepEqual([...(await x.data())], [3, 3]);
    const good = own(embedding(weight, ids(2, 0)));
    assert.deepEqual([...(await good.data())], [0, 0, 0, 0]);
    bad.dispose();
  });

  it('reports one failure to every read that was waiting, with the same stack', async () => {
    const weight = own(zeros([3, 2]));
    const bad = own(embedding(weight, ids(-1)));
    const line = thisLine() - 1;
    const reads = [bad.data(), weight.data(), bad.bits()];
    for (const read of await Promise.allSettled(reads)) {
      assert.equal(read.status, 'rejected');
      failedAt(line, -1)((read as PromiseRejectedResult).reason);
    }
    await weight.data();
  });

  it('never skips work silently: what is queued behind a pending read that fails is told by the next read', async () => {
    const weight = own(zeros([3, 2]));
    const x = own(full([2], 1));
    const bad = own(embedding(weight, ids(5)));
    const pending = bad.data();
    fill(x, 2);
    await assert.rejects(pending, DeviceError);
    await assert.rejects(x.data(), DeviceError);
    fill(x, 4);
    assert.deepEqual([...(await x.data())], [4, 4]);
  });

  it('tells a second failure by itself, although the first is still being reported', async () => {
    const weight = own(zeros([3, 2]));
    const first = own(embedding(weight, ids(3)));
    const reads = [first.data(), first.data()];
    await assert.rejects(reads[0]!, /id 3 at position 0/);
    const second = own(embedding(weight, ids(4)));
    await assert.rejects(reads[1]!, /id 3 at position 0/);
    await assert.rejects(second.data(), /id 4 at position 0/);
    await weight.data();
  });

  it('keeps the first of two failures', async () => {
    const weight = own(zeros([3, 2]));
    own(embedding(weight, ids(8)));
    const line = thisLine() - 1;
    const second = own(embedding(weight, ids(6)));
    await assert.rejects(second.data(), failedAt(line, 8));
  });

  it('leaves the event loop free while a long queue runs', async () => {
    let ticks = 0;
    const timer = setInterval(() => ticks++, 10);
    const x = own(randomNormal([1 << 20], { seed: 0 }));
    for (let i = 1; i < 30; i++) randomNormal([1 << 20], { seed: i }).dispose();
    await own(cast(x, 'bf16')).data();
    clearInterval(timer);
    assert.ok(ticks >= 3, `${ticks} ticks`);
  });
});

describe('settings', () => {
  it('refuses thread counts that do not exist', () => {
    for (const threads of [0, -1, 1.5, 257, Number.NaN, '2' as unknown as number])
      assert.throws(
        () => setThreads(threads),
        /^InvalidArgumentError: \[setThreads\] expected threads to be an integer/,
      );
    assert.equal(info().threads, initial.threads);
    setThreads(5);
    assert.equal(info().threads, 5);
  });

  it('refuses vector levels that do not exist', () => {
    for (const level of ['sse', '', 'AVX2', undefined as unknown as string])
      assert.throws(
        () => setVectorLevel(level as VectorLevel),
        /^InvalidArgumentError: \[vectorLevel\] expected one of portable, avx2, avx512, avx512bf16, amx, got /,
      );
    assert.equal(info().vectorLevel, initial.vectorLevel);
    const all: VectorLevel[] = ['portable', 'avx2', 'avx512', 'avx512bf16', 'amx'];
    for (const level of all.slice(all.indexOf(info().supportedVectorLevel) + 1))
      assert.throws(() => setVectorLevel(level), /expected a level this processor has/);
  });

  // scripts/test-sanitize.mjs leaves AVX2 out where the processor has more.
  const lacksAvx2 =
    process.env.ISOPOLICY_ADDON?.includes('build/sanitize/') &&
    process.env.ISOPOLICY_TEST_WITHOUT?.includes('avx2') &&
    ['avx512', 'avx512bf16', 'amx'].includes(info().supportedVectorLevel);
  it('refuses a level that the addon was compiled without', {
    skip: !lacksAvx2 && 'this addon has all levels',
  }, () => {
    assert.throws(
      () => setVectorLevel('avx2'),
      /^InvalidArgumentError: \[vectorLevel\] expected a level that the addon was compiled for, got avx2/,
    );
    assert.equal(info().vectorLevel, initial.vectorLevel);
  });

  it('changes threads in order with the work around it', async () => {
    const outputs: Tensor[] = [];
    for (let i = 0; i < 40; i++) {
      setThreads(1 + (i % 4));
      outputs.push(own(randomNormal([30_000], { seed: 1 })));
    }
    const expected = await outputs[0]!.bits();
    for (const t of outputs) assert.deepEqual(await t.bits(), expected);
  });
});
