import type { PolicyBatch } from '../batch.js';
import { eachLogRatio, k3 } from '../ratios.js';

/**
 * How far pi has moved since pi_old, over the counted tokens: `clipFraction` (of `clipped` tokens), `ratioMean` of
 * r = pi / pi_old, and `approxKl`, the k3 estimate of KL[pi_old || pi] in nats per token. Empty when nothing counts.
 */
export function driftMetrics(batch: PolicyBatch, clipped: number): Record<string, number> {
  let tokens = 0;
  let ratios = 0;
  let kl = 0;
  eachLogRatio(batch, batch.logprobs, batch.oldLogprobs!, (logRatio) => {
    tokens++;
    ratios += Math.exp(logRatio);
    kl += k3(-logRatio);
  });
  if (tokens === 0) return {};
  return { clipFraction: clipped / tokens, ratioMean: ratios / tokens, approxKl: kl / tokens };
}
