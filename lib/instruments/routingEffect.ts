import { mismatchMetrics } from '../mismatch/metrics.js';
import { routingFlips } from '../mismatch/routing.js';
import type { TokenSequence } from '../models/sequences.js';
import { type MismatchSummary, summarizeMismatch } from '../rl/record.js';
import type { Completion } from '../rollout/generation.js';
import type { TrainingEngine } from '../training/engine.js';

/** What the routers of a mixture of experts have to do with the mismatch. */
export interface RoutingEffect {
  /** Share of tokens and mixtures for which the two engines chose other experts. */
  readonly flipShare: number;
  /** The mismatch where the training engine is given the experts that the rollout engine chose (R3). */
  readonly replayed: MismatchSummary;
}

/**
 * Measures routing flips between the engines, and what is left of the mismatch without them: the training engine scores
 * the same responses once with its own routes and once with those of the rollout engine.
 *
 * @param completions sampled with `recordRoutes`
 */
export async function routingEffect(
  training: TrainingEngine,
  sequences: readonly TokenSequence[],
  completions: readonly Completion[],
): Promise<RoutingEffect> {
  const routes = completions.map((completion) => completion.routes!);
  const own = await training.score(sequences, { recordRoutes: true });
  const replayed = await training.score(sequences, { replay: routes });
  return {
    flipShare: routingFlips(routes, own.routing!.routes, training.routesShape!.expertsPerToken),
    replayed: summarizeMismatch(
      mismatchMetrics({
        offsets: replayed.offsets,
        rolloutLogprobs: Float64Array.from(completions.flatMap(({ logprobs }) => [...logprobs])),
        logprobs: replayed.logprobs,
        mask: new Uint8Array(replayed.logprobs.length).fill(1),
      }),
    ),
  };
}
