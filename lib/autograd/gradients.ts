/**
 * The gradient of every differentiable op: one table, op -> what to add where.
 *
 * Gradients of activations are stored in the activation's dtype (16 bits in 16-bit training, so that fp16 really
 * can overflow and loss scaling is real); gradients of parameters are added up in fp32.
 */
import { invalid } from '../errors.js';
import { type AttentionHeads, attentionBackward } from '../ops/attention.js';
import { scaleColumns } from '../ops/columns.js';
import { combineExpertsBackward } from '../ops/combineExperts.js';
import { scale } from '../ops/elementwise.js';
import { embeddingBackward, scatterRows } from '../ops/embedding.js';
import { groupedLinearInputGradient, groupedLinearWeightGradient } from '../ops/groupedLinear.js';
import { type HeadOrder, headNormBackward } from '../ops/headNorm.js';
import { linearInputGradient, linearWeightGradient } from '../ops/linear.js';
import { type LinearLogprobOptions, linearLogprobBackward } from '../ops/linearLogprob.js';
import { columnSum } from '../ops/reduce.js';
import { addRmsNormBackward, rmsNormBackward } from '../ops/rmsNorm.js';
import { type RopeOptions, ropeBackward } from '../ops/rope.js';
import { routerWeightsBackward } from '../ops/route.js';
import { swigluBackward } from '../ops/swiglu.js';
import type { FloatDType } from '../tensor/dtype.js';
import type { Tensor } from '../tensor/tensor.js';
import type { GradientFlow } from './tape.js';
import type { Weight } from './weights.js';

/** What each op keeps for its gradient. */
export interface Operands {
  embedding: { weight: Weight; ids: Tensor };
  linear: { x: Tensor; weight: Weight; bias: Weight | null };
  addLowRank: { x: Tensor; y: Tensor; a: Weight; b: Weight; column: number; before: number; after: number };
  rmsNorm: { x: Tensor; weight: Weight; eps: number };
  addRmsNorm: { x: Tensor; delta: Tensor; weight: Weight; eps: number; roundedSum: boolean };
  add: { a: Tensor; b: Tensor };
  headNorm: {
    qkv: Tensor;
    q: Weight;
    k: Weight;
    order: HeadOrder;
    options: AttentionHeads & { eps: number };
  };
  rope: { x: Tensor; table: Tensor; positions: Tensor; options: Omit<RopeOptions, 'out'> };
  attention: { qkv: Tensor; cuSeqlens: Tensor; options: AttentionHeads };
  swiglu: { gateUp: Tensor; onlyReader: boolean };
  gatherRows: { x: Tensor; index: Tensor };
  linearLogprob: { hidden: Tensor; weight: Weight; targets: Tensor; options: LinearLogprobOptions };
  reshape: { x: Tensor };
  route: { logits: Tensor; ids: Tensor; normalize: boolean };
  groupedLinear: { x: Tensor; weight: Weight; offsets: Tensor };
  combineExperts: { y: Tensor; weights: Tensor; rows: Tensor };
}

export type Differentiable = keyof Operands;

interface Results {
  readonly outputs: readonly Tensor[];
  /** d(loss)/d(output), undefined for an output that nothing read. */
  readonly incoming: readonly (Tensor | undefined)[];
}

type Gradient<Op extends Differentiable> = (
  operands: Operands[Op],
  results: Results,
  flow: GradientFlow,
) => void;

export const gradients: { readonly [Op in Differentiable]: Gradient<Op> } = {
  embedding: ({ weight, ids }, { incoming: [d] }) => {
    const { gradientUnlessFrozen } = weight.parameter;
    if (gradientUnlessFrozen) embeddingBackward(d!, ids, gradientUnlessFrozen);
  },

  linear: ({ x, weight, bias }, { incoming: [d] }, flow) => {
    weight.parameter.addGradient((gradient, accumulate) =>
      linearWeightGradient(d!, x, 0, gradient, accumulate),
    );
    const biasGradient = bias?.parameter.gradientUnlessFrozen;
    if (biasGradient) columnSum(d!, 0, bias.value.size, biasGradient);
    flow.add(x, linearInputGradient(d!, [weight.value], x.dtype as FloatDType));
  },

  addLowRank: ({ x, y, a, b, column, before, after }, { outputs: [, inner], incoming: [d] }, flow) => {
    using dOuter = scaleColumns(d!, column, b.parameter.shape[0]!, after);
    b.parameter.addGradient((gradient, accumulate) =>
      linearWeightGradient(dOuter, inner!, 0, gradient, accumulate),
    );
    using dInner = linearInputGradient(dOuter, [b.value]);
    using dProduct = scale(dInner, before);
    a.parameter.addGradient((gradient, accumulate) =>
      linearWeightGradient(dProduct, x, 0, gradient, accumulate),
    );
    flow.add(x, linearInputGradient(dProduct, [a.value]));
    flow.add(y, d!);
  },

  rmsNorm: ({ x, weight, eps }, { incoming: [d] }, flow) =>
    flow.add(x, rmsNormBackward(d!, x, weight.value, eps, weight.parameter.gradientUnlessFrozen)),

  // Two outputs: the sum, which the residual stream carries on, and the normalised value.
  addRmsNorm: (
    { x, delta, weight, eps, roundedSum },
    { outputs: [sum], incoming: [dSum = null, d] },
    flow,
  ) => {
    let g = dSum!;
    if (d !== undefined) {
      const gradient = weight.parameter.gradientUnlessFrozen;
      g = roundedSum
        ? rmsNormBackward(d, sum!, weight.value, eps, gradient, dSum)
        : addRmsNormBackward(dSum, d, x, delta, weight.value, eps, gradient);
    }
    flow.add(x, g);
    flow.add(delta, g);
  },

  add: ({ a, b }, { incoming: [d] }, flow) => {
    flow.add(a, d!);
    flow.add(b, d!);
  },

  headNorm: ({ qkv, q, k, order, options }, { incoming: [d] }, flow) => {
    const [qGradient, kGradient] = [q, k].map(({ parameter }) => parameter.gradientUnlessFrozen) as [
      Tensor | null,
      Tensor | null,
    ];
    flow.add(
      qkv,
      headNormBackward(d!, qkv, q.value, k.value, order, options, options.eps, qGradient, kGradient),
    );
  },

  rope: ({ x, table, positions, options }, { incoming: [d] }, flow) => {
    const into = flow.mayOverwrite(d!) ? { ...options, out: d!.reshape(...d!.shape) } : options;
    flow.add(x, ropeBackward(d!, table, positions, into));
  },

  attention: ({ qkv, cuSeqlens, options }, { outputs: [out, lse], incoming: [d] }, flow) =>
    flow.add(qkv, attentionBackward(d!, qkv, out!, lse!, cuSeqlens, options)),

  swiglu: ({ gateUp, onlyReader }, { incoming: [d] }, flow) => {
    const into = onlyReader ? gateUp.reshape(...gateUp.shape) : undefined;
    flow.add(gateUp, swigluBackward(d!, gateUp, into));
  },

  gatherRows: ({ x, index }, { incoming: [d] }, flow) => flow.add(x, scatterRows(d!, index, x.shape[0]!)),

  // Of its outputs the log-probs alone have a gradient; lse and entropy are for measuring.
  linearLogprob: (
    { hidden, weight, targets, options },
    { outputs: [, lse], incoming: [d, ...rest] },
    flow,
  ) => {
    if (rest.some((other) => other !== undefined)) {
      invalid('backward', 'the log-probs of linearLogprob as the output', 'its lse or entropy');
    }
    const gradient = weight.parameter.gradientUnlessFrozen;
    flow.add(hidden, linearLogprobBackward(d!, hidden, weight.value, targets, lse!, gradient, options));
  },

  reshape: ({ x }, { incoming: [d] }, flow) => flow.add(x, flow.view(d!, x.shape)),

  route: ({ logits, ids, normalize }, { incoming: [d] }, flow) =>
    flow.add(logits, routerWeightsBackward(d!, logits, ids, normalize)),

  groupedLinear: ({ x, weight, offsets }, { incoming: [d] }, flow) => {
    weight.parameter.addGradient((gradient, accumulate) =>
      groupedLinearWeightGradient(d!, x, offsets, gradient, accumulate),
    );
    flow.add(x, groupedLinearInputGradient(d!, weight.value, offsets));
  },

  combineExperts: ({ y, weights, rows }, { incoming: [d] }, flow) => {
    const { dY, dWeights } = combineExpertsBackward(d!, y, weights, rows);
    flow.add(y, dY);
    flow.add(weights, dWeights);
  },
};
