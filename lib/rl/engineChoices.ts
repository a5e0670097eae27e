/** Which engines a run has: their precisions and numeric choices, and the loss scaling that these ask for. */
import { attempt, checkChoice, invalid, throwTogether } from '../errors.js';
import { type Numerics, type NumericsPreset, numerics } from '../numerics.js';
import { checkFloatDtype, type FloatDType } from '../tensor/dtype.js';
import { defaultLossScaler } from '../training/engine.js';
import { createLossScaler } from '../training/lossScaler.js';
import { type NumericsMode, numericsModes } from './numericsMode.js';

export type { NumericsMode };

export interface EngineOptions {
  /** Default fp16. */
  readonly trainingPrecision?: FloatDType;
  /** Default the training precision. */
  readonly rolloutPrecision?: FloatDType;
  /** `matched`: both engines make the same numeric choices and agree to the bit. */
  readonly numerics?: NumericsMode;
  /** A spec of createLossScaler; default {@link defaultLossScaler}. */
  readonly lossScaler?: string;
}

/**
 * Fills in the defaults and checks everything.
 *
 * @throws InvalidArgumentError listing all that is wrong
 */
export function resolveEngineOptions(where: string, options: EngineOptions): Required<EngineOptions> {
  const errors: unknown[] = [];
  const precision = (name: 'trainingPrecision' | 'rolloutPrecision', fallback: FloatDType) =>
    attempt(errors, () => checkFloatDtype(where, name, options[name] ?? fallback));
  const training = precision('trainingPrecision', 'fp16');
  const rollout = precision('rolloutPrecision', training ?? 'fp16');
  const mode = attempt(errors, () =>
    checkChoice(where, 'numerics', options.numerics ?? 'default', numericsModes),
  );
  if (mode === 'matched' && training && rollout && rollout !== training) {
    const what = 'one precision for both engines with numerics matched';
    attempt(errors, () => invalid(where, what, `${training} and ${rollout}`));
  }
  const lossScaler = options.lossScaler ?? defaultLossScaler(training ?? 'fp16');
  attempt(errors, () => createLossScaler(lossScaler));
  throwTogether(where, errors);
  return { trainingPrecision: training!, rolloutPrecision: rollout!, numerics: mode!, lossScaler };
}

/** The numeric choices of both engines in a mode. */
export function engineNumerics(mode: NumericsMode): { rollout: Numerics; training: Numerics } {
  const preset = (own: NumericsPreset) => numerics(mode === 'matched' ? 'matched' : own);
  return { rollout: preset('rollout'), training: preset('training') };
}
