/** Every loss by name, with the options that it has. */
import type { AggregationOptions } from '../aggregation.js';
import type { PolicyBatch, PolicyLoss } from '../batch.js';
import { cispoLoss, resolveCispo } from './cispo.js';
import { dppoTvLoss, resolveDppoTv } from './dppoTv.js';
import { gspoLoss, resolveGspo } from './gspo.js';
import { ppoClipLoss, resolvePpoClip } from './ppoClip.js';
import { reinforceLoss } from './reinforce.js';

/** Options of the losses' own. */
export type LossOption = 'clipLow' | 'clipHigh' | 'dualClip' | 'deltaLow' | 'deltaHigh' | 'maxRatio';

interface LossEntry {
  /** Names of its own options, beside those of the aggregation. */
  readonly options: readonly LossOption[];
  /** Whether it reads pi_old. */
  readonly needsOld: boolean;
  /** Checks the options, throwing the first that is wrong. */
  readonly check: (where: string, options: object) => unknown;
  readonly run: (batch: PolicyBatch, options: AggregationOptions) => PolicyLoss;
}

export const lossNames = ['reinforce', 'ppo-clip', 'gspo', 'cispo', 'dppo-tv'] as const;
export type LossName = (typeof lossNames)[number];

export const losses: Readonly<Record<LossName, LossEntry>> = {
  reinforce: { options: [], needsOld: false, check: () => undefined, run: reinforceLoss },
  'ppo-clip': {
    options: ['clipLow', 'clipHigh', 'dualClip'],
    needsOld: true,
    check: resolvePpoClip,
    run: ppoClipLoss,
  },
  gspo: { options: ['clipLow', 'clipHigh'], needsOld: true, check: resolveGspo, run: gspoLoss },
  cispo: { options: ['clipLow', 'clipHigh'], needsOld: true, check: resolveCispo, run: cispoLoss },
  'dppo-tv': {
    options: ['deltaLow', 'deltaHigh', 'maxRatio'],
    needsOld: true,
    check: resolveDppoTv,
    run: dppoTvLoss,
  },
};
