import type { Numerics } from '../../numerics.js';
import { expectMatched } from './change.js';
import type { Fault } from './fault.js';
import type { Response } from './runStep.js';

/**
 * Choices that the rollout engine makes otherwise for few rows, as heuristics by the number of rows do: sums in four parts;
 * attention over a few keys at a time, its parts combined; the rollout kernels, and the log-softmax over the whole row.
 */
function choicesOfFew(matched: Numerics, hiddenSize: number, knobs: number): Numerics {
  return {
    ...matched,
    gemmSplitK: Math.ceil(hiddenSize / 4),
    ...(knobs >= 2 && { attentionChunk: 16, attentionTile: 16 }),
    ...(knobs >= 3 && { gemmFamily: 1, logSoftmaxChunk: 0 }),
  };
}

/** Every other batch is small; only there the rollout engine differs, in an otherwise matched run. */
export const batchVariance: Fault = {
  name: 'batch-variance',
  title: 'the rollout engine computes small batches otherwise than large ones',
  strength: 'what small batches do otherwise: 1 split-K, 2 attention, too, 3 kernels and log-softmax, too',
  strengths: { weak: 1, ordinary: 2, strong: 3 },
  allows: (knobs) => [1, 2, 3].includes(knobs),
  allowed: '1, 2 or 3',
  runs: 'runs with matched numerics',
  check: (setting) => expectMatched('batch-variance', setting),
  async apply(step, knobs) {
    const small = step.batches.map((batch) => batch % 2 === 0);
    const draws = step.draws.filter((_, i) => small[i]);
    const { hiddenSize } = step.subject.model.config;
    using engine = step.rolloutEngine({ numerics: choicesOfFew(step.numerics.rollout, hiddenSize, knobs) });
    const ofFew = await step.sample(engine, {}, draws);
    let next = 0;
    const responses = step.responses.map((response, i): Response => (small[i] ? ofFew[next++]! : response));
    const touched = ofFew.reduce((sum, { sequence }) => sum + sequence.response.length, 0);
    return { ...(await step.dump(responses)), touched };
  },
};
