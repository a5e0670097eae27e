/**
 * A small checkpoint in the layout of Hugging Face, to try `isopolicy train` on without a download: a decoder and a
 * tokenizer of one token a character, taught to add two numbers of two digits until it is right about half of the time,
 * with problems to train and to evaluate on as JSON lines, and settings in train.yaml.
 *
 * A folder may be named (default: tiny-checkpoint); --accuracy 0.5, --seed 1, --experts 4 for a mixture of experts.
 *
 * Run: node examples/checkpoint.mjs
 */
import { mkdir, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { CounterRandom, Decoder, saveModel, teach } from 'isopolicy';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    accuracy: { type: 'string', default: '0.5' },
    seed: { type: 'string', default: '1' },
    experts: { type: 'string', default: '0' },
  },
});
const folder = resolve(positionals[0] ?? 'tiny-checkpoint');
const seed = Number(values.seed);
const experts = Number(values.experts);

const CHARACTERS = '0123456789+-*/=()., ';
const END = CHARACTERS.length;
const encode = (text) => Int32Array.from(text, (character) => CHARACTERS.indexOf(character));

/** Problem `index`: 47+38= and 85. Those with an index of 2 ** 40 or more are for evaluation. */
function problem(index) {
  const random = new CounterRandom(seed, 0x61646420, index);
  const [a, b] = [10 + random.integer(90), 10 + random.integer(90)];
  return { problem: `${a}+${b}=`, answer: String(a + b) };
}

const answerOf = (prompt) => {
  const [a, b] = Array.from(prompt, (id) => CHARACTERS[id])
    .join('')
    .slice(0, -1)
    .split('+');
  return Int32Array.from([...encode(String(Number(a) + Number(b))), END]);
};
const task = {
  name: 'addition',
  vocabSize: END + 1,
  symbols: [...CHARACTERS, '<eos>'],
  promptLength: 6,
  responseLength: 6,
  stopToken: END,
  problem: (_seed, index) => encode(problem(index).problem),
  solution: answerOf,
  verify: (prompt, response) => (String(answerOf(prompt)) === String(response) ? 1 : 0),
  format: (tokens) => Array.from(tokens, (id) => CHARACTERS[id] ?? '<eos>').join(''),
};

const model = new Decoder(
  {
    vocabSize: END + 1,
    hiddenSize: 64,
    intermediateSize: experts > 0 ? 96 : 192,
    numLayers: 2,
    numHeads: 4,
    numKvHeads: 2,
    maxPositionEmbeddings: 64,
    ropeTheta: 1000,
    ...(experts > 0 && { numExperts: experts, numExpertsPerToken: 2, qkNorm: true }),
  },
  { seed },
);
await teach(model, task, {
  seed,
  accuracy: Number(values.accuracy),
  report: ({ step, loss, accuracy }) => {
    process.stdout.write(`taught ${step} steps: loss ${loss.toFixed(3)}, accuracy ${accuracy.toFixed(3)}\n`);
  },
});

await saveModel(folder, model, { dtype: 'bf16' });
const tokens = Object.fromEntries([...CHARACTERS].map((c, id) => [c === ' ' ? 'Ġ' : c, id]));
const flags = { single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };
const level = { add_prefix_space: false, trim_offsets: true, use_regex: true };
const files = {
  'tokenizer.json': {
    version: '1.0',
    added_tokens: [{ id: END, content: '<eos>', ...flags }],
    normalizer: null,
    pre_tokenizer: { type: 'ByteLevel', ...level },
    post_processor: null,
    decoder: { type: 'ByteLevel', ...level },
    model: { type: 'BPE', vocab: tokens, merges: [] },
  },
  'tokenizer_config.json': { tokenizer_class: 'PreTrainedTokenizerFast', eos_token: '<eos>' },
  'generation_config.json': { eos_token_id: END },
};
for (const [name, content] of Object.entries(files)) {
  await writeFile(join(folder, name), `${JSON.stringify(content, null, 2)}\n`);
}
const lines = (count, first) =>
  Array.from({ length: count }, (_, i) => `${JSON.stringify(problem(first + i))}\n`).join('');
await mkdir(join(folder, 'data'), { recursive: true });
await writeFile(join(folder, 'data', 'train.jsonl'), lines(4096, 2 ** 41));
await writeFile(join(folder, 'data', 'test.jsonl'), lines(128, 2 ** 42));
await writeFile(
  join(folder, 'train.yaml'),
  `model: ${JSON.stringify(folder)}
data: ${JSON.stringify(join(folder, 'data', 'train.jsonl'))}
template: plain
verifier: exact
responseLength: 6
steps: 200
batch: { promptsPerStep: 32, groupSize: 16, updatesPerStep: 4 }
optimizer: { learningRate: 1e-4, warmupSteps: 5 }
evaluation: { data: ${JSON.stringify(join(folder, 'data', 'test.jsonl'))}, every: 50, samples: 4, temperature: 1, topP: 1 }
checkpoint: { every: 50 }
`,
);
model.dispose();
process.stdout.write(`${folder}: npx isopolicy train ${join(folder, 'train.yaml')}\n`);
