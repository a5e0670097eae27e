import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { route, routerLoad, routerWeights, routerWeightsBackward } from '../../lib/ops/route.js';
import { record, setThreads, setVectorLevel } from '../../lib/runtime.js';
import { floatDtypes } from '../../lib/tensor/dtype.js';
import { readTensors, type Tensor, tensor, zeros } from '../../lib/tensor/tensor.js';
import { assertClose, assertSameBits, normals } from '../support/compare.js';
import { noEmulated } from '../support/dtypes.js';
import { vectorLevels } from '../support/levels.js';
import { route64, routerWeights64, rowsOf } from '../support/mixture.js';
import { ownTensors } from '../support/owned.js';
import { roundTo } from '../support/rounding.js';

const own = ownTensors();
const inf = Number.POSITIVE_INFINITY;

// tokens, experts, k: one of each, a vector and its tails, Mixtral's and Qwen3's, all experts, no tokens, more
// experts than a GPU's warp keeps in few registers or in any, more slots than it has lanes.
const cases = [
  [1, 1, 1],
  [7, 8, 2],
  [9, 5, 5],
  [40, 128, 8],
  [3, 17, 17],
  [600, 33, 1],
  [0, 4, 2],
  [3, 300, 6],
  [2, 1100, 40],
] as const;

function ints(values: readonly number[], shape: readonly number[]): Tensor {
  return own(tensor(Int32Array.from(values), shape, 'int32'));
}

function routed(logits: Tensor, k: number, normalize: boolean) {
  const { ids, weights } = route(logits, k, normalize);
  return { ids: own(ids), weights: own(weights) };
}

/** Experts of each token that another pass might have chosen: any, in any order. */
const someIds = (tokens: number, experts: number, k: number) =>
  Array.from({ length: tokens }, (_, t) =>
    Array.from({ length: k }, (_, s) => (5 * t + 3 * s + 1) % experts),
  );

for (const level of vectorLevels()) {
  describe(`route at ${level}`, () => {
    for (const dtype of floatDtypes) {
      for (const [tokens, experts, k] of cases) {
        for (const normalize of [true, false]) {
          it(`${dtype}: ${k} of ${experts} experts for ${tokens} tokens, ${normalize ? '' : 'not '}normalised`, async () => {
            setVectorLevel(level);
            const logits = own(tensor(normals(tokens * experts, experts, 3), [tokens, experts], dtype));
            const { ids, weights } = routed(logits, k, normalize);
            assert.deepEqual([ids.shape, ids.dtype], [[tokens, k], 'int32']);
            assert.deepEqual([weights.shape, weights.dtype], [[tokens, k], 'fp32']);
            const [x, found, w] = await readTensors([logits, ids, weights]);
            const expected = rowsOf(x!, experts).map((row) => route64(row, k, normalize));
            assert.deepEqual(
              [...found!],
              expected.flatMap((token) => token.ids),
            );
            assertClose(
              w!,
              expected.flatMap((token) => token.weights),
              'fp32',
              'weights',
              5e-7,
            );
            if (normalize)
              for (const row of rowsOf(w!, k))
                assert.ok(Math.abs(row.reduce((a, b) => a + b) - 1) < 1e-6, `a sum of ${row}`);
            // Replayed: the same bits for the same experts, and the formula for any others.
            assertSameBits(await own(routerWeights(logits, ids, normalize)).floats(), w!, 'replayed');
            const given = someIds(tokens, experts, k);
            const other = own(routerWeights(logits, ints(given.flat(), [tokens, k]), normalize));
            const share = rowsOf(x!, experts).flatMap((row, t) => routerWeights64(row, given[t]!, normalize));
            assertClose(await other.floats(), share, 'fp32', 'given', 1e-6);
          });
        }
      }

      it(`${dtype}: of equal logits takes the lower ids, infinity below as the last`, async () => {
        setVectorLevel(level);
        const rows = [
          [2, 2, 2, 2, 2, 2],
          [-1, 3, 0, 3, -inf, 3],
          [-inf, -inf, 4, -inf, -inf, -inf],
          [0, -0, 1, 1, 0, -0],
        ];
        const logits = own(tensor(rows.flat(), [4, 6], dtype));
        const chosen = [
          [0, 1, 2, 3],
          [1, 3, 5, 2],
          [2, 0, 1, 3],
          [2, 3, 0, 1],
        ];
        const { ids, weights } = routed(logits, 4, true);
        assert.deepEqual([...(await ids.data())], chosen.flat());
        const w = rowsOf(await weights.floats(), 4);
        assert.deepEqual(w[0], [0.25, 0.25, 0.25, 0.25]);
        assert.deepEqual(w[2], [1, 0, 0, 0]);
      });

      it(`${dtype}: the gradient agrees with fp64`, async () => {
        setVectorLevel(level);
        for (const [tokens, experts, k] of cases) {
          for (const normalize of [true, false]) {
            const logits = own(tensor(normals(tokens * experts, k, 2), [tokens, experts], dtype));
            const dWeights = own(tensor(normals(tokens * k, 3), [tokens, k]));
            // What route chose, and given experts of which some come twice.
            const twice = someIds(tokens, experts, k).flatMap((row) =>
              row.map((e) => e % Math.max(1, k - 1)),
            );
            for (const ids of [routed(logits, k, normalize).ids, ints(twice, [tokens, k])]) {
              const gradient = own(routerWeightsBackward(dWeights, logits, ids, normalize));
              assert.deepEqual([gradient.shape, gradient.dtype], [logits.shape, dtype]);
              const [x, g, e, out] = await readTensors([logits, dWeights, ids, gradient]);
              const expected = rowsOf(x!, experts).flatMap((row, t) =>
                slopes(row, rowsOf(e!, k)[t]!, rowsOf(g!, k)[t]!, normalize),
              );
              // A single chosen expert has weight 1 whatever its logit: exactly no gradient.
              assertClose(out!, expected, dtype, `${tokens}, ${experts}, ${k}, ${normalize}`);
            }
          }
        }
      });
    }

    it('a token is the same in any batch, and at 1 and 3 threads', async () => {
      setVectorLevel(level);
      const logits = own(tensor(normals(700 * 60, 4, 3), [700, 60], 'bf16'));
      const dWeights = own(tensor(normals(700 * 4, 5), [700, 4]));
      const run = async (x: Tensor, d: Tensor) => {
        const { ids, weights } = routed(x, 4, true);
        const back = own(routerWeightsBackward(d, x, ids, false));
        const { counts, probabilities } = routerLoad(x, ids);
        return readTensors([ids, weights, back, own(counts), own(probabilities)]);
      };
      setThreads(1);
      const one = await run(logits, dWeights);
      setThreads(3);
      const three = await run(logits, dWeights);
      for (const [i, values] of three.entries()) assertSameBits(values, one[i]!, `output ${i}`);
      const part = await run(own(logits.rows(311, 312)), own(dWeights.rows(311, 312)));
      for (const [i, width] of [4, 4, 60].entries())
        assertSameBits(part[i]!, one[i]!.subarray(311 * width, 312 * width), `alone, output ${i}`);
    });

    it('shares out the weight of experts that have next to none of it', async () => {
      setVectorLevel(level);
      const logits = own(tensor([300, 0, 1, 2, -inf], [1, 5]));
      const given = ints([3, 1], [1, 2]);
      const expected = routerWeights64([2, 0], [0, 1], true);
      assertClose(await own(routerWeights(logits, given, true)).floats(), expected, 'fp32', 'of each other');
      assert.deepEqual([...(await own(routerWeights(logits, given, false)).floats())], [0, 0]);
    });

    it('counts choices and sums probabilities over the tokens', async () => {
      setVectorLevel(level);
      for (const dtype of floatDtypes) {
        for (const [tokens, experts, k] of cases) {
          const logits = own(tensor(normals(tokens * experts, 6, 2), [tokens, experts], dtype));
          const { ids } = routed(logits, k, true);
          const { counts, probabilities } = routerLoad(logits, ids);
          const [x, e, n, sums] = await readTensors([logits, ids, own(counts), own(probabilities)]);
          const expected = new Float64Array(experts);
          const all = Array.from({ length: experts }, (_, j) => j);
          for (const row of rowsOf(x!, experts))
            routerWeights64(row, all, false).forEach((p, j) => {
              expected[j]! += p;
            });
          assertClose(sums!, expected, 'fp32', `${dtype}, ${tokens} tokens`, 2e-6);
          assert.deepEqual(
            [...n!],
            all.map((j) => e!.filter((id) => id === j).length),
          );
        }
      }
    });

    it('reports the first token without a distribution', async () => {
      setVectorLevel(level);
      const good = [1, 2, 3];
      for (const bad of [
        [1, NaN, 2],
        [1, inf, 2],
        [-inf, -inf, -inf],
      ]) {
        const logits = own(tensor([good, good, bad, good, bad].flat(), [5, 3]));
        for (const body of [
          () => routed(logits, 2, true).weights,
          () => routed(logits, 3, false).ids,
          () => own(routerWeights(logits, ints(new Array(10).fill(0), [5, 2]), false)),
        ]) {
          await assert.rejects(body().data(), (error: Error & { code?: string }) => {
            assert.equal(error.code, 'ERR_DEVICE');
            assert.match(error.message, /^\[route(rWeights)?\] expected router logits below infinity/);
            assert.match(error.message, /got token 2 with NaN, infinity or nothing finite$/);
            assert.match(error.stack ?? '', /route\.test\.[jt]s/);
            return true;
          });
        }
      }
      const logits = own(tensor([1, -inf, -inf], [1, 3]));
      await assert.rejects(
        own(routerWeights(logits, ints([1, 2], [1, 2]), true)).data(),
        /one of the chosen ones at least finite, got token 0/,
      );
      assert.deepEqual([...(await routed(logits, 2, true).weights.floats())], [1, 0]);
    });
  });
}

/** d(sum of g w)/d(logits) by the quotient rule: p is a softmax over all experts, or over the chosen ones alone. */
function slopes(
  logits: readonly number[],
  ids: readonly number[],
  g: readonly number[],
  normalize: boolean,
): number[] {
  const weights = routerWeights64(logits, ids, normalize);
  const p = routerWeights64(
    logits,
    logits.map((_, e) => e),
    false,
  );
  return logits.map((_, e) =>
    ids.reduce((sum, id, s) => {
      const own = id === e ? 1 : 0;
      const share = normalize
        ? ids.reduce((total, other, i) => total + (other === e ? weights[i]! : 0), 0)
        : p[e]!;
      return sum + g[s]! * weights[s]! * (own - share);
    }, 0),
  );
}

describe('route', () => {
  it('has reference gradients that agree with finite differences', () => {
    const logits = Array.from(normals(6, 8));
    const g = Array.from(normals(3, 9));
    for (const ids of [
      [4, 0, 2],
      [1, 1, 3],
    ]) {
      for (const normalize of [true, false]) {
        const loss = (x: readonly number[]) =>
          routerWeights64(x, ids, normalize).reduce((sum, w, s) => sum + w * g[s]!, 0);
        slopes(logits, ids, g, normalize).forEach((slope, e) => {
          const moved = (by: number) => loss(logits.map((x, j) => (j === e ? x + by : x)));
          assert.ok(Math.abs(slope - (moved(1e-5) - moved(-1e-5)) / 2e-5) < 1e-9);
        });
      }
    }
  });

  it('stores the gradient in the dtype of the logits, where it can overflow', async () => {
    const logits = own(tensor([0, 0], [1, 2], 'fp16'));
    const d = own(tensor([1e6, -1e6], [1, 2]));
    const gradient = own(routerWeightsBackward(d, logits, ints([0, 1], [1, 2]), true));
    assert.deepEqual([...(await gradient.floats())], [inf, -inf]);
  });

  it('not strict, gives a token without weights NaN and experts all the same, and others what they have', async () => {
    const rows = [
      [1, 2, Number.NaN],
      [0, 3, 1],
      [-inf, -inf, -inf],
      [inf, 0, 1],
    ];
    const logits = own(tensor(rows.flat(), [4, 3]));
    const { ids, weights } = route(logits, 2, true, false);
    const [chosen, w] = await readTensors([own(ids), own(weights)]);
    assert.deepEqual(
      rowsOf(w!, 2).map((row) => row.every(Number.isNaN)),
      [true, false, true, true],
    );
    const strict = routed(own(tensor(rows[1]!, [1, 3])), 2, true);
    const [ids1, w1] = await readTensors([strict.ids, strict.weights]);
    assertSameBits(w!.subarray(2, 4), w1!, 'the token that has weights');
    assert.deepEqual(chosen!.subarray(2, 4), ids1);
    for (const row of rowsOf(chosen!, 2)) {
      assert.ok(row.every((e) => e >= 0 && e < 3) && row[0] !== row[1], `experts ${row}`);
    }
    const replayed = own(routerWeights(logits, ids, true, false));
    assertSameBits(await replayed.floats(), w!, 'replayed');
  });

  it('takes an emulated format as the numbers that it has', { skip: noEmulated }, async () => {
    for (const [emulated, native] of [
      ['e8m7', 'bf16'],
      ['e5m10', 'fp16'],
    ] as const) {
      const values = normals(50 * 12, 10, 2);
      const results = [];
      for (const dtype of [emulated, native]) {
        const logits = own(tensor(values, [50, 12], dtype));
        const { ids, weights } = routed(logits, 3, true);
        const back = own(routerWeightsBackward(weights, logits, ids, false));
        const { probabilities, counts } = routerLoad(logits, ids);
        results.push(await readTensors([ids, weights, back, own(counts), own(probabilities)]));
      }
      for (const [i, of] of results[0]!.entries())
        assertSameBits(of, results[1]![i]!, `${emulated}, output ${i}`);
    }
    const odd = own(tensor(normals(8, 11), [2, 4], 'e8m4'));
    const back = own(
      routerWeightsBackward(own(tensor([1, 2, 3, 4], [2, 2])), odd, routed(odd, 2, true).ids, true),
    );
    assert.equal(back.dtype, 'e8m4');
    for (const g of await back.floats()) assert.equal(roundTo(g, 'bf16'), g);
  });

  it('can be recorded and replayed on new contents', async () => {
    const logits = own(tensor(normals(3 * 8, 12), [3, 8]));
    const { recording, result } = record(() => {
      const { ids, weights } = route(logits, 2, true);
      return [ids, weights];
    });
    for (const t of result) own(t);
    logits.upload(normals(24, 13));
    recording.replay();
    const [ids, weights] = await readTensors(result);
    recording.dispose();
    const now = routed(logits, 2, true);
    assertSameBits(ids!, await now.ids.data(), 'ids');
    assertSameBits(weights!, await now.weights.data(), 'weights');
  });

  it('names what is wrong with its arguments', async () => {
    const logits = own(zeros([3, 4]));
    const ids = ints([0, 1, 2, 3, 3, 2], [3, 2]);
    const fails = (body: () => unknown, message: RegExp) =>
      assert.throws(body, { code: 'ERR_INVALID_ARGUMENT', message });
    fails(() => route(logits, 5, true), /^\[route\] expected k to be an integer from 1 to 4, got 5$/);
    fails(() => route(logits, 0, true), /\[route\] expected k to be an integer of at least 1, got 0/);
    fails(() => route(own(zeros([4])), 1, true), /logits of 2 dimensions \[tokens, E\], got \[4\]/);
    fails(() => route(own(zeros([3, 0])), 1, true), /\[tokens, E\] with E of at least 1, got \[3, 0\]/);
    fails(() => route(ids, 1, true), /logits of dtype fp32, fp16 or bf16, got int32/);
    fails(
      () => routerWeights(logits, logits, true),
      /^\[routerWeights\] expected ids of dtype int32, got fp32$/,
    );
    fails(() => routerWeights(logits, own(ids.reshape(6)), true), /ids of 2 dimensions \[tokens, k\]/);
    fails(
      () => routerWeights(logits, own(ids.reshape(2, 3)), true),
      /ids of shape \[tokens, k\] with tokens = 3 and k of at least 1, got \[2, 3\]/,
    );
    fails(() => routerWeights(logits, own(zeros([3, 0], 'int32')), true), /k of at least 1, got \[3, 0\]/);
    const d = own(zeros([3, 2]));
    fails(
      () => routerWeightsBackward(logits, logits, ids, true),
      /dWeights of shape \[tokens, k\] = \[3, 2\]/,
    );
    fails(
      () => routerWeightsBackward(own(zeros([3, 2], 'bf16')), logits, ids, true),
      /dWeights of dtype fp32/,
    );
    fails(() => routerLoad(own(zeros([2, 4])), ids), /\[routerLoad\] expected ids of shape .* tokens = 2/);
    const outside = ints([0, 1, 2, 4, -1, 2], [3, 2]);
    for (const [name, body] of [
      ['routerWeights', () => routerWeights(logits, outside, true)],
      ['routerWeightsBackward', () => routerWeightsBackward(d, logits, outside, true)],
    ] as const) {
      await assert.rejects(own(body()).data(), {
        code: 'ERR_DEVICE',
        message: `[${name}] expected expert ids from 0 to E - 1 = 3, got 4 at position 3`,
      });
    }
    const { counts, probabilities } = routerLoad(logits, outside);
    own(probabilities);
    await assert.rejects(own(counts).data(), /\[routerLoad\] expected expert ids from 0 to E - 1 = 3, got 4/);
  });
});
