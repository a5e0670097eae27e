import { floatBits } from '../tensor/dtype.js';

/** How far two engines that compute in one format are apart, by nothing but their roundings. */
export interface NoiseFloor extends ModelSize {
  readonly dtype: string;
  /** Largest relative rounding error of the format, 2^-(mantissa bits + 1). */
  readonly unit: number;
  /** Noise of the logits in nats (see `CountedTokens.logitNoise`): what is usual, and the range of it. */
  readonly low: number;
  readonly usual: number;
  readonly high: number;
}

/** What is known of a model; null where it is not. */
export interface ModelSize {
  readonly numLayers: number | null;
  readonly hiddenSize: number | null;
}

const UNKNOWN: ModelSize = { numLayers: null, hiddenSize: null };

/** Units of the format: the noise of the logits of two engines with different kernels. */
const USUAL = 10;
const SPREAD = 4.5;

/** The floor of a format. */
export function noiseFloor(dtype: string, { numLayers, hiddenSize }: ModelSize = UNKNOWN): NoiseFloor {
  const unit = 2 ** -(floatBits(dtype)!.mantissa + 1);
  return {
    dtype,
    unit,
    low: (USUAL / SPREAD) * unit,
    usual: USUAL * unit,
    high: USUAL * SPREAD * unit,
    numLayers,
    hiddenSize,
  };
}

/** Formats that are tried where none is declared. */
const TRIED = ['e5m2', 'e4m3', 'bf16', 'fp16', 'fp32'];

/** The format whose usual noise is nearest to what was found. */
export function nearestFloor(logitNoise: number, size: ModelSize = UNKNOWN): NoiseFloor {
  const floors = TRIED.map((dtype) => noiseFloor(dtype, size));
  const distance = ({ usual }: NoiseFloor) => Math.abs(Math.log(logitNoise / usual));
  return floors.reduce((best, floor) => (distance(floor) < distance(best) ? floor : best));
}
