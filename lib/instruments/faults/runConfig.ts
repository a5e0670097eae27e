/** What a run is made like, apart from the model. */
import { checkChoice, checkInteger } from '../../errors.js';
import { type NumericsMode, numericsModes } from '../../rl/numericsMode.js';
import { checkFloatDtype, type FloatDType } from '../../tensor/dtype.js';

export interface RunOptions {
  /** Of both engines; default fp16. */
  readonly precision?: FloatDType;
  /** Default `default`, each engine by its own habits. */
  readonly numerics?: NumericsMode;
  /** Responses of all steps together; default 256. */
  readonly samples?: number;
  /** Steps, between which the policy learns; default 4. */
  readonly steps?: number;
  /** Most likely tokens that a dump has at each position; default 5, 0 for none. */
  readonly top?: number;
  /** Of sampling, learning and faults; default 1. */
  readonly seed?: number;
}

export type RunConfig = Required<RunOptions>;

/** Optimizer updates between two steps. */
export const UPDATES_PER_STEP = 8;

/**
 * Fills in the defaults and checks everything.
 *
 * @throws InvalidArgumentError naming the option
 */
export function resolveRunOptions(where: string, options: RunOptions): RunConfig {
  const steps = checkInteger(where, 'steps', options.steps ?? 4, 1, 10_000);
  return {
    precision: checkFloatDtype(where, 'precision', options.precision ?? 'fp16'),
    numerics: checkChoice(where, 'numerics', options.numerics ?? 'default', numericsModes),
    samples: checkInteger(where, 'samples', options.samples ?? 256, steps, 2 ** 20),
    steps,
    top: checkInteger(where, 'top', options.top ?? 5, 0, 1000),
    seed: checkInteger(where, 'seed', options.seed ?? 1, 0, 2 ** 31 - 1),
  };
}
