import type { Device } from '../../lib/device.js';
import { bytesPerElement, type NativeFloatDType } from '../../lib/tensor/dtype.js';
import { type BenchCase, type CaseSelection, type InputSet, type Sizes, sizesOf } from '../case.js';
import { quantile, statistics } from '../measure.js';
import {
  crossEntropy,
  generator,
  largeModel,
  type ModelSize,
  matmulWeights,
  randomPrompts,
  randomSequences,
  referenceModel,
  tinyModel,
  trainee,
  trainingFlops,
} from '../model.js';
import { replaysOf } from '../replays.js';

interface Training {
  readonly model: ModelSize;
  readonly batch: number;
  readonly length: number;
}
interface Generation {
  readonly model: ModelSize;
  readonly batch: number;
  readonly prompt: number;
  readonly newTokens: number;
}

const trained: Training = { model: referenceModel, batch: 64, length: 64 };
const large = (batch: number): Generation => ({ model: largeModel, batch, prompt: 128, newTokens: 128 });
const generated: Generation = { model: referenceModel, batch: 64, prompt: 16, newTokens: 48 };

const trainings: Sizes<Training> = {
  tiny: [{ model: tinyModel, batch: 2, length: 6 }],
  cpu: { quick: [trained], full: [trained] },
  cuda: {
    quick: [trained, { model: largeModel, batch: 4, length: 1024 }],
    full: [trained, { model: largeModel, batch: 4, length: 1024 }],
  },
};
const generations: Sizes<Generation> = {
  tiny: [{ model: tinyModel, batch: 2, prompt: 4, newTokens: 3 }],
  cpu: { quick: [generated], full: [generated] },
  cuda: { quick: [generated, large(1), large(64)], full: [generated, large(1), large(8), large(64)] },
};

/** The public engines; shapes are sequences x tokens, of the prompt and of the response. */
export function engineCases(selection: CaseSelection): BenchCase[] {
  const { families, dtypes, device } = selection;
  return dtypes.flatMap((dtype) => {
    // A large model is one of 16 bits.
    const fits = ({ model }: { readonly model: ModelSize }) => model !== largeModel || dtype !== 'fp32';
    return [
      ...(families.includes('training')
        ? sizesOf(selection, trainings)
            .filter(fits)
            .map((size) => trainStep(size, dtype, device))
        : []),
      ...(families.includes('rollout')
        ? sizesOf(selection, generations)
            .filter(fits)
            .flatMap((size) => [
              generate(size, dtype, device),
              ...(size.model === largeModel ? [] : [generateWithTimer(size, dtype)]),
            ])
        : []),
    ];
  });
}

function peerDims(
  { layers, hidden, heads, kvHeads, ffn, vocabulary }: ModelSize,
  ...more: number[]
): number[] {
  return [layers, hidden, heads, ...(kvHeads === undefined ? [] : [kvHeads]), ffn, vocabulary, ...more];
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
const peerDtype = (dtype: NativeFloatDType, device: Device) =>
  dtype === 'fp16' && device === 'cpu' ? 'bf16' : dtype;

/** A mini-batch: forward, cross-entropy, backward, clipping, AdamW. */
function trainStep({ model, batch, length }: Training, dtype: NativeFloatDType, device: Device): BenchCase {
  return {
    ...common(dtype),
    op: 'trainStep',
    family: 'training',
    shape: `${batch}x${length}`,
    flops: trainingFlops(model, batch, length),
    tokens: batch * length,
    peer: { op: 'trainStep', dims: peerDims(model, batch, length), dtype: peerDtype(dtype, device) },
    prepare(): InputSet {
      const owner = trainee(model, dtype, length + 1);
      const sequences = randomSequences(model, batch, length);
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
function generate(size: Generation, dtype: NativeFloatDType, device: Device): BenchCase {
  const { model, batch, prompt, newTokens } = size;
  return {
    ...common(dtype),
    op: 'generate',
    family: 'rollout',
    shape: `${batch}x${prompt}+${newTokens}`,
    flops: 0,
    // The weights are read for each token, however many sequences there are.
    ...(device === 'cuda' && { bytes: newTokens * matmulWeights(model) * bytesPerElement(dtype) }),
    tokens: batch * newTokens,
    peer: {
      op: 'generate',
      dims: peerDims(model, batch, prompt, newTokens),
      dtype: peerDtype(dtype, device),
    },
    prepare(): InputSet {
      const owner = generator(model, dtype, batch, prompt + newTokens);
      const requests = randomPrompts(model, batch, prompt);
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
const timedGenerations = 4;

/** Generation beside a timer of 10 ms, whose delays are the figures. */
function generateWithTimer(size: Generation, dtype: NativeFloatDType): BenchCase {
  const { model, batch, prompt, newTokens } = size;
  return {
    ...common(dtype),
    op: 'generate+timer',
    family: 'rollout',
    shape: `${batch}x${prompt}+${newTokens}`,
    flops: 0,
    tokens: timedGenerations * batch * newTokens,
    prepare(): InputSet {
      const owner = generator(model, dtype, batch, prompt + newTokens);
      const requests = randomPrompts(model, batch, prompt);
      const delays: number[] = [];
      return {
        async run() {
          const stop = watchTimer(delays);
          try {
            for (let i = 0; i < timedGenerations; i++)
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
