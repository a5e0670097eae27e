import { type CountedTokens, spreadOf } from '../countedTokens.js';
import { weightedMedian } from '../select.js';
import { keptMass } from './keptMass.js';
import {
  type Finding,
  isTemperature,
  LEAST_SPREAD,
  notTestable,
  percent,
  type Signature,
  said,
  shareGone,
  TOO_FEW,
} from './signature.js';

/** Share of the mismatch that must be gone. */
const GONE = 0.5;
/** Of chosen tokens alone, which a temperature fits exactly only where two tokens compete. */
const GONE_OF_CHOSEN = 0.35;
const LEAST = 0.01;
/** Log-probs above it have too few digits for odds, if they are rounded to some decimals. */
const SURE = -1e-3;

/**
 * Distributions of the same logits at different temperatures. Where the most likely tokens are known of both engines, the
 * difference of two candidates' log-probs is that of their logits over the temperature, whatever the rest of the vocabulary
 * holds: log pi(a) - log pi(b) = s (log mu(a) - log mu(b)) with s = T_mu / T_pi. Else the odds of the chosen token stand
 * for it, logit pi = s logit mu, exact where two tokens compete.
 */
export const temperature: Signature = {
  name: 'temperature',
  title: 'another temperature of the same logits',
  test(tokens, context): Finding {
    const { mu, pi } = tokens.sample.gaps;
    const exact = mu.length >= 20;
    const { x, y } = exact ? { x: mu, y: pi } : oddsOfChosen(tokens);
    const ratios = new Float64Array(x.length);
    const weights = new Float64Array(x.length);
    let [apart, squares, n] = [0, 0, 0];
    for (let i = 0; i < x.length; i++) {
      const distance = Math.abs(y[i]! - x[i]!);
      apart += distance;
      squares += distance ** 2;
      if (x[i] === 0) continue;
      ratios[n] = y[i]! / x[i]!;
      weights[n++] = Math.abs(x[i]!);
    }
    if (n === 0 || !(spreadOf(apart, squares) >= LEAST_SPREAD)) return notTestable(TOO_FEW);
    const s = weightedMedian(ratios.subarray(0, n), weights.subarray(0, n));
    let left = 0;
    for (let i = 0; i < x.length; i++) left += Math.abs(y[i]! - s * x[i]!);
    const explained = shareGone(apart, left);
    const found =
      explained >= (exact ? GONE : GONE_OF_CHOSEN) &&
      Math.abs(s - 1) >= LEAST &&
      isTemperature(s) &&
      // Kept mass makes likely tokens more likely, too, but so it does the others.
      (exact || !keptMass.test(tokens, context).found);
    const of = exact ? `gaps between ${x.length} candidates` : 'the odds of chosen tokens that are likely';
    return {
      found,
      explained,
      evidence: `best-fit temperature of training over rollout ${said(1 / s)}, from ${of}; it accounts for ${percent(explained)} of their mismatch`,
      values: { temperatureRatio: 1 / s, exact: exact ? 1 : 0 },
    };
  },
};

interface Points {
  readonly x: Float64Array;
  readonly y: Float64Array;
}

/**
 * Of chosen tokens that are likelier than all others together and yet not certain: temperature moves these all one way, by more the
 * surer they are, however many others compete. Of less likely ones it depends on what the others are.
 */
function oddsOfChosen({ count, mu, pi }: CountedTokens): Points {
  const [x, y] = [new Float64Array(count), new Float64Array(count)];
  const logit = (log: number) => log - Math.log(-Math.expm1(log));
  let n = 0;
  for (let i = 0; i < count; i++) {
    if (!(mu[i]! < SURE && pi[i]! < SURE) || mu[i]! + pi[i]! < 2 * Math.log(0.5)) continue;
    x[n] = logit(mu[i]!);
    y[n++] = logit(pi[i]!);
  }
  return { x: x.subarray(0, n), y: y.subarray(0, n) };
}
