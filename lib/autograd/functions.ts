/**
 * The ops that a model is made of, as functions that run the op and, given a tape, record it for the backward
 * pass. Without a tape the caller owns the outputs (a tidy scope disposes of them).
 */

import type { KernelFamily } from '../numerics.js';
import { type AttentionHeads, type AttentionOrder, attention as attentionOp } from '../ops/attention.js';
import { addToColumns } from '../ops/columns.js';
import { combineExperts as combineExpertsOp } from '../ops/combineExperts.js';
import { add as addOp, scale } from '../ops/elementwise.js';
import { embedding as embeddingOp, gatherRows as gatherRowsOp } from '../ops/embedding.js';
import { type ExpertGroups, groupByExpert as groupByExpertOp } from '../ops/groupByExpert.js';
import { groupedLinear as groupedLinearOp } from '../ops/groupedLinear.js';
import { type HeadOrder, headNorm as headNormOp } from '../ops/headNorm.js';
import { linear as linearOp } from '../ops/linear.js';
import { type LinearLogprobOptions, linearLogprob as linearLogprobOp } from '../ops/linearLogprob.js';
import { addRmsNorm as addRmsNormOp, rmsNorm as rmsNormOp } from '../ops/rmsNorm.js';
import { type RopeOptions, rope as ropeOp } from '../ops/rope.js';
import { route as routeOp, routerWeights } from '../ops/route.js';
import { swiglu as swigluOp } from '../ops/swiglu.js';
import type { FloatDType } from '../tensor/dtype.js';
import { tidy } from '../tensor/scope.js';
import { cast, type Tensor } from '../tensor/tensor.js';
import type { Tape } from './tape.js';
import type { Weight } from './weights.js';

export function embedding(tape: Tape | null, weight: Weight, ids: Tensor): Tensor {
  const out = embeddingOp(weight.value, ids);
  tape?.record('embedding', { weight, ids }, [out]);
  return out;
}

/**
 * y = x W^T + b. The rows of W may be given in blocks, each computed by a product of its own and written to its
 * columns of y: the same values from separate projections or one merged projection.
 */
export function linear(
  tape: Tape | null,
  x: Tensor,
  weight: Weight,
  bias: Weight | null,
  options: { family: KernelFamily; splitK: number; blocks: readonly number[] },
): Tensor {
  const { blocks } = options;
  const merged = blocks.length === 1;
  const weights = merged ? [weight.packed ?? weight.value] : blocksOf(weight.value, blocks);
  const biases = bias === null ? null : merged ? [bias.value] : blocksOf(bias.value, blocks);
  const out = linearOp(x, weights, {
    ...(biases && { biases }),
    family: options.family,
    splitK: options.splitK,
  });
  if (!merged) for (const t of [...weights, ...(biases ?? [])]) t.dispose();
  tape?.record('linear', { x, weight, bias }, [out]);
  return out;
}

/**
 * What a low-rank adapter adds to the columns of y from `column` on: y + scaling (x A^T) B^T, with the memory of y, which
 * nobody may read any more. Both products are rounded to the dtype of x, and so is the sum. The scale is a product of its
 * own behind B, rounded too, as PEFT has it; with `scaleFirst` it multiplies x A^T in fp32, before that is rounded, as the
 * kernels of serving engines have it. Where it is a power of two, both give the same bits, subnormal numbers aside.
 */
export function addLowRank(
  tape: Tape | null,
  y: Tensor,
  x: Tensor,
  a: Weight,
  b: Weight,
  options: { family: KernelFamily; splitK: number; column: number; scaling: number; scaleFirst: boolean },
): Tensor {
  const { family, splitK, column, scaling, scaleFirst } = options;
  const [before, after] = scaleFirst ? [scaling, 1] : [1, scaling];
  const dtype = x.dtype as FloatDType;
  const inner = tidy(() => {
    const product = (outDtype: FloatDType) =>
      linearOp(x, [a.packed ?? a.value], { family, splitK, outDtype });
    return scaleFirst ? cast(scale(product('fp32'), before), dtype) : product(dtype);
  });
  tidy(() => {
    const outer = linearOp(inner, [b.packed ?? b.value], { family, splitK });
    addToColumns(y, outer, column, after);
  });
  const out = y.reshape(...y.shape);
  if (tape) tape.record('addLowRank', { x, y, a, b, column, before, after }, [out, inner]);
  else inner.dispose();
  return out;
}

function blocksOf(t: Tensor, blocks: readonly number[]): Tensor[] {
  let begin = 0;
  return blocks.map((rows) => {
    begin += rows;
    return t.rows(begin - rows, begin);
  });
}

export function rmsNorm(
  tape: Tape | null,
  x: Tensor,
  weight: Weight,
  options: { eps: number; roundings: 1 | 2 },
): Tensor {
  const out = rmsNormOp(x, weight.value, options.eps, options.roundings);
  tape?.record('rmsNorm', { x, weight, eps: options.eps }, [out]);
  return out;
}

/** x + delta, and the norm of the sum before it is rounded, or of the rounded sum. */
export function addRmsNorm(
  tape: Tape | null,
  x: Tensor,
  delta: Tensor,
  weight: Weight,
  options: { eps: number; roundings: 1 | 2; roundedSum?: boolean },
): { sum: Tensor; out: Tensor } {
  const { eps, roundings, roundedSum = false } = options;
  const { sum, y: out } = addRmsNormOp(x, delta, weight.value, eps, roundings, roundedSum);
  tape?.record('addRmsNorm', { x, delta, weight, eps, roundedSum }, [sum, out]);
  return { sum, out };
}

export function add(tape: Tape | null, a: Tensor, b: Tensor): Tensor {
  const out = addOp(a, b);
  tape?.record('add', { a, b }, [out]);
  return out;
}

/** The norms of query and key heads; `order` has to live as long as the tape. */
export function headNorm(
  tape: Tape | null,
  qkv: Tensor,
  weights: { q: Weight; k: Weight },
  order: HeadOrder,
  options: AttentionHeads & { eps: number; roundings: 1 | 2 },
): Tensor {
  const { q, k } = weights;
  const out = headNormOp(qkv, q.value, k.value, order, options, options.eps, options.roundings);
  tape?.record('headNorm', { qkv, q, k, order, options }, [out]);
  return out;
}

/** With `inPlace` the result takes the memory of x, which nobody may read any more. */
export function rope(
  tape: Tape | null,
  x: Tensor,
  table: Tensor,
  positions: Tensor,
  { inPlace = false, ...options }: Omit<RopeOptions, 'out'> & { inPlace?: boolean },
): Tensor {
  const out = ropeOp(x, table, positions, inPlace ? { ...options, out: x.reshape(...x.shape) } : options);
  tape?.record('rope', { x, table, positions, options }, [out]);
  return out;
}

export function attention(
  tape: Tape | null,
  qkv: Tensor,
  cuSeqlens: Tensor,
  options: AttentionHeads & AttentionOrder,
): Tensor {
  const { out, lse } = attentionOp(qkv, cuSeqlens, options);
  if (tape) tape.record('attention', { qkv, cuSeqlens, options }, [out, lse]);
  else lse.dispose();
  return out;
}

/** With `onlyReader` nobody else reads gateUp: its gradient then takes its memory. */
export function swiglu(
  tape: Tape | null,
  gateUp: Tensor,
  { roundings, onlyReader = false }: { roundings: 1 | 2; onlyReader?: boolean },
): Tensor {
  const out = swigluOp(gateUp, roundings);
  tape?.record('swiglu', { gateUp, onlyReader }, [out]);
  return out;
}

export function gatherRows(tape: Tape | null, x: Tensor, index: Tensor): Tensor {
  const out = gatherRowsOp(x, index);
  tape?.record('gatherRows', { x, index }, [out]);
  return out;
}

export function reshape(tape: Tape | null, x: Tensor, shape: readonly number[]): Tensor {
  const out = x.reshape(...shape);
  tape?.record('reshape', { x }, [out]);
  return out;
}

/** Log-probs of the targets under the head, and the entropy of each distribution; fp32, [rows]. */
export function linearLogprob(
  tape: Tape | null,
  hidden: Tensor,
  weight: Weight,
  targets: Tensor,
  options: LinearLogprobOptions,
): { logprobs: Tensor; entropy: Tensor } {
  const { logprobs, lse, entropy } = linearLogprobOp(hidden, weight.value, targets, options);
  if (tape) tape.record('linearLogprob', { hidden, weight, targets, options }, [logprobs, lse, entropy]);
  else lse.dispose();
  return { logprobs, entropy };
}

/**
 * The experts of each token and their weights. With `ids` these are given, as another pass chose them, and stay the
 * caller's. The gradient reaches the logits through the weights; the choice has none. Where a pass has overflowed the
 * weights are NaN as all that comes of it is.
 */
export function route(
  tape: Tape | null,
  logits: Tensor,
  { k, normalize, ids: given }: { k: number; normalize: boolean; ids?: Tensor | undefined },
): { ids: Tensor; weights: Tensor } {
  const { ids, weights } = given
    ? { ids: given, weights: routerWeights(logits, given, normalize, false) }
    : routeOp(logits, k, normalize, false);
  tape?.record('route', { logits, ids, normalize }, given ? [weights] : [weights, ids]);
  return { ids, weights };
}

/** Integers, which have no gradient. */
export function groupByExpert(tape: Tape | null, ids: Tensor, experts: number): ExpertGroups {
  const groups = groupByExpertOp(ids, experts);
  for (const t of Object.values(groups)) tape?.own(t);
  return groups;
}

/** y_r = W_e x_r for the rows r of expert e; the weight is [E, N, K]. */
export function groupedLinear(
  tape: Tape | null,
  x: Tensor,
  weight: Weight,
  offsets: Tensor,
  options: { family: KernelFamily; splitK: number },
): Tensor {
  const out = groupedLinearOp(x, weight.packed ?? weight.value, offsets, options);
  tape?.record('groupedLinear', { x, weight, offsets }, [out]);
  return out;
}

/** The experts' outputs, weighted and added up for each token. */
export function combineExperts(
  tape: Tape | null,
  y: Tensor,
  weights: Tensor,
  rows: Tensor,
  { roundings }: { roundings: 1 | 3 },
): Tensor {
  const out = combineExpertsOp(y, weights, rows, roundings);
  tape?.record('combineExperts', { y, weights, rows }, [out]);
  return out;
}
