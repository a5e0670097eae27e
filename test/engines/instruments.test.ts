/** What the engines offer to instruments: choices by layer, whole distributions, and a look at every activation. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { TokenSequence } from '../../lib/models/sequences.js';
import { activationPoints } from '../../lib/nn/forward.js';
import { numerics } from '../../lib/numerics.js';
import { RolloutEngine } from '../../lib/rollout/engine.js';
import { memory } from '../../lib/runtime.js';
import { floatDtypes } from '../../lib/tensor/dtype.js';
import { copy, type Tensor } from '../../lib/tensor/tensor.js';
import { TrainingEngine } from '../../lib/training/engine.js';
import { assertSameBits } from '../support/compare.js';
import { onDevice } from '../support/dtypes.js';
import { mixtureFields, oddModel, randomTokens } from '../support/models.js';

/** The layers of {@link mixtureFields} that have a router. */
const mixtureLayers = [0, 2];
const schedule = { kind: 'constant', learningRate: 0 } as const;
const lengths = [
  [1, 15],
  [17, 47],
  [64, 1],
  [40, 57],
] as const;

function batch(vocabSize: number): TokenSequence[] {
  return lengths.map(([prompt, response], i) => ({
    prompt: randomTokens(prompt, vocabSize, 100 + i),
    response: randomTokens(response, vocabSize, 200 + i),
  }));
}

describe('choices by layer', () => {
  const matched = numerics('matched');
  const engines = { rollout: numerics('rollout'), training: numerics('training') };

  it('of every layer are the choices of the whole, but for what lies outside of the layers', async () => {
    using model = oddModel();
    const sequences = batch(model.config.vocabSize);
    const all = (own: typeof matched) => new Map([0, 1].map((layer) => [layer, own]));
    for (const [name, own] of Object.entries(engines)) {
      // The final norm and the head are outside: they follow `numerics`.
      using r = new RolloutEngine(model, { precision: 'bf16', numerics: own, layerNumerics: all(matched) });
      using r2 = new RolloutEngine(model, { precision: 'bf16', numerics: own });
      using same = new RolloutEngine(model, { precision: 'bf16', numerics: own, layerNumerics: all(own) });
      const [a, b, c] = [await r.score(sequences), await r2.score(sequences), await same.score(sequences)];
      assertSameBits(c.logprobs, b.logprobs, name);
      assert.notDeepEqual(a.logprobs, b.logprobs);
    }
  });

  it('are honoured alike by both engines, one layer at a time', async () => {
    using model = oddModel();
    const sequences = batch(model.config.vocabSize);
    using plain = new TrainingEngine(model, { precision: 'bf16', numerics: matched, schedule });
    const expected = await plain.score(sequences);
    for (const own of Object.values(engines)) {
      for (const layer of [0, 1]) {
        // The weights of both are those of the matched preset.
        const layerNumerics = new Map([[layer, { ...own, gemmSplitK: 32 }]]);
        using rollout = new RolloutEngine(model, { precision: 'bf16', numerics: matched, layerNumerics });
        using training = new TrainingEngine(model, {
          precision: 'bf16',
          numerics: matched,
          layerNumerics,
          schedule,
        });
        const [mu, pi] = [await rollout.score(sequences), await training.score(sequences)];
        assertSameBits(mu.logprobs, pi.logprobs, `layer ${layer}`);
        assert.notDeepEqual(mu.logprobs, expected.logprobs, 'and they matter');
        const drawn = await rollout.generate(
          sequences.map(({ prompt }, i) => ({ prompt: Int32Array.from(prompt), promptId: i, sampleId: 0 })),
          { seed: 1, maxNewTokens: 9, stopTokens: [] },
        );
        const scored = await rollout.score(
          sequences.map(({ prompt }, i) => ({ prompt, response: drawn[i]!.tokens })),
        );
        const sampled = drawn.flatMap(({ logprobs }) => [...logprobs]);
        assertSameBits(sampled, scored.logprobs, 'sampled as scored');
      }
    }
  });
});

describe('distributions', () => {
  for (const precision of onDevice(...floatDtypes, 'e8m4')) {
    it(`in ${precision} have the log-probs that score gives, to the bit, and sum to 1`, async () => {
      using model = oddModel();
      const { vocabSize } = model.config;
      const sequences = batch(vocabSize);
      using rollout = new RolloutEngine(model, { precision, maxPrefillTokens: 70 });
      using training = new TrainingEngine(model, { precision, schedule, microBatchTokens: 70 });
      const { tensors } = memory();
      for (const engine of [rollout, training]) {
        const scores = await engine.score(sequences);
        const rows = await engine.distributions(sequences);
        sequences.forEach(({ response }, s) => {
          assert.equal(rows[s]!.length, response.length * vocabSize);
          for (let t = 0; t < response.length; t++) {
            const row = rows[s]!.subarray(t * vocabSize, (t + 1) * vocabSize);
            assert.equal(row[response[t]!], scores.logprobs[scores.offsets[s]! + t]);
            const total = row.reduce((sum, logprob) => sum + Math.exp(logprob), 0);
            assert.ok(Math.abs(total - 1) < 1e-5);
          }
        });
      }
      assert.equal(memory().tensors, tensors, 'tensors left');
    });
  }
});

describe('a watch on a gradient', () => {
  for (const [kind, routed, overrides] of [
    ['a dense model', [], {}],
    ['a mixture of experts', mixtureLayers, mixtureFields],
  ] as const)
    it(`of ${kind} sees every activation and its gradient, and changes nothing`, async () => {
      using model = oddModel(overrides);
      const sequences = batch(model.config.vocabSize);
      using engine = new TrainingEngine(model, { precision: 'fp16', schedule, lossScaler: 'static:8' });
      const lossOf = ({ logprobs }: { logprobs: Float64Array }) => ({
        loss: 0,
        gradient: logprobs.map((_, t) => Math.sin(t) / 100),
        metrics: {},
      });
      const plain = await engine.gradients(sequences, lossOf);
      const seen: { kind: string; place: string; t: Tensor }[] = [];
      const note = (kind: string) => (point: string, layer: number, t: Tensor) => {
        seen.push({ kind, place: `${point} ${layer}`, t: copy(t) });
      };
      const watched = await engine.gradients(sequences, lossOf, {
        activation: note('activation'),
        gradient: note('gradient'),
      });
      for (const [name, g] of plain.gradients) assertSameBits(watched.gradients.get(name)!, g, name);
      const places = (kind: string) => seen.filter((s) => s.kind === kind).map(({ place }) => place);
      const layers = activationPoints.slice(1, -1).flatMap((point) => {
        const has = point === 'routerLogits' ? routed : [...model.layers.keys()];
        return has.map((layer) => `${point} ${layer}`);
      });
      const expected = ['embedding -1', 'finalNorm -1', ...layers].sort();
      assert.deepEqual(places('activation').sort(), expected);
      assert.deepEqual(places('gradient').sort(), expected);
      for (const { kind, place, t } of seen) {
        const twin = seen.find((s) => s.kind !== kind && s.place === place)!;
        assert.deepEqual(t.shape, twin.t.shape, place);
        assert.equal(t.dtype, 'fp16');
        const values = await t.floats();
        assert.ok(values.some((x) => x !== 0) && values.every(Number.isFinite), `${kind} ${place}`);
      }
      // The gradient of the embedding's output, summed by id, is that of the embedding.
      const { t } = seen.find((s) => s.kind === 'gradient' && s.place === 'embedding -1')!;
      const [rows, width] = t.shape as [number, number];
      const values = await t.floats();
      const sums = new Float64Array(model.embedding.size);
      const ids = sequences.flatMap(({ prompt, response }) =>
        [...Array.from(prompt), ...Array.from(response)].slice(0, -1),
      );
      assert.equal(ids.length, rows);
      ids.forEach((id, row) => {
        for (let i = 0; i < width; i++) sums[id * width + i]! += values[row * width + i]!;
      });
      const total = plain.gradients.get(model.embedding.name)!;
      for (let i = 0; i < sums.length; i++) {
        assert.ok(Math.abs(sums[i]! / 8 - total[i]!) <= 1e-5 * Math.max(1, Math.abs(total[i]!)));
      }
      for (const { t: copied } of seen) copied.dispose();
    });
});
