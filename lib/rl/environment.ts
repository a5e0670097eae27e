/** What a policy is sampled for, and how its responses are judged: a task, or a data set with its verifier. */
import { invalid } from '../errors.js';
import type { RolloutEngine } from '../rollout/engine.js';
import type { Completion } from '../rollout/generation.js';
import type { SamplingOptions } from '../rollout/sampling.js';
import type { Task } from '../tasks/task.js';

/** A response to the prompt of that number. */
export interface JudgedResponse {
  readonly prompt: number;
  /** Its stop token included. */
  readonly tokens: Int32Array;
}

export interface Environment {
  /** Token ids of each prompt. */
  readonly prompts: readonly Int32Array[];
  /** Most new tokens of a response, a stop token included. */
  readonly responseLength: number;
  /** Tokens that end a response: where something can end it, one that nothing ended was cut off. */
  readonly stopTokens: readonly number[];
  /**
   * Where a response can end otherwise, such as in a stop string: makes what is told the tokens of one response in their
   * order, and says at which it ends.
   */
  readonly endOf?: (() => (token: number) => boolean) | undefined;
  /** The rewards of whole responses, a finite number each. Those that were cut off are not asked about: they earn 0. */
  rewards(responses: readonly JudgedResponse[]): ArrayLike<number> | Promise<ArrayLike<number>>;
}

/** A task's verifier on some of its prompts. */
export function taskEnvironment(task: Task, prompts: readonly Int32Array[]): Environment {
  const { responseLength, stopToken } = task;
  return {
    prompts,
    responseLength,
    stopTokens: stopToken === undefined ? [] : [stopToken],
    rewards: (responses) => responses.map(({ prompt, tokens }) => task.verify(prompts[prompt]!, tokens)),
  };
}

/** A response to be sampled: the number of its prompt, and the names of its draw (uint31). */
export interface Draw {
  readonly prompt: number;
  readonly promptId: number;
  readonly sampleId: number;
}

/** Responses in the order of their draws. */
export interface JudgedSamples {
  readonly completions: readonly Completion[];
  readonly rewards: Float64Array;
  /** 1 where a response was cut off at the length limit. */
  readonly truncated: Uint8Array;
}

/** How responses are drawn; training draws from the policy itself, as the defaults do. */
export interface DrawOptions extends Pick<SamplingOptions, 'temperature' | 'topP' | 'recordRoutes'> {
  /** Aborting it ends the sampling at the next token, with the signal's reason as the error. */
  readonly signal?: AbortSignal | undefined;
}

/** Samples a response for each draw, with the engine's weights as they are. */
export async function sampleDraws(
  rollout: RolloutEngine,
  environment: Environment,
  draws: readonly Draw[],
  seed: number,
  { temperature = 1, topP = 1, recordRoutes = false, signal }: DrawOptions = {},
): Promise<Completion[]> {
  const { prompts, responseLength, stopTokens, endOf } = environment;
  const ends = endOf && draws.map(() => endOf());
  return rollout.generate(
    draws.map(({ prompt, promptId, sampleId }) => ({ prompt: prompts[prompt]!, promptId, sampleId })),
    {
      seed,
      temperature,
      topP,
      maxNewTokens: responseLength,
      stopTokens,
      recordRoutes,
      ...((ends || signal) && {
        onToken: (request: number, token: number) => {
          signal?.throwIfAborted();
          return ends?.[request]?.(token);
        },
      }),
    },
  );
}

/**
 * Samples a response for each draw, as {@link sampleDraws} does, and judges them.
 *
 * @throws InvalidArgumentError if the environment's rewards are not one finite number for each response
 */
export async function sampleJudged(
  rollout: RolloutEngine,
  environment: Environment,
  draws: readonly Draw[],
  seed: number,
  options: DrawOptions = {},
): Promise<JudgedSamples> {
  const completions = await sampleDraws(rollout, environment, draws, seed, options);
  const endless = environment.stopTokens.length === 0 && !environment.endOf;
  const truncated = Uint8Array.from(completions, ({ finishReason }) =>
    !endless && finishReason === 'length' ? 1 : 0,
  );
  const whole = draws.flatMap(({ prompt }, i) =>
    truncated[i] === 1 ? [] : [{ i, prompt, tokens: completions[i]!.tokens }],
  );
  const judged = whole.length === 0 ? [] : await environment.rewards(whole);
  if (judged.length !== whole.length) {
    invalid('environment', `rewards() to return ${whole.length} numbers (one per response)`, judged.length);
  }
  const rewards = new Float64Array(draws.length);
  whole.forEach(({ i }, k) => {
    const reward = judged[k];
    if (!Number.isFinite(reward)) invalid('environment', 'rewards() to return finite numbers', reward);
    rewards[i] = reward!;
  });
  return { completions, rewards, truncated };
}
