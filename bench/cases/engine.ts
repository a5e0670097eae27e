import type { NativeFloatDType } from '../../lib/tensor/dtype.js';
import type { BenchCase, CaseSelection, InputSet } from '../case.js';
import { quantile, statistics } from '../measure.js';
import {
  crossEntropy,
  generator,
  randomPrompts,
  randomSequences,
  referenceModel,
  trainee,
  trainingFlops,
} from '../model.js';
import { replaysOf } from '../replays.js';

const batch = 64;
const length = 64;
const prompt = 16;
const newTokens = length - prompt;
const { layers, hidden, heads, ffn, vocabulary } = referenceModel;
const peerDims = [layers, hidden, heads, ffn, vocabulary, batch];

/** The public engines on the reference model; shapes are sequences x tokens. */
export function engineCases(selection: CaseSelection): BenchCase[] {
  return selection.dtypes.flatMap((dtype) => [
    ...(selection.families.includes('training') ? [trainStep(dtype)] : []),
    ...(selection.families.includes('rollout') ? [generate(dtype), generateWithTimer(dtype)] : []),
  ]);
}

function common(dtype: NativeFloatDType) {
  return {
    group: 'engine' as const,
    dtype,
    unit: 'tokens/s' as const,
    bytes: 0,
    inputBytes: 2 ** 27, // one set: an engine has its weights, and runs after itself
  };
}

/** PyTorch has no fp16 on CPUs: fp16 is held against its bf16. */
const peerDtype = (dtype: NativeFloatDType) => (dtype === 'fp16' ? 'bf16' : dtype);

/** A mini-batch: forward, cross-entropy, backward, clipping, AdamW. */
function trainStep(dtype: NativeFloatDType): BenchCase {
  return {
    ...common(dtype),
    op: 'trainStep',
    family: 'training',
    shape: `${batch}x${length}`,
    flops: trainingFlops(referenceModel, batch, length),
    tokens: batch * length,
    peer: { op: 'trainStep', dims: [...peerDims, length], dtype: peerDtype(dtype) },
    prepare(): InputSet {
      const owner = trainee(referenceModel, dtype, length + 1);
      const sequences = randomSequences(referenceModel, batch, length);
      const loss = crossEntropy(batch * length);
      let skipped = 0;
      return {
        async run() {
          const result = await owner.engine.step(sequences, loss);
          if (result.skipped) skipped++;
        },
        figures: () => ({ skippedSteps: skipped }),
        dispose: () => owner[Symbol.dispose](),
      };
    },
  };
}

/** Prompts in one pass, then a token a step for every sequence, from a recording that is replayed with one call. */
function generate(dtype: NativeFloatDType): BenchCase {
  return {
    ...common(dtype),
    op: 'generate',
    family: 'rollout',
    shape: `${batch}x${prompt}+${newTokens}`,
    flops: 0,
    tokens: batch * newTokens,
    peer: { op: 'generate', dims: [...peerDims, prompt, newTokens], dtype: peerDtype(dtype) },
    prepare(): InputSet {
      const owner = generator(referenceModel, dtype, batch, length);
      const requests = randomPrompts(referenceModel, batch, prompt);
      const calls: number[] = [];
      return {
        async run() {
          const replays = await replaysOf(() =>
            owner.engine.generate(requests, { seed: 1, maxNewTokens: newTokens }),
          );
          calls.push(...replays.map(({ callMs }) => callMs));
        },
        figures: () => ({ replayCallUs: 1e3 * statistics(calls).medianMs }),
        dispose: () => owner[Symbol.dispose](),
      };
    },
  };
}

const periodMs = 10;
/** So that the timer is due often enough for a 99th percentile. */
const generations = 4;

/** Generation beside a timer of 10 ms, whose delays are the figures. */
function generateWithTimer(dtype: NativeFloatDType): BenchCase {
  return {
    ...common(dtype),
    op: 'generate+timer',
    family: 'rollout',
    shape: `${batch}x${prompt}+${newTokens}`,
    flops: 0,
    tokens: generations * batch * newTokens,
    prepare(): InputSet {
      const owner = generator(referenceModel, dtype, batch, length);
      const requests = randomPrompts(referenceModel, batch, prompt);
      const delays: number[] = [];
      return {
        async run() {
          const stop = watchTimer(delays);
          try {
            for (let i = 0; i < generations; i++)
              await owner.engine.generate(requests, { seed: 1, maxNewTokens: newTokens });
          } finally {
            stop();
          }
        },
        figures() {
          const sorted = delays.toSorted((a, b) => a - b);
          return {
            timerTicks: sorted.length,
            timerP50Ms: quantile(sorted, 0.5),
            timerP99Ms: quantile(sorted, 0.99),
            timerMaxMs: sorted.at(-1) ?? Number.NaN,
          };
        },
        dispose: () => owner[Symbol.dispose](),
      };
    },
  };
}

/** Notes by how many milliseconds a timer comes late, tick by tick, until it is stopped. */
function watchTimer(delays: number[]): () => void {
  let set = performance.now();
  let timer = setTimeout(tick, periodMs);
  function tick() {
    const now = performance.now();
    delays.push(Math.max(0, now - set - periodMs));
    set = now;
    timer = setTimeout(tick, periodMs);
  }
  return () => clearTimeout(timer);
}
