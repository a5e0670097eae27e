/**
 * The mismatch in one page: a small decoder samples with the rollout engine (mu), the training engine scores the same
 * tokens with the same weights (pi), and the log-probs are compared, in bf16, in fp16, and with matched numerics.
 *
 * Run: node examples/mismatch.mjs
 */
import { Decoder, mismatchMetrics, numerics, RolloutEngine, TrainingEngine } from 'isopolicy';

const model = new Decoder(
  {
    vocabSize: 512,
    hiddenSize: 128,
    intermediateSize: 384,
    numLayers: 4,
    numHeads: 4,
    numKvHeads: 2,
    maxPositionEmbeddings: 72,
  },
  { seed: 1 },
);
const requests = Array.from({ length: 64 }, (_, promptId) => ({
  prompt: Array.from({ length: 8 }, (_, i) => (promptId * 31 + i * 7) % 512),
  promptId,
  sampleId: 0,
}));

async function measure(precision, matched) {
  const rollout = new RolloutEngine(model, {
    precision,
    numerics: numerics(matched ? 'matched' : 'rollout'),
  });
  const training = new TrainingEngine(model, {
    precision,
    numerics: numerics(matched ? 'matched' : 'training'),
    schedule: { kind: 'constant', learningRate: 0 },
  });
  const completions = await rollout.generate(requests, { seed: 1, maxNewTokens: 64 });
  const sequences = completions.map(({ tokens }, i) => ({ prompt: requests[i].prompt, response: tokens }));
  const { offsets, logprobs } = await training.score(sequences);
  const rolloutLogprobs = Float64Array.from(completions.flatMap((completion) => [...completion.logprobs]));
  const mask = new Uint8Array(logprobs.length).fill(1);
  const metrics = mismatchMetrics({ offsets, rolloutLogprobs, logprobs, mask });
  return {
    tokens: metrics.tokens,
    'tokens that differ': `${(100 * metrics.differingShare).toFixed(1)} %`,
    'mean |log pi - log mu|': metrics.meanAbsLogRatio.toExponential(2),
    largest: metrics.maxAbsLogRatio.toExponential(2),
    'std over sequences': metrics.seqLogRatioStd.toExponential(2),
  };
}

console.table({
  bf16: await measure('bf16', false),
  fp16: await measure('fp16', false),
  'bf16 matched': await measure('bf16', true),
  'fp16 matched': await measure('fp16', true),
});
