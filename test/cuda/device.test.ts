import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { DeviceError, InvalidArgumentError } from '../../lib/errors.js';
import { add } from '../../lib/ops/elementwise.js';
import { embedding } from '../../lib/ops/embedding.js';
import { currentDevice, info, memory, record, setDevice } from '../../lib/runtime.js';
import { tidy } from '../../lib/tensor/scope.js';
import {
  cast,
  copy,
  empty,
  fill,
  full,
  randomNormal,
  randomUniform,
  tensor,
  zeros,
} from '../../lib/tensor/tensor.js';
import { needsCuda } from '../support/cuda.js';
import { ownTensors } from '../support/owned.js';

const own = ownTensors();
const initial = currentDevice();

describe('a device', needsCuda(), () => {
  before(() => setDevice('cuda'));
  after(() => setDevice(initial));

  it('is where tensors are made from then on', async () => {
    assert.equal(currentDevice(), 'cuda');
    const values = Float32Array.from({ length: 1001 }, (_, i) => i / 3 - 100);
    for (const dtype of ['fp32', 'fp16', 'bf16'] as const) {
      const here = own(tensor(values, [7, 143], dtype));
      const there = own(tensor(values, [7, 143], dtype, 'cpu'));
      assert.deepEqual([here.device, there.device], ['cuda', 'cpu']);
      assert.deepEqual(await here.bits(), await there.bits());
    }
    const ids = own(tensor([1, -2, 2 ** 31 - 1], [3], 'int32'));
    assert.deepEqual([...(await ids.data())], [1, -2, 2 ** 31 - 1]);
  });

  it('copies to and from the other one, to the bit', async () => {
    const x = own(randomNormal([33, 65], { seed: 3, dtype: 'bf16' }));
    const onCpu = own(await x.to('cpu'));
    const back = own(await onCpu.to('cuda'));
    assert.deepEqual([onCpu.device, back.device], ['cpu', 'cuda']);
    assert.deepEqual(await onCpu.bits(), await x.bits());
    assert.deepEqual(await back.bits(), await x.bits());
  });

  it('refuses tensors of the other one, before anything is queued', () => {
    const here = own(zeros([4]));
    const there = own(tensor([1, 2, 3, 4], [4], 'fp32', 'cpu'));
    assert.throws(
      () => add(here, there),
      (error) =>
        error instanceof InvalidArgumentError &&
        error.message === '[add] expected b on the device of a, cuda, got cpu',
    );
  });

  it('refuses emulated formats', () => {
    assert.throws(
      () => zeros([4], 'e4m3'),
      /\[allocate\] expected fp32, fp16, bf16 or int32 on cuda \(emulated formats are computed on the cpu\), got e4m3/,
    );
  });

  it('draws the random numbers of the CPU', async () => {
    const draw = () => [
      own(randomUniform([1003], { seed: 5, stream: 2, bound: 0.25 })),
      own(randomNormal([1003], { seed: 5, stream: 2, mean: 1, std: 3 })),
    ];
    const onGpu = draw();
    setDevice('cpu');
    const onCpu = draw();
    setDevice('cuda');
    assert.deepEqual(await onGpu[0]!.bits(), await onCpu[0]!.bits());
    const [a, b] = [await onGpu[1]!.floats(), await onCpu[1]!.floats()];
    // The logarithm and the cosine of the two may differ in the last bit of fp64.
    for (const [i, x] of a.entries()) assert.ok(Math.abs(x - b[i]!) <= 2 ** -22 * Math.max(1, Math.abs(x)));
  });

  it('counts its tensors and bytes by itself', () => {
    const [cuda, cpu] = [memory('cuda'), memory('cpu')];
    own(zeros([1000]));
    own(tensor([1, 2], [2], 'fp32', 'cpu'));
    assert.equal(memory('cuda').tensors, cuda.tensors + 1);
    assert.equal(memory('cuda').bytes, cuda.bytes + 4096);
    assert.equal(memory('cpu').tensors, cpu.tensors + 1);
    assert.deepEqual(memory(), memory('cuda'));
  });

  it('that is out of memory says how much was asked and free, and lives', async () => {
    const asked = 2 ** 46; // bytes
    assert.throws(
      () => empty([2 ** 23, 2 ** 21]),
      (error) =>
        error instanceof DeviceError &&
        new RegExp(
          `out of memory: asked for ${asked} bytes of \\d+ free on the device, \\d+ bytes in use`,
        ).test(error.message),
    );
    assert.deepEqual([...(await own(full([3], 7)).data())], [7, 7, 7]);
  });

  it('tells of data at fault at the read, with the op that found it, and goes on', async () => {
    const weight = own(full([3, 2], 1));
    const ids = own(tensor([0, 9, 2, -1], [4], 'int32'));
    own(embedding(weight, ids));
    own(embedding(weight, own(tensor([7], [1], 'int32'))));
    await assert.rejects(weight.data(), (error) => {
      assert.ok(error instanceof DeviceError);
      assert.equal(error.message, '[embedding] id 9 at position 1 is outside the vocabulary of 3');
      return true;
    });
    const good = own(embedding(weight, own(tensor([2], [1], 'int32'))));
    assert.deepEqual([...(await good.data())], [1, 1]);
  });

  it('replays a recording as a graph: first, captured, and launched again', async () => {
    const x = own(tensor([1, 2, 3]));
    const out = own(zeros([3]));
    const { recording } = record(() => {
      tidy(() => {
        cast(cast(add(x, x), 'bf16'), 'fp32', out);
      });
    });
    for (let round = 0; round < 5; round++) {
      x.upload([round, round + 0.5, 7 - round]);
      recording.replay();
      assert.deepEqual([...(await out.data())], [2 * round, 2 * round + 1, 14 - 2 * round]);
    }
    recording.dispose();
  });

  it('finds data at fault within a graph, at each replay', async () => {
    const weight = own(full([3, 2], 1));
    const ids = own(tensor([0], [1], 'int32'));
    const later = own(tensor([0], [1], 'int32'));
    const { recording, result } = record(() => {
      const first = embedding(weight, ids);
      embedding(weight, later).dispose();
      return first;
    });
    own(result);
    for (let round = 0; round < 4; round++) {
      ids.upload([round]);
      later.upload([round < 3 ? 0 : 9]); // the first op at fault is told
      recording.replay();
      if (round < 3) assert.deepEqual([...(await result.data())], [1, 1]);
      else await assert.rejects(result.data(), /id 3 at position 0 is outside the vocabulary of 3/);
    }
    ids.upload([1]);
    later.upload([9]);
    recording.replay();
    await assert.rejects(result.data(), /id 9 at position 0/);
    later.upload([2]);
    recording.replay();
    assert.deepEqual([...(await result.data())], [1, 1]);
    recording.dispose();
  });

  it('refuses ops on the other device while one records', () => {
    const there = own(tensor([1], [1], 'fp32', 'cpu'));
    assert.throws(
      () => record(() => fill(there, 2)),
      /\[fill\] expected ops on the device that is being recorded, got cpu/,
    );
  });

  it('reads tensors of both with one wait', async () => {
    const here = own(full([2], 1));
    const there = own(tensor([2, 3], [2], 'fp32', 'cpu'));
    const [a, b] = await Promise.all([own(copy(here)).data(), own(copy(there)).data()]);
    assert.deepEqual([...a, ...b], [1, 1, 2, 3]);
  });
});

describe('without a GPU', () => {
  it('a device says why it cannot be used', {
    skip: info().cudaDevices.length > 0 ? 'there is a GPU' : false,
  }, () => {
    assert.throws(
      () => setDevice('cuda'),
      (error) => error instanceof DeviceError && /^\[device\] no usable GPU: /.test(error.message),
    );
    assert.equal(currentDevice(), 'cpu');
    assert.deepEqual(memory('cuda'), { tensors: 0, bytes: 0, cachedBytes: 0, peakBytes: 0 });
    assert.throws(() => setDevice('gpu' as 'cpu'), /expected device to be one of/);
  });
});
