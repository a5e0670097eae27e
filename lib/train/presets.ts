/**
 * The settings of the paper's experiments (arXiv 2510.26788), as its authors' scripts (sail-sg/Precision-RL, on oat) or
 * its text have them. None names a model or a data set: these are the user's, with --model and --data.
 *
 * The paper ran several algorithms in most settings; each preset has one of them, `algorithm` chooses another. All are in
 * fp16 here; a bf16 run (`trainingPrecision`) has no loss scaling then.
 */
import type { TrainOptions } from './config.js';

export interface TrainPreset {
  readonly options: Omit<TrainOptions, 'model' | 'data'>;
  /** What it is, in a line. */
  readonly about: string;
}

/** avg@32 of AIME, as in all of the scripts. */
const scriptEvaluation = { every: 16, samples: 32, temperature: 0.6, topP: 0.95 } as const;

const oat = {
  trainingPrecision: 'fp16',
  /** DeepSpeed's dynamic scaler with its defaults. */
  lossScaler: 'deepspeed',
  verifier: 'math',
  maxPromptLength: 1024,
  truncated: 'train',
  evaluation: { ...scriptEvaluation, responseLength: 8192 },
} as const;

const oatOptimizer = {
  learningRate: 1e-6,
  schedule: 'constant',
  betas: [0.9, 0.95],
  eps: 1e-8,
  weightDecay: 0,
  maxGradNorm: 1,
} as const;

/** torch's gradient scaler with verl's interval of 400. */
const verl = { trainingPrecision: 'fp16', lossScaler: 'verl', verifier: 'math', truncated: 'train' } as const;

/** 512 prompts a step, in mini-batches of 32 prompts. */
const large = { promptsPerStep: 512, groupSize: 16, updatesPerStep: 16, recompute: 'layers' } as const;

export const trainPresets = {
  'sanity-oat': {
    about:
      'the sanity test on oat: R1-Distill-Qwen-1.5B on the 1,460 problems of MATH that it solves 20-80 %',
    options: {
      ...oat,
      template: 'r1',
      responseLength: 8192,
      algorithm: 'oat:seq-is',
      steps: 2000,
      batch: { promptsPerStep: 64, groupSize: 8, updatesPerStep: 4, recompute: 'layers' },
      optimizer: oatOptimizer,
    },
  },
  'sanity-verl': {
    about: 'the sanity test on verl: the same model and problems, clip 0.2 / 0.28, C = 3, eps 1e-15',
    options: {
      ...verl,
      template: 'r1',
      maxPromptLength: 1024,
      responseLength: 8192,
      algorithm: 'paper:pg-seq-is',
      steps: 2000,
      batch: { promptsPerStep: 64, groupSize: 8, updatesPerStep: 4, recompute: 'layers' },
      optimizer: { ...oatOptimizer, eps: 1e-15 },
      evaluation: { ...scriptEvaluation, responseLength: 8192 },
    },
  },
  octothinker: {
    about: 'OctoThinker-3B-Hybrid-Base (Llama 3.2) on MATH, GRPO without correction',
    options: {
      ...oat,
      template: 'octothinker',
      /** The template asks for the answer in <answer>. */
      verifier: 'math-stated',
      responseLength: 3000,
      algorithm: 'oat:grpo',
      steps: 1020,
      batch: { promptsPerStep: 128, groupSize: 8, updatesPerStep: 8, recompute: 'layers' },
      optimizer: oatOptimizer,
    },
  },
  'dense-14b': {
    about: 'Qwen3-14B-Base, DAPO without its dynamic sampling (the paper drew 1,536 prompts to keep 512)',
    options: {
      ...verl,
      template: 'qwen3',
      maxPromptLength: 2048,
      responseLength: 20480,
      algorithm: 'paper:dapo',
      steps: 80,
      batch: large,
      optimizer: { ...oatOptimizer, betas: [0.9, 0.999], weightDecay: 0.1, warmupSteps: 10 },
      evaluation: { every: 16, samples: 8, temperature: 1, topP: 0.7 },
    },
  },
} as const satisfies Record<string, TrainPreset>;

export type TrainPresetName = keyof typeof trainPresets;
export const trainPresetNames = Object.keys(trainPresets) as readonly TrainPresetName[];
