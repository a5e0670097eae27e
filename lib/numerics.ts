/**
 * Every rounding and reduction choice in which the two engines differ, by name.
 *
 * The table (names, meanings, presets) is native/core/numerics.h, read through the addon, so that kernels and
 * this module cannot disagree.
 */
import { checkChoice, checkInteger, invalid } from './errors.js';
import { addon, type KnobDescription } from './native.js';

/** The knobs; `knobs` tells what each value means. */
export interface Numerics {
  /** Kernel family of the matrix products: 1 rollout, 2 training. */
  readonly gemmFamily: number;
  readonly gemmSplitK: number;
  readonly mergedProjections: number;
  readonly residualFused: number;
  readonly rmsNormRoundings: 1 | 2;
  readonly ropeTable16: number;
  readonly ropeRoundings: 1 | 3;
  readonly swigluRoundings: 1 | 2;
  /** Of mixtures of experts alone. */
  readonly combineRoundings: 1 | 3;
  readonly loraScaleFirst: number;
  readonly attentionChunk: number;
  readonly attentionTile: number;
  readonly logits16: number;
  readonly logSoftmaxChunk: number;
  readonly weightsSnapshot: number;
}

export type KnobName = keyof Numerics;
export type KernelFamily = 'rollout' | 'training';

/** Name, meaning and the value in each preset, of every knob. */
export const knobs: readonly KnobDescription[] = addon.knobs;

export const numericsPresets = ['rollout', 'training', 'matched'] as const;
export type NumericsPreset = (typeof numericsPresets)[number];

/**
 * The choices of one preset: `rollout` has the habits of a serving engine, `training` those of a training
 * framework, `matched` is one set of choices for both engines, which then agree to the bit.
 *
 * @param overrides knobs that differ from the preset
 * @throws InvalidArgumentError on an unknown preset or knob (naming the nearest)
 */
export function numerics(preset: NumericsPreset, overrides: Partial<Numerics> = {}): Numerics {
  checkChoice('numerics', 'preset', preset, numericsPresets);
  const values = Object.fromEntries(knobs.map((knob) => [knob.name, knob[preset]])) as unknown as Record<
    KnobName,
    number
  >;
  const names = knobs.map((knob) => knob.name as KnobName);
  for (const [name, value] of Object.entries(overrides)) {
    checkChoice('numerics', 'each knob', name as KnobName, names);
    values[name as KnobName] = checkInteger('numerics', name, value, 0);
  }
  for (const [name, allowed] of Object.entries(enumerated)) {
    const value = values[name as KnobName];
    if (!allowed.includes(value)) invalid('numerics', `${name} to be ${allowed.join(' or ')}`, value);
  }
  return values as unknown as Numerics;
}

/** Knobs that are not counts; kernels check the counts, which depend on one another. */
const enumerated: Partial<Record<KnobName, readonly number[]>> = {
  gemmFamily: [1, 2],
  mergedProjections: [0, 1],
  residualFused: [0, 1],
  rmsNormRoundings: [1, 2],
  ropeTable16: [0, 1],
  ropeRoundings: [1, 3],
  swigluRoundings: [1, 2],
  combineRoundings: [1, 3],
  loraScaleFirst: [0, 1],
  logits16: [0, 1],
  weightsSnapshot: [0, 1],
};

const families: readonly KernelFamily[] = ['rollout', 'training'];

/** @internal The number by which native/core/numerics.h knows a family. */
export function familyNumber(where: string, name: string, family: KernelFamily): number {
  return 1 + families.indexOf(checkChoice(where, name, family, families));
}

/** The kernel family that `gemmFamily` names. */
export function gemmFamilyOf(choices: Numerics): KernelFamily {
  return choices.gemmFamily === 1 ? 'rollout' : 'training';
}
