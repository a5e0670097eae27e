/** A mixture-of-experts layer in fp64, straight from its definition: token by token, expert by expert. */

/** What a router makes of one token's logits: ids and weights, in the order of the slots. */
export function route64(
  logits: ArrayLike<number>,
  k: number,
  normalize: boolean,
): { ids: number[]; weights: number[] } {
  const ids = Array.from({ length: logits.length }, (_, e) => e)
    .sort((a, b) => logits[b]! - logits[a]! || a - b)
    .slice(0, k);
  return { ids, weights: routerWeights64(logits, ids, normalize) };
}

/** The weights of given experts. */
export function routerWeights64(
  logits: ArrayLike<number>,
  ids: readonly number[],
  normalize: boolean,
): number[] {
  const among = normalize ? ids.map((e) => logits[e]!) : Array.from(logits);
  const largest = among.reduce((a, b) => Math.max(a, b));
  const sum = among.reduce((total, x) => total + Math.exp(x - largest), 0);
  return ids.map((e) => Math.exp(logits[e]! - largest) / sum);
}

/** Rows of `width` values. */
export function rowsOf(values: ArrayLike<number>, width: number): number[][] {
  const all = Array.from(values);
  return Array.from({ length: all.length / width }, (_, i) => all.slice(i * width, (i + 1) * width));
}

/** W x, the rows of W being one after another. */
export function matrixTimes(w: ArrayLike<number>, x: readonly number[]): number[] {
  return rowsOf(w, x.length).map((row) => row.reduce((sum, a, j) => sum + a * x[j]!, 0));
}

export interface Mixture {
  /** Router [E, H], experts' gate and up [E, 2 F, H], down [E, H, F]. */
  readonly router: ArrayLike<number>;
  readonly gateUp: Float64Array;
  readonly down: Float64Array;
  readonly experts: number;
  readonly k: number;
  readonly normalize: boolean;
  /** The experts of each token where they are given. */
  readonly ids?: readonly (readonly number[])[];
}

/** sum over a token's experts of weight * down(silu(gate x) * up x), for each row of x. */
export function mixture64(x: ArrayLike<number>, hidden: number, mixture: Mixture): Float64Array {
  const { router, gateUp, down, experts, k, normalize } = mixture;
  const of = (weight: Float64Array, e: number) =>
    weight.subarray((e * weight.length) / experts, ((e + 1) * weight.length) / experts);
  const out = rowsOf(x, hidden).flatMap((token, t) => {
    const logits = matrixTimes(router, token);
    const ids = mixture.ids?.[t] ?? route64(logits, k, normalize).ids;
    const weights = routerWeights64(logits, ids, normalize);
    const sum = new Array<number>(hidden).fill(0);
    ids.forEach((e, s) => {
      const both = matrixTimes(of(gateUp, e), token);
      const half = both.length / 2;
      const gated = both.slice(0, half).map((g, i) => (g / (1 + Math.exp(-g))) * both[half + i]!);
      matrixTimes(of(down, e), gated).forEach((y, i) => {
        sum[i]! += weights[s]! * y;
      });
    });
    return sum;
  });
  return Float64Array.from(out);
}
