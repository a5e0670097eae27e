import { floatBits } from '../../tensor/dtype.js';
import { topLists } from '../candidates.js';
import type { CountedTokens } from '../countedTokens.js';
import { type Side, sides } from '../record.js';
import { type Finding, percent, type Signature, said } from './signature.js';

/** What log-probs in fp32 are good for. */
const TOLERANCE = 3e-6;
/** The finest lattice that such log-probs show: beyond it a step is no more than a few tolerances. */
const FINEST = 11;
const COARSEST = -4;
/** Share of the gaps on the lattice. */
const ON_LATTICE = 0.9;

/** What is known of one side. */
interface Lattice {
  readonly side: Side;
  /** The step is 2^-k for half of the gaps. */
  readonly k: number;
  /** Mantissa bits that fit step and size of the gaps. */
  readonly mantissa: number;
  readonly share: number;
  readonly of: 'gaps' | 'values';
}

/**
 * Logits that were rounded to 16 bits. The gap between two candidates' log-probs is that of their logits, and these lie on
 * multiples of a power of two that a format with few mantissa bits leaves at their size. Also log-probs that were themselves stored
 * in 16 bits.
 */
export const lattice: Signature = {
  name: 'lattice',
  title: 'values on a lattice of 2^-k: 16-bit logits or log-probs',
  test(tokens, { floor }): Finding {
    const found = sides.map((side) => storedLattice(tokens, side) ?? gapLattice(tokens, side));
    const [rollout, training] = found;
    const bits = floatBits(floor.dtype)!.mantissa;
    // Logits in the format of the engine are a habit of serving engines; in training, or coarser than that, they are not.
    const odd = [
      training,
      rollout !== undefined && (rollout.of === 'values' || rollout.mantissa < bits - 1.5)
        ? rollout
        : undefined,
    ].filter((own) => own !== undefined);
    const worst = odd.sort((a, b) => a.k - b.k)[0];
    const noise = (own: Lattice) => (0.8 * 2 ** -own.k) / Math.sqrt(12);
    const explained = worst === undefined ? 0 : Math.min(1, (noise(worst) / tokens.logitNoise) ** 2);
    const texts = found.map((own, i) => (own === undefined ? `${sides[i]}: none` : textOf(own)));
    return {
      found: worst !== undefined,
      explained,
      evidence: texts.join('; '),
      values: Object.fromEntries(
        found.flatMap((own) =>
          own === undefined
            ? []
            : [
                [`${own.side}Step`, 2 ** -own.k],
                [`${own.side}MantissaBits`, own.mantissa],
                [`${own.side}Stored`, own.of === 'values' ? 1 : 0],
              ],
        ),
      ),
    };
  },
};

function textOf({ side, k, mantissa, share, of }: Lattice): string {
  const format = mantissa < 8.5 ? 'bf16' : 'fp16';
  return of === 'values'
    ? `${side}: ${percent(share)} of the log-probs are ${format} numbers`
    : `${side}: ${percent(share)} of the gaps between candidates are multiples of a power of two, half of them of 2^${-k} (${said(2 ** -k)}): logits in ${format}`;
}

/** Log-probs that are all numbers of a 16-bit format. */
function storedLattice({ count, mu, pi }: CountedTokens, side: Side): Lattice | undefined {
  const values = side === 'rollout' ? mu : pi;
  for (const mantissa of [7, 10]) {
    let [fit, n] = [0, 0];
    for (let i = 0; i < count; i++) {
      const x = values[i]!;
      if (!(x < 0) || !Number.isFinite(x)) continue;
      n++;
      const scale = 2 ** (mantissa - Math.floor(Math.log2(-x)));
      if (Number.isInteger(x * scale)) fit++;
    }
    if (n >= 20 && fit / n >= 0.99) {
      return { side, k: mantissa + 1, mantissa, share: fit / n, of: 'values' };
    }
  }
  return undefined;
}

function gapLattice({ sample }: CountedTokens, side: Side): Lattice | undefined {
  const top = sample.tops[side];
  if (top === null) return undefined;
  const levels: number[] = [];
  const sizes: number[] = [];
  let gaps = 0;
  for (const list of topLists(sample, top)) {
    const largest = list[0]! - list.at(-1)!;
    for (let i = 1; i < list.length; i++) {
      const gap = list[0]! - list[i]!;
      if (!(gap > 2 ** -FINEST) || !Number.isFinite(gap)) continue;
      gaps++;
      const level = levelOf(gap);
      if (level === undefined) continue;
      levels.push(level);
      sizes.push(level + Math.floor(Math.log2(largest)));
    }
  }
  if (gaps < 20 || levels.length < ON_LATTICE * gaps) return undefined;
  const middle = (values: number[]) => values.sort((a, b) => a - b)[Math.floor(values.length / 2)]!;
  return { side, k: middle(levels), mantissa: middle(sizes), share: levels.length / gaps, of: 'gaps' };
}

/** The k of the coarsest lattice 2^-k that a gap lies on. */
function levelOf(gap: number): number | undefined {
  for (let k = COARSEST; k <= FINEST; k++) {
    const steps = gap * 2 ** k;
    if (Math.round(steps) > 0 && Math.abs(steps - Math.round(steps)) <= TOLERANCE * 2 ** k) return k;
  }
  return undefined;
}
