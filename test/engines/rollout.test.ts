import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { RolloutEngine } from '../../lib/rollout/engine.js';
import { memory, setThreads } from '../../lib/runtime.js';
import { assertSameBits } from '../support/compare.js';
import { oddModel, randomTokens } from '../support/models.js';

const requestsOf = (count: number, vocabSize: number) =>
  Array.from({ length: count }, (_, i) => ({
    prompt: randomTokens(1 + ((5 * i) % 23), vocabSize, i),
    promptId: i,
    sampleId: i % 3,
  }));

describe('RolloutEngine.generate', () => {
  it('gives the same response whatever the batch, its order, the pages and the threads', async () => {
    using model = oddModel();
    const requests = requestsOf(13, model.config.vocabSize);
    const sampling = { seed: 9, maxNewTokens: 40, stopTokens: [1, 2] };
    using wide = new RolloutEngine(model, { precision: 'fp16' });
    const reference = await wide.generate(requests, sampling);
    assert.ok(
      new Set(reference.map(({ tokens }) => tokens.length)).size > 3,
      'responses end at different steps',
    );

    using narrow = new RolloutEngine(model, {
      precision: 'fp16',
      maxBatch: 3,
      maxLength: 64,
      maxPrefillTokens: 30,
      kvPages: 9,
    });
    setThreads(3);
    const again = await narrow.generate([...requests].reverse(), sampling);
    setThreads(2);
    again.reverse().forEach((completion, i) => {
      assert.deepEqual(completion.tokens, reference[i]!.tokens);
      assertSameBits(completion.logprobs, reference[i]!.logprobs, `log-probs of request ${i}`);
      assert.equal(completion.finishReason, reference[i]!.finishReason);
    });
  });

  it('reports the log-probs that scoring the finished sequence gives', async () => {
    using model = oddModel({ tieWordEmbeddings: true });
    for (const precision of ['fp32', 'fp16', 'bf16'] as const) {
      using rollout = new RolloutEngine(model, { precision, maxBatch: 4 });
      const requests = requestsOf(7, model.config.vocabSize);
      const completions = await rollout.generate(requests, { seed: 1, temperature: 1.3, maxNewTokens: 70 });
      const scores = await rollout.score(
        completions.map(({ tokens }, i) => ({ prompt: requests[i]!.prompt, response: tokens })),
        { temperature: 1.3 },
      );
      assertSameBits(
        Float64Array.from(completions.flatMap(({ logprobs }) => [...logprobs])),
        scores.logprobs,
        precision,
      );
    }
  });

  it('draws the same whether steps are read one by one or many together', async () => {
    using model = oddModel();
    const requests = requestsOf(9, model.config.vocabSize);
    using engine = new RolloutEngine(model, { precision: 'bf16', maxBatch: 4 });
    const sampling = { seed: 5, maxNewTokens: 45 };
    const together = await engine.generate(requests, sampling);
    const oneByOne = await engine.generate(requests, { ...sampling, stopTokens: [3] });
    together.forEach(({ tokens, logprobs }, i) => {
      assert.equal(tokens.length, 45);
      const stop = tokens.indexOf(3);
      const length = stop < 0 ? 45 : stop + 1;
      assert.deepEqual(oneByOne[i]!.tokens, tokens.subarray(0, length));
      assertSameBits(oneByOne[i]!.logprobs, logprobs.subarray(0, length), `log-probs of request ${i}`);
    });
    assert.ok(new Set(oneByOne.map(({ tokens }) => tokens.length)).size > 2);
  });

  it('stops at a stop token, which it keeps, and at the limit', async () => {
    using model = oddModel();
    using rollout = new RolloutEngine(model, { precision: 'fp16' });
    const stopTokens = [0, 1, 2, 3, 4, 5, 6, 7];
    const completions = await rollout.generate(requestsOf(40, model.config.vocabSize), {
      seed: 2,
      maxNewTokens: 6,
      stopTokens,
    });
    for (const { tokens, logprobs, finishReason } of completions) {
      assert.equal(logprobs.length, tokens.length);
      const stops = [...tokens].map((token) => stopTokens.includes(token));
      assert.equal(stops.slice(0, -1).some(Boolean), false);
      assert.equal(finishReason, stops.at(-1) ? 'stop' : 'length');
      if (finishReason === 'length') assert.equal(tokens.length, 6);
    }
    assert.ok(completions.some(({ finishReason }) => finishReason === 'length'));
    assert.ok(completions.some(({ finishReason }) => finishReason === 'stop'));
  });

  it('tells each token as it is read, and ends a response where it is told to', async () => {
    using model = oddModel();
    using rollout = new RolloutEngine(model, { precision: 'bf16', maxBatch: 4 });
    const requests = requestsOf(9, model.config.vocabSize);
    const sampling = { seed: 5, maxNewTokens: 12 };
    const whole = await rollout.generate(requests, sampling);
    const told = requests.map((): [number, number][] => []);
    const cut = await rollout.generate(requests, {
      ...sampling,
      onToken: (request, token, logprob) => told[request]!.push([token, logprob]) === 3 + request,
    });
    cut.forEach(({ tokens, logprobs, finishReason }, i) => {
      const length = Math.min(12, 3 + i);
      assert.deepEqual(tokens, whole[i]!.tokens.subarray(0, length));
      assert.deepEqual(
        told[i],
        [...tokens].map((token, t) => [token, logprobs[t]]),
      );
      assert.equal(finishReason, 'stop');
    });
    const failing = rollout.generate(requests, {
      ...sampling,
      onToken: () => {
        throw new Error('enough');
      },
    });
    await assert.rejects(failing, /enough/);
    const again = await rollout.generate(requests, sampling);
    assert.deepEqual(again, whole);
  });

  it('draws differ by seed, prompt and sample, and greedy decoding does not depend on them', async () => {
    using model = oddModel();
    using rollout = new RolloutEngine(model, { precision: 'fp16' });
    const prompt = randomTokens(5, model.config.vocabSize, 1);
    const draw = async (seed: number, promptId: number, sampleId: number, temperature: number) =>
      (
        await rollout.generate([{ prompt, promptId, sampleId }], { seed, temperature, maxNewTokens: 30 })
      )[0]!.tokens.join(' ');
    const draws = [
      await draw(1, 1, 1, 1),
      await draw(2, 1, 1, 1),
      await draw(1, 2, 1, 1),
      await draw(1, 1, 2, 1),
    ];
    assert.equal(new Set(draws).size, 4);
    assert.equal(await draw(1, 1, 1, 1), draws[0]);
    assert.equal(await draw(1, 1, 1, 0), await draw(2, 7, 9, 0));
  });

  it('after a pass that failed, with another queued behind it, works on as before', async () => {
    using model = oddModel();
    using rollout = new RolloutEngine(model, { precision: 'fp16', maxBatch: 4 });
    const requests = requestsOf(9, model.config.vocabSize);
    const sampling = { seed: 4, maxNewTokens: 8, stopTokens: [3] };
    const reference = await rollout.generate(requests, sampling);
    const before = memory();
    const { master } = model.finalNorm.weight;
    const values = await master.floats();
    master.upload(new Float32Array(values.length).fill(Number.NaN));
    rollout.syncWeights();
    await assert.rejects(rollout.generate(requests, sampling), /^DeviceError: \[sample\]/);
    master.upload(values);
    rollout.syncWeights();
    assert.deepEqual(await rollout.generate(requests, sampling), reference);
    assert.equal(memory().tensors, before.tensors);
    assert.equal(memory().bytes, before.bytes);
  });

  it('two generations at once take turns', async () => {
    using model = oddModel();
    using rollout = new RolloutEngine(model, { precision: 'bf16', maxBatch: 3 });
    const requests = requestsOf(8, model.config.vocabSize);
    const sampling = { seed: 3, maxNewTokens: 12 };
    const alone = await rollout.generate(requests, sampling);
    const [a, b] = await Promise.all([
      rollout.generate(requests, sampling),
      rollout.generate(requests, sampling),
    ]);
    assert.deepEqual(a, alone);
    assert.deepEqual(b, alone);
  });

  it('names the argument at fault before anything is queued', async () => {
    using model = oddModel();
    using rollout = new RolloutEngine(model, { precision: 'fp16', maxLength: 32 });
    const ok = { prompt: [1, 2, 3], promptId: 0, sampleId: 0 };
    const cases: [unknown, unknown, RegExp][] = [
      [[{ ...ok, prompt: [] }], {}, /requests\[0\]\.prompt of at least one token/],
      [[ok, { ...ok, prompt: [1, 37] }], {}, /requests\[1\]\.prompt\[1\].*at most 36, got 37/],
      [[{ ...ok, prompt: [-1] }], {}, /requests\[0\]\.prompt\[0\]/],
      [
        [{ ...ok, prompt: new Array(30).fill(1) }],
        {},
        /within the context of 32 tokens, got "a prompt of 30"/,
      ],
      [[{ ...ok, promptId: -1 }], {}, /promptId/],
      [[ok], { temperature: Number.NaN }, /temperature to be a finite number/],
      [[ok], { temperature: -1 }, /temperature/],
      [[ok], { topP: 0 }, /topP above 0/],
      [[ok], { topP: 1.5 }, /topP/],
      [[ok], { topK: -1 }, /topK/],
      [[ok], { maxNewTokens: 0 }, /maxNewTokens/],
      [[ok], { stopTokens: [99] }, /stopTokens/],
      [[ok], { seed: 1.5 }, /seed/],
    ];
    const before = memory();
    for (const [requests, options, message] of cases) {
      await assert.rejects(
        rollout.generate(requests as never, { seed: 1, maxNewTokens: 4, ...(options as object) }),
        (error: Error & { code?: string }) =>
          error.code === 'ERR_INVALID_ARGUMENT' && message.test(error.message),
        String(message),
      );
    }
    assert.deepEqual(memory().tensors, before.tensors);
    await assert.rejects(rollout.score([]), /at least one sequence/);
    await assert.rejects(rollout.score([{ prompt: [1], response: [] }]), /sequences\[0\]\.response/);
    assert.deepEqual(await rollout.generate([], { seed: 1, maxNewTokens: 4 }), []);
  });

  it('rejects bad options', () => {
    using model = oddModel();
    const make = (options: object) => () =>
      new RolloutEngine(model, { precision: 'fp16', ...options } as never);
    assert.throws(
      make({ precision: 'fp61' }),
      /precision to be fp16, bf16, fp32, .*got "fp61" \(did you mean fp16\?\)/,
    );
    assert.throws(make({ maxBatch: 0 }), /maxBatch/);
    assert.throws(make({ maxLength: 701 }), /maxLength to be an integer of at least 1 and at most 700/);
    assert.throws(make({ kvPages: 3 }), /kvPages/);
  });

  it('leaves no tensor and no byte behind', async () => {
    using model = oddModel();
    const before = memory();
    {
      using rollout = new RolloutEngine(model, { precision: 'fp16', maxBatch: 6 });
      const requests = requestsOf(9, model.config.vocabSize);
      await rollout.generate(requests, { seed: 1, maxNewTokens: 9 });
      const steady = memory();
      for (let i = 0; i < 30; i++) {
        rollout.syncWeights();
        await rollout.generate(requests, { seed: 1, maxNewTokens: 9 });
      }
      assert.equal(memory().tensors, steady.tensors);
      assert.equal(memory().bytes, steady.bytes);
    }
    assert.equal(memory().tensors, before.tensors);
    assert.equal(memory().bytes, before.bytes);
  });
});
