import type { Fault } from './fault.js';
import { temperatures } from './temperatures.js';

/** Responses are drawn from softmax(logits / T), and log mu is log softmax(logits) / T: nothing is renormalised. */
export const dividedByTemperature: Fault = {
  ...temperatures,
  name: 'divided-by-temperature',
  title: 'the rollout log-probs are divided by the temperature in place of the logits',
  async apply(step, value) {
    using engine = step.rolloutEngine();
    const responses = await step.sample(engine, { temperature: value });
    const plain = await step.scoreBy(
      engine,
      responses.map(({ sequence }) => sequence),
    );
    const divided = responses.map((response, r) => {
      const { logprobs, top } = plain[r]!;
      return {
        ...response,
        logged: {
          logprobs: logprobs.map((logprob) => logprob / value),
          top: top?.map((all) => all.map(([token, logprob]) => [token, logprob / value] as const)),
        },
      };
    });
    return step.dump(divided, { temperature: value });
  },
};
