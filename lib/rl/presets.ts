/**
 * Named algorithms with exact settings, and where each comes from.
 *
 * A bare name has the settings of the paper authors' scripts (sail-sg/Precision-RL, on oat), where there is a script:
 * Dr.GRPO advantages (group mean, no std), the constant length norm, clip 0.2 on both sides. `paper:` has those of the
 * text of arXiv 2510.26788, which differ, `oat:` the scripts under the scripts' own names, `verl:` those of verl's
 * documented rollout-correction presets on verl's own defaults.
 *
 * Three traps. The scripts named `*_seq_mis.sh` clamp the weight at 3, which is truncation: `oat:seq-mis` is
 * PG-Seq-TIS, and only GRPO-Seq-MIS masks. The curves that the paper labels GRPO are Dr.GRPO. And verl's two-sided
 * "Seq-MIS" is not the paper's one-sided one.
 */
import type { AlgorithmConfig } from './config.js';
import type { ImportanceOptions } from './corrections/importance.js';
import type { RejectionOptions } from './corrections/rejection.js';

export interface Preset {
  readonly config: AlgorithmConfig;
  /** What it is, in a line. */
  readonly about: string;
}

const drGrpo = {
  loss: 'ppo-clip',
  baseline: 'mean',
  normalizeStd: false,
  aggregation: 'seq-mean-token-sum-norm',
  clipLow: 0.2,
  clipHigh: 0.2,
} as const satisfies AlgorithmConfig;

const policyGradient = {
  loss: 'reinforce',
  baseline: 'mean',
  normalizeStd: false,
  aggregation: 'seq-mean-token-sum-norm',
} as const satisfies AlgorithmConfig;

const gspo = {
  loss: 'gspo',
  baseline: 'mean',
  normalizeStd: true,
  epsilon: 1e-8,
  aggregation: 'seq-mean-token-mean',
  clipLow: 3e-4,
  clipHigh: 4e-4,
} as const satisfies AlgorithmConfig;

/** The text: leave-one-out, no std, clip 0.2 / 0.28, C = 3. */
const paperGrpo = { ...drGrpo, baseline: 'leave-one-out', clipHigh: 0.28 } as const satisfies AlgorithmConfig;
const paperPg = { ...policyGradient, baseline: 'leave-one-out' } as const satisfies AlgorithmConfig;

/** verl's defaults: GRPO advantages with epsilon 1e-6, token-mean, clip 0.2, dual clip 3, logs held within 20. */
const verlGrpo = {
  loss: 'ppo-clip',
  baseline: 'mean',
  normalizeStd: true,
  epsilon: 1e-6,
  aggregation: 'token-mean',
  clipLow: 0.2,
  clipHigh: 0.2,
  dualClip: 3,
  logClamp: 20,
  denominator: 'kept',
} as const satisfies AlgorithmConfig;
const verlPg = {
  loss: 'reinforce',
  baseline: 'mean',
  normalizeStd: true,
  epsilon: 1e-6,
  aggregation: 'token-mean',
  logClamp: 20,
  mode: 'bypass',
} as const satisfies AlgorithmConfig;
const verlBypass = { ...verlGrpo, mode: 'bypass' } as const satisfies AlgorithmConfig;

const truncate = (level: ImportanceOptions['level'], high: number): ImportanceOptions => ({
  level,
  rule: 'truncate',
  high,
});
const mask = (level: ImportanceOptions['level'], high: number, low?: number): ImportanceOptions => ({
  level,
  rule: 'mask',
  high,
  ...(low !== undefined && { low }),
});
/** verl's geometric bounds 0.999_1.001, which are of 1 / r. */
const geometric: readonly RejectionOptions[] = [
  { level: 'sequence-mean', measure: 'ratio', low: 1 / 1.001, high: 1 / 0.999 },
];
const meanK3: readonly RejectionOptions[] = [{ level: 'sequence-mean', measure: 'k3', high: 0.01 }];
const fixed = { denominator: 'fixed' } as const;

export const presets = {
  reinforce: { config: policyGradient, about: 'REINFORCE with a group baseline; mu is ignored' },
  'pg-seq-is': {
    config: { ...policyGradient, importance: { level: 'sequence' } },
    about: 'PG-Seq-IS (eq. 5): unbiased, unbounded pi(y) / mu(y)',
  },
  'pg-seq-tis': {
    config: { ...policyGradient, importance: truncate('sequence', 3) },
    about: 'PG-Seq-TIS (eq. 7): min(pi(y) / mu(y), 3)',
  },
  'pg-seq-mis': {
    config: { ...policyGradient, importance: mask('sequence', 3) },
    about: 'PG-Seq-MIS: responses with pi(y) / mu(y) above 3 are left out',
  },
  'pg-token-is': {
    config: { ...policyGradient, importance: { level: 'token' } },
    about: 'a weight pi / mu a token, unbounded',
  },
  'pg-token-tis': {
    config: { ...policyGradient, importance: truncate('token', 3) },
    about: 'a weight pi / mu a token, at most 3',
  },
  'pg-token-mis': {
    config: { ...policyGradient, importance: mask('token', 3) },
    about: 'tokens with pi / mu above 3 are left out',
  },
  'dr-grpo': { config: drGrpo, about: 'Dr.GRPO, the curves that the paper labels GRPO' },
  grpo: {
    config: { ...drGrpo, normalizeStd: true, epsilon: 1e-8, aggregation: 'seq-mean-token-mean' },
    about: 'GRPO as first published: std in the advantages, mean over tokens',
  },
  'grpo-token-tis': {
    config: { ...drGrpo, importance: truncate('token', 2) },
    about: 'Dr.GRPO times min(pi_old / mu, 2) at each token',
  },
  'grpo-token-mis': {
    config: { ...drGrpo, importance: mask('token', 2) },
    about: 'Dr.GRPO without tokens whose pi_old / mu is above 2',
  },
  'grpo-icepop': {
    config: { ...drGrpo, importance: mask('token', 5, 0.5) },
    about: 'Dr.GRPO with IcePop: no weight outside 0.5 to 5 (arXiv 2510.18855)',
  },
  'grpo-seq-tis': {
    config: { ...drGrpo, importance: truncate('sequence', 3) },
    about: 'Dr.GRPO times min(pi_old(y) / mu(y), 3)',
  },
  'grpo-seq-mis': {
    config: { ...drGrpo, importance: mask('sequence', 10) },
    about: 'Dr.GRPO without responses whose pi_old(y) / mu(y) is above 10',
  },
  gspo: { config: gspo, about: 'GSPO: one clipped ratio a response, std, mean over tokens' },
  'gspo-token-tis': {
    config: { ...gspo, importance: truncate('token', 2) },
    about: 'GSPO times min(pi_old / mu, 2) at each token',
  },
  'gspo-seq-tis': {
    config: { ...gspo, importance: truncate('sequence', 3) },
    about: 'GSPO times min(pi_old(y) / mu(y), 3)',
  },
  'gspo-seq-mis': {
    config: { ...gspo, importance: mask('sequence', 10) },
    about: 'GSPO without responses whose pi_old(y) / mu(y) is above 10',
  },
  cispo: {
    config: { loss: 'cispo', baseline: 'mean', normalizeStd: true, aggregation: 'token-mean', clipHigh: 0.2 },
    about: 'CISPO (arXiv 2506.13585): the clipped ratio is only a weight',
  },
  'dppo-tv': {
    config: { loss: 'dppo-tv', baseline: 'mean', normalizeStd: false, aggregation: 'token-mean' },
    about: 'DPPO-TV (arXiv 2602.04879): tokens whose probability moved by 0.2 stop',
  },

  'paper:grpo': { config: paperGrpo, about: 'text: leave-one-out, clip 0.2 / 0.28' },
  'paper:grpo-token-tis': {
    config: { ...paperGrpo, importance: truncate('token', 3) },
    about: 'text: C = 3',
  },
  'paper:grpo-seq-tis': {
    config: { ...paperGrpo, importance: truncate('sequence', 3) },
    about: 'text: C = 3',
  },
  'paper:grpo-seq-mis': { config: { ...paperGrpo, importance: mask('sequence', 3) }, about: 'text: C = 3' },
  'paper:pg-seq-is': {
    config: { ...paperPg, importance: { level: 'sequence' } },
    about: 'text: leave-one-out',
  },
  'paper:pg-seq-tis': {
    config: { ...paperPg, importance: truncate('sequence', 3) },
    about: 'text: leave-one-out, C = 3',
  },
  'paper:pg-seq-mis': {
    config: { ...paperPg, importance: mask('sequence', 3) },
    about: 'text: leave-one-out, C = 3',
  },
  'paper:gspo': { config: gspo, about: 'as the bare name' },
  'paper:dapo': {
    config: { ...verlGrpo, clipHigh: 0.28, dualClip: 10, denominator: 'fixed' },
    about: 'text, dense 14B: token-mean, clip 0.2 / 0.28, dual clip 10 (no dynamic sampling here)',
  },

  'oat:grpo': { config: drGrpo, about: 'bf16_grpo.sh, fp16_grpo.sh' },
  'oat:token-is-pg': {
    config: { ...policyGradient, importance: { level: 'token' } },
    about: 'bf16_token_is_pg.sh',
  },
  'oat:seq-is': {
    config: { ...policyGradient, importance: { level: 'sequence' } },
    about: 'use_seq_is, C inf',
  },
  'oat:seq-mis': {
    config: { ...policyGradient, importance: truncate('sequence', 3) },
    about: 'bf16_seq_mis.sh, fp16_seq_mis.sh: named mis, but truncates at 3',
  },
  'oat:grpo-seq-mis': {
    config: { ...drGrpo, importance: mask('sequence', 10) },
    about: 'bf16_grpo_seq_mis.sh: C = 10',
  },
  'oat:grpo-token-tis': { config: { ...drGrpo, importance: truncate('token', 2) }, about: 'tis_c = 2' },
  'oat:gspo': { config: gspo, about: 'critic_type grpo, 3e-4 / 4e-4' },

  'verl:disabled': { config: { ...verlGrpo, ...fixed }, about: 'no correction' },
  'verl:decoupled_token_is': {
    config: { ...verlGrpo, ...fixed, importance: truncate('token', 2) },
    about: 'Token-TIS at 2',
  },
  'verl:decoupled_seq_is': {
    config: { ...verlGrpo, ...fixed, importance: truncate('sequence', 2) },
    about: 'Seq-TIS at 2',
  },
  'verl:decoupled_seq_is_rs': {
    config: {
      ...verlGrpo,
      importance: truncate('sequence', 2),
      rejections: [{ level: 'sequence-sum', measure: 'ratio', low: 0.5, high: 2 }],
    },
    about: 'Seq-TIS at 2 and seq_sum_k1 0.5_2.0',
  },
  'verl:decoupled_token_icepop': {
    config: { ...verlGrpo, ...fixed, importance: mask('token', 5, 0.5) },
    about: 'IcePop 0.5_5.0',
  },
  'verl:decoupled_geo_rs': {
    config: { ...verlGrpo, rejections: geometric },
    about: 'seq_mean_k1 0.999_1.001',
  },
  'verl:decoupled_geo_rs_seq_tis': {
    config: { ...verlGrpo, rejections: geometric, importance: truncate('sequence', 2) },
    about: 'seq_mean_k1 0.999_1.001, Seq-TIS at 2',
  },
  'verl:decoupled_geo_rs_token_tis': {
    config: { ...verlGrpo, rejections: geometric, importance: truncate('token', 2) },
    about: 'seq_mean_k1 0.999_1.001, Token-TIS at 2',
  },
  'verl:decoupled_k3_rs': { config: { ...verlGrpo, rejections: meanK3 }, about: 'seq_mean_k3 0.01' },
  'verl:decoupled_k3_rs_seq_tis': {
    config: { ...verlGrpo, rejections: meanK3, importance: truncate('sequence', 2) },
    about: 'seq_mean_k3 0.01, Seq-TIS at 2',
  },
  'verl:decoupled_k3_rs_token_tis': {
    config: { ...verlGrpo, rejections: meanK3, importance: truncate('token', 2) },
    about: 'seq_mean_k3 0.01, Token-TIS at 2',
  },
  'verl:bypass_ppo_clip': { config: { ...verlBypass, ...fixed }, about: 'pi_old := mu' },
  'verl:bypass_ppo_clip_geo_rs': {
    config: { ...verlBypass, rejections: geometric },
    about: 'pi_old := mu, seq_mean_k1 0.999_1.001',
  },
  'verl:bypass_ppo_clip_k3_rs': {
    config: { ...verlBypass, rejections: meanK3 },
    about: 'pi_old := mu, seq_mean_k3 0.01',
  },
  'verl:bypass_pg_is': {
    config: { ...verlPg, importance: truncate('sequence', 2) },
    about: 'REINFORCE with Seq-TIS at 2',
  },
  'verl:bypass_pg_token_icepop': {
    config: { ...verlPg, importance: mask('token', 5, 0.5) },
    about: 'REINFORCE with IcePop 0.5_5.0',
  },
  'verl:bypass_pg_geo_rs': {
    config: { ...verlPg, denominator: 'kept', rejections: geometric },
    about: 'REINFORCE, seq_mean_k1 0.999_1.001',
  },
  'verl:bypass_pg_geo_rs_seq_tis': {
    config: { ...verlPg, denominator: 'kept', rejections: geometric, importance: truncate('sequence', 2) },
    about: 'REINFORCE, seq_mean_k1 0.999_1.001, Seq-TIS at 2',
  },
  'verl:bypass_pg_geo_rs_token_tis': {
    config: { ...verlPg, denominator: 'kept', rejections: geometric, importance: truncate('token', 2) },
    about: 'REINFORCE, seq_mean_k1 0.999_1.001, Token-TIS at 2',
  },
} as const satisfies Record<string, Preset>;

export type PresetName = keyof typeof presets;

export const presetNames = Object.keys(presets) as readonly PresetName[];
