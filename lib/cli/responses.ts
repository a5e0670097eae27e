/** Responses of `isopolicy generate`: sampled by one engine, with their text as it comes, and scored by the other. */
import { type MismatchMetrics, mismatchMetrics } from '../mismatch/metrics.js';
import type { Decoder } from '../models/decoder.js';
import type { TokenSequence } from '../models/sequences.js';
import type { Numerics } from '../numerics.js';
import type { RolloutEngine } from '../rollout/engine.js';
import type { SamplingOptions } from '../rollout/sampling.js';
import type { FloatDType } from '../tensor/dtype.js';
import { TextStream } from '../text/textStream.js';
import type { Tokenizer } from '../text/tokenizer.js';
import { TrainingEngine } from '../training/engine.js';
import type { EncodedPrompt } from './prompts.js';

/** One response while it grows. */
export interface Response {
  /** Place of its prompt. */
  readonly prompt: number;
  readonly sample: number;
  readonly tokens: number[];
  /** log mu of each token under the distribution that it was drawn from. */
  readonly logprobs: number[];
  /** Without special tokens, up to the stop string. */
  text: string;
  finishReason: 'stop' | 'length' | 'interrupted';
  /** The string that ended it, where one has. */
  stopString?: string;
}

/** A number of responses to each prompt, without a token. */
export function responsesTo(prompts: readonly EncodedPrompt[], samples: number): Response[] {
  return prompts.flatMap((_, prompt) =>
    Array.from({ length: samples }, (_, sample) => ({
      prompt,
      sample,
      tokens: [],
      logprobs: [],
      text: '',
      // What a response is until it has ended.
      finishReason: 'interrupted' as const,
    })),
  );
}

export interface SampleTextOptions {
  readonly tokenizer: Tokenizer;
  readonly sampling: SamplingOptions;
  /** Strings that end a response. */
  readonly stop: readonly string[];
  /** Ends all responses where they are. */
  readonly signal: AbortSignal;
  /** Told each piece of a response's text. */
  readonly onText: (response: number, piece: string) => void;
  /** Told once of each response that has begun, after its last piece. */
  readonly onEnd: (response: number) => void;
  /** Told of each response that nothing has come of when it was interrupted. */
  readonly onNone: (response: number) => void;
}

/** Fills responses with tokens and text. Their ids stay what was drawn: text is never encoded again. */
export async function sampleText(
  rollout: RolloutEngine,
  prompts: readonly EncodedPrompt[],
  responses: readonly Response[],
  options: SampleTextOptions,
): Promise<void> {
  const { tokenizer, sampling, stop, signal, onText, onEnd, onNone } = options;
  const streams = responses.map(
    () => new TextStream(tokenizer, { continues: true, skipSpecialTokens: true, stop }),
  );
  const grow = (index: number, piece: string) => {
    if (piece === '') return;
    responses[index]!.text += piece;
    onText(index, piece);
  };
  const end = (index: number, reason: Response['finishReason']) => {
    grow(index, streams[index]!.end());
    responses[index]!.finishReason = reason;
    onEnd(index);
  };
  const onToken = (index: number, token: number, logprob: number) => {
    signal.throwIfAborted();
    const [response, stream] = [responses[index]!, streams[index]!];
    response.tokens.push(token);
    response.logprobs.push(logprob);
    const isStop = sampling.stopTokens?.includes(token) ?? false;
    if (!isStop) grow(index, stream.push(token));
    const { stopped } = stream;
    if (stopped !== undefined) response.stopString = stopped;
    if (isStop || stopped !== undefined) end(index, 'stop');
    else if (response.tokens.length === sampling.maxNewTokens) end(index, 'length');
    return stopped !== undefined;
  };
  const requests = responses.map(({ prompt, sample }) => ({
    prompt: prompts[prompt]!.tokens,
    promptId: prompt,
    sampleId: sample,
  }));
  try {
    await rollout.generate(requests, { ...sampling, onToken });
  } catch (error) {
    if (!signal.aborted) throw error;
    for (const [i, { finishReason, tokens }] of responses.entries()) {
      if (finishReason !== 'interrupted') continue;
      if (tokens.length === 0) onNone(i);
      else end(i, finishReason);
    }
  }
}

/** Both engines on the tokens of the responses; each the whole distribution, at the temperature of the draw. */
export interface Scored {
  /** log mu of each response. */
  readonly rollout: readonly Float64Array[];
  /** log pi of each response. */
  readonly training: readonly Float64Array[];
  readonly mismatch: MismatchMetrics;
}

/** Scores responses with the training engine; with the rollout engine, too, where the draw had filters. */
export async function scoreResponses(
  model: Decoder,
  rollout: RolloutEngine,
  prompts: readonly EncodedPrompt[],
  responses: readonly Response[],
  options: {
    readonly precision: FloatDType;
    readonly numerics: Numerics;
    readonly sampling: SamplingOptions;
  },
): Promise<Scored> {
  const { precision, numerics, sampling } = options;
  const { temperature: drawn = 1, topK = 0, topP = 1 } = sampling;
  const sequences = responses.map(
    ({ prompt, tokens }): TokenSequence => ({ prompt: prompts[prompt]!.tokens, response: tokens }),
  );
  // Greedy decoding tells log-probs at temperature 1, and has no filters.
  const temperature = drawn === 0 ? 1 : drawn;
  const filtered = drawn !== 0 && (topK !== 0 || topP !== 1);
  using training = new TrainingEngine(model, {
    precision,
    numerics,
    temperature,
    schedule: { kind: 'constant', learningRate: 0 },
  });
  const { logprobs, offsets } = await training.score(sequences);
  const rolloutLogprobs = filtered
    ? (await rollout.score(sequences, { temperature })).logprobs
    : Float64Array.from(responses.flatMap((response) => response.logprobs));
  const mask = new Uint8Array(logprobs.length).fill(1);
  const apart = (values: Float64Array) =>
    sequences.map((_, i) => values.subarray(offsets[i]!, offsets[i + 1]!));
  return {
    rollout: apart(rolloutLogprobs),
    training: apart(logprobs),
    mismatch: mismatchMetrics({ offsets, rolloutLogprobs, logprobs, mask }),
  };
}
