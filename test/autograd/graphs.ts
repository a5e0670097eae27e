/** Small graphs of recorded ops, each with a forward of its own in fp64. */
import {
  add,
  addLowRank,
  addRmsNorm,
  attention,
  combineExperts,
  embedding,
  gatherRows,
  groupByExpert,
  groupedLinear,
  headNorm,
  linear,
  linearLogprob,
  reshape,
  rmsNorm,
  rope,
  route,
  swiglu,
} from '../../lib/autograd/functions.js';
import { Parameter } from '../../lib/autograd/parameter.js';
import { Tape } from '../../lib/autograd/tape.js';
import { type Weight, Weights } from '../../lib/autograd/weights.js';
import { headOrder } from '../../lib/ops/headNorm.js';
import { ropeTable } from '../../lib/ops/rope.js';
import { memory } from '../../lib/runtime.js';
import type { NativeFloatDType } from '../../lib/tensor/dtype.js';
import { type Tensor, tensor } from '../../lib/tensor/tensor.js';
import { referenceAttention } from '../support/attention.js';
import { normals } from '../support/compare.js';
import { mixture64 } from '../support/mixture.js';

export const EPS = 1e-3;
export const merged = { family: 'training', splitK: 0, blocks: [0] } as const;

export interface Context {
  readonly tape: Tape | null;
  /** Row numbers and the like, owned by the tape. */
  ints(values: readonly number[]): Tensor;
  /** The parameter's rows as an activation. */
  input(name: string): Tensor;
  weight(name: string): Weight;
}

type Values = Readonly<Record<string, Float64Array>>;

export interface Graph {
  readonly shapes: Readonly<Record<string, readonly number[]>>;
  run(context: Context): Tensor;
  /** The same output in fp64. */
  reference(values: Values): Float64Array;
}

/** Parameters of random values, the tape that `graph` was run with, and its output. */
export function record(graph: Graph, dtype: NativeFloatDType, tape = new Tape()) {
  const parameters = new Map(
    Object.entries(graph.shapes).map(([name, shape], i) => {
      const parameter = new Parameter(name, shape, { kind: 'constant', value: 0 }, 1, i);
      parameter.master.upload(normals(parameter.size, 31 + i));
      parameter.zeroGradient();
      parameter.gradient; // made here, so that it is not counted as left behind
      return [name, parameter];
    }),
  );
  const weights = new Weights([...parameters.values()], dtype);
  const before = memory();
  const ints = (values: readonly number[]) => tape.own(tensor(values, [values.length], 'int32'));
  const weight = (name: string) => weights.of(parameters.get(name)!);
  const output = graph.run({
    tape,
    ints,
    weight,
    input: (name) =>
      embedding(tape, weight(name), ints(Array.from({ length: graph.shapes[name]![0]! }, (_, i) => i))),
  });
  const dispose = () => {
    weights[Symbol.dispose]();
    for (const parameter of parameters.values()) parameter.dispose();
  };
  return { parameters, weights, tape, output, before, [Symbol.dispose]: dispose };
}

// The ops in fp64, straight from their definitions.

function linear64(x: Float64Array, w: Float64Array, columns: number, bias?: Float64Array): Float64Array {
  const rows = x.length / columns;
  const width = w.length / columns;
  const y = new Float64Array(rows * width);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < width; j++) {
      let sum = bias ? bias[j]! : 0;
      for (let k = 0; k < columns; k++) sum += x[i * columns + k]! * w[j * columns + k]!;
      y[i * width + j] = sum;
    }
  }
  return y;
}

function add64(a: Float64Array, b: Float64Array): Float64Array {
  return a.map((x, i) => x + b[i]!);
}

function rmsNorm64(x: Float64Array, w: Float64Array): Float64Array {
  const n = w.length;
  return x.map((value, i) => {
    const row = x.subarray(i - (i % n), i - (i % n) + n);
    const square = row.reduce((sum, v) => sum + v * v, 0) / n;
    return (value / Math.sqrt(square + EPS)) * w[i % n]!;
  });
}

function swiglu64(x: Float64Array, width: number): Float64Array {
  const half = width / 2;
  return Float64Array.from({ length: x.length / 2 }, (_, i) => {
    const at = Math.floor(i / half) * width + (i % half);
    return (x[at]! / (1 + Math.exp(-x[at]!))) * x[at + half]!;
  });
}

function rows64(x: Float64Array, columns: number, index: readonly number[]): Float64Array {
  return Float64Array.from(index.flatMap((row) => [...x.subarray(row * columns, (row + 1) * columns)]));
}

function rope64(
  x: Float64Array,
  heads: number,
  headDim: number,
  rotated: number,
  positions: readonly number[],
  theta: number,
): Float64Array {
  const y = x.slice();
  const half = headDim / 2;
  positions.forEach((position, t) => {
    for (let head = 0; head < rotated; head++) {
      for (let i = 0; i < half; i++) {
        const at = (t * heads + head) * headDim + i;
        const angle = position * theta ** ((-2 * i) / headDim);
        y[at] = x[at]! * Math.cos(angle) - x[at + half]! * Math.sin(angle);
        y[at + half] = x[at + half]! * Math.cos(angle) + x[at]! * Math.sin(angle);
      }
    }
  });
  return y;
}

function logprobs64(
  logits: Float64Array,
  vocabSize: number,
  targets: readonly number[],
  temperature: number,
): Float64Array {
  return Float64Array.from(targets, (target, i) => {
    const row = logits.subarray(i * vocabSize, (i + 1) * vocabSize).map((x) => x / temperature);
    const largest = row.reduce((a, b) => Math.max(a, b));
    return row[target]! - largest - Math.log(row.reduce((sum, x) => sum + Math.exp(x - largest), 0));
  });
}

/** A mixture-of-experts layer of five experts, two a token. */
function mixture(
  { tape, input, weight }: Context,
  options: { normalize: boolean; roundings: 1 | 3; ids?: Tensor },
): Tensor {
  const product = { family: 'training', splitK: 0 } as const;
  const x = input('x');
  const logits = linear(tape, x, weight('router'), null, merged);
  const { ids, weights } = route(tape, logits, { k: 2, ...options });
  const { rows, tokens, offsets } = groupByExpert(tape, ids, 5);
  const sorted = gatherRows(tape, x, tokens);
  const gateUp = groupedLinear(tape, sorted, weight('gateUp'), offsets, product);
  const gated = swiglu(tape, gateUp, { roundings: 1, onlyReader: true });
  const y = groupedLinear(tape, gated, weight('down'), offsets, product);
  return combineExperts(tape, y, weights, rows, options);
}
const givenIds = [
  [4, 0],
  [1, 4],
  [4, 4],
  [0, 1],
  [1, 0],
  [4, 1],
];
const mixtureShapes = { x: [6, 4], router: [5, 4], gateUp: [5, 6, 4], down: [5, 4, 3] };

export const attentionCase = { lengths: [3, 1, 4], numHeads: 4, numKvHeads: 2, headDim: 6 };
const attentionShape = [8, 8 * 6] as const;

export const graphs: Readonly<Record<string, Graph>> = {
  'embedding: ids that repeat, ids that are missing': {
    shapes: { table: [5, 3] },
    run: ({ tape, weight, ints }) => embedding(tape, weight('table'), ints([4, 1, 4, 4, 0])),
    reference: ({ table }) => rows64(table!, 3, [4, 1, 4, 4, 0]),
  },
  'linear: one merged product, with bias': {
    shapes: { x: [4, 5], w: [7, 5], b: [7] },
    run: ({ tape, input, weight }) => linear(tape, input('x'), weight('w'), weight('b'), merged),
    reference: ({ x, w, b }) => linear64(x!, w!, 5, b),
  },
  'linear: three blocks of rows, with bias': {
    shapes: { x: [4, 5], w: [7, 5], b: [7] },
    run: ({ tape, input, weight }) =>
      linear(tape, input('x'), weight('w'), weight('b'), { ...merged, blocks: [3, 2, 2] }),
    reference: ({ x, w, b }) => linear64(x!, w!, 5, b),
  },
  ...Object.fromEntries(
    [false, true].map((scaleFirst) => [
      `addLowRank: two adapters of blocks of columns, scaled ${scaleFirst ? 'first' : 'last'}`,
      {
        shapes: { x: [5, 6], w: [9, 6], a1: [2, 6], b1: [4, 2], a2: [3, 6], b2: [2, 3] },
        run: ({ tape, input, weight }) => {
          const x = input('x');
          let y = linear(tape, x, weight('w'), null, merged);
          for (const [i, column] of [1, 7].entries()) {
            const [a, b] = [weight(`a${i + 1}`), weight(`b${i + 1}`)];
            y = addLowRank(tape, y, x, a, b, { ...merged, column, scaling: 0.7, scaleFirst });
          }
          return y;
        },
        reference: ({ x, w, a1, b1, a2, b2 }) => {
          const y = linear64(x!, w!, 6);
          const first = linear64(linear64(x!, a1!, 6), b1!, 2);
          const second = linear64(linear64(x!, a2!, 6), b2!, 3);
          first.forEach((value, i) => {
            y[Math.floor(i / 4) * 9 + 1 + (i % 4)]! += 0.7 * value;
          });
          second.forEach((value, i) => {
            y[Math.floor(i / 2) * 9 + 7 + (i % 2)]! += 0.7 * value;
          });
          return y;
        },
      } satisfies Graph,
    ]),
  ),
  'linear: blocks, split K, rollout family, no bias': {
    shapes: { x: [3, 37], w: [6, 37] },
    run: ({ tape, input, weight }) =>
      linear(tape, input('x'), weight('w'), null, { family: 'rollout', splitK: 16, blocks: [5, 1] }),
    reference: ({ x, w }) => linear64(x!, w!, 37),
  },
  rmsNorm: {
    shapes: { x: [4, 7], w: [7] },
    run: ({ tape, input, weight }) => rmsNorm(tape, input('x'), weight('w'), { eps: EPS, roundings: 1 }),
    reference: ({ x, w }) => rmsNorm64(x!, w!),
  },
  'addRmsNorm: both outputs are read': {
    shapes: { x: [4, 7], delta: [4, 7], w: [7] },
    run: ({ tape, input, weight }) => {
      const { sum, out } = addRmsNorm(tape, input('x'), input('delta'), weight('w'), {
        eps: EPS,
        roundings: 2,
      });
      return add(tape, sum, out);
    },
    reference: ({ x, delta, w }) => {
      const sum = add64(x!, delta!);
      return add64(sum, rmsNorm64(sum, w!));
    },
  },
  'addRmsNorm: nobody reads the sum': {
    shapes: { x: [4, 7], delta: [4, 7], w: [7] },
    run: ({ tape, input, weight }) =>
      addRmsNorm(tape, input('x'), input('delta'), weight('w'), { eps: EPS, roundings: 1 }).out,
    reference: ({ x, delta, w }) => rmsNorm64(add64(x!, delta!), w!),
  },
  'addRmsNorm of the rounded sum: both outputs are read': {
    shapes: { x: [4, 7], delta: [4, 7], w: [7] },
    run: ({ tape, input, weight }) => {
      const { sum, out } = addRmsNorm(tape, input('x'), input('delta'), weight('w'), {
        eps: EPS,
        roundings: 2,
        roundedSum: true,
      });
      return add(tape, sum, out);
    },
    reference: ({ x, delta, w }) => {
      const sum = add64(x!, delta!);
      return add64(sum, rmsNorm64(sum, w!));
    },
  },
  'addRmsNorm of the rounded sum: nobody reads the sum': {
    shapes: { x: [4, 7], delta: [4, 7], w: [7] },
    run: ({ tape, input, weight }) => {
      const options = { eps: EPS, roundings: 1, roundedSum: true } as const;
      return addRmsNorm(tape, input('x'), input('delta'), weight('w'), options).out;
    },
    reference: ({ x, delta, w }) => rmsNorm64(add64(x!, delta!), w!),
  },
  'addRmsNorm: one tensor as both inputs, and read once more': {
    shapes: { x: [4, 7], w: [7] },
    run: ({ tape, input, weight }) => {
      const x = input('x');
      const { sum, out } = addRmsNorm(tape, x, x, weight('w'), { eps: EPS, roundings: 1 });
      return add(tape, add(tape, sum, x), out);
    },
    reference: ({ x, w }) => {
      const sum = add64(x!, x!);
      return add64(add64(sum, x!), rmsNorm64(sum, w!));
    },
  },
  'add: one tensor as both inputs': {
    shapes: { x: [3, 5] },
    run: ({ tape, input }) => {
      const x = input('x');
      return add(tape, x, x);
    },
    reference: ({ x }) => x!.map((v) => 2 * v),
  },
  'add: a tensor and its own sums': {
    shapes: { x: [3, 5], y: [3, 5] },
    run: ({ tape, input }) => {
      const [x, y] = [input('x'), input('y')];
      const once = add(tape, x, y);
      return add(tape, add(tape, once, once), add(tape, x, once)); // 4 x + 3 y
    },
    reference: ({ x, y }) => x!.map((v, i) => 4 * v + 3 * y![i]!),
  },
  'one activation read by five ops': {
    shapes: { x: [3, 6], w: [6], p: [6, 6], q: [12, 6] },
    run: ({ tape, input, weight, ints }) => {
      const x = input('x');
      const normed = rmsNorm(tape, x, weight('w'), { eps: EPS, roundings: 1 });
      const projected = linear(tape, x, weight('p'), null, merged);
      const gated = swiglu(tape, linear(tape, x, weight('q'), null, merged), { roundings: 1 });
      const turned = gatherRows(tape, x, ints([2, 0, 0]));
      return add(tape, add(tape, add(tape, normed, projected), add(tape, gated, turned)), x);
    },
    reference: ({ x, w, p, q }) =>
      [
        rmsNorm64(x!, w!),
        linear64(x!, p!, 6),
        swiglu64(linear64(x!, q!, 6), 12),
        rows64(x!, 6, [2, 0, 0]),
        x!,
      ].reduce(add64),
  },
  'headNorm: queries and keys, of an output that is read again': {
    shapes: { x: [3, 5 * 6], q: [6], k: [6] },
    run: ({ tape, input, weight }) => {
      const heads = { numHeads: 3, numKvHeads: 1 };
      const order = headOrder(3, heads);
      for (const t of [order.sorted, order.packed]) tape!.own(t);
      const qkv = reshape(tape, input('x'), [3, 5, 6]);
      const weights = { q: weight('q'), k: weight('k') };
      const normed = headNorm(tape, qkv, weights, order, { ...heads, eps: EPS, roundings: 1 });
      return add(tape, normed, qkv);
    },
    reference: ({ x, q, k }) =>
      add64(
        x!,
        x!.map((value, i) => {
          const head = Math.floor(i / 6) % 5;
          const begin = i - (i % 6);
          const normed = rmsNorm64(x!.subarray(begin, begin + 6), head < 3 ? q! : k!);
          return head < 4 ? normed[i % 6]! : value;
        }),
      ),
  },
  'rope: some heads, any positions': {
    shapes: { x: [4, 3 * 6] },
    run: ({ tape, input, ints }) => {
      const table = tape!.own(ropeTable(90, 6, 50));
      const x = reshape(tape, input('x'), [4, 3, 6]);
      return rope(tape, x, table, ints([0, 89, 7, 7]), { rotatedHeads: 2 });
    },
    reference: ({ x }) => rope64(x!, 3, 6, 2, [0, 89, 7, 7], 50),
  },
  'rope in place, behind another shape': {
    shapes: { x: [4, 5], w: [3 * 6, 5] },
    run: ({ tape, input, weight, ints }) => {
      const table = tape!.own(ropeTable(90, 6, 50));
      const x = reshape(tape, linear(tape, input('x'), weight('w'), null, merged), [4, 3, 6]);
      return rope(tape, x, table, ints([0, 89, 7, 7]), { rotatedHeads: 2, inPlace: true });
    },
    reference: ({ x, w }) => rope64(linear64(x!, w!, 5), 3, 6, 2, [0, 89, 7, 7], 50),
  },
  // The gradient of the sum is that of both its terms: turning it for one may not turn it for the other.
  'rope: its gradient shares memory with that of another tensor': {
    shapes: { x: [4, 3 * 6], y: [4, 3 * 6] },
    run: ({ tape, input, ints }) => {
      const table = tape!.own(ropeTable(90, 6, 50));
      const cube = reshape(tape, input('x'), [4, 3, 6]);
      const turned = rope(tape, cube, table, ints([0, 89, 7, 7]), { rotatedHeads: 3 });
      const flat = reshape(tape, turned, [4, 18]);
      const other = reshape(tape, input('y'), [4, 18]);
      const back = reshape(tape, flat, [4, 3, 6]);
      return add(tape, reshape(tape, back, [4, 18]), other);
    },
    reference: ({ x, y }) => add64(rope64(x!, 3, 6, 3, [0, 89, 7, 7], 50), y!),
  },
  'attention: several sequences, grouped queries': {
    shapes: { x: attentionShape },
    run: ({ tape, input, ints }) => {
      const { numHeads, numKvHeads } = attentionCase;
      const qkv = reshape(tape, input('x'), [8, 8, 6]);
      return attention(tape, qkv, ints([0, 3, 4, 8]), { numHeads, numKvHeads });
    },
    reference: ({ x }) => referenceAttention(attentionCase, x!, 1 / Math.sqrt(6)).out,
  },
  swiglu: {
    shapes: { x: [3, 10] },
    run: ({ tape, input }) => swiglu(tape, input('x'), { roundings: 2 }),
    reference: ({ x }) => swiglu64(x!, 10),
  },
  'swiglu: the only reader of a product': {
    shapes: { x: [3, 4], w: [10, 4] },
    run: ({ tape, input, weight }) => {
      const gateUp = linear(tape, input('x'), weight('w'), null, merged);
      return swiglu(tape, gateUp, { roundings: 1, onlyReader: true });
    },
    reference: ({ x, w }) => swiglu64(linear64(x!, w!, 4), 10),
  },
  'gatherRows: rows that repeat, rows that are missing': {
    shapes: { x: [5, 3], w: [4, 3] },
    run: ({ tape, input, weight, ints }) =>
      linear(tape, gatherRows(tape, input('x'), ints([3, 3, 0, 3, 4])), weight('w'), null, merged),
    reference: ({ x, w }) => linear64(rows64(x!, 3, [3, 3, 0, 3, 4]), w!, 3),
  },
  'linearLogprob: a temperature, chunks, an entropy that nobody reads': {
    shapes: { x: [4, 5], w: [11, 5] },
    run: ({ tape, input, weight, ints }) =>
      linearLogprob(tape, input('x'), weight('w'), ints([0, 10, 3, 3]), { temperature: 0.7, chunk: 4 })
        .logprobs,
    reference: ({ x, w }) => logprobs64(linear64(x!, w!, 5), 11, [0, 10, 3, 3], 0.7),
  },
  'reshape: there and back, and the first shape read too': {
    shapes: { x: [4, 6], w: [3, 8] },
    run: ({ tape, input, weight }) => {
      const x = input('x');
      const wide = reshape(tape, x, [3, 8]);
      const projected = linear(tape, wide, weight('w'), null, merged); // [3, 3]
      const long = reshape(tape, projected, [9, 1]);
      const square = reshape(tape, add(tape, long, long), [3, 3]);
      return add(tape, square, linear(tape, reshape(tape, x, [3, 8]), weight('w'), null, merged));
    },
    reference: ({ x, w }) => linear64(x!, w!, 8).map((v) => 3 * v),
  },
  'mixture of experts: the largest logits, normalised weights': {
    shapes: mixtureShapes,
    run: (context) => mixture(context, { normalize: true, roundings: 1 }),
    reference: ({ x, router, gateUp, down }) =>
      mixture64(x!, 4, { router: router!, gateUp: gateUp!, down: down!, experts: 5, k: 2, normalize: true }),
  },
  'mixture of experts: given experts, some twice and some never, weights as they are': {
    shapes: mixtureShapes,
    run: (context) => {
      const ids = context.tape!.own(context.ints(givenIds.flat()).reshape(6, 2));
      return mixture(context, { normalize: false, roundings: 3, ids });
    },
    reference: ({ x, router, gateUp, down }) =>
      mixture64(x!, 4, {
        router: router!,
        gateUp: gateUp!,
        down: down!,
        experts: 5,
        k: 2,
        normalize: false,
        ids: givenIds,
      }),
  },
  'outputs that nobody reads, alive and dead ends': {
    shapes: { x: [3, 6], w: [6], p: [6, 6] },
    run: ({ tape, input, weight, ints }) => {
      const x = input('x');
      const dead = linear(tape, x, weight('p'), null, merged);
      swiglu(tape, dead, { roundings: 1 });
      addRmsNorm(tape, x, dead, weight('w'), { eps: EPS, roundings: 1 });
      linearLogprob(tape, x, weight('p'), ints([0, 1, 5]), {});
      const out = linear(
        tape,
        rmsNorm(tape, x, weight('w'), { eps: EPS, roundings: 1 }),
        weight('p'),
        null,
        merged,
      );
      add(tape, out, out);
      return out;
    },
    reference: ({ x, w, p }) => linear64(rmsNorm64(x!, w!), p!, 6),
  },
};

/** A decoder block with everything in it, its head included. */
export const block: Graph = {
  shapes: {
    x: [8, 6],
    n1: [6],
    qkv: [48, 6],
    bias: [48],
    o: [6, 24],
    n2: [6],
    gate: [10, 6],
    down: [6, 5],
    n3: [6],
    head: [9, 6],
  },
  run: ({ tape, input, weight, ints }) => {
    const { numHeads, numKvHeads } = attentionCase;
    const options = { eps: EPS, roundings: 1 } as const;
    const x = input('x');
    const normed = rmsNorm(tape, x, weight('n1'), options);
    const flat = linear(tape, normed, weight('qkv'), weight('bias'), { ...merged, blocks: [24, 12, 12] });
    const table = tape!.own(ropeTable(4, 6, 100));
    const rotated = rope(tape, reshape(tape, flat, [8, 8, 6]), table, ints([0, 1, 2, 0, 0, 1, 2, 3]), {
      rotatedHeads: 6,
    });
    const attended = attention(tape, rotated, ints([0, 3, 4, 8]), { numHeads, numKvHeads });
    const delta = linear(tape, attended, weight('o'), null, merged);
    const { sum, out } = addRmsNorm(tape, x, delta, weight('n2'), options);
    const gated = swiglu(tape, linear(tape, out, weight('gate'), null, { ...merged, blocks: [5, 5] }), {
      roundings: 1,
    });
    const last = addRmsNorm(
      tape,
      sum,
      linear(tape, gated, weight('down'), null, merged),
      weight('n3'),
      options,
    );
    const rows = gatherRows(tape, last.out, ints([1, 2, 7, 5, 5]));
    return linearLogprob(tape, rows, weight('head'), ints([8, 0, 3, 1, 2]), {}).logprobs;
  },
  reference: (v) => {
    const qkv = linear64(rmsNorm64(v.x!, v.n1!), v.qkv!, 6, v.bias);
    const rotated = rope64(qkv, 8, 6, 6, [0, 1, 2, 0, 0, 1, 2, 3], 100);
    const { out } = referenceAttention(attentionCase, rotated, 1 / Math.sqrt(6));
    const sum = add64(v.x!, linear64(out, v.o!, 24));
    const gated = swiglu64(linear64(rmsNorm64(sum, v.n2!), v.gate!, 6), 10);
    const last = rmsNorm64(add64(sum, linear64(gated, v.down!, 5)), v.n3!);
    return logprobs64(linear64(rows64(last, 6, [1, 2, 7, 5, 5]), v.head!, 6), 9, [8, 0, 3, 1, 2], 1);
  },
};
