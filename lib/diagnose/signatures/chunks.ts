import type { CountedTokens } from '../countedTokens.js';
import { type Finding, notTestable, OPEN, percent, type Signature, said } from './signature.js';

const RATIO = 2;
const ERRORS = 6;
/** Tokens at borders. */
const LEAST = 20;
/** Borders that these are spread over: of one or two, it may be their place that is special. */
const BORDERS = 3;
const CHUNKS = [16, 32, 64, 128, 256, 512, 1024, 2048, 4096];
/** A token is predicted from the one before it: a border may show on either side. */
const BESIDE = [0, 1, -1];

/** Tokens at the borders of chunks that are further apart than those within: of a cache, a prefill, a split of attention. */
export const chunks: Signature = {
  name: 'chunks',
  title: 'steps at chunk boundaries',
  test(tokens): Finding {
    const logs = logNoise(tokens);
    if (logs === undefined) return notTestable('needs unsure tokens that differ');
    let best = { chunk: 0, from: '', ratio: 1, errors: 0, share: 0 };
    for (const from of ['response', 'prompt'] as const) {
      const places = byPlace(tokens, logs, from);
      if (places === undefined) continue;
      for (const chunk of CHUNKS) {
        for (const beside of BESIDE) {
          const found = atBorders(places, chunk, beside);
          if (found !== undefined && found.errors > best.errors) best = { chunk, from, ...found };
        }
      }
    }
    if (best.chunk === 0)
      return notTestable(`needs ${LEAST} unsure tokens at ${BORDERS} multiples of ${CHUNKS[0]} or more`);
    const { chunk, from, ratio, errors, share } = best;
    return {
      found: ratio >= RATIO && errors >= ERRORS,
      explained: Math.max(0, share * (1 - 1 / ratio)),
      evidence: `tokens at multiples of ${chunk} from the start of the ${from} have ${said(ratio)} times the noise of the others (${said(errors)} standard errors) and hold ${percent(share)} of the mismatch`,
      values: { chunk, ratio, errors, fromPrompt: from === 'prompt' ? 1 : 0 },
    };
  },
};

/** log of each token's noise; NaN where the choice was not open, and at the end of responses. Equal tokens count as a tenth of the least that is not. */
function logNoise({ count, d, openness, response }: CountedTokens): Float64Array | undefined {
  const logs = new Float64Array(count).fill(Number.NaN);
  let least = Infinity;
  for (let i = 0; i < count; i++) {
    // The last token of a response is like no other.
    if (openness[i]! < OPEN || response[i + 1] !== response[i]) continue;
    const noise = Math.abs(d[i]!) / openness[i]!;
    if (noise > 0) least = Math.min(least, noise);
    logs[i] = Math.log(noise);
  }
  if (least === Infinity) return undefined;
  const equal = Math.log(least / 10);
  return logs.map((log) => (log === -Infinity ? equal : log));
}

/** Sums over some tokens: of the logs that there are, and of |d|. */
interface Sums {
  readonly n: number;
  readonly sum: number;
  readonly squares: number;
  readonly absolute: number;
}

/** Sums over all tokens, and over those at each distance from the start. */
interface Places {
  readonly all: Sums;
  readonly at: readonly Sums[];
}

/** Undefined where prompts are not known. */
function byPlace(
  { count, d, token, response, sample }: CountedTokens,
  logs: Float64Array,
  from: 'response' | 'prompt',
): Places | undefined {
  const { offsets, promptLengths } = sample;
  if (from === 'prompt' && promptLengths.some((length) => length < 0)) return undefined;
  const zero = () => ({ n: 0, sum: 0, squares: 0, absolute: 0 });
  const all = zero();
  const at: ReturnType<typeof zero>[] = [];
  for (let i = 0; i < count; i++) {
    const s = response[i]!;
    const place = token[i]! - offsets[s]! + (from === 'prompt' ? promptLengths[s]! : 0);
    while (at.length <= place) at.push(zero());
    const log = logs[i]!;
    for (const sums of [all, at[place]!]) {
      sums.absolute += Math.abs(d[i]!);
      if (Number.isNaN(log)) continue;
      sums.n++;
      sums.sum += log;
      sums.squares += log * log;
    }
  }
  return { all, at };
}

/** Tokens at borders against the others: times the noise, in standard errors, and their share of the mismatch. */
function atBorders(
  { all, at }: Places,
  chunk: number,
  beside: number,
): { ratio: number; errors: number; share: number } | undefined {
  let [n, sum, squares, absolute, borders] = [0, 0, 0, 0, 0];
  // The very first is no border between two chunks.
  for (let place = chunk + beside; place < at.length; place += chunk) {
    const own = at[place]!;
    n += own.n;
    sum += own.sum;
    squares += own.squares;
    absolute += own.absolute;
    if (own.n > 0) borders++;
  }
  if (n < LEAST || all.n - n < LEAST || borders < BORDERS) return undefined;
  const a = meanOf(n, sum, squares);
  const b = meanOf(all.n - n, all.sum - sum, all.squares - squares);
  const rise = a.mean - b.mean;
  return {
    ratio: Math.exp(rise),
    errors: rise === 0 ? 0 : rise / Math.sqrt(a.error + b.error),
    share: absolute / all.absolute,
  };
}

/** A mean and the square of its standard error. */
function meanOf(n: number, sum: number, squares: number): { mean: number; error: number } {
  const mean = sum / n;
  return { mean, error: Math.max(0, squares / n - mean ** 2) / n };
}
