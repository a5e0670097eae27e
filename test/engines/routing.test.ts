/** The routes of a mixture of experts: recorded by either engine, replayed by the training engine. */
import assert from 'node:assert/strict';
import { afterEach, describe, it } from 'node:test';
import { mismatchMetrics } from '../../lib/mismatch/metrics.js';
import { routingFlips } from '../../lib/mismatch/routing.js';
import { Decoder } from '../../lib/models/decoder.js';
import type { Routes } from '../../lib/models/routes.js';
import type { Scores, TokenLoss, TokenSequence } from '../../lib/models/sequences.js';
import { type NumericsPreset, numerics } from '../../lib/numerics.js';
import { RolloutEngine } from '../../lib/rollout/engine.js';
import { info, memory, setThreads } from '../../lib/runtime.js';
import { floatDtypes, type NativeFloatDType } from '../../lib/tensor/dtype.js';
import { TrainingEngine } from '../../lib/training/engine.js';
import { assertClose, assertSameBits } from '../support/compare.js';
import { mixtureConfig, oddModel, randomTokens } from '../support/models.js';

const { numExpertsPerToken: k = 0, numExperts: experts = 0 } = mixtureConfig;
const mixtures = 2;
const { threads } = info();
afterEach(() => setThreads(threads));
const schedule = { kind: 'constant', learningRate: 0 } as const;

interface Both {
  readonly model: Decoder;
  readonly rollout: RolloutEngine;
  readonly training: TrainingEngine;
}

function enginesOf(precision: NativeFloatDType, preset?: NumericsPreset): Both & Disposable {
  const model = new Decoder(mixtureConfig, { seed: 4 });
  const choices = preset && { numerics: numerics(preset) };
  const rollout = new RolloutEngine(model, { precision, maxBatch: 5, ...choices });
  const training = new TrainingEngine(model, { precision, schedule, microBatchTokens: 60, ...choices });
  const dispose = () => {
    for (const each of [rollout, training, model]) each.dispose();
  };
  return { model, rollout, training, [Symbol.dispose]: dispose };
}

/** Sampled responses with their routes, more of them than run at once. */
async function sampled({ rollout }: Both, stopTokens: readonly number[] = []) {
  const requests = Array.from({ length: 9 }, (_, i) => ({
    prompt: randomTokens(1 + 4 * (i % 5), mixtureConfig.vocabSize, i),
    promptId: i,
    sampleId: 1,
  }));
  const options = { seed: 3, maxNewTokens: 38, stopTokens, recordRoutes: true };
  const completions = await rollout.generate(requests, options);
  return {
    sequences: completions.map(({ tokens }, i) => ({ prompt: requests[i]!.prompt, response: tokens })),
    routes: completions.map(({ routes }) => routes!),
    logprobs: Float64Array.from(completions.flatMap(({ logprobs }) => [...logprobs])),
    plain: await rollout.generate(requests, { ...options, recordRoutes: false }),
    completions,
  };
}

/** A weighted sum of the log-probs. */
function weightedLoss({ logprobs }: Pick<Scores, 'logprobs'>, begin: number): TokenLoss {
  const gradient = logprobs.map((_, t) => Math.sin(1 + t + 7 * begin) / 10);
  return { loss: logprobs.reduce((sum, x, t) => sum + x * gradient[t]!, 0), gradient, metrics: {} };
}

const mismatch = (pi: Scores, mu: Float64Array) =>
  mismatchMetrics({
    offsets: pi.offsets,
    rolloutLogprobs: mu,
    logprobs: pi.logprobs,
    mask: new Uint8Array(mu.length).fill(1),
  }).meanAbsLogRatio;

/** Routes that no router chose: each token's experts differ, and by token, mixture and sequence. */
function strangeRoutes(sequences: readonly TokenSequence[]): Routes[] {
  return sequences.map(({ prompt, response }, s) =>
    Uint16Array.from(
      { length: (prompt.length + response.length - 1) * mixtures * k },
      (_, i) => (5 * s + Math.floor(i / k) + 2 * (i % k)) % experts,
    ),
  );
}

for (const precision of floatDtypes) {
  for (const stopTokens of [[], [4, 9]]) {
    it(`in ${precision} the rollout engine records what a matched training engine chooses, ${
      stopTokens.length > 0 ? 'step by step' : 'many steps at once'
    }`, async () => {
      using both = enginesOf(precision, 'matched');
      const { sequences, routes, logprobs, plain, completions } = await sampled(both, stopTokens);
      const lengths = completions.map(({ tokens }) => tokens.length);
      assert.equal(new Set(lengths).size > 1, stopTokens.length > 0, `lengths ${lengths}`);
      const pi = await both.training.score(sequences, { recordRoutes: true });
      assertSameBits(pi.logprobs, logprobs, 'log-probs');
      assert.deepEqual(routes, pi.routing!.routes);
      // Recorded or not, whatever the batch, the micro-batches and the threads.
      plain.forEach(({ tokens, logprobs, routes }, i) => {
        assert.equal(routes, undefined);
        assert.deepEqual(tokens, completions[i]!.tokens);
        assertSameBits(logprobs, completions[i]!.logprobs, 'without a record');
      });
      setThreads(3);
      using alone = new RolloutEngine(both.model, {
        precision,
        maxBatch: 1,
        numerics: both.rollout.numerics,
      });
      const again = await sampled({ ...both, rollout: alone }, stopTokens);
      assert.deepEqual(again.routes, routes);
    });
  }
}

describe('a record of routes', () => {
  it('counts every token but the last of each sequence, and how even its experts are', async () => {
    using both = enginesOf('bf16');
    const { sequences, routes } = await sampled(both);
    const { routing } = await both.training.score(sequences, { recordRoutes: true });
    const counts = Array.from({ length: mixtures }, () => new Float64Array(experts));
    let tokens = 0;
    routing!.routes.forEach((own, s) => {
      const { prompt, response } = sequences[s]!;
      const length = prompt.length + response.length - 1;
      assert.equal(own.length, length * mixtures * k);
      assert.equal(routes[s]!.length, own.length);
      tokens += length;
      own.forEach((e, i) => {
        counts[Math.floor(i / k) % mixtures]![e]!++;
      });
      for (let i = 0; i < own.length; i += k) assert.equal(new Set(own.subarray(i, i + k)).size, k);
    });
    assert.equal(routing!.load.length, mixtures);
    routing!.load.forEach(({ fractions, meanProbabilities, auxiliaryLoss }, l) => {
      assert.deepEqual(
        fractions,
        counts[l]!.map((count) => count / tokens),
      );
      assert.ok(Math.abs(meanProbabilities.reduce((a, b) => a + b) - 1) < 1e-5);
      const loss = experts * fractions.reduce((sum, f, e) => sum + f * meanProbabilities[e]!, 0);
      assertClose([auxiliaryLoss], [loss], 'fp32', 'auxiliary loss');
      // Experts that are chosen more are those of larger probability.
      assert.ok(auxiliaryLoss > k && auxiliaryLoss < experts, `${auxiliaryLoss}`);
    });
    assert.ok(new Set(counts.flatMap((own) => [...own])).size > experts, 'experts are not alike');
  });

  it('costs no tensor, and changes no bit of scores, steps and gradients', async () => {
    using both = enginesOf('fp16');
    const { sequences } = await sampled(both);
    const { training } = both;
    const plain = await training.gradients(sequences, weightedLoss);
    for (const parameter of training.optimizer.parameters) training.optimizer.moments(parameter);
    const { tensors } = memory();
    const scores = await training.score(sequences, { recordRoutes: true });
    const recorded = await training.gradients(sequences, weightedLoss, { recordRoutes: true });
    const step = await training.step(sequences, weightedLoss, {
      recordRoutes: true,
      replay: scores.routing!.routes,
    });
    assert.equal(memory().tensors, tensors, 'tensors left');
    assert.equal(scores.routing!.routes.length, sequences.length);
    assert.deepEqual(recorded.routing, scores.routing);
    assert.deepEqual(step.routing, scores.routing);
    assert.equal(step.loss, plain.loss);
    for (const [name, gradient] of plain.gradients) {
      assertSameBits(recorded.gradients.get(name)!, gradient, name);
    }
    assert.equal((await training.score(sequences)).routing, undefined);
    assert.equal((await training.step(sequences, weightedLoss)).routing, undefined);
  });
});

describe('replayed routes', () => {
  for (const precision of floatDtypes) {
    it(`of a pass's own record give its bits in ${precision}`, async () => {
      using both = enginesOf(precision);
      const { sequences } = await sampled(both);
      const { training } = both;
      const free = await training.score(sequences, { recordRoutes: true });
      const replay = free.routing!.routes;
      const again = await training.score(sequences, { replay, recordRoutes: true });
      assertSameBits(again.logprobs, free.logprobs, 'log-probs');
      assertSameBits(again.entropy, free.entropy, 'entropies');
      assert.deepEqual(again.routing, free.routing);
      const gradients = await training.gradients(sequences, weightedLoss);
      const replayed = await training.gradients(sequences, weightedLoss, { replay });
      assert.equal(replayed.loss, gradients.loss);
      for (const [name, gradient] of gradients.gradients) {
        assertSameBits(replayed.gradients.get(name)!, gradient, name);
      }
    });
  }

  it('of the rollout engine end flips between the engines, and the mismatch falls', async () => {
    using both = enginesOf('bf16');
    const { sequences, routes, logprobs: mu } = await sampled(both);
    const free = await both.training.score(sequences, { recordRoutes: true });
    const replayed = await both.training.score(sequences, { replay: routes, recordRoutes: true });
    const flips = routingFlips(routes, free.routing!.routes, k);
    assert.ok(flips > 0.001 && flips < 0.1, `${flips} of the choices differ`);
    assert.equal(routingFlips(routes, replayed.routing!.routes, k), 0);
    const [before, after] = [mismatch(free, mu), mismatch(replayed, mu)];
    assert.ok(after < 0.8 * before, `${before} to ${after}`);
    assert.ok(after > 0, 'roundings are left');
  });

  it('are those that are used, of the same model in matched numerics', async () => {
    using both = enginesOf('fp32');
    const { sequences } = await sampled(both);
    const strange = strangeRoutes(sequences);
    const scores = await both.training.score(sequences, { replay: strange, recordRoutes: true });
    assert.deepEqual(scores.routing!.routes, strange);
    // Alone, in one micro-batch each, and all at once.
    using whole = new TrainingEngine(both.model, { precision: 'fp32', schedule });
    assertSameBits((await whole.score(sequences, { replay: strange })).logprobs, scores.logprobs, 'whole');
    const free = await both.training.score(sequences);
    assert.ok(mismatch(scores, free.logprobs) > 0.01, 'other experts, other log-probs');
  });

  it('have gradients that agree with finite differences, as have those that the router chose', async () => {
    using model = new Decoder(
      { ...mixtureConfig, hiddenSize: 20, intermediateSize: 24, headDim: 6 },
      { seed: 9 },
    );
    const sequences = [
      { prompt: randomTokens(3, 37, 1), response: randomTokens(9, 37, 2) },
      { prompt: randomTokens(1, 37, 3), response: randomTokens(14, 37, 4) },
    ];
    using engine = new TrainingEngine(model, { precision: 'fp32', schedule });
    const own = (await engine.score(sequences, { recordRoutes: true })).routing!.routes;
    // Held fixed: at a step that changes the choice the loss would jump.
    for (const replay of [own, strangeRoutes(sequences)]) {
      const { gradients } = await engine.gradients(sequences, weightedLoss, { replay });
      for (const { name, master } of model.parameters) {
        const values = await master.floats();
        const direction = randomTokens(values.length, 2001, 3).map((x) => x - 1000);
        const norm = Math.sqrt(direction.reduce((sum, d) => sum + d * d, 0));
        const lossAt = async (step: number) => {
          master.upload(values.map((x, i) => x + (step * direction[i]!) / norm));
          engine.syncWeights();
          const { logprobs, offsets } = await engine.score(sequences, { replay });
          assert.equal(offsets.length, 3);
          return weightedLoss({ logprobs }, 0).loss;
        };
        const difference = ((await lossAt(0.02)) - (await lossAt(-0.02))) / 0.04;
        master.upload(values);
        engine.syncWeights();
        const gradient = gradients.get(name)!;
        const expected = gradient.reduce((sum, g, i) => sum + (g * direction[i]!) / norm, 0);
        const size = Math.sqrt(gradient.reduce((sum, g) => sum + g * g, 0));
        assert.ok(size > 0, `${name} has a gradient`);
        assert.ok(
          Math.abs(difference - expected) < 3e-3 * size + 2e-5,
          `${name}: ${difference} and ${expected} (norm ${size})`,
        );
      }
    }
  });
});

describe('routes that do not fit', () => {
  it('are refused before anything is queued, by every call', async () => {
    using both = enginesOf('bf16');
    const { training } = both;
    const sequences = [
      { prompt: [1, 2], response: [3] },
      { prompt: [4], response: [5, 6, 7] },
    ];
    const [first, second] = strangeRoutes(sequences) as [Routes, Routes];
    const wrong: readonly [replay: unknown, message: RegExp][] = [
      [[first], /expected replay of 2 sequences, got 1/],
      [7, /expected replay of 2 sequences, got 7/],
      [[first, [...second]], /expected replay\[1\] to be a Uint16Array, got \[/],
      [
        [second, first],
        /expected replay\[0\] of length 12 \(2 tokens, 2 mixtures and 3 experts a token\), got 18/,
      ],
      [
        [first, second.map((e, i) => (i === 4 ? experts : e))],
        /replay\[1\]\[4\] below numExperts = 7, got 7/,
      ],
    ];
    for (const [replay, message] of wrong) {
      const options = { replay: replay as Routes[] };
      await assert.rejects(training.score(sequences, options), message);
      await assert.rejects(training.step(sequences, weightedLoss, options), message);
      await assert.rejects(training.gradients(sequences, weightedLoss, options), message);
    }
    using model = oddModel();
    using rollout = new RolloutEngine(model, { precision: 'bf16', maxBatch: 2 });
    using dense = new TrainingEngine(model, { precision: 'bf16', schedule });
    assert.deepEqual([rollout.routesShape, dense.routesShape], [null, null]);
    const asked = /\[score\] expected recordRoutes for a mixture of experts alone, got "a dense model"/;
    await assert.rejects(dense.score(sequences, { recordRoutes: true }), asked);
    await assert.rejects(dense.score(sequences, { replay: [] }), /\[score\] expected replay for a mixture/);
    await assert.rejects(
      training.score(sequences, { recordRoutes: 1 as never }),
      /\[score\] expected recordRoutes to be true or false, got 1/,
    );
    const requests = [{ prompt: [1], promptId: 0, sampleId: 0 }];
    const options = { seed: 1, maxNewTokens: 2 };
    await assert.rejects(
      rollout.generate(requests, { ...options, recordRoutes: true }),
      /\[generate\] expected recordRoutes for a mixture of experts alone/,
    );
    await assert.rejects(
      both.rollout.generate(requests, { ...options, recordRoutes: 1 as never }),
      /\[generate\] expected recordRoutes to be true or false, got 1/,
    );
  });
});

it('a forward pass of a mixture that overflows leaves the step out, as that of a dense model does', async () => {
  using both = enginesOf('fp16');
  const { model, training } = both;
  const { master } = model.layers[0]!.attention.outWeight;
  master.upload((await master.floats()).map((x) => 1e6 * x));
  training.syncWeights();
  const sequences = [{ prompt: [1, 2], response: [3, 4] }];
  const { skipped, overflowed } = await training.step(sequences, weightedLoss);
  assert.deepEqual([skipped, overflowed], [true, 'log-probs']);
});
