/**
 * An algorithm of one's own: a plain object with two functions over plain arrays. This one is REINFORCE with the group's
 * mean as baseline and each token weighted by pi / mu, cut off at 2 (truncated importance sampling). A small decoder is
 * taught to sort four symbols until it is partly right, then trained with it.
 *
 * Run: node examples/my-algorithm.mjs
 */
import {
  createTask,
  Decoder,
  groupAdvantages,
  RolloutEngine,
  Trainer,
  TrainingEngine,
  teach,
} from 'isopolicy';

const truncatedReinforce = {
  name: 'truncated-reinforce',
  needsOldLogprobs: false,
  advantages: (rewards, groupSize) => groupAdvantages(rewards, groupSize),
  loss({ offsets, logprobs, rolloutLogprobs, advantages, totals }) {
    const gradient = new Float64Array(logprobs.length); // d loss / d log pi of each token
    let loss = 0;
    for (let s = 0; s < advantages.length; s++) {
      for (let t = offsets[s]; t < offsets[s + 1]; t++) {
        const weight = Math.min(2, Math.exp(logprobs[t] - rolloutLogprobs[t]));
        gradient[t] = (-advantages[s] * weight) / totals.tokens;
        loss += gradient[t] * logprobs[t];
      }
    }
    return { loss, gradient, metrics: {} };
  },
};

const task = createTask('sort:4:4');
const { vocabSize } = task;
const model = new Decoder(
  { vocabSize, hiddenSize: 64, intermediateSize: 192, numLayers: 2, numHeads: 2, maxPositionEmbeddings: 10 },
  { seed: 1 },
);
const { accuracy } = await teach(model, task, { seed: 1, accuracy: 0.3 });
console.log(`taught until ${(100 * accuracy).toFixed(0)} % right`);

const rollout = new RolloutEngine(model, { precision: 'fp16' });
const schedule = { kind: 'constant', learningRate: 3e-4 };
const training = new TrainingEngine(model, { precision: 'fp16', schedule });
const prompts = Array.from({ length: 128 }, (_, i) => task.problem(1, 1e6 + i));
const trainer = new Trainer(rollout, training, task, prompts, {
  algorithm: truncatedReinforce,
  promptsPerStep: 32,
  groupSize: 8,
  updatesPerStep: 2,
  seed: 1,
});
for (let step = 0; step < 30; step++) {
  const { reward, mismatch } = await trainer.step(step);
  if (step % 5 !== 4) continue;
  const gap = mismatch.meanAbsLogRatio.toExponential(1);
  console.log(`step ${step + 1}  reward ${reward.toFixed(3)}  mean |log pi - log mu| ${gap}`);
}
