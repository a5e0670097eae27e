import type { CountedTokens } from '../countedTokens.js';
import { jumpOf, Moments, type ResponseNoise, responseNoise } from '../responseNoise.js';
import { type Finding, notTestable, OPEN, percent, type Signature, said, shareGone } from './signature.js';

const RATIO = 1.5;
const ERRORS = 6;
/** Share of responses that are equal to the bit, and of those that are not. */
const LEAST_SHARE = 0.03;
/** Times as many as would be equal by chance. */
const BEYOND_CHANCE = 4;
/** Of a batch, and of the others. */
const LEAST_RESPONSES = 8;

/** Numerics that depend on what else was in the batch: some batches agree and others don't, on the same weights. */
export const boundaries: Signature = {
  name: 'boundaries',
  title: 'steps at batch boundaries: batch variance',
  test(tokens): Finding {
    const noise = responseNoise(tokens);
    if (noise.responses.length < 8) return notTestable('needs 8 responses with unsure tokens');
    return (
      ofEqual(tokens, noise) ??
      byBatch(tokens, noise) ??
      notTestable(
        'no step has more responses that are equal to the bit than chance makes, and no batches are named',
      )
    );
  },
};

/**
 * Steps in which some responses are equal to the bit in every token and others are not, more often than short responses of
 * tokens that are each equal now and then would be.
 */
function ofEqual(
  { sample, meanAbs, d, openness, count, response, responses }: CountedTokens,
  { responses: own, noise }: ResponseNoise,
): Finding | undefined {
  const open = new Float64Array(responses);
  const equalOpen = new Float64Array(responses);
  for (let i = 0; i < count; i++) {
    if (openness[i]! < OPEN) continue;
    open[response[i]!]!++;
    if (d[i] === 0) equalOpen[response[i]!]!++;
  }
  const steps = new Map<number, { all: number; equal: number }>();
  for (const s of own) {
    const step = steps.get(sample.steps[s]!) ?? { all: 0, equal: 0 };
    steps.set(sample.steps[s]!, step);
    step.all++;
    if (noise[s] === 0) step.equal++;
  }
  const isMixed = (s: number) => {
    const { all, equal } = steps.get(sample.steps[s]!)!;
    return equal >= LEAST_SHARE * all && equal <= (1 - LEAST_SHARE) * all;
  };
  const mixed = own.filter(isMixed);
  if (mixed.length === 0) return undefined;
  const others = mixed.filter((s) => noise[s]! > 0);
  // Of a response that is known not to be equal, one token that differs says nothing of the others.
  const tried = others.reduce((sum, s) => sum + Math.max(0, open[s]! - 1), 0);
  const share = tried === 0 ? 1 : Math.min(1, others.reduce((sum, s) => sum + equalOpen[s]!, 0) / tried);
  const byChance = mixed.reduce((sum, s) => sum + share ** open[s]!, 0);
  const equal = mixed.length - others.length;
  if (equal < BEYOND_CHANCE * byChance) return undefined;
  const inMixed = new Set(mixed);
  let held = 0;
  for (let i = 0; i < count; i++) if (inMixed.has(response[i]!)) held += Math.abs(d[i]!);
  return {
    found: true,
    explained: held / count / meanAbs,
    evidence: `${percent(equal / mixed.length)} of the responses of a step are equal to the bit in every token, the others are not (by chance: ${percent(byChance / mixed.length)})`,
    values: { equalShare: equal / mixed.length, byChance: byChance / mixed.length },
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
