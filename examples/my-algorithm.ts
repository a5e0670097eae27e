/**
 * An algorithm of one's own: REINFORCE with each token weighted by pi / mu, cut off at 2.
 *
 * Run: npx isopolicy sanity --algorithm ./my-algorithm.ts
 */
import { type Algorithm, groupAdvantages } from 'isopolicy';

export default {
  name: 'my-algorithm',
  needsOldLogprobs: false,
  advantages: (rewards, groupSize) => groupAdvantages(rewards, groupSize),
  loss({ offsets, logprobs, rolloutLogprobs, mask, advantages, totals }) {
    const gradient = new Float64Array(logprobs.length); // d loss / d log pi of each token
    for (let s = 0; s < advantages.length; s++) {
      for (let t = offsets[s]!; t < offsets[s + 1]!; t++) {
        const weight = Math.min(2, Math.exp(logprobs[t]! - rolloutLogprobs[t]!));
        if (mask[t] === 1) gradient[t] = (-advantages[s]! * weight) / totals.tokens;
      }
    }
    const loss = gradient.reduce((sum, g, t) => (g === 0 ? sum : sum + g * logprobs[t]!), 0);
    return { loss, gradient, metrics: {} };
  },
} satisfies Algorithm;
