import { checkBoolean, checkInteger, checkNumber, invalid } from '../errors.js';

/** How the next token is drawn; log-probs are those of the distribution that is sampled from. */
export interface SamplingOptions {
  /** Key of the counter-based generator: a draw is a pure function of (seed, promptId, sampleId, position). */
  readonly seed: number;
  /** Default 1; 0 is greedy. */
  readonly temperature?: number;
  /** Keep only the K most likely tokens; default 0, off. */
  readonly topK?: number;
  /** Keep only the smallest set of tokens with at least this mass; default 1, off. */
  readonly topP?: number;
  /** Longest response. */
  readonly maxNewTokens: number;
  /** Tokens that end a response; they are part of it. */
  readonly stopTokens?: readonly number[];
  /**
   * Told each token of a response as it is read, in order within a response: its request's number, the token and its
   * log-prob. Where it returns true the response ends with that token, as with a stop token; an error ends the generation.
   */
  readonly onToken?: (request: number, token: number, logprob: number) => unknown;
  /** Of a mixture of experts: whether completions tell which experts their tokens went to; default false. */
  readonly recordRoutes?: boolean;
}

export type ResolvedSampling = Required<Omit<SamplingOptions, 'onToken'>> & Pick<SamplingOptions, 'onToken'>;

export function resolveSampling(
  where: string,
  options: SamplingOptions,
  vocabSize: number,
): ResolvedSampling {
  const topP = checkNumber(where, 'topP', options.topP ?? 1, 0, 1);
  if (topP === 0) invalid(where, 'topP above 0', topP);
  const stopTokens = options.stopTokens ?? [];
  for (const token of stopTokens) checkInteger(where, 'each of stopTokens', token, 0, vocabSize - 1);
  const { onToken } = options;
  if (onToken !== undefined && typeof onToken !== 'function')
    invalid(where, 'onToken to be a function', onToken);
  return {
    seed: checkInteger(where, 'seed', options.seed, 0, Number.MAX_SAFE_INTEGER),
    temperature: checkNumber(where, 'temperature', options.temperature ?? 1, 0),
    topK: checkInteger(where, 'topK', options.topK ?? 0, 0),
    topP,
    maxNewTokens: checkInteger(where, 'maxNewTokens', options.maxNewTokens, 1),
    stopTokens,
    ...(onToken && { onToken }),
    recordRoutes: checkBoolean(where, 'recordRoutes', options.recordRoutes ?? false),
  };
}
