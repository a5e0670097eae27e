/**
 * The settings of the paper's experiments (arXiv 2510.26788), as its authors' scripts (sail-sg/Precision-RL, on oat) or
 * its text have them. None names a model or a data set: these are the user's, with --model and --data.
 *
 * The paper ran several algorithms in most settings; each preset has one of them, `algorithm` chooses another. All are in
 * fp16 here; a bf16 run (`trainingPrecision`) has no loss scaling then.
 */
import type { LoraTarget } from '../nn/lora.js';
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
  evaluation: scriptEvaluation,
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

const loraTargets: readonly LoraTarget[] = [
  'q_proj',
  'k_proj',
  'v_proj',
  'o_proj',
  'gate_proj',
  'up_proj',
  'down_proj',
];

/** 512 prompts a step, in mini-batches of 32 prompts. */
const large = { promptsPerStep: 512, groupSize: 16, updatesPerStep: 16, recompute: 'layers' } as const;

export const trainPresets = {
  'sanity-oat': {
    about: 'oat: R1-Distill-Qwen-1.5B, 1,460 problems of MATH',
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
    about: 'verl: the same, with the settings of the text',
    options: {
      ...verl,
      template: 'r1',
      maxPromptLength: 1024,
      responseLength: 8192,
      algorithm: 'paper:pg-seq-is',
      steps: 2000,
      batch: { promptsPerStep: 64, groupSize: 8, updatesPerStep: 4, recompute: 'layers' },
      optimizer: { ...oatOptimizer, eps: 1e-15 },
      evaluation: scriptEvaluation,
    },
  },
  /** Rank 1 and alpha 2 are those of the scripts; the text has 32 and 64. PG-Seq-IS was run, too. */
  'lora-oat': {
    about: 'oat: LoRA of Qwen2.5-Math-1.5B on MATH, token TIS at 2',
    options: {
      ...oat,
      template: 'qwen-math',
      responseLength: 3000,
      algorithm: 'oat:grpo-token-tis',
      steps: 1350,
      batch: { promptsPerStep: 64, groupSize: 8, updatesPerStep: 4, recompute: 'layers' },
      optimizer: { ...oatOptimizer, learningRate: 4e-5 },
      lora: { rank: 1, alpha: 2, targets: loraTargets },
    },
  },
  octothinker: {
    about: 'oat: OctoThinker-3B-Hybrid-Base on MATH, GRPO',
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
  /** Token-TIS and PG-Seq-TIS were run, too; the text names no data set. */
  moe: {
    about: 'verl: Qwen3-30B-A3B-Base, GRPO-Seq-MIS',
    options: {
      ...verl,
      template: 'qwen3',
      maxPromptLength: 2048,
      responseLength: 20480,
      algorithm: 'paper:grpo-seq-mis',
      steps: 170,
      batch: large,
      optimizer: { ...oatOptimizer, eps: 1e-15 },
      evaluation: { every: 16, samples: 32, temperature: 0.6, topP: 1 },
    },
  },
  /** The paper's dynamic sampling drew 1,536 prompts to keep 512; here 512 are drawn. */
  'dense-14b': {
    about: 'verl: Qwen3-14B-Base, DAPO without dynamic sampling',
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
