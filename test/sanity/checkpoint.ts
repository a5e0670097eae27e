/** A checkpoint that adds two digits, sometimes rightly, and its data set. */
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import type { DecoderConfig } from '../../lib/models/config.js';
import { Decoder } from '../../lib/models/decoder.js';
import { saveModel } from '../../lib/models/saveModel.js';
import type { TokenSequence } from '../../lib/models/sequences.js';
import { CounterRandom } from '../../lib/random.js';
import { resolveSanityOptions, type SourceSanityOptions } from '../../lib/sanity/config.js';
import { TrainingEngine } from '../../lib/training/engine.js';
import { CHARACTERS, checkpointConfig, EOS, tokenizerFiles } from '../support/checkpoint.js';

const config: DecoderConfig = { ...checkpointConfig, numLayers: 1, maxPositionEmbeddings: 64 };
const ids = (text: string) => Int32Array.from(text, (character) => CHARACTERS.indexOf(character));

const question = (i: number) => `${Math.floor(i / 10)}+${i % 10}=`;
const answer = (i: number) => String(Math.floor(i / 10) + (i % 10));

/** Teaches a model for a moment and lays out its folder: `model` in `root`, beside `sums.jsonl` with `count` problems. */
export async function writeAdder(
  root: string,
  { steps = 120, count = 100 }: { steps?: number; count?: number } = {},
): Promise<{ model: string; data: string }> {
  const [model, data] = [path.join(root, 'adder'), path.join(root, 'sums.jsonl')];
  using decoder = new Decoder(config, { seed: 3 });
  using training = new TrainingEngine(decoder, {
    precision: 'fp32',
    schedule: { kind: 'constant', learningRate: 5e-3, warmupSteps: 10 },
  });
  for (let step = 0; step < steps; step++) {
    const random = new CounterRandom(1, 2, step);
    const batch = Array.from({ length: 50 }, (): TokenSequence => {
      const i = random.integer(100);
      return { prompt: ids(question(i)), response: Int32Array.of(...ids(answer(i)), EOS) };
    });
    const tokens = batch.reduce((sum, { response }) => sum + response.length, 0);
    await training.step(batch, ({ logprobs }) => ({
      loss: -logprobs.reduce((sum, x) => sum + x, 0) / tokens,
      gradient: new Float64Array(logprobs.length).fill(-1 / tokens),
      metrics: {},
    }));
  }
  await saveModel(model, decoder, { dtype: 'fp32' });
  for (const [name, content] of Object.entries(tokenizerFiles)) {
    await writeFile(path.join(model, name), typeof content === 'string' ? content : JSON.stringify(content));
  }
  // In an order without a pattern, as data sets are.
  const order = new CounterRandom(1, 3, 0).shuffle(Int32Array.from({ length: 100 }, (_, i) => i));
  const lines = [...order.subarray(0, count)].map((i) =>
    JSON.stringify({ question: question(i), answer: answer(i) }),
  );
  await writeFile(data, `${lines.join('\n')}\n`);
  return { model, data };
}

/** A short run on it. */
export function adderOptions(
  { model, data }: { model: string; data: string },
  overrides: Partial<SourceSanityOptions> = {},
) {
  const options: SourceSanityOptions = {
    source: { model, data, template: 'plain', verifier: 'exact', responseLength: 4 },
    samplesPerProblem: 10,
    steps: 4,
    promptsPerStep: 4,
    groupSize: 4,
    updatesPerStep: 2,
    checkpointEvery: 2,
    recordEvery: 2,
    ...overrides,
  };
  return resolveSanityOptions(options);
}
