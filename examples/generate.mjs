/**
 * Teaches a small decoder to sort, then generates with it: greedy, at temperature 1, hotter, and hotter with top-k.
 * Draws are a pure function of (seed, promptId, sampleId, position), so the same call prints the same text again.
 *
 * Run: node examples/generate.mjs
 */
import { createTask, Decoder, RolloutEngine, teach } from 'isopolicy';

const task = createTask('sort:5:6');
const { vocabSize } = task;
const model = new Decoder(
  { vocabSize, hiddenSize: 64, intermediateSize: 192, numLayers: 2, numHeads: 2, maxPositionEmbeddings: 12 },
  { seed: 1 },
);
const { step, accuracy } = await teach(model, task, { seed: 1, accuracy: 0.6 });
console.log(`taught for ${step} steps: ${(100 * accuracy).toFixed(0)} % right at temperature 1\n`);

const rollout = new RolloutEngine(model, { precision: 'bf16' });
const requests = Array.from({ length: 100 }, (_, i) => ({
  prompt: task.problem(7, 1e6 + i),
  promptId: i,
  sampleId: 0,
}));
const samplings = {
  greedy: { temperature: 0 },
  'temperature 1': { temperature: 1 },
  'temperature 2': { temperature: 2 },
  'temperature 2, top-k 2': { temperature: 2, topK: 2 },
};
for (const [name, options] of Object.entries(samplings)) {
  const completions = await rollout.generate(requests, {
    ...options,
    seed: 1,
    maxNewTokens: task.responseLength,
    stopTokens: [task.stopToken],
  });
  const solved = completions.map(({ tokens }, i) => task.verify(requests[i].prompt, tokens));
  console.log(`${name}: ${solved.reduce((sum, x) => sum + x, 0)} of ${requests.length} right`);
  for (const i of [0, 1, 2]) {
    const text = task.format(requests[i].prompt) + task.format(completions[i].tokens);
    console.log(`  ${solved[i] ? 'right' : 'wrong'}  ${text}`);
  }
}
