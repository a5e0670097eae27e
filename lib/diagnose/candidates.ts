import type { TokenSample, TopSample } from './sample.js';

/** What both engines say of the same token at the same position. */
export interface Candidates {
  /** The position in the sample. */
  readonly token: number;
  readonly ids: readonly number[];
  readonly mu: readonly number[];
  readonly pi: readonly number[];
}

/** Every position at which two or more of the most likely tokens are known of both engines. */
export function* commonCandidates({ mask, tops }: TokenSample): Generator<Candidates> {
  const { rollout, training } = tops;
  if (rollout === null || training === null) return;
  for (let t = 0; t < mask.length; t++) {
    if (mask[t] === 0) continue;
    const ids: number[] = [];
    const mu: number[] = [];
    const pi: number[] = [];
    for (let i = rollout.offsets[t]!; i < rollout.offsets[t + 1]!; i++) {
      for (let j = training.offsets[t]!; j < training.offsets[t + 1]!; j++) {
        if (training.ids[j] !== rollout.ids[i]) continue;
        if (!Number.isFinite(rollout.logprobs[i]) || !Number.isFinite(training.logprobs[j])) break;
        ids.push(rollout.ids[i]!);
        mu.push(rollout.logprobs[i]!);
        pi.push(training.logprobs[j]!);
        break;
      }
    }
    if (ids.length >= 2) yield { token: t, ids, mu, pi };
  }
}

/** The known log-probs at each counted position of one engine, from the greatest on. */
export function* topLists({ mask }: TokenSample, top: TopSample): Generator<Float64Array> {
  for (let t = 0; t < mask.length; t++) {
    if (mask[t] === 0 || top.offsets[t + 1]! - top.offsets[t]! < 2) continue;
    yield top.logprobs
      .slice(top.offsets[t]!, top.offsets[t + 1]!)
      .sort()
      .reverse();
  }
}
