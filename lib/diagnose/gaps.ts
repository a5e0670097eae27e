import type { Side } from './record.js';
import type { TopSample } from './sample.js';

/**
 * How far each engine puts candidates below the one that the rollout engine finds most likely, at every counted position at
 * which two or more are known of both. Response s owns [offsets[s], offsets[s + 1]).
 */
export interface Gaps {
  /** [responses + 1] */
  readonly offsets: Int32Array;
  /** [gaps] nats: log mu of the most likely less that of another. */
  readonly mu: Float64Array;
  /** [gaps] the same of log pi. */
  readonly pi: Float64Array;
}

/**
 * @param offsets [responses + 1] where responses begin among the tokens
 * @param mask [tokens]
 */
export function candidateGaps(
  offsets: Int32Array,
  mask: Uint8Array,
  { rollout, training }: Readonly<Record<Side, TopSample | null>>,
): Gaps {
  const ends = new Int32Array(offsets.length);
  const mu: number[] = [];
  const pi: number[] = [];
  if (rollout !== null && training !== null) {
    for (let s = 0; s + 1 < offsets.length; s++) {
      for (let t = offsets[s]!; t < offsets[s + 1]!; t++) if (mask[t] === 1) addGaps(rollout, training, t);
      ends[s + 1] = mu.length;
    }
  }
  return { offsets: ends, mu: Float64Array.from(mu), pi: Float64Array.from(pi) };

  function addGaps(a: TopSample, b: TopSample, t: number): void {
    const known: { readonly mu: number; readonly pi: number }[] = [];
    for (let i = a.offsets[t]!; i < a.offsets[t + 1]!; i++) {
      const j = b.ids.subarray(b.offsets[t]!, b.offsets[t + 1]!).indexOf(a.ids[i]!);
      if (j < 0) continue;
      const candidate = { mu: a.logprobs[i]!, pi: b.logprobs[b.offsets[t]! + j]! };
      if (Number.isFinite(candidate.mu) && Number.isFinite(candidate.pi)) known.push(candidate);
    }
    if (known.length === 0) return;
    const first = known.reduce((best, own) => (own.mu > best.mu ? own : best));
    for (const own of known) {
      if (own === first) continue;
      mu.push(first.mu - own.mu);
      pi.push(first.pi - own.pi);
    }
  }
}

/** The gaps of some responses, in the order of the indices. */
export function drawGaps({ offsets, mu, pi }: Gaps, responses: Int32Array): Gaps {
  const ends = new Int32Array(responses.length + 1);
  for (let i = 0; i < responses.length; i++) {
    ends[i + 1] = ends[i]! + offsets[responses[i]! + 1]! - offsets[responses[i]!]!;
  }
  const gather = (from: Float64Array): Float64Array => {
    const to = new Float64Array(ends[responses.length]!);
    for (let i = 0; i < responses.length; i++) {
      to.set(from.subarray(offsets[responses[i]!]!, offsets[responses[i]! + 1]!), ends[i]!);
    }
    return to;
  };
  return { offsets: ends, mu: gather(mu), pi: gather(pi) };
}
