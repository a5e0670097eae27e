import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import path from 'node:path';
import { before, test } from 'node:test';
import { OrderedOutput } from '../../lib/cli/orderedOutput.js';
import { saveAdapter } from '../../lib/models/adapterFiles.js';
import { Decoder } from '../../lib/models/decoder.js';
import { loadLanguageModel } from '../../lib/models/languageModel.js';
import { addLora } from '../../lib/models/lora.js';
import { saveModel } from '../../lib/models/saveModel.js';
import { numerics } from '../../lib/numerics.js';
import { RolloutEngine } from '../../lib/rollout/engine.js';
import { fill } from '../../lib/tensor/tensor.js';
import { TrainingEngine } from '../../lib/training/engine.js';
import { CHARACTERS, checkpointConfig, EOS, writeCheckpointFolder } from '../support/checkpoint.js';
import { randomizeB } from '../support/lora.js';
import {
  assertUsageError,
  assertUsageErrors,
  isopolicy,
  main,
  type Outcome,
  temporaryFolder,
  withoutAddon,
} from './command.js';

const folder = temporaryFolder();
const model = path.join(folder, 'model');
/** Without a token that ends a response. */
const endless = path.join(folder, 'endless');
before(async () => {
  await writeCheckpointFolder(model, { dtype: 'bf16' });
  await writeCheckpointFolder(endless, {
    config: { maxPositionEmbeddings: 60_000 },
    changes: { 'generation_config.json': undefined, 'tokenizer_config.json': '{}' },
  });
});

function generate(...args: string[]): Outcome {
  return isopolicy(['generate', model, ...args]);
}

function json(...args: string[]) {
  const { status, stdout, stderr } = generate(...args, '--json');
  assert.equal(status, 0, stderr);
  assert.match(stdout, /^\{.*\}\n$/);
  return JSON.parse(stdout);
}

const ids = (text: string) => [...text].map((character) => CHARACTERS.indexOf(character));

test('an adapter is loaded over the model, merged or factored', async () => {
  using language = await loadLanguageModel(model);
  const adapter = path.join(folder, 'adapter');
  addLora(language.model, { rank: 2, alpha: 4 }, { seed: 3 });
  randomizeB(language.model, 5, 0.3);
  await saveAdapter(adapter, language.model);
  const args = ['--prompt', '1+2=', '--max-new-tokens', '12', '--precision', 'fp32'];
  for (const lora of ['merged', 'factored'] as const) {
    using rollout = new RolloutEngine(language.model, { precision: 'fp32', maxBatch: 1, lora });
    const options = { seed: 1, maxNewTokens: 12, stopTokens: [EOS] };
    const [completion] = await rollout.generate([{ prompt: ids('1+2='), promptId: 0, sampleId: 0 }], options);
    const result = json(...args, '--adapter', adapter, '--lora', lora);
    assert.deepEqual(result.responses[0].tokens, [...completion!.tokens]);
    assert.deepEqual(result.responses[0].logprobs, [...completion!.logprobs]);
    assert.deepEqual([result.adapter, result.lora], [adapter, lora]);
    assert.notDeepEqual(json(...args).responses[0].logprobs, result.responses[0].logprobs);
  }
  assertUsageError(generate('--prompt', 'x', '--lora', 'merged'), /no --lora without --adapter/);
  assertUsageError(generate('--prompt', 'x', '--adapter', model), /adapter_config\.json/);
});

test('ids and log-probs are those of the library, and the text is theirs', async () => {
  const prompts = ['12+3=', 'x'];
  const result = json(
    ...['--prompt', prompts[0]!, '--prompt', prompts[1]!, '--samples', '3', '--max-new-tokens', '20'],
    ...[
      '--seed',
      '9',
      '--temperature',
      '0.7',
      '--precision',
      'bf16',
      '--score',
      '--training-precision',
      'fp32',
    ],
  );
  using language = await loadLanguageModel(model);
  using rollout = new RolloutEngine(language.model, { precision: 'bf16', maxBatch: 2 });
  const requests = prompts.flatMap((text, promptId) =>
    [0, 1, 2].map((sampleId) => ({ prompt: ids(text), promptId, sampleId })),
  );
  const completions = await rollout.generate(requests, {
    seed: 9,
    temperature: 0.7,
    maxNewTokens: 20,
    stopTokens: [EOS],
  });
  using training = new TrainingEngine(language.model, {
    precision: 'fp32',
    numerics: numerics('training'),
    temperature: 0.7,
    schedule: { kind: 'constant', learningRate: 0 },
  });
  const scores = await training.score(
    completions.map(({ tokens }, i) => ({ prompt: requests[i]!.prompt, response: tokens })),
  );
  assert.deepEqual(
    result.prompts.map(({ text, tokens }: { text: string; tokens: number[] }) => [text, tokens]),
    prompts.map((text) => [text, ids(text)]),
  );
  let [absolute, count] = [0, 0];
  for (const [i, { tokens, logprobs, finishReason }] of completions.entries()) {
    const response = result.responses[i];
    assert.deepEqual(response.tokens, [...tokens]);
    assert.deepEqual(response.logprobs, [...logprobs]);
    assert.deepEqual(response.rolloutLogprobs, [...logprobs]);
    const pi = scores.logprobs.subarray(scores.offsets[i]!, scores.offsets[i + 1]!);
    assert.deepEqual(response.trainingLogprobs, [...pi]);
    assert.deepEqual([response.prompt, response.sample], [Math.floor(i / 3), i % 3]);
    assert.equal(response.finishReason, finishReason);
    assert.equal(
      response.text,
      language.tokenizer.decode(tokens, { skipSpecialTokens: true, continues: true }),
    );
    for (const [t, logMu] of logprobs.entries()) absolute += Math.abs(logMu - pi[t]!);
    count += tokens.length;
  }
  assert.equal(result.mismatch.tokens, count);
  assert.ok(Math.abs(result.mismatch.meanAbsLogRatio - absolute / count) < 1e-12);
  assert.ok(absolute > 0);
  for (const [key, value] of Object.entries({
    model,
    template: 'plain',
    precision: 'bf16',
    trainingPrecision: 'fp32',
    numerics: 'default',
    seed: 9,
    temperature: 0.7,
    topK: 0,
    topP: 1,
    maxNewTokens: 20,
    interrupted: false,
  })) {
    assert.equal(result[key], value, key);
  }
});

test('the same seed gives the same ids, whatever threads and neighbours; another gives others', () => {
  const responses = (...args: string[]) =>
    json('--max-new-tokens', '16', ...args).responses.map(({ tokens }: { tokens: number[] }) => tokens);
  const first = responses('--prompt', '1+1', '--seed', '3');
  assert.deepEqual(responses('--prompt', '1+1', '--seed', '3', '--threads', '1'), first);
  assert.deepEqual(
    responses('--prompt', '1+1', '--prompt', 'a longer one', '--samples', '2', '--seed', '3')[0],
    first[0],
  );
  assert.notDeepEqual(responses('--prompt', '1+1', '--seed', '4'), first);
  const greedy = responses('--prompt', '1+1', '--temperature', '0');
  assert.deepEqual(responses('--prompt', '1+1', '--top-k', '1', '--seed', '77'), greedy);
});

test('matched numerics leave no mismatch, and filters are no part of one', () => {
  const args = ['--prompt', 'abc', '--max-new-tokens', '12', '--score', '--numerics', 'matched'];
  const { mismatch, responses } = json(...args, '--top-k', '3', '--top-p', '0.8', '--temperature', '1.3');
  assert.deepEqual([mismatch.meanAbsLogRatio, mismatch.differingShare], [0, 0]);
  const [{ logprobs, rolloutLogprobs }] = responses;
  assert.ok(
    logprobs.every((logprob: number, i: number) => logprob > rolloutLogprobs[i]),
    'the draw is from fewer tokens',
  );
  const greedy = json(...args, '--temperature', '0');
  assert.equal(greedy.mismatch.meanAbsLogRatio, 0);
});

test('one response is its text and nothing else; several have headings, in order', () => {
  const args = ['--max-new-tokens', '9', '--samples', '2', '--prompt', 'a', '--prompt', 'b'];
  const { responses } = json(...args);
  const text = (i: number): string => responses[i].text;
  const one = generate('--max-new-tokens', '9', '--prompt', 'a');
  assert.deepEqual([one.status, one.stdout], [0, `${text(0)}\n`]);
  assert.match(one.stderr, /^loading .*model\nisopolicy: \d+ tokens in .* \(.* a second\)\n$/);
  assert.equal(
    generate(...args).stdout,
    [0, 1, 2, 3].map((i) => `--- prompt ${i >> 1}, sample ${i & 1} ---\n${text(i)}\n`).join('\n'),
  );
});

test('tokens with their log-probs, and the mismatch, as text of 80 columns', () => {
  const args = ['--prompt', 'a', '--max-new-tokens', '5', '--temperature', '0'];
  const { responses, mismatch } = json(...args, '--score');
  const [{ tokens, logprobs, trainingLogprobs, text }] = responses;
  const { stdout } = generate(...args, '--score', '--logprobs');
  const lines = stdout.split('\n');
  assert.equal(lines[0], text);
  assert.match(lines[2]!, /id +log mu +log pi +log mu - log pi +token/);
  tokens.forEach((id: number, t: number) => {
    const [found, mu, pi] = lines[4 + t]!.trim().split(/ +/);
    assert.deepEqual([found, mu, pi], [String(id), logprobs[t].toFixed(5), trainingLogprobs[t].toFixed(5)]);
    assert.ok(lines[4 + t]!.endsWith(JSON.stringify(CHARACTERS[id] ?? '<eos>')));
  });
  assert.ok(stdout.includes(`mismatch of ${mismatch.tokens} tokens, fp16 rollout, fp16 training:`));
  assert.match(stdout, /mean \|log pi - log mu\| +\d/);
  for (const line of lines) assert.ok(line.length <= 80, line);
  assert.doesNotMatch(generate(...args, '--logprobs').stdout, /log pi/);
});

test('chats, system messages and stop strings', () => {
  const chat = json('--chat', '--system', 'be brief', '--prompt', '1+1', '--max-new-tokens', '3');
  assert.equal(chat.prompts[0].text, '<|system|>be brief<|user|>1+1<|assistant|>');
  assert.equal(chat.template, 'chat');
  const math = json('--template', 'chat-math', '--prompt', '1', '--max-new-tokens', '3').prompts[0].text;
  assert.match(math, /^<\|user\|>1 .*boxed.*<\|assistant\|>$/);

  const own = path.join(folder, 'own.jinja');
  fs.writeFileSync(own, '<|user|>{{ messages[0].content }}!');
  const other = json('--chat', '--chat-template', own, '--prompt', '1', '--max-new-tokens', '3');
  assert.equal(other.prompts[0].text, '<|user|>1!');

  const args = ['--prompt', 'a', '--max-new-tokens', '30', '--seed', '2'];
  const [whole] = json(...args).responses;
  const stop = whole.text.slice(4, 7);
  const [cut] = json(...args, '--stop', 'unseen', '--stop', stop).responses;
  assert.deepEqual(
    [cut.text, cut.stopString, cut.finishReason],
    [whole.text.slice(0, whole.text.indexOf(stop)), stop, 'stop'],
  );
  assert.deepEqual(cut.tokens, whole.tokens.slice(0, whole.text.indexOf(stop) + 3));
});

test('a special token that is a stop string ends a response, which does not show it', () => {
  const { stopTokens, responses } = json('--prompt', 'a', '--samples', '40', '--stop', '<|user|>');
  assert.deepEqual(stopTokens, [EOS, EOS + 1]);
  const ended = responses.filter(({ tokens }: { tokens: number[] }) => tokens.includes(EOS + 1));
  assert.ok(ended.length > 0);
  for (const { tokens, text, finishReason } of ended) {
    assert.equal(tokens.indexOf(EOS + 1), tokens.length - 1);
    assert.equal(finishReason, 'stop');
    assert.doesNotMatch(text, /<\|user/);
  }
});

test('responses get as long as the context allows, unless a length is asked for', () => {
  const { maxNewTokens } = json('--prompt', 'a', '--prompt', 'longer');
  assert.equal(maxNewTokens, 96 - 6);
  const full = 'a'.repeat(96);
  assertUsageError(
    generate('--prompt', 'a', '--prompt', full),
    /expected prompt 1 and a response within the model's context of 96 tokens, got "a prompt of 96 tokens"/,
  );
  assert.equal(json('--prompt', full.slice(1)).maxNewTokens, 1);
});

test('prompts from stdin, a text file and a data set', () => {
  const input = (text: string, ...args: string[]) =>
    spawnSync(process.execPath, [main, 'generate', model, '--max-new-tokens', '2', '--json', ...args], {
      encoding: 'utf8',
      input: text,
    });
  const texts = ({ stdout }: { stdout: string }) =>
    JSON.parse(stdout).prompts.map(({ id, text }: { id: string; text: string }) => [id, text]);
  assert.deepEqual(texts(input('two\nlines\n\n')), [['0', 'two\nlines\n']]);
  assert.deepEqual(texts(input('in\r\n', '--prompt', 'a', '--prompt', '-')), [
    ['0', 'a'],
    ['1', 'in'],
  ]);
  assert.equal(input('').status, 2);
  assert.match(input('').stderr, /expected a prompt on stdin .*, got "nothing"/);

  const lines = path.join(folder, 'prompts.txt');
  fs.writeFileSync(lines, 'one\r\n\n two \n');
  const read = (...args: string[]) =>
    texts(generate('--max-new-tokens', '2', '--json', '--prompts', ...args));
  assert.deepEqual(read(lines), [
    ['0', 'one'],
    ['1', ' two '],
  ]);
  const data = path.join(folder, 'prompts.jsonl');
  const chat = [
    { role: 'system', content: 's' },
    { role: 'user', content: 'u' },
  ];
  fs.writeFileSync(data, `${JSON.stringify({ question: chat, other: 'b' })}\n`);
  assert.deepEqual(read(data, '--chat'), [['0', '<|system|>s<|user|>u<|assistant|>']]);
  assert.deepEqual(read(data, '--prompt-column', 'other'), [['0', 'b']]);
  assertUsageError(
    generate('--prompts', data, '--chat', '--system', 'x'),
    /no --system beside prompts that have a system message, got "prompt 0"/,
  );
});

test('what is wrong shows before the weights are read', async () => {
  const weightless = path.join(folder, 'weightless');
  await writeCheckpointFolder(weightless, { changes: { 'model.safetensors': 'no weights' } });
  const cases: [args: string[], message: RegExp][] = [
    [['--top-p', '0'], /topP above 0, got 0/],
    [['--numerics', 'mached'], /did you mean matched\?/],
    [['--template', 'chta'], /did you mean chat\?/],
    [['--template', 'qwen3'], /template for this model .*<\|im_start\|>.*, got "qwen3"/],
    [['--chat', '--template', 'r1'], /--chat, which is --template chat, or another --template, got both/],
    [['--system', 'x'], /no --system without a chat/],
    [['--chat-template', 'x'], /no --chat-template without a chat/],
    [['--training-precision', 'fp32'], /no --training-precision without --score/],
    [['--prompts', 'x.txt'], /either --prompt or --prompts/],
    [['--split', 'train'], /no --split without --prompts/],
    [['--stop', ''], /--stop to be text, got ""/],
    [['--max-new-tokens', '96'], /prompt 0 and --max-new-tokens 96 within the model's context of 96/],
    [['--prompt', ''], /--prompt to be text, got ""/],
  ];
  assertUsageErrors(
    cases.map(([args, message]) => [['generate', weightless, '--prompt', 'a', ...args], message]),
  );
  const args = ['generate', weightless, '--prompt', 'a', '--max-new-tokens', '5'];
  const adapter = path.join(folder, 'of-a-narrower-model');
  using narrow = new Decoder({ ...checkpointConfig, intermediateSize: 24 }, { seed: 1 });
  addLora(narrow, { rank: 2, alpha: 4, targets: ['down_proj'] }, { seed: 3 });
  await saveAdapter(adapter, narrow);
  assertUsageError(
    isopolicy([...args, '--adapter', adapter]),
    /\[loadAdapter\] .*layers\.0\.mlp\.down_proj\.lora_A\.weight of \[2, 24\] in place of \[2, 48\]/,
  );
  const weights = isopolicy(args);
  assert.equal(weights.status, 2);
  assert.match(weights.stderr, /^loading .*\nisopolicy: \[safetensors\] .*\n$/);
  assertUsageError(isopolicy(['generate'], withoutAddon), /missing required argument 'dir'/);
  assertUsageError(
    isopolicy(['generate', path.join(folder, 'none')]),
    /\[generate\] expected the folder of a model \(ENOENT\), got ".*none"/,
  );
  const untold = path.join(folder, 'untold');
  await writeCheckpointFolder(untold, {
    changes: { 'tokenizer.json': undefined, 'chat_template.jinja': undefined },
  });
  assertUsageError(isopolicy(['generate', untold, '--prompt', 'a']), /to have a tokenizer\.json/);
  const chatless = path.join(folder, 'chatless');
  await writeCheckpointFolder(chatless, { changes: { 'chat_template.jinja': undefined } });
  assertUsageError(isopolicy(['generate', chatless, '--prompt', 'a', '--chat']), /\[chat template\]/);
  const help = isopolicy(['generate', '--help'], withoutAddon);
  assert.equal(help.status, 0);
  for (const line of help.stdout.split('\n')) assert.ok(line.length <= 80, line);
});

test('what overflows in fp16 says what does not', async () => {
  const loud = path.join(folder, 'loud');
  fs.cpSync(model, loud, { recursive: true });
  using language = await loadLanguageModel(model);
  for (const { name, master } of language.model.parameters) {
    if (name.includes('post_attention_layernorm')) fill(master, 1e4);
  }
  for (const name of ['model.safetensors', 'config.json']) fs.rmSync(path.join(loud, name));
  await saveModel(loud, language.model, { dtype: 'bf16' });
  const args = ['generate', loud, '--prompt', 'a', '--max-new-tokens', '3', '--precision'];
  const fp16 = isopolicy([...args, 'fp16']);
  assert.equal(fp16.status, 1);
  assert.match(
    fp16.stderr,
    /values may overflow in fp16; --precision bf16 .*\nisopolicy: ERR_DEVICE: \[sample\]/,
  );
  assert.equal(isopolicy([...args, 'bf16']).status, 0);
});

/** Starts an endless generation and resolves when its first text has come. */
async function running(...args: string[]) {
  const command = [main, 'generate', endless, '--prompt', 'a', '--max-new-tokens', '59000', ...args];
  const child = spawn(process.execPath, command, { stdio: ['ignore', 'pipe', 'pipe'] });
  const output = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr'] as const) {
    child[name].setEncoding('utf8').on('data', (text: string) => {
      output[name] += text;
    });
  }
  const closed = once(child, 'close');
  await once(args.includes('--json') ? child.stderr : child.stdout, 'data');
  return { child, output, closed };
}

test('text comes as it is sampled, and Ctrl-C ends with what there is', async () => {
  const { child, output, closed } = await running('--samples', '2');
  child.kill('SIGINT');
  const [status] = await closed;
  assert.equal(status, 130, output.stderr);
  const [, first, second] = /^--- sample 0 ---\n(.+?)\n\n--- sample 1 ---\n(.+?)\n$/s.exec(output.stdout)!;
  assert.ok(first!.length > 0 && first!.length < 59_000);
  assert.match(output.stderr, /stopping \(again to stop at once\)\nisopolicy: \d+ tokens .*, interrupted\n$/);
  const length = Math.max(first!.length, second!.length);
  const whole = JSON.parse(
    isopolicy([
      ...['generate', endless, '--prompt', 'a', '--samples', '2', '--json'],
      ...['--max-new-tokens', String(Math.min(length, 100))],
    ]).stdout,
  );
  for (const [i, text] of [first!, second!].entries()) {
    const expected: string = whole.responses[i].text;
    const shorter = Math.min(text.length, expected.length);
    assert.equal(text.slice(0, shorter), expected.slice(0, shorter));
  }
});

test('responses that have not begun are not shown when Ctrl-C ends', async () => {
  const { child, output, closed } = await running('--samples', '40');
  child.kill('SIGINT');
  const [status] = await closed;
  assert.equal(status, 130, output.stderr);
  assert.match(output.stdout, /\n--- sample 31 ---\n[^\n]+/);
  assert.doesNotMatch(output.stdout, /sample 32/, 'that one waits for a place in the cache');
});

test('a reader that goes away ends the generation quietly', async () => {
  const { child, output, closed } = await running();
  child.stdout.destroy();
  const [status] = await closed;
  assert.equal(status, 0, output.stderr);
  assert.doesNotMatch(output.stderr, /EPIPE|Error/);
});

test('texts that grow at once are written one after another', () => {
  const written: string[] = [];
  const output = new OrderedOutput(['A', 'B', 'C'], (text) => written.push(text));
  output.add(1, 'b1');
  assert.deepEqual(written, [], 'the first has not begun');
  output.add(0, 'a1');
  output.end(2);
  output.add(0, 'a2');
  assert.deepEqual(written.splice(0), ['A\n', 'a1', 'a2']);
  output.end(0);
  assert.equal(written.splice(0).join(''), '\n\nB\nb1');
  output.add(1, 'b2');
  output.end(1);
  assert.equal(written.join(''), 'b2\n\nC\n\n');
});

test('texts that nothing has come of are left out, headings and all', () => {
  const written: string[] = [];
  const output = new OrderedOutput(['A', 'B', 'C', 'D'], (text) => written.push(text));
  output.add(3, 'd');
  output.leaveOut(0);
  output.end(1);
  output.leaveOut(2);
  output.end(3);
  assert.equal(written.join(''), 'B\n\n\nD\nd\n');
});
