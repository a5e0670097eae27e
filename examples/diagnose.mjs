/**
 * Rounding or a bug? A small decoder samples at temperature 0.7; the training engine scores the same tokens, once at the same
 * temperature and once without it. `diagnose` gets the log-probs of both engines, as it would get two files of them.
 *
 * Run: node examples/diagnose.mjs
 */
import { createTask, Decoder, diagnose, RolloutEngine, TrainingEngine, teach } from 'isopolicy';

const task = createTask('sort:8:10');
const size = { hiddenSize: 64, intermediateSize: 192, numLayers: 2, numHeads: 2, maxPositionEmbeddings: 64 };
const model = new Decoder({ vocabSize: task.vocabSize, ...size }, { seed: 1 });
await teach(model, task, { seed: 1, accuracy: 0.3, maxSteps: 300 });

const rollout = new RolloutEngine(model, { precision: 'bf16' });
const requests = Array.from({ length: 128 }, (_, i) => ({
  prompt: task.problem(1, i),
  promptId: i,
  sampleId: 0,
}));
const completions = await rollout.generate(requests, {
  seed: 1,
  temperature: 0.7,
  maxNewTokens: task.responseLength,
  stopTokens: [task.stopToken],
});
const rolloutRows = completions.map(({ tokens, logprobs }, i) => ({
  id: i,
  tokens: [...tokens],
  logprobs: [...logprobs],
}));

for (const temperature of [0.7, 1]) {
  const training = new TrainingEngine(model, {
    precision: 'bf16',
    temperature,
    schedule: { kind: 'constant', learningRate: 0 },
  });
  const sequences = completions.map(({ tokens }, i) => ({ prompt: requests[i].prompt, response: tokens }));
  const { offsets, logprobs } = await training.score(sequences);
  const trainingRows = completions.map(({ tokens }, i) => ({
    id: i,
    tokens: [...tokens],
    logprobs: [...logprobs.subarray(offsets[i], offsets[i + 1])],
  }));
  const { verdict, causeText, confidence, signatures } = await diagnose(rolloutRows, trainingRows, {
    dtype: 'bf16',
  });
  const evidence = signatures.find(({ name }) => name === 'temperature').evidence;
  console.log(
    `scored at temperature ${temperature}: ${verdict}, ${causeText} (${Math.round(100 * confidence)} %)`,
  );
  console.log(`  ${evidence}`);
}
