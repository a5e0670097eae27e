import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { profile, record } from '../../lib/runtime.js';
import { cast, copy, fill, zeros } from '../../lib/tensor/tensor.js';
import { ownTensors } from '../support/owned.js';

const own = ownTensors();

/** Calls by op, as `{ fill: 2, ... }`; what a poisoned run fills is no op of the body. */
function callsOf({ ops }: { ops: readonly { op: string; calls: number }[] }): Record<string, number> {
  return Object.fromEntries(ops.filter(({ op }) => op !== 'poison').map(({ op, calls }) => [op, calls]));
}

describe('profile', () => {
  it('counts the ops of the body alone, and gives its result', async () => {
    const x = own(zeros([1000]));
    fill(x, 1);
    const { result, profile: first } = await profile(async () => {
      fill(x, 2);
      fill(x, 3);
      own(copy(own(cast(x, 'bf16'))));
      return (await x.data())[999];
    });
    fill(x, 4);
    assert.equal(result, 3);
    const calls = callsOf(first);
    assert.ok(calls.read! >= 1);
    delete calls.read;
    assert.deepEqual(calls, { fill: 2, cast: 1, copy: 1 });

    const { profile: second } = await profile(() => own(copy(x)));
    assert.equal(callsOf(second).copy, 1);
    assert.equal(callsOf(second).fill, undefined);
  });

  it('waits for the ops that the body queued, and counts those of a replay', async () => {
    const x = own(zeros([1 << 20]));
    const { recording } = record(() => {
      for (let i = 0; i < 5; i++) fill(x, i);
    });
    const { profile: times } = await profile(() => {
      for (let i = 0; i < 4; i++) recording.replay();
    });
    recording.dispose();
    assert.equal(callsOf(times).fill, 20);
  });

  it('lists times that add up, the longest first', async () => {
    const x = own(zeros([1 << 20]));
    const { profile: times } = await profile(() => {
      fill(x, 1);
      for (let i = 0; i < 10; i++) own(cast(x, 'fp16'));
    });
    const each = times.ops.map(({ milliseconds }) => milliseconds);
    assert.deepEqual(
      each,
      each.toSorted((a, b) => b - a),
    );
    assert.ok(each.every((ms) => ms >= 0) && times.idleMilliseconds >= 0);
    const sum = each.reduce((a, b) => a + b, 0) + times.idleMilliseconds;
    assert.ok(Math.abs(sum - times.milliseconds) < 1e-6 * times.milliseconds);
  });

  it('ends with a body that throws, and refuses one within another', async () => {
    await assert.rejects(
      profile(() => {
        throw new RangeError('from the body');
      }),
      /from the body/,
    );
    await assert.rejects(
      profile(() => profile(() => {})),
      /^InvalidArgumentError: \[profile\] expected one profile at a time, got a second one$/,
    );
    const { profile: times } = await profile(() => {});
    assert.deepEqual(Object.keys(callsOf(times)), ['read']);
  });
});
