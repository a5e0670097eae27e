import assert from 'node:assert/strict';
import { after, afterEach, describe, it } from 'node:test';
import { gemm } from '../../lib/ops/gemm.js';
import {
  type LinearLogitsOptions,
  linearLogprob,
  linearLogprobBackward,
} from '../../lib/ops/linearLogprob.js';
import { chosenLogprobs, type TokenLogprobs } from '../../lib/ops/logSoftmax.js';
import { info, memory, setThreads, setVectorLevel } from '../../lib/runtime.js';
import { floatDtypes, type NativeFloatDType } from '../../lib/tensor/dtype.js';
import { full, readTensors, type Tensor, tensor, zeros } from '../../lib/tensor/tensor.js';
import { assertClose, assertSameBits, normals } from '../support/compare.js';
import { vectorLevels } from '../support/levels.js';
import { roundTo } from '../support/rounding.js';

const start = memory().tensors;
after(() => assert.equal(memory().tensors, start));
const { threads, vectorLevel } = info();
afterEach(() => {
  setVectorLevel(vectorLevel);
  setThreads(threads);
});

interface Problem {
  readonly n: number;
  readonly v: number;
  readonly h: number;
  readonly hidden: Tensor;
  readonly weight: Tensor;
  readonly targets: Tensor;
  readonly chosen: Int32Array;
}

/** Logits of standard deviation about 3. */
function problem(n: number, v: number, h: number, dtype: NativeFloatDType, seed = 1): Problem {
  const chosen = Int32Array.from({ length: n }, (_, i) => (i * 7919 + v - 1) % v);
  return {
    n,
    v,
    h,
    hidden: tensor(normals(n * h, seed), [n, h], dtype),
    weight: tensor(normals(v * h, seed + 1, 3 / Math.sqrt(h)), [v, h], dtype),
    targets: tensor(chosen, [n], 'int32'),
    chosen,
  };
}

function disposeAll(...tensors: Tensor[]): void {
  for (const t of tensors) t.dispose();
}
function disposeProblem(p: Problem): void {
  disposeAll(p.hidden, p.weight, p.targets);
}

async function readToken(token: TokenLogprobs): Promise<Float32Array[]> {
  const all = [token.logprobs, token.lse, token.entropy];
  const read = (await readTensors(all)) as Float32Array[];
  disposeAll(...all);
  return read;
}

/** x = hidden weight^T / temperature, its log-sum-exp and entropy, in fp64. */
function forward64(hidden: ArrayLike<number>, weight: ArrayLike<number>, p: Problem, temperature: number) {
  const x = new Float64Array(p.n * p.v);
  const lse = new Float64Array(p.n);
  const entropy = new Float64Array(p.n);
  const logprobs = new Float64Array(p.n);
  for (let i = 0; i < p.n; i++) {
    const row = x.subarray(i * p.v, (i + 1) * p.v);
    for (let j = 0; j < p.v; j++) {
      let sum = 0;
      for (let k = 0; k < p.h; k++) sum += hidden[i * p.h + k]! * weight[j * p.h + k]!;
      row[j] = sum / temperature;
    }
    const max = row.reduce((a, b) => Math.max(a, b));
    lse[i] = max + Math.log(row.reduce((sum, l) => sum + Math.exp(l - max), 0));
    for (const l of row) entropy[i]! -= Math.exp(l - lse[i]!) * (l - lse[i]!);
    logprobs[i] = row[p.chosen[i]!]! - lse[i]!;
  }
  return { x, lse, entropy, logprobs };
}

/** dHidden and the gradient of the weight from dLogits, in fp64. */
function gradients64(
  dLogits: ArrayLike<number>,
  hidden: ArrayLike<number>,
  weight: ArrayLike<number>,
  p: Problem,
) {
  const dHidden = new Float64Array(p.n * p.h);
  const dWeight = new Float64Array(p.v * p.h);
  for (let i = 0; i < p.n; i++) {
    for (let j = 0; j < p.v; j++) {
      const d = dLogits[i * p.v + j]!;
      for (let k = 0; k < p.h; k++) {
        dHidden[i * p.h + k]! += d * weight[j * p.h + k]!;
        dWeight[j * p.h + k]! += d * hidden[i * p.h + k]!;
      }
    }
  }
  return { dHidden, dWeight };
}

function dLogits64(
  x: ArrayLike<number>,
  lse: ArrayLike<number>,
  d: ArrayLike<number>,
  p: Problem,
  t: number,
) {
  return Float64Array.from({ length: p.n * p.v }, (_, at) => {
    const i = Math.floor(at / p.v);
    return (d[i]! * ((at % p.v === p.chosen[i] ? 1 : 0) - Math.exp(x[at]! - lse[i]!))) / t;
  });
}

function assertNats(out: ArrayLike<number>, expected: ArrayLike<number>, limit: number, label: string): void {
  for (let i = 0; i < expected.length; i++) {
    const error = Math.abs(out[i]! - expected[i]!);
    assert.ok(error <= limit, `${label}: row ${i} is ${out[i]}, expected ${expected[i]}`);
  }
}

async function compareWithOps(p: Problem, chunk: number, temperature: number, options: LinearLogitsOptions) {
  const { logits16 = false, gemmFamily = 'training', gemmSplitK = 0 } = options;
  const fused = await readToken(
    linearLogprob(p.hidden, p.weight, p.targets, { ...options, chunk, temperature }),
  );
  const logits = gemm(p.hidden, p.weight, {
    transposeB: true,
    family: gemmFamily,
    splitK: gemmSplitK,
    outDtype: logits16 ? (p.hidden.dtype as NativeFloatDType) : 'fp32',
  });
  const token = chosenLogprobs(logits, p.targets, { chunk, temperature, family: 'rollout' });
  const separate = await readToken(token);
  logits.dispose();
  const label = `${p.hidden.dtype} ${p.n} x ${p.v} chunk ${chunk} ${JSON.stringify(options)}`;
  ['logprobs', 'lse', 'entropy'].forEach((name, k) => {
    assertSameBits(fused[k]!, separate[k]!, `${label} ${name}`);
  });
}

for (const level of vectorLevels()) {
  describe(`linear log-prob at ${level}`, () => {
    for (const dtype of floatDtypes) {
      it(`${dtype}: is the log-prob, log-sum-exp and entropy of fp64`, async () => {
        setVectorLevel(level);
        for (const v of [1, 2, 11, 33, 1000, 4099]) {
          const p = problem(5, v, 19, dtype, v);
          const [hidden, weight] = await readTensors([p.hidden, p.weight]);
          for (const temperature of [1, 0.75]) {
            const expected = forward64(hidden!, weight!, p, temperature);
            for (const chunk of [0, 16, 4096]) {
              const token = linearLogprob(p.hidden, p.weight, p.targets, { temperature, chunk });
              const [logprobs, lse, entropy] = await readToken(token);
              const label = `V ${v} T ${temperature} chunk ${chunk}`;
              assertNats(logprobs!, expected.logprobs, 1e-5, label);
              assertNats(lse!, expected.lse, 1e-5, label);
              assertNats(entropy!, expected.entropy, 1e-5, label);
            }
          }
          disposeProblem(p);
        }
      });

      it(`${dtype}: has the bits of gemm and chosenLogprobs at equal knobs`, async () => {
        setVectorLevel(level);
        for (const v of [1, 2, 11, 33, 1000, 4099]) {
          const p = problem(7, v, 37, dtype, v);
          for (const gemmFamily of ['training', 'rollout'] as const) {
            for (const logits16 of [false, true]) {
              for (const chunk of [0, 16, 512, 1500]) {
                await compareWithOps(p, chunk, 0.9, {
                  gemmFamily,
                  logits16,
                  gemmSplitK: chunk === 16 ? 16 : 0,
                });
              }
            }
          }
          disposeProblem(p);
        }
      });

      it(`${dtype}: likewise where a row, a step or the batch is larger than a block`, async () => {
        setVectorLevel(level);
        const wide = problem(3, 33001, 5, dtype);
        for (const chunk of [0, 5000, 16400, 20011]) await compareWithOps(wide, chunk, 1, { logits16: true });
        disposeProblem(wide);
        const tall = problem(521, 35, 6, dtype);
        for (const chunk of [0, 16]) await compareWithOps(tall, chunk, 1.1, {});
        disposeProblem(tall);
        if (dtype !== 'fp32') return;
        // More rows than a block of a GPU has, and more columns beside so many rows.
        const both = problem(2100, 4203, 3, dtype);
        await compareWithOps(both, 4096, 1, {});
        disposeProblem(both);
      });

      it(`${dtype}: gradients are the analytic ones, added to what gradWeight held`, async () => {
        setVectorLevel(level);
        for (const [n, v, h] of [
          [1, 1, 1],
          [3, 2, 5],
          [6, 11, 16],
          [9, 33, 21],
          [5, 1000, 9],
          [4, 4099, 6],
          [521, 35, 7],
          [2100, 35, 3],
        ] as const) {
          for (const temperature of [1, 0.5]) {
            const p = problem(n, v, h, dtype, v);
            const [hidden, weight] = await readTensors([p.hidden, p.weight]);
            const d = Float32Array.from(normals(n, 5));
            const dLogprobs = tensor(d);
            const gradWeight = full([v, h], 0.25);
            const token = linearLogprob(p.hidden, p.weight, p.targets, { temperature });
            const dHidden = linearLogprobBackward(
              dLogprobs,
              p.hidden,
              p.weight,
              p.targets,
              token.lse,
              gradWeight,
              { temperature },
            );
            assert.equal(dHidden.dtype, dtype);
            const { x, lse } = forward64(hidden!, weight!, p, temperature);
            const expected = gradients64(dLogits64(x, lse, d, p, temperature), hidden!, weight!, p);
            const [dh, dw] = await readTensors([dHidden, gradWeight]);
            const label = `${dtype} ${n} x ${v} x ${h} T ${temperature}`;
            if (v === 1) {
              // One token has probability 1: no gradient at all.
              assert.ok(dh!.every((g) => g === 0) && dw!.every((g) => g === 0.25), label);
            } else {
              assertClose(dh!, expected.dHidden, dtype, `${label} dHidden`);
              const added = Float64Array.from(dw!, (g) => g - 0.25);
              assertClose(added, expected.dWeight, dtype, `${label} gradWeight`);
            }
            disposeProblem(p);
            disposeAll(dLogprobs, gradWeight, dHidden, token.logprobs, token.lse, token.entropy);
          }
        }
      });

      it(`${dtype}: gradients are those of finite differences`, async () => {
        setVectorLevel(level);
        const p = problem(4, 11, 6, dtype);
        const temperature = 0.8;
        const [hidden, weight] = await readTensors([p.hidden, p.weight]);
        const d = Float32Array.from(normals(p.n, 5));
        const dLogprobs = tensor(d);
        const gradWeight = zeros([p.v, p.h]);
        const token = linearLogprob(p.hidden, p.weight, p.targets, { temperature });
        const dHidden = linearLogprobBackward(
          dLogprobs,
          p.hidden,
          p.weight,
          p.targets,
          token.lse,
          gradWeight,
          { temperature },
        );
        const [dh, dw] = await readTensors([dHidden, gradWeight]);
        const slopes = (values: ArrayLike<number>, loss: (changed: Float64Array) => number) =>
          Float64Array.from({ length: values.length }, (_, at) => {
            const shifted = (by: number) => {
              const changed = Float64Array.from(values);
              changed[at]! += by;
              return loss(changed);
            };
            return (shifted(1e-5) - shifted(-1e-5)) / 2e-5;
          });
        const loss = (a: ArrayLike<number>, b: ArrayLike<number>) =>
          forward64(a, b, p, temperature).logprobs.reduce((sum, l, i) => sum + l * d[i]!, 0);
        assertClose(
          dh!,
          slopes(hidden!, (changed) => loss(changed, weight!)),
          dtype,
          'dHidden',
        );
        assertClose(
          dw!,
          slopes(weight!, (changed) => loss(hidden!, changed)),
          dtype,
          'gradWeight',
        );
        disposeProblem(p);
        disposeAll(dLogprobs, gradWeight, dHidden, token.logprobs, token.lse, token.entropy);
      });

      it(`${dtype}: dLogits are those of the forward logits, rounded to the training dtype`, async () => {
        setVectorLevel(level);
        const p = problem(6, 150, 12, dtype);
        const [hidden, weight] = await readTensors([p.hidden, p.weight]);
        const d = Float32Array.from(normals(p.n, 5));
        const dLogprobs = tensor(d);
        for (const logits16 of [false, true]) {
          for (const gemmFamily of ['training', 'rollout'] as const) {
            const options = { logits16, gemmFamily, gemmSplitK: 4 };
            const gradWeight = zeros([p.v, p.h]);
            const token = linearLogprob(p.hidden, p.weight, p.targets, options);
            const dHidden = linearLogprobBackward(
              dLogprobs,
              p.hidden,
              p.weight,
              p.targets,
              token.lse,
              gradWeight,
              options,
            );
            const logits = gemm(p.hidden, p.weight, {
              transposeB: true,
              family: gemmFamily,
              splitK: 4,
              outDtype: logits16 ? dtype : 'fp32',
            });
            const [dh, dw, x, lse] = await readTensors([dHidden, gradWeight, logits, token.lse]);
            const dLogits = dLogits64(x!, lse!, d, p, 1).map((g) => roundTo(Math.fround(g), dtype));
            const expected = gradients64(dLogits, hidden!, weight!, p);
            // Ten times tighter than a rounding of dLogits left out or done otherwise.
            const limit = { fp32: 1e-5, fp16: 2e-5, bf16: 1e-4 }[dtype];
            assertClose(dw!, expected.dWeight, dtype, `gradWeight ${JSON.stringify(options)}`, limit);
            const rounded = expected.dHidden.map((g) => roundTo(Math.fround(g), dtype));
            const unit = { fp32: 1e-5, fp16: 1e-4, bf16: 1e-3 }[dtype];
            assertClose(dh!, rounded, dtype, `dHidden ${JSON.stringify(options)}`, unit);
            disposeAll(gradWeight, dHidden, logits, token.logprobs, token.lse, token.entropy);
          }
        }
        disposeProblem(p);
        dLogprobs.dispose();
      });
    }

    it('in fp16 dLogits overflow to infinity and underflow to 0; in bf16 they do neither', async () => {
      setVectorLevel(level);
      for (const dtype of ['fp16', 'bf16'] as const) {
        const p = problem(3, 40, 8, dtype);
        const token = linearLogprob(p.hidden, p.weight, p.targets);
        const results: Float32Array[][] = [];
        for (const scale of [1e-9, 1e7]) {
          const dLogprobs = full([3], scale);
          const gradWeight = zeros([p.v, p.h]);
          const dHidden = linearLogprobBackward(
            dLogprobs,
            p.hidden,
            p.weight,
            p.targets,
            token.lse,
            gradWeight,
          );
          results.push((await readTensors([dHidden, gradWeight])) as Float32Array[]);
          disposeAll(dLogprobs, gradWeight, dHidden);
        }
        const [small, large] = results as [Float32Array[], Float32Array[]];
        for (const k of [0, 1]) {
          if (dtype === 'fp16') {
            assert.ok(
              small[k]!.every((g) => g === 0),
              'underflow',
            );
            assert.ok(
              large[k]!.some((g) => !Number.isFinite(g)),
              'overflow',
            );
          } else {
            assert.ok(small[k]!.some((g) => g !== 0));
            assert.ok(large[k]!.every((g) => Number.isFinite(g)));
          }
        }
        disposeProblem(p);
        disposeAll(token.logprobs, token.lse, token.entropy);
      }
    });

    it('rows without a gradient add exactly nothing, not even where they are NaN', async () => {
      setVectorLevel(level);
      const p = problem(300, 37, 11, 'bf16');
      const hidden = Float32Array.from((await p.hidden.floats()) as Float32Array);
      const kept = Array.from({ length: p.n }, (_, i) => i).filter((i) => i % 3 !== 1);
      for (let i = 1; i < p.n; i += 3) hidden.fill(Number.NaN, i * p.h, (i + 1) * p.h);
      const d = Float32Array.from(normals(p.n, 2), (x, i) => (i % 3 === 1 ? (i % 2 ? 0 : -0) : x));
      const masked = tensor(hidden, [p.n, p.h], 'bf16');
      const dense = tensor(
        kept.flatMap((i) => Array.from(hidden.subarray(i * p.h, (i + 1) * p.h))),
        [kept.length, p.h],
        'bf16',
      );
      const denseTargets = tensor(
        kept.map((i) => p.chosen[i]!),
        [kept.length],
        'int32',
      );
      const run = async (h: Tensor, targets: Tensor, dValues: ArrayLike<number>) => {
        const dLogprobs = tensor(dValues);
        const gradWeight = zeros([p.v, p.h]);
        const token = linearLogprob(h, p.weight, targets);
        const dHidden = linearLogprobBackward(dLogprobs, h, p.weight, targets, token.lse, gradWeight);
        const read = (await readTensors([dHidden, gradWeight])) as Float32Array[];
        disposeAll(dLogprobs, gradWeight, dHidden, token.logprobs, token.lse, token.entropy);
        return read;
      };
      const [dh, dw] = await run(masked, p.targets, d);
      const [dhDense, dwDense] = await run(
        dense,
        denseTargets,
        kept.map((i) => d[i]!),
      );
      assertSameBits(dw!, dwDense!, 'gradWeight');
      kept.forEach((i, at) => {
        const row = dh!.subarray(i * p.h, (i + 1) * p.h);
        assertSameBits(row, dhDense!.subarray(at * p.h, (at + 1) * p.h), `row ${i}`);
      });
      for (let i = 1; i < p.n; i += 3)
        assert.ok(
          dh!.subarray(i * p.h, (i + 1) * p.h).every((g) => g === 0),
          `row ${i}`,
        );
      disposeProblem(p);
      disposeAll(masked, dense, denseTargets);
    });
  });
}

describe('linear log-prob', () => {
  it('gives the same bits at 1 and 3 threads, and to a row alone as in a batch', async () => {
    const p = problem(270, 611, 23, 'fp16');
    const dLogprobs = tensor(normals(p.n, 5));
    const run = async (from: number, to: number) => {
      const [h, t, d] = [p.hidden.rows(from, to), p.targets.rows(from, to), dLogprobs.rows(from, to)];
      const gradWeight = zeros([p.v, p.h]);
      const token = linearLogprob(h, p.weight, t, { chunk: 100 });
      const dHidden = linearLogprobBackward(d, h, p.weight, t, token.lse, gradWeight);
      const all = [token.logprobs, token.lse, token.entropy, dHidden, gradWeight];
      const read = (await readTensors(all)) as Float32Array[];
      disposeAll(h, t, d, ...all);
      return read;
    };
    setThreads(1);
    const one = await run(0, p.n);
    setThreads(3);
    const three = await run(0, p.n);
    const alone = await run(260, 261);
    one.forEach((values, k) => {
      assertSameBits(values, three[k]!, `threads, output ${k}`);
      const width = values.length / p.n;
      if (k < 4) assertSameBits(values.subarray(260 * width, 261 * width), alone[k]!, `batch, output ${k}`);
    });
    disposeProblem(p);
    dLogprobs.dispose();
  });

  it('gives the same dHidden where the weight is frozen and has no gradient', async () => {
    const p = problem(9, 70, 12, 'bf16');
    const dLogprobs = tensor(normals(9, 5));
    const gradWeight = zeros([70, 12]);
    const token = linearLogprob(p.hidden, p.weight, p.targets);
    const run = (grad: Tensor | null) =>
      linearLogprobBackward(dLogprobs, p.hidden, p.weight, p.targets, token.lse, grad);
    const [free, frozen] = [run(gradWeight), run(null)];
    const [a, b] = await readTensors([free, frozen]);
    assertSameBits(a!, b!, 'dHidden');
    disposeProblem(p);
    disposeAll(dLogprobs, gradWeight, free, frozen, token.logprobs, token.lse, token.entropy);
  });

  it('takes no rows, and leaves gradWeight as it was', async () => {
    const p = problem(0, 7, 3, 'bf16');
    const none = tensor([]);
    const gradWeight = full([7, 3], 2);
    const token = linearLogprob(p.hidden, p.weight, p.targets);
    const dHidden = linearLogprobBackward(none, p.hidden, p.weight, p.targets, token.lse, gradWeight);
    assert.equal((await dHidden.data()).length, 0);
    assert.ok((await gradWeight.data()).every((g) => g === 2));
    disposeProblem(p);
    disposeAll(none, gradWeight, dHidden, token.logprobs, token.lse, token.entropy);
  });

  it('names the row, the target and the vocabulary of a target outside it', async () => {
    const p = problem(4, 9, 3, 'fp32');
    const bad = tensor(Int32Array.of(0, 1, 9, -1), [4], 'int32');
    const perRow = full([4], 1);
    const gradWeight = zeros([9, 3]);
    const expectFailure = async (t: Tensor, op: string) => {
      await assert.rejects(t.data(), (error: Error & { code?: string }) => {
        assert.equal(error.code, 'ERR_DEVICE');
        assert.equal(error.message, `[${op}] expected targets from 0 to V - 1 = 8, got 9 in row 2`);
        assert.match(error.stack ?? '', /linearLogprob\.test/);
        return true;
      });
    };
    const token = linearLogprob(p.hidden, p.weight, bad);
    await expectFailure(token.logprobs, 'linearLogprob');
    const dHidden = linearLogprobBackward(perRow, p.hidden, p.weight, bad, perRow, gradWeight);
    await expectFailure(dHidden, 'linearLogprobBackward');
    disposeProblem(p);
    disposeAll(bad, perRow, gradWeight, dHidden, token.logprobs, token.lse, token.entropy);
  });

  it('rejects each bad argument at the call', () => {
    const p = problem(2, 5, 3, 'fp32');
    const { hidden, weight, targets } = p;
    const bf = problem(2, 5, 3, 'bf16');
    const perRow = full([2], 1);
    const grad = zeros([5, 3]);
    const [noWidth, noTokens, wide, three] = [zeros([2, 0]), zeros([0, 3]), zeros([5, 4]), zeros([3])];
    const back = (d: Tensor, lse: Tensor, g: Tensor, options: LinearLogitsOptions = {}) =>
      linearLogprobBackward(d, hidden, weight, targets, lse, g, options);
    const cases: [() => unknown, RegExp][] = [
      [() => linearLogprob(perRow, weight, targets), /^\[linearLogprob\] expected hidden of 2 dimensions/],
      [
        () => linearLogprob(targets, weight, targets),
        /expected hidden of dtype fp32, fp16 or bf16, got int32/,
      ],
      [() => linearLogprob(noWidth, weight, targets), /hidden of shape \[N, H\] with H of at least 1/],
      [() => linearLogprob(hidden, bf.weight, targets), /expected weight of dtype fp32, got bf16/],
      [() => linearLogprob(hidden, perRow, targets), /expected weight of 2 dimensions \[V, H\]/],
      [() => linearLogprob(hidden, noTokens, targets), /weight of shape \[V, H\] with V of at least 1/],
      [
        () => linearLogprob(hidden, wide, targets),
        /expected weight of shape \[V, H\] = \[5, 3\], got \[5, 4\]/,
      ],
      [() => linearLogprob(hidden, weight, perRow), /expected targets of dtype int32, got fp32/],
      [() => linearLogprob(weight, weight, targets), /expected targets of shape \[N\] = \[5\], got \[2\]/],
      [() => linearLogprob(hidden, weight, targets, { temperature: 0 }), /expected temperature above 0/],
      [() => linearLogprob(hidden, weight, targets, { chunk: -1 }), /expected chunk to be an integer/],
      [
        () => linearLogprob(hidden, weight, targets, { gemmSplitK: -1 }),
        /expected gemmSplitK to be an integer/,
      ],
      [
        () => linearLogprob(hidden, weight, targets, { gemmFamily: 'shared' as 'rollout' }),
        /^\[linearLogprob\] expected gemmFamily to be one of rollout, training, got "shared"/,
      ],
      [
        () => back(three, perRow, grad),
        /^\[linearLogprobBackward\] expected dLogprobs of shape \[N\] = \[2\]/,
      ],
      [() => back(targets, perRow, grad), /expected dLogprobs of dtype fp32, got int32/],
      [() => back(perRow, three, grad), /expected lse of shape \[N\] = \[2\], got \[3\]/],
      [() => back(perRow, targets, grad), /expected lse of dtype fp32, got int32/],
      [() => back(perRow, perRow, wide), /expected gradWeight of shape \[V, H\] = \[5, 3\], got \[5, 4\]/],
      [() => back(perRow, perRow, bf.weight), /expected gradWeight of dtype fp32, got bf16/],
      [() => back(perRow, perRow, grad, { temperature: -1 }), /expected temperature above 0/],
    ];
    for (const [attempt, message] of cases) assert.throws(attempt, { code: 'ERR_INVALID_ARGUMENT', message });
    disposeProblem(p);
    disposeProblem(bf);
    disposeAll(perRow, grad, noWidth, noTokens, wide, three);
  });
});
