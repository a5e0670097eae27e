/**
 * Loss scaling for fp16 training: the loss is multiplied by `scale` before the backward pass, gradients are
 * divided by it before the step, and `update` is called once per step with whether a gradient was infinite or
 * NaN.
 *
 * Every scaler skips every step that overflowed; they differ in how the scale moves.
 */
import { checkChoice, checkInteger, checkNumber, DeviceError, invalid } from '../errors.js';

export type ScalerKind = 'torch' | 'deepspeed' | 'static';

/** Common to all states; plain numbers, booleans and strings, so JSON keeps it exactly. */
interface CommonState {
  scale: number;
  /** Steps that overflowed, and were skipped, so far. */
  overflows: number;
  /** Times the scale was raised so far. */
  growths: number;
}

export interface TorchScalerState extends CommonState, Required<Omit<TorchScalerOptions, 'initScale'>> {
  kind: 'torch';
  /** Clean steps since the last change of scale or overflow. */
  growthTracker: number;
}

export interface DeepSpeedScalerState
  extends CommonState,
    Required<Omit<DeepSpeedScalerOptions, 'initScale'>> {
  kind: 'deepspeed';
  /** Steps seen. */
  iteration: number;
  /** The iteration of the last overflow, -1 before the first. */
  lastOverflow: number;
  /** Overflows left until the scale falls: one more than will be tolerated. */
  hysteresisLeft: number;
}

export interface StaticScalerState extends CommonState {
  kind: 'static';
}

export type ScalerState = TorchScalerState | DeepSpeedScalerState | StaticScalerState;

export interface ScalerUpdate {
  /** Whether the optimizer step must be skipped. */
  skipped: boolean;
  /** Whether `scale` is another number now. */
  changed: boolean;
}

export interface LossScaler {
  readonly kind: ScalerKind;
  /** What to multiply the next loss by; finite and above 0, also as fp32. */
  readonly scale: number;
  /** Tells the outcome of one step. */
  update(foundOverflow: boolean): ScalerUpdate;
  /** Everything needed to go on later, configuration included. */
  state(): ScalerState;
  /** Takes over a state; checked in full first, so a bad one changes nothing. */
  load(state: unknown): void;
}

export interface TorchScalerOptions {
  /** Default 65536. */
  initScale?: number;
  /** Default 2. */
  growthFactor?: number;
  /** Default 0.5. */
  backoffFactor?: number;
  /** Clean steps in a row before the scale grows. Default 2000; the paper's VeRL runs have 400. */
  growthInterval?: number;
}

/**
 * PyTorch's rule (`torch.amp.GradScaler`). On overflow the scale is multiplied by `backoffFactor` at once and
 * the tracker starts again; after `growthInterval` clean steps in a row it is multiplied by `growthFactor`
 * and the tracker starts again. The scale is an fp32 number; a move that would leave fp32's finite positive
 * range is not made.
 */
export class TorchLossScaler implements LossScaler {
  readonly kind = 'torch';
  #state: TorchScalerState;

  constructor(options: TorchScalerOptions = {}) {
    const { initScale = 65536, growthFactor = 2, backoffFactor = 0.5, growthInterval = 2000 } = options;
    this.#state = checkTorchState('TorchLossScaler', {
      kind: 'torch',
      scale: initScale,
      growthFactor,
      backoffFactor,
      growthInterval,
      growthTracker: 0,
      overflows: 0,
      growths: 0,
    });
  }

  get scale(): number {
    return this.#state.scale;
  }

  update(foundOverflow: boolean): ScalerUpdate {
    const s = this.#state;
    const before = s.scale;
    if (foundOverflow) {
      s.overflows++;
      s.scale = moved(s.scale, Math.fround(s.scale * s.backoffFactor));
      s.growthTracker = 0;
    } else {
      s.growthTracker++;
      if (s.growthTracker === s.growthInterval) {
        s.scale = moved(s.scale, Math.fround(s.scale * s.growthFactor));
        if (s.scale !== before) s.growths++;
        s.growthTracker = 0;
      }
    }
    return { skipped: foundOverflow, changed: s.scale !== before };
  }

  state(): TorchScalerState {
    return { ...this.#state };
  }

  load(state: unknown): void {
    this.#state = checkTorchState('TorchLossScaler.load', state);
  }
}

export interface DeepSpeedScalerOptions {
  /** Default 2^16. */
  initScale?: number;
  /** The scale is multiplied or divided by it. Default 2. */
  scaleFactor?: number;
  /** Clean steps between growths. Default 1000. */
  scaleWindow?: number;
  /** The overflow at which the scale falls: with the default 2, the first only skips its step. */
  hysteresis?: number;
  /** Every clean step, rather than only a growth, restores the hysteresis. Default false. */
  consecutiveHysteresis?: boolean;
  /** The scale never falls below it; an overflow there is an error. Default 1. */
  minScale?: number;
}

/**
 * DeepSpeed's rule (its dynamic fp16 scaler, which the authors' oat runs use with these defaults). At
 * iteration i, from 0, with the last overflow at -1 and h = hysteresis to begin with:
 *
 *     overflow: h is 1: fail if the scale is minScale already, else scale = max(scale / factor, minScale)
 *               h > 1:  h = h - 1, the scale stays
 *               the last overflow is i
 *     clean:    consecutiveHysteresis: h = hysteresis
 *               (i - last overflow) divisible by the window: h = hysteresis, scale = scale * factor
 *
 * Once down to 1, h stays there until a growth, so every further overflow lowers the scale. A growth that
 * would leave fp32's finite range is not made.
 */
export class DeepSpeedLossScaler implements LossScaler {
  readonly kind = 'deepspeed';
  #state: DeepSpeedScalerState;

  constructor(options: DeepSpeedScalerOptions = {}) {
    const {
      initScale = 2 ** 16,
      scaleFactor = 2,
      scaleWindow = 1000,
      hysteresis = 2,
      consecutiveHysteresis = false,
      minScale = 1,
    } = options;
    this.#state = checkDeepSpeedState('DeepSpeedLossScaler', {
      kind: 'deepspeed',
      scale: initScale,
      scaleFactor,
      scaleWindow,
      hysteresis,
      consecutiveHysteresis,
      minScale,
      iteration: 0,
      lastOverflow: -1,
      hysteresisLeft: hysteresis,
      overflows: 0,
      growths: 0,
    });
  }

  get scale(): number {
    return this.#state.scale;
  }

  /** @throws DeviceError on an overflow that would lower a scale already at `minScale`; changes nothing then */
  update(foundOverflow: boolean): ScalerUpdate {
    const s = this.#state;
    const before = s.scale;
    if (foundOverflow) {
      if (s.hysteresisLeft === 1) {
        if (s.scale === s.minScale) {
          throw new DeviceError(
            `[DeepSpeedLossScaler] expected finite gradients at minScale = ${s.minScale}, got an overflow`,
          );
        }
        s.scale = Math.max(s.scale / s.scaleFactor, s.minScale);
      } else {
        s.hysteresisLeft--;
      }
      s.overflows++;
      s.lastOverflow = s.iteration;
    } else {
      if (s.consecutiveHysteresis) s.hysteresisLeft = s.hysteresis;
      if ((s.iteration - s.lastOverflow) % s.scaleWindow === 0) {
        s.hysteresisLeft = s.hysteresis;
        s.scale = moved(s.scale, s.scale * s.scaleFactor);
        if (s.scale !== before) s.growths++;
      }
    }
    s.iteration++;
    return { skipped: foundOverflow, changed: s.scale !== before };
  }

  state(): DeepSpeedScalerState {
    return { ...this.#state };
  }

  load(state: unknown): void {
    this.#state = checkDeepSpeedState('DeepSpeedLossScaler.load', state);
  }
}

/**
 * A scale that never moves. A scale of 1 is no scaling: steps with non-finite gradients are still skipped.
 */
export class StaticLossScaler implements LossScaler {
  readonly kind = 'static';
  #state: StaticScalerState;

  constructor(scale = 1) {
    this.#state = checkStaticState('StaticLossScaler', { kind: 'static', scale, overflows: 0, growths: 0 });
  }

  get scale(): number {
    return this.#state.scale;
  }

  update(foundOverflow: boolean): ScalerUpdate {
    if (foundOverflow) this.#state.overflows++;
    return { skipped: foundOverflow, changed: false };
  }

  state(): StaticScalerState {
    return { ...this.#state };
  }

  load(state: unknown): void {
    this.#state = checkStaticState('StaticLossScaler.load', state);
  }
}

const presets = {
  torch: () => new TorchLossScaler(),
  verl: () => new TorchLossScaler({ growthInterval: 400 }),
  deepspeed: () => new DeepSpeedLossScaler(),
  none: () => new StaticLossScaler(1),
};

export type LossScalerPreset = keyof typeof presets;

/**
 * A loss scaler by name:
 *
 *     torch      65536, x 2 after 2000 clean steps, x 0.5        PyTorch's defaults
 *     verl       65536, x 2 after 400 clean steps, x 0.5         the paper's VeRL runs
 *     deepspeed  2^16, x 2 every 1000, / 2, hysteresis 2, min 1  the paper's oat runs
 *     none       1, never moves
 *     static:N   N, never moves
 *
 * @throws InvalidArgumentError on another name, or a number that is not finite and above 0
 */
export function createLossScaler(spec: string): LossScaler {
  if (typeof spec === 'string' && spec !== 'static:N' && spec.startsWith('static:')) {
    const digits = spec.slice('static:'.length);
    const scale = Number(digits);
    if (!inRange(scale))
      invalid('createLossScaler', 'N of static:N to be a finite fp32 number above 0', digits);
    return new StaticLossScaler(scale);
  }
  const names = [...Object.keys(presets), 'static:N'] as (LossScalerPreset | 'static:N')[];
  const name = checkChoice('createLossScaler', 'spec', spec, names);
  if (name === 'static:N') invalid('createLossScaler', 'a number in the place of N', spec);
  return presets[name]();
}

/** The scale reaches the kernels as fp32, where it must stay finite and above 0. */
function inRange(scale: number): boolean {
  const rounded = Math.fround(scale);
  return Number.isFinite(rounded) && rounded > 0;
}

function moved(from: number, to: number): number {
  return inRange(to) ? to : from;
}

type Fields = Readonly<Record<string, unknown>>;

function checkFields(where: string, state: unknown, kind: ScalerKind): Fields {
  if (typeof state !== 'object' || state === null) invalid(where, 'state to be an object', state);
  const fields = state as Fields;
  if (fields.kind !== kind) invalid(where, `state.kind to be ${kind}`, fields.kind);
  return fields;
}

function checkCommon(where: string, fields: Fields): CommonState {
  const scale = checkNumber(where, 'scale', fields.scale);
  if (!inRange(scale)) invalid(where, 'scale to be a finite fp32 number above 0', scale);
  return {
    scale,
    overflows: checkInteger(where, 'overflows', fields.overflows, 0),
    growths: checkInteger(where, 'growths', fields.growths, 0),
  };
}

function checkFactor(where: string, name: string, value: unknown, above: number, below: number): number {
  const factor = checkNumber(where, name, value);
  if (factor <= above || factor >= below) {
    invalid(where, `${name} to be above ${above}${below < Infinity ? ` and below ${below}` : ''}`, factor);
  }
  return factor;
}

function checkTorchState(where: string, state: unknown): TorchScalerState {
  const fields = checkFields(where, state, 'torch');
  const growthInterval = checkInteger(where, 'growthInterval', fields.growthInterval, 1);
  return {
    kind: 'torch',
    ...checkCommon(where, fields),
    growthFactor: checkFactor(where, 'growthFactor', fields.growthFactor, 1, Infinity),
    backoffFactor: checkFactor(where, 'backoffFactor', fields.backoffFactor, 0, 1),
    growthInterval,
    growthTracker: checkInteger(where, 'growthTracker', fields.growthTracker, 0, growthInterval - 1),
  };
}

function checkDeepSpeedState(where: string, state: unknown): DeepSpeedScalerState {
  const fields = checkFields(where, state, 'deepspeed');
  const common = checkCommon(where, fields);
  const hysteresis = checkInteger(where, 'hysteresis', fields.hysteresis, 1);
  const iteration = checkInteger(where, 'iteration', fields.iteration, 0);
  const minScale = checkFactor(where, 'minScale', fields.minScale, 0, Infinity);
  if (common.scale < minScale) invalid(where, `scale to be at least minScale = ${minScale}`, common.scale);
  const { consecutiveHysteresis } = fields;
  if (typeof consecutiveHysteresis !== 'boolean') {
    invalid(where, 'consecutiveHysteresis to be a boolean', consecutiveHysteresis);
  }
  return {
    kind: 'deepspeed',
    ...common,
    scaleFactor: checkFactor(where, 'scaleFactor', fields.scaleFactor, 1, Infinity),
    scaleWindow: checkInteger(where, 'scaleWindow', fields.scaleWindow, 1),
    hysteresis,
    consecutiveHysteresis,
    minScale,
    iteration,
    lastOverflow: checkInteger(where, 'lastOverflow', fields.lastOverflow, -1, iteration - 1),
    hysteresisLeft: checkInteger(where, 'hysteresisLeft', fields.hysteresisLeft, 1, hysteresis),
  };
}

function checkStaticState(where: string, state: unknown): StaticScalerState {
  return { kind: 'static', ...checkCommon(where, checkFields(where, state, 'static')) };
}
