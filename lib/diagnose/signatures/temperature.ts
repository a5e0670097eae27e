import { commonCandidates } from '../candidates.js';
import { type CountedTokens, weightedMedian } from '../countedTokens.js';
import { type Finding, percent, type Signature, said, shareGone } from './signature.js';

/** Share of the mismatch that must be gone. */
const GONE = 0.5;
/** Of chosen tokens alone, which a temperature fits only where two tokens compete. */
const GONE_OF_CHOSEN = 0.35;
const LEAST = 0.01;

/**
 * Distributions of the same logits at different temperatures. Where the most likely tokens are known of both engines, the
 * difference of two candidates' log-probs is that of their logits over the temperature, whatever the rest of the vocabulary
 * holds: log pi(a) - log pi(b) = s (log mu(a) - log mu(b)) with s = T_mu / T_pi. Else the odds of the chosen token stand
 * for it, logit pi = s logit mu, exact where two tokens compete.
 */
export const temperature: Signature = {
  name: 'temperature',
  title: 'another temperature of the same logits',
  test(tokens): Finding {
    const ofCandidates = candidatePairs(tokens);
    const exact = ofCandidates.x.length >= 20;
    const { x, y, w } = exact ? ofCandidates : oddsOfChosen(tokens);
    const ratios: number[] = [];
    const weights: number[] = [];
    x.forEach((value, i) => {
      if (value === 0) return;
      ratios.push(y[i]! / value);
      weights.push(w[i]! * Math.abs(value));
    });
    const s = weightedMedian(ratios, weights);
    let [apart, left] = [0, 0];
    x.forEach((value, i) => {
      apart += w[i]! * Math.abs(y[i]! - value);
      left += w[i]! * Math.abs(y[i]! - s * value);
    });
    const explained = ratios.length === 0 ? 0 : shareGone(apart, left);
    const found = explained >= (exact ? GONE : GONE_OF_CHOSEN) && Math.abs(s - 1) >= LEAST;
    const of = exact ? `gaps between ${x.length} candidates` : 'odds of chosen tokens';
    return {
      found,
      explained,
      evidence: `best-fit temperature of training over rollout ${said(1 / s)}, from ${of}; it accounts for ${percent(explained)} of their mismatch`,
      values: { temperatureRatio: 1 / s, exact: exact ? 1 : 0 },
    };
  },
};

interface Points {
  readonly x: number[];
  readonly y: number[];
  readonly w: number[];
}

/** Gaps between the most likely candidate and each other one. */
function candidatePairs({ sample }: CountedTokens): Points {
  const points: Points = { x: [], y: [], w: [] };
  for (const { mu, pi } of commonCandidates(sample)) {
    const first = mu.indexOf(Math.max(...mu));
    for (let c = 0; c < mu.length; c++) {
      if (c === first) continue;
      points.x.push(mu[first]! - mu[c]!);
      points.y.push(pi[first]! - pi[c]!);
      points.w.push(1);
    }
  }
  return points;
}

function oddsOfChosen({ count, mu, pi }: CountedTokens): Points {
  const points: Points = { x: [], y: [], w: [] };
  const logit = (log: number) => log - Math.log(-Math.expm1(log));
  for (let i = 0; i < count; i++) {
    if (!(mu[i]! < -1e-3) || !(pi[i]! < -1e-3)) continue;
    const p = Math.exp((mu[i]! + pi[i]!) / 2);
    points.x.push(logit(mu[i]!));
    points.y.push(logit(pi[i]!));
    // What an error of the odds does to the log-prob.
    points.w.push(1 - p);
  }
  return points;
}
