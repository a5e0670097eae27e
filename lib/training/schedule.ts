import { checkChoice, checkInteger, checkNumber } from '../errors.js';

export const scheduleKinds = ['constant', 'linear', 'cosine'] as const;
export type ScheduleKind = (typeof scheduleKinds)[number];

export interface ScheduleSpec {
  kind: ScheduleKind;
  /** The peak. The paper has 1e-6 for full training and 4e-5 for LoRA, both constant. */
  learningRate: number;
  /** Optimizer steps of linear warm-up; default 0. */
  warmupSteps?: number;
  /** Optimizer steps of the whole run; 'linear' and 'cosine' need it, 'constant' does not read it. */
  totalSteps?: number;
  /** Where the decay ends, as a share of the peak, between 0 and 1; default 0. */
  minRatio?: number;
}

/** The learning rate of an optimizer step, counted from 0. */
export type Schedule = (step: number) => number;

/**
 * A learning-rate schedule as a plain function of the step, so there is no state to save. With peak P,
 * warm-up steps w, total steps n and minimum ratio m:
 *
 *     step < w   P (step + 1) / w                            never 0: the first step already learns
 *     constant   P
 *     linear     P (m + (1 - m) (1 - p))                     p = (step - w) / (n - w), 1 from step n on
 *     cosine     P (m + (1 - m) (1 + cos(pi p)) / 2)
 *
 * @throws InvalidArgumentError on a bad spec, or (from the returned function) on a step that is not a count
 */
export function createSchedule(spec: ScheduleSpec): Schedule {
  const where = 'createSchedule';
  const { learningRate, warmupSteps = 0, minRatio = 0 } = spec;
  const kind = checkChoice(where, 'kind', spec.kind, scheduleKinds);
  checkNumber(where, 'learningRate', learningRate, 0);
  checkInteger(where, 'warmupSteps', warmupSteps, 0);
  checkNumber(where, 'minRatio', minRatio, 0, 1);
  const totalSteps =
    kind === 'constant' ? 0 : checkInteger(where, 'totalSteps', spec.totalSteps, warmupSteps + 1);

  return (step) => {
    checkInteger('schedule', 'step', step, 0);
    if (step < warmupSteps) return (learningRate * (step + 1)) / warmupSteps;
    if (kind === 'constant') return learningRate;
    const progress = Math.min((step - warmupSteps) / (totalSteps - warmupSteps), 1);
    const remaining = kind === 'linear' ? 1 - progress : (1 + Math.cos(Math.PI * progress)) / 2;
    return learningRate * (minRatio + (1 - minRatio) * remaining);
  };
}
