import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { add, linear, reshape, rmsNorm, rope, swiglu } from '../../lib/autograd/functions.js';
import { Parameter } from '../../lib/autograd/parameter.js';
import { Tape } from '../../lib/autograd/tape.js';
import { Weights } from '../../lib/autograd/weights.js';
import { ropeTable } from '../../lib/ops/rope.js';
import { memory } from '../../lib/runtime.js';
import { type FloatDType, floatDtypes } from '../../lib/tensor/dtype.js';
import { type Tensor, tensor } from '../../lib/tensor/tensor.js';
import { assertSameBits, normals } from '../support/compare.js';
import { onDevice } from '../support/dtypes.js';
import { ownTensors } from '../support/owned.js';
import { EPS, merged } from './graphs.js';

const own = ownTensors();

/** [5, 8] through two parts that could be checkpoints; the second reads both outputs of the first, and one is read behind it. */
const shapes = { n: [8], up: [12, 8], down: [8, 6], square: [8, 8] };
type Name = keyof typeof shapes;
type Part = <R extends Record<keyof R, Tensor | null>>(tape: Tape, body: (tape: Tape) => R) => R;

const kept: Part = (tape, body) => body(tape);
const checkpointed: Part = (tape, body) => tape.checkpoint(body);

function setup(dtype: FloatDType) {
  const parameters = new Map<Name, Parameter>();
  for (const [i, [name, shape]] of Object.entries(shapes).entries()) {
    const parameter = new Parameter(name, shape, { kind: 'none' }, 0, i);
    parameter.master.upload(normals(parameter.size, 5 + i));
    parameters.set(name as Name, parameter);
  }
  const weights = new Weights([...parameters.values()], dtype);
  const table = ropeTable(5, 4, 100);
  const positions = tensor([0, 1, 2, 3, 4], [5], 'int32');
  const x = tensor(normals(40, 3), [5, 8], dtype);
  const w = (name: Name) => weights.of(parameters.get(name)!);

  const feedForward = (tape: Tape, input: Tensor) => {
    const normed = rmsNorm(tape, input, w('n'), { eps: EPS, roundings: 2 });
    // In place forward (rope) and backward (swiglu), as in the decoder.
    const flat = reshape(tape, linear(tape, normed, w('square'), null, merged), [5, 2, 4]);
    const heads = rope(tape, flat, table, positions, { rotatedHeads: 2, inPlace: true });
    const turned = reshape(tape, heads, [5, 8]);
    const gated = swiglu(tape, linear(tape, turned, w('up'), null, merged), {
      roundings: 2,
      onlyReader: true,
    });
    return { sum: add(tape, input, turned), out: linear(tape, gated, w('down'), null, merged) };
  };
  const run = (tape: Tape, part: Part) => {
    const begin = linear(tape, x, w('square'), null, merged);
    const first = part(tape, (inner) => feedForward(inner, begin));
    const second = part(tape, (inner) => feedForward(inner, add(inner, first.sum, first.out)));
    return { first, second, output: add(tape, add(tape, second.out, second.sum), first.sum) };
  };
  const backward = async (part: Part, watch?: Tape['watch']) => {
    for (const p of parameters.values()) p.zeroGradient();
    const tape = new Tape();
    tape.watch = watch;
    const { output } = run(tape, part);
    using seed = tensor(normals(40, 77), [5, 8], dtype);
    const value = await output.floats();
    tape.backward(output, seed);
    const gradients: Float32Array[] = [];
    for (const p of parameters.values()) gradients.push(await p.gradient.floats());
    return { value, gradients };
  };
  const dispose = () => {
    for (const t of [x, positions, table]) t.dispose();
    weights.dispose();
    for (const p of parameters.values()) p.dispose();
  };
  return { run, backward, feedForward, x, [Symbol.dispose]: dispose };
}

describe('Tape.checkpoint', () => {
  for (const dtype of onDevice(...floatDtypes, 'e8m4')) {
    it(`gives the bits of a pass that keeps everything, in ${dtype}`, async () => {
      using s = setup(dtype);
      const expected = await s.backward(kept);
      const before = memory();
      const found = await s.backward(checkpointed);
      assertSameBits(found.value, expected.value, 'output');
      for (const [i, gradient] of found.gradients.entries()) {
        assert.ok(gradient.some((g) => g !== 0));
        assertSameBits(gradient, expected.gradients[i]!, Object.keys(shapes)[i]!);
      }
      const twice: Part = (tape, body) => tape.checkpoint((inner) => inner.checkpoint(body));
      const nested = await s.backward(twice);
      for (const [i, gradient] of nested.gradients.entries())
        assertSameBits(gradient, expected.gradients[i]!, `within another, ${Object.keys(shapes)[i]}`);
      assert.deepEqual(
        [memory().tensors, memory().bytes],
        [before.tensors, before.bytes],
        'nothing is left behind',
      );
    });
  }

  it('keeps the outputs alone until the backward pass', () => {
    using s = setup('fp32');
    const { tensors } = memory();
    const tape = new Tape();
    s.run(tape, checkpointed);
    assert.equal(memory().tensors, tensors + 1 + 2 + 2 + 2, 'begin, two outputs of each part, two sums');
    tape.dispose();
    assert.equal(memory().tensors, tensors);
  });

  it('shows every gradient to a watch once, in the order and with the bits of a pass that keeps everything', async () => {
    using s = setup('fp16');
    const seen = async (part: Part) => {
      const gradients: Tensor[] = [];
      await s.backward(part, (_output, gradient) => gradients.push(own(add(null, gradient, gradient))));
      return Promise.all(gradients.map((g) => g.floats()));
    };
    const expected = await seen(kept);
    assert.equal(expected.length, 1 + 9 + 10 + 2);
    assert.deepEqual(await seen(checkpointed), expected);
  });

  it('is not run again where no gradient reaches it', async () => {
    using s = setup('fp32');
    const tape = new Tape();
    const runs: Tape[] = [];
    const begin = add(tape, s.x, s.x);
    const aside = tape.checkpoint((inner) => {
      runs.push(inner);
      return s.feedForward(inner, begin);
    });
    using seed = tensor(normals(40, 77), [5, 8]);
    tape.backward(begin, seed);
    assert.equal(runs.length, 1);
    assert.equal(aside.out.disposed, true);
  });

  it('lets go of everything where the second run fails', () => {
    using s = setup('fp32');
    const { tensors } = memory();
    const tape = new Tape();
    const begin = add(tape, s.x, s.x);
    let runs = 0;
    const { out } = tape.checkpoint((inner) => {
      const result = s.feedForward(inner, begin);
      if (++runs === 2) throw new Error('out of luck');
      return result;
    });
    using seed = tensor(normals(40, 77), [5, 8]);
    assert.throws(() => tape.backward(out, seed), /out of luck/);
    assert.equal(memory().tensors, tensors + 1, 'the seed is left');
  });
});
