/** Short runs of a tiny base, of which every fault is made. */
import type { Dump, PlainRecord } from '../../lib/instruments/faults/fault.js';
import { faultOf } from '../../lib/instruments/faults/index.js';
import { runSteps } from '../../lib/instruments/faults/run.js';
import { type RunOptions, resolveRunOptions } from '../../lib/instruments/faults/runConfig.js';
import type { RunStep } from '../../lib/instruments/faults/runStep.js';
import { type Base, prepareBase } from '../../lib/sanity/base.js';
import { baseConfigOf } from '../../lib/sanity/baseConfig.js';
import { tinyConfig } from '../sanity/tiny.js';

export const baseConfig = baseConfigOf(tinyConfig({ numLayers: 2 }));
export const mixtureConfig = baseConfigOf({ ...baseConfig, numExperts: 5 });

/** Twice the same weights: a run moves them. */
export async function tinyBase(config = baseConfig): Promise<Base> {
  return (await prepareBase(config))!;
}

/** More than the six tokens of the vocabulary: whole distributions. */
export const TOP = 7;

/** Calls `body` with each step of a run. */
export async function eachStep(
  base: Base,
  options: RunOptions,
  body: (step: RunStep) => Promise<void>,
  versions: readonly number[] = [],
): Promise<void> {
  const config = resolveRunOptions('test', { samples: 80, steps: 2, top: TOP, seed: 3, ...options });
  for await (const step of runSteps(base, config, { versions })) await body(step);
}

export async function dumpOf(step: RunStep, fault: string, strength: number): Promise<Dump> {
  return faultOf('test', fault).apply(step, strength);
}

/** All log-probs of records, one after another. */
export function logprobsOf(records: readonly PlainRecord[]): number[] {
  return records.flatMap(({ logprobs }) => logprobs.map((logprob) => logprob ?? Number.NaN));
}

/** Visits every position of both sides. */
export function eachToken(
  { rollout, training }: Dump,
  visit: (at: {
    readonly token: number;
    readonly mu: number;
    readonly pi: number;
    readonly muTop: ReadonlyMap<number, number>;
    readonly piTop: ReadonlyMap<number, number>;
  }) => void,
): void {
  rollout.forEach((record, r) => {
    const other = training[r]!;
    record.tokens.forEach((token, i) => {
      visit({
        token,
        mu: record.logprobs[i]!,
        pi: other.logprobs[i]!,
        muTop: new Map(record.topLogprobs![i]),
        piTop: new Map(other.topLogprobs![i]),
      });
    });
  });
}
