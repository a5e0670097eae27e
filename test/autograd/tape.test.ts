/**
 * The tape on real ops. Inputs are rows of parameters taken by `embedding`, so the gradient of every input can be
 * read; each case has a forward of its own in fp64, and the expected gradients are its central differences.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  add,
  addRmsNorm,
  attention,
  embedding,
  gatherRows,
  linear,
  linearLogprob,
  reshape,
  rmsNorm,
  rope,
  swiglu,
} from '../../lib/autograd/functions.js';
import { gradients } from '../../lib/autograd/gradients.js';
import { GradientFlow, Tape } from '../../lib/autograd/tape.js';
import { ropeTable } from '../../lib/ops/rope.js';
import { memory } from '../../lib/runtime.js';
import type { NativeFloatDType } from '../../lib/tensor/dtype.js';
import { type Tensor, tensor } from '../../lib/tensor/tensor.js';
import { assertClose, normals, relativeError } from '../support/compare.js';
import { attentionCase, block, type Context, EPS, type Graph, graphs, merged, record } from './graphs.js';

async function check(graph: Graph, dtype: NativeFloatDType, limit?: number): Promise<void> {
  using run = record(graph, dtype);
  const { parameters, tape, output, before } = run;
  const values: Record<string, Float64Array> = {};
  for (const [name, parameter] of parameters) {
    values[name] = Float64Array.from(await run.weights.of(parameter).value.floats());
  }
  const found = await output.floats();
  assertClose(found, graph.reference(values), dtype, 'forward', limit);

  const coefficients = normals(found.length, 77);
  const seed = tensor(coefficients, output.shape, output.dtype);
  const loss = () => {
    const out = graph.reference(values);
    return out.reduce((sum, x, i) => sum + x * coefficients[i]!, 0);
  };
  tape.backward(output, seed);
  assert.equal(seed.disposed, false, 'the seed stays');
  assert.equal((await seed.floats()).length, found.length);
  seed.dispose();
  assert.equal(memory().tensors, before.tensors, 'tensors left');
  assert.equal(memory().bytes, before.bytes, 'bytes left');

  const h = 1e-4;
  for (const [name, parameter] of parameters) {
    const expected = values[name]!.map((x, i) => {
      values[name]![i] = x + h;
      const up = loss();
      values[name]![i] = x - h;
      const down = loss();
      values[name]![i] = x;
      return (up - down) / (2 * h);
    });
    assert.ok(expected.some((g) => g !== 0));
    assertClose(await parameter.gradient.floats(), expected, dtype, `gradient of ${name}`, limit ?? 2e-5);
  }

  // Nothing is left to run backward: a second pass adds nothing.
  const [first] = parameters.values();
  const gradient = await first!.gradient.floats();
  const again = tensor(coefficients, output.shape, output.dtype);
  tape.backward(output, again);
  assert.deepEqual(await first!.gradient.floats(), gradient);
  assert.equal(again.disposed, false);
  again.dispose();
}

describe('gradients of every op', () => {
  it('the cases below cover the whole table', () => {
    const used = new Set<string>();
    for (const graph of [...Object.values(graphs), block]) {
      const tape = new Tape();
      const spied = tape.record.bind(tape);
      tape.record = (op, operands, outputs) => {
        used.add(op);
        spied(op, operands, outputs);
      };
      using _run = record(graph, 'fp32', tape);
      tape.dispose();
    }
    assert.deepEqual([...used].sort(), Object.keys(gradients).sort());
  });

  for (const [name, graph] of Object.entries(graphs)) {
    it(name, () => check(graph, 'fp32'));
  }
  it('a whole block', () => check(block, 'fp32'));

  // In 16 bits each activation gradient is rounded to a unit of 2^-11 or 2^-8 at every op; ten ops in a row.
  for (const [dtype, limit] of [
    ['fp16', 1e-2],
    ['bf16', 8e-2],
  ] as const) {
    it(`a whole block in ${dtype}`, () => check(block, dtype, limit));
  }
});

describe('Tape', () => {
  it('dispose without a backward pass lets go of everything', () => {
    using run = record(block, 'fp32');
    assert.ok(memory().tensors > run.before.tensors + 20);
    run.tape.dispose();
    assert.equal(memory().tensors, run.before.tensors);
    assert.equal(memory().bytes, run.before.bytes);
    assert.equal(run.output.disposed, true);
    run.tape.dispose();
    assert.equal(memory().tensors, run.before.tensors);
  });

  it('a backward pass from an output that was not recorded changes nothing and disposes of all', async () => {
    using run = record(graphs.swiglu!, 'fp32');
    using stranger = tensor([1]);
    using seed = tensor([1]);
    run.tape.backward(stranger, seed);
    assert.deepEqual(await run.parameters.get('x')!.gradient.floats(), new Float32Array(30));
    assert.equal(stranger.disposed, false);
    assert.equal(seed.disposed, false);
    assert.equal(memory().tensors, run.before.tensors + 2);
  });

  it('the gradient of an output in the middle leaves what came after it out', async () => {
    using run = record({ ...graphs.rmsNorm!, run: (c) => rmsNormThenTwice(c) }, 'fp32');
    async function gradientsOf(target: Tensor, tape: Tape) {
      using seed = tensor(normals(28, 5), [4, 7]);
      tape.backward(target, seed);
      return run.parameters.get('x')!.gradient.floats();
    }
    const middle = between!;
    const found = await gradientsOf(middle, run.tape);
    using plain = record(graphs.rmsNorm!, 'fp32');
    using seed = tensor(normals(28, 5), [4, 7]);
    plain.tape.backward(plain.output, seed);
    assert.deepEqual(found, await plain.parameters.get('x')!.gradient.floats());
  });
  let between: Tensor | undefined;
  function rmsNormThenTwice({ tape, input, weight }: Context): Tensor {
    between = rmsNorm(tape, input('x'), weight('w'), { eps: EPS, roundings: 1 });
    return add(tape, between, between);
  }

  it('gradients of parameters add up over passes', async () => {
    const passes = 3;
    const shapes = { x: [4, 5], w: [7, 5], b: [7] };
    const graph: Graph = { ...graphs['linear: one merged product, with bias']!, shapes };
    using once = record(graph, 'fp32');
    using seed = tensor(normals(28, 3), [4, 7]);
    once.tape.backward(once.output, seed);
    const gradient = await once.parameters.get('w')!.gradient.floats();
    for (let i = 1; i < passes; i++) {
      const tape = new Tape();
      const ids = tape.own(tensor([0, 1, 2, 3], [4], 'int32'));
      const weight = (name: string) => once.weights.of(once.parameters.get(name)!);
      const out = linear(tape, embedding(tape, weight('x'), ids), weight('w'), weight('b'), merged);
      tape.backward(out, seed);
    }
    const total = await once.parameters.get('w')!.gradient.floats();
    assert.ok(
      relativeError(
        total,
        gradient.map((g) => passes * g),
      ) < 1e-6,
    );
  });

  it('adds the gradients of several readers in the dtype of the activation, the last reader first', async () => {
    // 256 + 1 is a tie that bf16 rounds to 256, so 1 + 1 + 256 is 258 but 256 + 1 + 1 is 256.
    const sum = async (factors: readonly number[], dtype: NativeFloatDType) => {
      const graph: Graph = {
        shapes: { x: [1, 1], ...Object.fromEntries(factors.map((_, i) => [`w${i}`, [1, 1]])) },
        run: ({ tape, input, weight }) => {
          const x = input('x');
          return factors
            .map((_, i) => linear(tape, x, weight(`w${i}`), null, merged))
            .reduce((a, b) => add(tape, a, b));
        },
        reference: () => new Float64Array(1),
      };
      using run = record(graph, dtype);
      run.tape.dispose();
      factors.forEach((factor, i) => {
        run.parameters.get(`w${i}`)!.master.upload([factor]);
      });
      run.weights.sync();
      const tape = new Tape();
      const weight = (name: string) => run.weights.of(run.parameters.get(name)!);
      const ids = tape.own(tensor([0], [1], 'int32'));
      const output = graph.run({
        tape,
        weight,
        ints: () => ids,
        input: (name) => embedding(tape, weight(name), ids),
      });
      using seed = tensor([1], [1, 1], dtype);
      tape.backward(output, seed);
      return run.parameters.get('x')!.gradient.item();
    };
    assert.equal(await sum([256, 1, 1], 'bf16'), 258);
    assert.equal(await sum([1, 1, 256], 'bf16'), 256);
    assert.equal(await sum([1, 1, 256], 'fp16'), 258);
    assert.equal(await sum([1, 1, 256], 'fp32'), 258);
  });

  it('an activation gradient overflows in fp16 and not in bf16', async () => {
    for (const [dtype, expected] of [
      ['fp16', Number.POSITIVE_INFINITY],
      ['bf16', 2 * 39936],
      ['fp32', 2 * 39936],
    ] as const) {
      using run = record(graphs['add: one tensor as both inputs']!, dtype);
      using seed = tensor(new Float32Array(15).fill(39936), [3, 5], dtype);
      run.tape.backward(run.output, seed);
      const gradient = await run.parameters.get('x')!.gradient.floats();
      assert.deepEqual(gradient, new Float32Array(15).fill(expected), dtype);
    }
  });

  it('the gradient of an input that no op made is dropped', () => {
    const before = memory().tensors;
    const tape = new Tape();
    const x = tensor(normals(12, 4), [2, 6]);
    using seed = tensor(normals(6, 5), [2, 3]);
    tape.backward(swiglu(tape, x, { roundings: 1 }), seed);
    assert.equal(x.disposed, false, 'the input is the caller’s');
    x.dispose();
    assert.equal(memory().tensors, before + 1);
  });

  it('a seed of the wrong shape throws, and nothing is left behind', () => {
    using run = record(block, 'fp32');
    using seed = tensor(normals(4, 1), [4]);
    assert.throws(() => run.tape.backward(run.output, seed), /\[linearLogprobBackward\]/);
    run.tape.dispose();
    assert.equal(seed.disposed, false);
    assert.equal(memory().tensors, run.before.tensors + 1);
  });

  it('an op that fails in the middle of the pass leaves nothing behind', () => {
    using run = record(graphs.rmsNorm!, 'fp32');
    const { tape, output } = run;
    // A record whose operands do not belong together: its gradient cannot be formed.
    const odd = tape.own(tensor([1, 2, 3], [3]));
    const failing = tape.own(tensor(normals(28, 2), [4, 7]));
    tape.record('swiglu', { gateUp: odd, onlyReader: false }, [failing]);
    // Its gradient is on its way to `output` when the pass fails.
    const weight = run.weights.of(run.parameters.get('w')!);
    const branch = rmsNorm(tape, output, weight, { eps: EPS, roundings: 1 });
    const last = add(tape, failing, branch);
    using seed = tensor(normals(28, 1), [4, 7]);
    assert.throws(() => tape.backward(last, seed), /\[swigluBackward\]/);
    tape.dispose();
    assert.equal(seed.disposed, false);
    assert.equal(memory().tensors, run.before.tensors + 1);
  });

  it('addRmsNorm of which only the sum is read passes the gradient on', async () => {
    const graph: Graph = {
      shapes: { x: [2, 3], delta: [2, 3], w: [3] },
      run: ({ tape, input, weight }) =>
        addRmsNorm(tape, input('x'), input('delta'), weight('w'), { eps: EPS, roundings: 1 }).sum,
      reference: () => new Float64Array(6),
    };
    using run = record(graph, 'fp32');
    using seed = tensor([1, 2, 3, 4, 5, 6], [2, 3]);
    run.tape.backward(run.output, seed);
    for (const name of ['x', 'delta']) {
      assert.deepEqual([...(await run.parameters.get(name)!.gradient.floats())], [1, 2, 3, 4, 5, 6], name);
    }
    assert.deepEqual([...(await run.parameters.get('w')!.gradient.floats())], [0, 0, 0]);
    assert.equal(memory().tensors, run.before.tensors + 1);
  });

  it('without a tape the ops give the same values, and the caller owns them', async () => {
    using run = record(block, 'fp32');
    const expected = await run.output.floats();
    run.tape.dispose();
    const owned: Tensor[] = [];
    const own = (t: Tensor) => {
      owned.push(t);
      return t;
    };
    const ints = (values: readonly number[]) => own(tensor(values, [values.length], 'int32'));
    const weight = (name: string) => run.weights.of(run.parameters.get(name)!);
    const { numHeads, numKvHeads } = attentionCase;
    const options = { eps: EPS, roundings: 1 } as const;
    const x = own(embedding(null, weight('x'), ints([0, 1, 2, 3, 4, 5, 6, 7])));
    const normed = own(rmsNorm(null, x, weight('n1'), options));
    const flat = own(
      linear(null, normed, weight('qkv'), weight('bias'), { ...merged, blocks: [24, 12, 12] }),
    );
    const cube = own(reshape(null, flat, [8, 8, 6]));
    const rotated = own(
      rope(null, cube, own(ropeTable(4, 6, 100)), ints([0, 1, 2, 0, 0, 1, 2, 3]), { rotatedHeads: 6 }),
    );
    const attended = own(attention(null, rotated, ints([0, 3, 4, 8]), { numHeads, numKvHeads }));
    const delta = own(linear(null, attended, weight('o'), null, merged));
    const middle = addRmsNorm(null, x, delta, weight('n2'), options);
    const gateUp = own(linear(null, own(middle.out), weight('gate'), null, { ...merged, blocks: [5, 5] }));
    const down = own(linear(null, own(swiglu(null, gateUp, { roundings: 1 })), weight('down'), null, merged));
    const last = addRmsNorm(null, own(middle.sum), down, weight('n3'), options);
    own(last.sum);
    const rows = own(gatherRows(null, own(last.out), ints([1, 2, 7, 5, 5])));
    const { logprobs, entropy } = linearLogprob(null, rows, weight('head'), ints([8, 0, 3, 1, 2]), {});
    assert.deepEqual(await own(logprobs).floats(), expected);
    own(entropy);
    for (const t of owned) t.dispose();
    assert.equal(memory().tensors, run.before.tensors);
  });
});

describe('GradientFlow', () => {
  it('never disposes of the seed, however it is added and released', () => {
    using seed = tensor([1, 2]);
    using a = tensor([0, 0]);
    using b = tensor([0, 0]);
    using c = tensor([0, 0]);
    const start = memory().tensors;
    const flow = new GradientFlow();
    flow.seed(a, seed);
    const taken = flow.take(a)!;
    assert.equal(taken, seed);
    assert.equal(flow.take(a), undefined);
    flow.add(b, taken);
    flow.add(b, taken);
    flow.add(c, taken);
    flow.settle();
    flow.release(taken);
    flow.finish();
    assert.equal(seed.disposed, false);
    assert.equal(memory().tensors, start);
  });

  it('keeps a gradient that two tensors share until both have let go of it', () => {
    using a = tensor([0]);
    using b = tensor([0]);
    const shared = tensor([3]);
    const flow = new GradientFlow();
    flow.add(a, shared);
    flow.add(b, shared);
    flow.settle();
    flow.release(flow.take(a)!);
    assert.equal(shared.disposed, false);
    flow.release(flow.take(b)!);
    assert.equal(shared.disposed, true);
  });

  it('lets a gradient be overwritten where nobody else reads its memory', () => {
    const [a, b, c] = [tensor([0, 0]), tensor([0, 0]), tensor([0, 0], [2, 1])];
    const flow = new GradientFlow();
    using seed = tensor([1, 2]);
    flow.seed(a, seed);
    assert.equal(flow.mayOverwrite(flow.take(a)!), false, 'the seed');
    const [alone, shared] = [tensor([1, 2]), tensor([3, 4])];
    flow.add(a, alone);
    assert.equal(flow.mayOverwrite(flow.take(a)!), true);
    flow.add(c, flow.view(alone, [2, 1]));
    flow.release(alone);
    const view = flow.take(c)!;
    assert.equal(flow.mayOverwrite(view), true, 'the view of a gradient that is gone');
    flow.release(view);
    flow.add(a, shared);
    flow.add(b, shared);
    assert.equal(flow.mayOverwrite(flow.take(a)!), false, 'two hold it');
    flow.add(c, flow.view(shared, [2, 1]));
    flow.release(shared);
    assert.equal(flow.mayOverwrite(flow.take(b)!), false, 'a view of it is on its way');
    assert.equal(flow.mayOverwrite(flow.take(c)!), false, 'a view of what another holds');
    flow.release(shared);
    flow.finish();
    for (const t of [a, b, c]) t.dispose();
  });

  it('drops what was only added to something else, and what nobody takes', async () => {
    using a = tensor([0]);
    using b = tensor([0]);
    const [first, second, third] = [tensor([1]), tensor([10]), tensor([100])];
    const start = memory().tensors;
    const flow = new GradientFlow();
    flow.add(a, first);
    flow.settle();
    flow.add(a, second);
    flow.settle();
    assert.equal(first.disposed, true);
    assert.equal(second.disposed, true);
    const sum = flow.take(a)!;
    assert.equal(await sum.item(), 11);
    flow.release(sum);
    assert.equal(sum.disposed, true);
    flow.add(b, third);
    flow.settle();
    flow.finish();
    assert.equal(third.disposed, true);
    assert.equal(memory().tensors, start - 3);
  });
});
