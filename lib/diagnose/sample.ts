import { candidateGaps, drawGaps, type Gaps } from './gaps.js';
import { type Pair, type Side, sides, type TopLogprobs } from './record.js';

/** The most likely tokens of positions, ragged: position t owns [offsets[t], offsets[t + 1]). */
export interface TopSample {
  readonly offsets: Int32Array;
  /** Ids; of dumps with texts alone a number that stands for the text. */
  readonly ids: Int32Array;
  readonly logprobs: Float64Array;
}

/**
 * Tokens that the signatures look at, whole responses one after another; response s owns [offsets[s], offsets[s + 1]).
 * Positions are the places within a response, counted or not.
 */
export interface TokenSample {
  /** [responses + 1] */
  readonly offsets: Int32Array;
  /** [tokens] log mu. */
  readonly mu: Float64Array;
  /** [tokens] log pi. */
  readonly pi: Float64Array;
  /** [tokens] 1 = counts. */
  readonly mask: Uint8Array;
  /** [tokens] 1 where the rollout engine's weights are said to be others than the training engine's. */
  readonly older: Uint8Array;
  /** [responses] number in the order of the rollout file. */
  readonly order: Float64Array;
  /** [responses] NaN where the dump has none. */
  readonly steps: Float64Array;
  /** [responses] a number for each batch; -1 where the dump has none. */
  readonly batches: Int32Array;
  /** [responses] tokens of the prompt; -1 where the dump does not say. */
  readonly promptLengths: Int32Array;
  /** Null where a side has none, and in samples that were drawn from others. */
  readonly tops: Readonly<Record<Side, TopSample | null>>;
  readonly gaps: Gaps;
}

/** Tokens kept before responses are thinned out; 60 MB with all that belongs to them. */
const CAPACITY = 2 ** 20;
/** Tokens whose top log-probs are kept. */
const TOP_CAPACITY = 2 ** 16;

/**
 * Collects a bounded number of tokens of a stream of responses: all, or beyond a million tokens those of every second,
 * fourth, ... response, so that the same stream gives the same sample.
 */
export class SampleCollector {
  readonly #capacity: number;
  #kept: Pair[] = [];
  #tokens = 0;
  #topTokens = 0;
  #stride = 1;
  #seen = 0;

  constructor(capacity = CAPACITY) {
    this.#capacity = capacity;
  }

  add(pair: Pair): void {
    if (this.#seen++ % this.#stride !== 0) return;
    const length = pair.rollout.length;
    this.#topTokens += length;
    const top = this.#topTokens <= TOP_CAPACITY ? pair.topLogprobs : { rollout: null, training: null };
    this.#kept.push({ ...pair, tokenTexts: null, topLogprobs: top });
    this.#tokens += length;
    while (this.#tokens > this.#capacity && this.#kept.length > 1) {
      this.#kept = this.#kept.filter((_, i) => i % 2 === 0);
      this.#stride *= 2;
      this.#tokens = this.#kept.reduce((sum, { rollout }) => sum + rollout.length, 0);
    }
  }

  result(): TokenSample {
    return sampleOf(this.#kept);
  }
}

/** The sample of some pairs. */
export function sampleOf(pairs: readonly Pair[]): TokenSample {
  const offsets = new Int32Array(pairs.length + 1);
  pairs.forEach(({ rollout }, s) => {
    offsets[s + 1] = offsets[s]! + rollout.length;
  });
  const tokens = offsets[pairs.length]!;
  const sample = {
    offsets,
    mu: new Float64Array(tokens),
    pi: new Float64Array(tokens),
    mask: new Uint8Array(tokens),
    older: new Uint8Array(tokens),
    order: new Float64Array(pairs.length),
    steps: new Float64Array(pairs.length),
    batches: new Int32Array(pairs.length),
    promptLengths: new Int32Array(pairs.length),
  };
  const batchNumbers = new Map<string, number>();
  pairs.forEach((pair, s) => {
    const at = offsets[s]!;
    sample.mu.set(pair.rollout, at);
    sample.pi.set(pair.training, at);
    sample.mask.set(pair.mask, at);
    const { rollout, training } = pair.weightsVersions;
    for (let t = 0; t < pair.rollout.length; t++) {
      const [mu, pi] = [versionAt(rollout, t), versionAt(training, t)];
      if (mu !== null && pi !== null && mu !== pi) sample.older[at + t] = 1;
    }
    sample.order[s] = pair.index;
    sample.steps[s] = pair.step ?? Number.NaN;
    sample.promptLengths[s] = pair.promptLength ?? -1;
    sample.batches[s] =
      pair.batch === null
        ? -1
        : (batchNumbers.get(pair.batch) ?? batchNumbers.set(pair.batch, batchNumbers.size).size - 1);
  });
  const numbers = new Map<string, number>();
  const [rollout, training] = sides.map((side) =>
    topSampleOf(
      pairs.map((pair) => pair.topLogprobs[side]),
      offsets,
      numbers,
    ),
  );
  const tops = { rollout: rollout!, training: training! };
  return { ...sample, tops, gaps: candidateGaps(offsets, sample.mask, tops) };
}

function versionAt(versions: Pair['weightsVersions'][Side], t: number): string | null {
  return versions === null || typeof versions === 'string' ? versions : (versions[t] ?? null);
}

function topSampleOf(
  lists: readonly (readonly (TopLogprobs | null)[] | null)[],
  offsets: Int32Array,
  numbers: Map<string, number>,
): TopSample | null {
  const starts = new Int32Array(offsets.at(-1)! + 1);
  const ids: number[] = [];
  const logprobs: number[] = [];
  lists.forEach((list, s) => {
    for (let t = offsets[s]!; t < offsets[s + 1]!; t++) {
      const top = list?.[t - offsets[s]!];
      top?.tokens.forEach((token, i) => {
        // Texts have numbers of their own below those of ids.
        const id =
          typeof token === 'number'
            ? token
            : (numbers.get(token) ?? -2 - (numbers.set(token, -2 - numbers.size).size - 1));
        ids.push(id);
        logprobs.push(top.logprobs[i]!);
      });
      starts[t + 1] = ids.length;
    }
  });
  if (ids.length === 0) return null;
  return { offsets: starts, ids: Int32Array.from(ids), logprobs: Float64Array.from(logprobs) };
}

/**
 * The sample of responses drawn from another one, in the order of the indices; some may come more than once. The lists of
 * the most likely tokens stay behind: what is tested on them is tested once.
 */
export function drawResponses(sample: TokenSample, responses: Int32Array): TokenSample {
  const offsets = new Int32Array(responses.length + 1);
  for (let i = 0; i < responses.length; i++) {
    const s = responses[i]!;
    offsets[i + 1] = offsets[i]! + sample.offsets[s + 1]! - sample.offsets[s]!;
  }
  const tokens = offsets[responses.length]!;
  const gather = <T extends Float64Array | Uint8Array>(from: T, to: T): T => {
    for (let i = 0; i < responses.length; i++) {
      const s = responses[i]!;
      to.set(from.subarray(sample.offsets[s]!, sample.offsets[s + 1]!), offsets[i]!);
    }
    return to;
  };
  return {
    offsets,
    mu: gather(sample.mu, new Float64Array(tokens)),
    pi: gather(sample.pi, new Float64Array(tokens)),
    mask: gather(sample.mask, new Uint8Array(tokens)),
    older: gather(sample.older, new Uint8Array(tokens)),
    order: Float64Array.from(responses, (s) => sample.order[s]!),
    steps: Float64Array.from(responses, (s) => sample.steps[s]!),
    batches: responses.map((s) => sample.batches[s]!),
    promptLengths: responses.map((s) => sample.promptLengths[s]!),
    tops: { rollout: null, training: null },
    gaps: drawGaps(sample.gaps, responses),
  };
}
