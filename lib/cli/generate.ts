import { Argument, Command } from 'commander';
import { type PromptTemplate, promptTemplate, promptTemplates } from '../data/promptTemplates.js';
import { type Device, initialDevice } from '../device.js';
import { DeviceError, InvalidArgumentError, invalid } from '../errors.js';
import { checkFolder } from '../io/folder.js';
import type { NumericsMode } from '../rl/engineChoices.js';
import type { LoraMode } from '../rollout/engine.js';
import { type FloatDType, floatBits } from '../tensor/dtype.js';
import type { Tokenizer } from '../text/tokenizer.js';
import { exitCodes } from './exitCodes.js';
import { count, formatDuration, formatNumber, toJson } from './format.js';
import { type GeneratedToken, mismatchText, tokenTable } from './generateReport.js';
import { interruptible } from './interruptible.js';
import {
  choiceOption,
  deviceOption,
  integerOption,
  numberOption,
  pathOption,
  precisionOption,
  textsOption,
} from './options.js';
import { OrderedOutput } from './orderedOutput.js';
import { ProgressWriter } from './progress.js';
import type { ChatFlags, EncodedPrompt, PromptFlags } from './prompts.js';
import type { Response, Scored } from './responses.js';

interface Flags extends PromptFlags, ChatFlags {
  readonly chat?: boolean;
  readonly template?: string;
  readonly samples?: number;
  readonly maxNewTokens?: number;
  readonly temperature?: number;
  readonly topK?: number;
  readonly topP?: number;
  readonly seed?: number;
  readonly stop?: readonly string[];
  readonly precision?: FloatDType;
  readonly trainingPrecision?: FloatDType;
  readonly numerics?: NumericsMode;
  readonly adapter?: string;
  readonly lora?: LoraMode;
  readonly logprobs?: boolean;
  readonly score?: boolean;
  readonly device?: Device;
  readonly threads?: number;
  readonly json?: boolean;
}

/** Longest response unless the user or the model's context says otherwise. */
const MAX_NEW_TOKENS = 256;
/** Responses decoded at once: the cache has room for as many. What is sampled does not depend on it. */
const MAX_BATCH = 32;

/** `isopolicy generate`: text from a model by the rollout engine. */
export function generateCommand(): Command {
  return new Command('generate')
    .summary('generate text with the rollout engine, and score it with the training engine')
    .description(
      'Generate text with the rollout engine, token by token as it becomes certain. With --score the training engine tells ' +
        'what it makes of the same tokens: how far pi is from mu for this model.',
    )
    .addArgument(new Argument('<dir>', 'a checkpoint in the layout of Hugging Face, with its tokenizer'))
    .addOption(textsOption('--prompt <text>', 'a prompt; may be repeated; - is stdin (default: stdin)'))
    .addOption(
      pathOption(
        '--prompts <file>',
        'a .txt file with a prompt a line, or a data set (JSONL, Parquet, Arrow)',
      ),
    )
    .option('--prompt-column <name>', 'of a data set; default: problem, question or prompt')
    .option('--split <name>', 'part of a folder of data, such as train')
    .option('--chat', "write prompts by the model's chat template")
    .option('--system <text>', 'the system message of a chat')
    .addOption(pathOption('--chat-template <file>', "a Jinja file in place of the model's chat template"))
    .addOption(choiceOption('--template <name>', 'prompt template', [...promptTemplates.keys()], 'plain'))
    .addOption(integerOption('--samples <n>', 'responses to each prompt (default: 1)', 1))
    .addOption(
      integerOption(
        '--max-new-tokens <n>',
        `longest response (default: ${MAX_NEW_TOKENS}, or what the context leaves)`,
        1,
      ),
    )
    .addOption(numberOption('--temperature <x>', '0 takes the most likely token (default: 1)', 0))
    .addOption(integerOption('--top-k <n>', 'draw from the n most likely tokens; 0: all (default: 0)', 0))
    .addOption(
      numberOption('--top-p <x>', 'draw from the most likely tokens with this mass (default: 1)', 0, 1),
    )
    .addOption(integerOption('--seed <n>', 'of the draws (default: 1)', 0, Number.MAX_SAFE_INTEGER))
    .addOption(textsOption('--stop <text>', 'end a response before this text; may be repeated'))
    .addOption(
      precisionOption('--precision <type>', 'fp16, bf16, fp32, or an emulated format (default: fp16)'),
    )
    .addOption(
      precisionOption('--training-precision <type>', 'of the engine that scores (default: --precision)'),
    )
    .addOption(
      choiceOption('--numerics <mode>', 'rounding and reduction choices of the engines', [
        'default',
        'matched',
      ]),
    )
    .addOption(pathOption('--adapter <dir>', "a LoRA adapter of the model, in PEFT's layout"))
    .addOption(
      choiceOption('--lora <mode>', 'how the rollout engine computes it', ['merged', 'factored'], 'merged'),
    )
    .option('--logprobs', 'print each token with its log-prob; --json has them in any case')
    .option('--score', 'score the tokens with the training engine and print the mismatch')
    .addOption(deviceOption())
    .addOption(integerOption('--threads <n>', 'native threads; the text is the same at any number', 1, 256))
    .option('--json', 'print everything as one JSON object when it is done')
    .addHelpText(
      'after',
      `
Log-probs are in nats, of the distribution that is drawn from (at temperature 0:
of the one at temperature 1). --score compares without --top-k and --top-p.
Ctrl-C ends with the text so far, exit code ${exitCodes.interrupted}.

Examples:
  $ isopolicy generate models/qwen --chat --prompt 'What is 7 * 8?'
  $ echo 'Once upon a time' | isopolicy generate models/qwen --seed 3
  $ isopolicy generate models/qwen --prompts gsm8k.jsonl --template chat-math \\
      --samples 4 --score --json`,
    )
    .action(generate);
}

async function generate(dir: string, flags: Flags): Promise<void> {
  const template = templateOf(flags);
  if (flags.trainingPrecision !== undefined && !flags.score) {
    invalid('generate', 'no --training-precision without --score', flags.trainingPrecision);
  }
  const { adapter } = flags;
  if (flags.lora !== undefined && adapter === undefined) {
    invalid('generate', 'no --lora without --adapter', flags.lora);
  }
  // Stdin may take its time: a wrong folder shows before.
  await checkFolder('generate', 'the folder of a model', dir);
  const { encodePrompts, readPrompts } = await import('./prompts.js');
  const problems = await readPrompts(flags);
  const { loadModelText } = await import('../models/languageModel.js');
  const { loadModel } = await import('../models/loadModel.js');
  const { checkAdapter, loadAdapter } = await import('../models/adapterFiles.js');
  const { RolloutEngine } = await import('../rollout/engine.js');
  const { resolveSampling } = await import('../rollout/sampling.js');
  const { engineNumerics } = await import('../rl/engineChoices.js');
  const { setDevice, setThreads } = await import('../runtime.js');
  const { responsesTo, sampleText, scoreResponses } = await import('./responses.js');
  setDevice(flags.device ?? initialDevice());
  if (flags.threads !== undefined) setThreads(flags.threads);

  const text = await loadModelText(dir);
  if (adapter !== undefined) await checkAdapter(adapter, text.config.decoder);
  const { tokenizer } = text;
  const prompts = await encodePrompts(text, problems, template, flags);
  const { vocabSize, maxPositionEmbeddings } = text.config.decoder;
  const longest = prompts.reduce((a, b) => (b.tokens.length > a.tokens.length ? b : a));
  const stop = [...template.stop, ...(flags.stop ?? [])];
  const sampling = {
    seed: flags.seed ?? 1,
    temperature: flags.temperature ?? 1,
    topK: flags.topK ?? 0,
    topP: flags.topP ?? 1,
    maxNewTokens: newTokensFor(longest, flags.maxNewTokens, maxPositionEmbeddings),
    stopTokens: stopTokensOf(tokenizer, stop),
  };
  resolveSampling('generate', sampling, vocabSize);
  // Tables and cache are as long as the longest response can get, and no longer.
  const maxLength = longest.tokens.length + sampling.maxNewTokens;

  const writer = new ProgressWriter();
  writer.update({ phase: 'load', parts: [{ text: `loading ${dir}`, importance: 1 }] });
  const { model } = await loadModel(dir, { maxLength }).finally(() => writer.end());
  using _model = model;
  if (adapter !== undefined) await loadAdapter(adapter, model);
  const precision = flags.precision ?? 'fp16';
  const trainingPrecision = flags.trainingPrecision ?? precision;
  const numerics = engineNumerics(flags.numerics ?? 'default');
  const responses = responsesTo(prompts, flags.samples ?? 1);
  const titles = headings(prompts, responses);
  const output = new OrderedOutput(titles, (piece) => process.stdout.write(piece));
  using rollout = new RolloutEngine(model, {
    precision,
    numerics: numerics.rollout,
    maxBatch: Math.min(responses.length, MAX_BATCH),
    ...(flags.lora && { lora: flags.lora }),
  });
  const interruption = interruptible(writer, 'stopping');
  const { signal } = interruption;
  const started = performance.now();
  try {
    await sampleText(rollout, prompts, responses, {
      tokenizer,
      sampling,
      stop,
      signal,
      onText: (index, piece) => flags.json || output.add(index, piece),
      onEnd: (index) => flags.json || output.end(index),
      onNone: (index) => flags.json || output.leaveOut(index),
    });
  } catch (error) {
    if (error instanceof DeviceError && floatBits(precision)!.exponent < 8) {
      writer.note(`isopolicy: values may overflow in ${precision}; --precision bf16 has the range of fp32`);
    }
    throw error;
  } finally {
    interruption.release();
  }
  // A signal that comes with the last token interrupts nothing.
  const interrupted = responses.some(({ finishReason }) => finishReason === 'interrupted');
  process.exitCode = interrupted ? exitCodes.interrupted : exitCodes.success;
  writer.note(speed(responses, (performance.now() - started) / 1000, interrupted));
  const scored =
    flags.score && !interrupted
      ? await scoreResponses(model, rollout, prompts, responses, {
          precision: trainingPrecision,
          numerics: numerics.training,
          sampling,
        })
      : undefined;
  if (flags.json) {
    const result = {
      model: dir,
      ...(adapter !== undefined && { adapter, lora: flags.lora ?? 'merged' }),
      template: template.name,
      precision,
      ...(scored && { trainingPrecision }),
      numerics: flags.numerics ?? 'default',
      ...sampling,
      stop,
      interrupted,
      prompts: prompts.map(({ tokens, ...prompt }) => ({ ...prompt, tokens: [...tokens] })),
      responses: responses.map((response, i) => ({ ...response, ...logprobsOf(scored, i) })),
      ...(scored && { mismatch: scored.mismatch }),
    };
    process.stdout.write(`${toJson(result)}\n`);
    return;
  }
  const engines = `${precision} rollout, ${trainingPrecision} training`;
  const after = [
    ...(flags.logprobs
      ? responses.map((response, i) => {
          const table = tokenTable(tokensOf(response, tokenizer, logprobsOf(scored, i)));
          return titles[i] === '' ? table : `${titles[i]}\n${table}`;
        })
      : []),
    ...(scored ? [mismatchText(scored.mismatch, engines)] : []),
  ];
  for (const text of after) process.stdout.write(`\n${text}\n`);
}

function templateOf({ chat, template }: Flags): PromptTemplate {
  if (chat && template !== undefined && template !== 'chat') {
    throw new InvalidArgumentError(
      `[generate] expected --chat, which is --template chat, or another --template, got both`,
    );
  }
  return promptTemplate(template ?? (chat ? 'chat' : 'plain'));
}

/** Those that end every response of the model, and special tokens that are stop strings: text does not show them. */
function stopTokensOf(tokenizer: Tokenizer, stop: readonly string[]): number[] {
  const special = stop
    .map((text) => tokenizer.tokenToId(text))
    .filter((id) => id !== undefined && tokenizer.isSpecial(id)) as number[];
  return [...new Set([...tokenizer.eosIds, ...special])];
}

/** Tokens of the longest response: as many as are asked for, if the context has room for them behind a prompt. */
function newTokensFor({ id, tokens }: EncodedPrompt, asked: number | undefined, context: number): number {
  const room = context - tokens.length;
  if (room < (asked ?? 1)) {
    const response = asked === undefined ? 'a response' : `--max-new-tokens ${asked}`;
    const what = `prompt ${id} and ${response} within the model's context of ${context} tokens`;
    invalid('generate', what, `a prompt of ${count(tokens.length, 'token')}`);
  }
  return asked ?? Math.min(MAX_NEW_TOKENS, room);
}

/** A line above each response where there are several. */
function headings(prompts: readonly EncodedPrompt[], responses: readonly Response[]): string[] {
  return responses.map(({ prompt, sample }) => {
    const parts = [
      ...(prompts.length > 1 ? [`prompt ${prompts[prompt]!.id}`] : []),
      ...(responses.length > prompts.length ? [`sample ${sample}`] : []),
    ];
    return parts.length === 0 ? '' : `--- ${parts.join(', ')} ---`;
  });
}

function speed(responses: readonly Response[], seconds: number, interrupted: boolean): string {
  const tokens = responses.reduce((sum, response) => sum + response.tokens.length, 0);
  const rate = `${count(tokens, 'token')} in ${formatDuration(seconds)} (${formatNumber(tokens / seconds)} a second)`;
  return `isopolicy: ${rate}${interrupted ? ', interrupted' : ''}`;
}

interface ScoredLogprobs {
  readonly rolloutLogprobs: readonly number[];
  readonly trainingLogprobs: readonly number[];
}

function logprobsOf(scored: Scored | undefined, response: number): ScoredLogprobs | undefined {
  return (
    scored && {
      rolloutLogprobs: [...scored.rollout[response]!],
      trainingLogprobs: [...scored.training[response]!],
    }
  );
}

function tokensOf(
  { tokens, logprobs }: Response,
  tokenizer: Tokenizer,
  scored: ScoredLogprobs | undefined,
): GeneratedToken[] {
  return tokens.map((id, t) => ({
    id,
    text: tokenizer.decode([id], { continues: true }),
    logprob: (scored?.rolloutLogprobs ?? logprobs)[t]!,
    ...(scored && { trainingLogprob: scored.trainingLogprobs[t]! }),
  }));
}
