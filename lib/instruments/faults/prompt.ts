/** What the training engine says of the end of prompts. */
import type { PlainRecord } from './fault.js';
import type { RunStep } from './runStep.js';

/** A training record with tokens of its prompt before those of the response, the first of which may have no log-prob. */
export interface WithPrompt {
  readonly record: PlainRecord;
  /** How many of its tokens are the prompt's. */
  readonly count: number;
}

/**
 * The training records as they would be if the last tokens of the prompts counted as response, `count` of each: nothing
 * predicts the very first token of a prompt, which has null.
 */
export async function withPrompts(
  step: RunStep,
  count: (promptLength: number) => number,
): Promise<WithPrompt[]> {
  const { sequences } = step;
  const counts = sequences.map(({ prompt }) => count(prompt.length));
  const longer = sequences.map(({ prompt, response }, s) => {
    const begin = Math.max(1, prompt.length - counts[s]!);
    const all = Array.from(prompt);
    return { prompt: all.slice(0, begin), response: [...all.slice(begin), ...Array.from(response)] };
  });
  const scored = await step.score(longer);
  const records = step.records(longer, scored);
  return records.map((record, s) => {
    const { promptTokens } = step.training[s]!;
    const whole = counts[s] === promptTokens.length;
    return {
      count: counts[s]!,
      record: {
        ...record,
        promptTokens,
        ...(whole && {
          tokens: [promptTokens[0]!, ...record.tokens],
          text: [step.subject.format([promptTokens[0]!]), ...record.text],
          mask: [1, ...record.mask],
          logprobs: [null, ...record.logprobs],
          ...(record.topLogprobs && { topLogprobs: [null, ...record.topLogprobs] }),
        }),
      },
    };
  });
}
