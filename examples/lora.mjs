/**
 * What a LoRA adapter adds to the mismatch: the training engine computes it beside the weights, the rollout engine merged
 * into them (a rounding that the training engine does not make), or beside them, too.
 *
 * Run: node examples/lora.mjs
 */
import { addLora, copy, Decoder, measureMismatch, RolloutEngine, randomNormal } from 'isopolicy';

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
// B begins as zeros, with which an adapter changes nothing: here it is one that has been trained.
addLora(model, { rank: 32, alpha: 64 }, { seed: 2 }).branches.forEach(({ b }, i) => {
  copy(randomNormal(b.shape, { seed: 3, stream: i, std: 0.02 }), b.master);
});

const requests = Array.from({ length: 64 }, (_, promptId) => ({
  prompt: Array.from({ length: 8 }, (_, i) => (promptId * 31 + i * 7) % 512),
  promptId,
  sampleId: 0,
}));
const rollout = new RolloutEngine(model, { precision: 'fp32' });
const responses = await rollout.generate(requests, { seed: 1, maxNewTokens: 64 });
const sequences = responses.map(({ tokens }, i) => ({ prompt: requests[i].prompt, response: tokens }));

const rows = {};
for (const precision of ['bf16', 'fp16']) {
  for (const numerics of ['default', 'matched']) {
    const mean = async (lora) => {
      const { meanAbsLogRatio } = await measureMismatch(model, sequences, { precision, numerics, lora });
      return meanAbsLogRatio.toExponential(2);
    };
    rows[`${precision} ${numerics}`] = { merged: await mean('merged'), factored: await mean('factored') };
  }
}
console.log('mean |log pi - log mu| by how the rollout engine computes the adapter');
console.table(rows);
