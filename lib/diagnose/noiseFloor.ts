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

/**
 * The noise of the logits in units of the format, fitted by scripts/diagnose-floor.mjs to 22 measurements of models with 2 to 8
 * layers and widths of 32 to 128, and to what arXiv 2510.26788 reports of one with 28 layers and a width of 1,536: a usual noise at 4
 * layers and a width of 64, and exponents of both. Depth and width hardly matter; what the model was taught matters more,
 * which the spread covers: 2.2 standard deviations on the log scale.
 */
const LAW = { usual: 14, layers: -0.16, hidden: -0.12, spread: 4 } as const;
/** Formats of 16 bits and fewer sum in fp32; in fp32 sums round as much as what is stored, which makes it four times as much. */
const SUMS = { mantissa: 23, factor: 4 } as const;
const REFERENCE = { numLayers: 4, hiddenSize: 64 } as const;

/** The floor of a format. */
export function noiseFloor(dtype: string, { numLayers, hiddenSize }: ModelSize = UNKNOWN): NoiseFloor {
  const { mantissa } = floatBits(dtype)!;
  const unit = 2 ** -(mantissa + 1);
  const usual =
    LAW.usual *
    (mantissa >= SUMS.mantissa ? SUMS.factor : 1) *
    unit *
    ((numLayers ?? REFERENCE.numLayers) / REFERENCE.numLayers) ** LAW.layers *
    ((hiddenSize ?? REFERENCE.hiddenSize) / REFERENCE.hiddenSize) ** LAW.hidden;
  return { dtype, unit, low: usual / LAW.spread, usual, high: usual * LAW.spread, numLayers, hiddenSize };
}

/**
 * Formats that are tried where none is declared. An engine in 8 bits has to be declared: to its noise even series that have
 * nothing to do with each other come near.
 */
const TRIED = ['bf16', 'fp16', 'fp32'];

/** The format whose usual noise is nearest to what was found. */
export function nearestFloor(logitNoise: number, size: ModelSize = UNKNOWN): NoiseFloor {
  const floors = TRIED.map((dtype) => noiseFloor(dtype, size));
  // Where nothing differs none is nearest: the finest has it.
  if (!(logitNoise > 0)) return floors.at(-1)!;
  const distance = ({ usual }: NoiseFloor) => Math.abs(Math.log(logitNoise / usual));
  return floors.reduce((best, floor) => (distance(floor) < distance(best) ? floor : best));
}
