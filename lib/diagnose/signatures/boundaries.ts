import type { CountedTokens } from '../countedTokens.js';
import { jumpOf, Moments, type ResponseNoise, responseNoise } from '../responseNoise.js';
import { type Finding, notTestable, percent, type Signature, said, shareGone } from './signature.js';

const RATIO = 1.5;
const ERRORS = 5;
/** Of a batch, and of the others. */
const LEAST_RESPONSES = 8;

/** Numerics that depend on what else was in the batch: some batches agree and others don't, on the same weights. */
export const boundaries: Signature = {
  name: 'boundaries',
  title: 'steps at batch boundaries: batch variance',
  test(tokens): Finding {
    const noise = responseNoise(tokens);
    if (noise.responses.length < 8) return notTestable('needs 8 responses with unsure tokens');
    const equal = ofEqual(tokens, noise);
    if (equal?.found) return equal;
    return (
      byBatch(tokens, noise) ??
      equal ??
      notTestable('no step has responses that are equal to the bit beside others, and no batches are named')
    );
  },
};

/**
 * Responses that are equal to the bit in every token beside others that are not. Where batches differ they stand together, in
 * the order of batches or of the file: the runs test (Wald and Wolfowitz 1940) tells that from chance.
 */
function ofEqual(
  { sample, meanAbs, d, count, response }: CountedTokens,
  { responses, noise }: ResponseNoise,
): Finding | undefined {
  const ofSteps = new Map<number, number[]>();
  for (const s of responses) {
    const own = ofSteps.get(sample.steps[s]!) ?? [];
    ofSteps.set(sample.steps[s]!, own);
    own.push(s);
  }
  const mixed = new Set<number>();
  const totals = { equal: 0, runs: 0, expected: 0, variance: 0 };
  for (const all of ofSteps.values()) {
    all.sort((a, b) => sample.batches[a]! - sample.batches[b]! || sample.order[a]! - sample.order[b]!);
    // A response that was drawn twice is no neighbour of itself.
    const own = all.filter((s, i) => i === 0 || sample.order[s] !== sample.order[all[i - 1]!]);
    const n = own.length;
    const equal = own.filter((s) => noise[s] === 0).length;
    if (equal === 0 || equal === n) continue;
    const pairs = 2 * equal * (n - equal);
    totals.equal += equal;
    totals.runs += 1 + own.slice(1).filter((s, i) => (noise[s] === 0) !== (noise[own[i]!] === 0)).length;
    totals.expected += pairs / n + 1;
    totals.variance += (pairs * (pairs - n)) / (n * n * (n - 1));
    for (const s of own) mixed.add(s);
  }
  if (mixed.size === 0) return undefined;
  let held = 0;
  for (let i = 0; i < count; i++) if (mixed.has(response[i]!)) held += Math.abs(d[i]!);
  const { runs, expected, variance } = totals;
  const errors = variance > 0 ? (runs - expected) / Math.sqrt(variance) : 0;
  const equalShare = totals.equal / mixed.size;
  return {
    found: errors <= -ERRORS,
    explained: held / count / meanAbs,
    evidence: `${percent(equalShare)} of the responses are equal to the bit in every token, the others are not; they stand in ${said(runs)} runs, where chance gives ${said(expected)} (${said(errors)} standard errors)`,
    values: { equalShare, runs, expected, errors },
  };
}

/** Each named batch against the others of its steps. */
function byBatch(
  { sample, meanAbs, meanOpenness }: CountedTokens,
  { responses, log }: ResponseNoise,
): Finding | undefined {
  const ofSteps = new Map<number, Moments>();
  const ofBatches = new Map<number, Map<number, Moments>>();
  for (const s of responses) {
    const [step, batch] = [sample.steps[s]!, sample.batches[s]!];
    momentsIn(ofSteps, step).add(log[s]!);
    if (batch < 0) continue;
    const parts = ofBatches.get(batch) ?? new Map<number, Moments>();
    ofBatches.set(batch, parts);
    momentsIn(parts, step).add(log[s]!);
  }
  let best = { ratio: 1, errors: 0, before: 0, after: 0 };
  for (const parts of ofBatches.values()) {
    const [own, others] = [new Moments(), new Moments()];
    for (const [step, part] of parts) {
      own.merge(part);
      others.merge(ofSteps.get(step)!.without(part));
    }
    if (own.count < LEAST_RESPONSES || others.count < LEAST_RESPONSES) continue;
    const jump = jumpOf(others, own);
    if (Math.abs(jump.errors) > Math.abs(best.errors)) best = jump;
  }
  if (best.errors === 0) return undefined;
  const { ratio, errors, before, after } = best;
  return {
    found: Math.abs(Math.log(ratio)) >= Math.log(RATIO) && Math.abs(errors) >= ERRORS,
    explained: shareGone(meanAbs, Math.min(before, after) * meanOpenness),
    evidence: `of ${ofBatches.size} batches the one that differs most has ${said(ratio)} times the noise of the others of its step (${said(Math.abs(errors))} standard errors)`,
    values: { ratio, errors },
  };
}

function momentsIn(groups: Map<number, Moments>, key: number): Moments {
  const moments = groups.get(key) ?? new Moments();
  groups.set(key, moments);
  return moments;
}
