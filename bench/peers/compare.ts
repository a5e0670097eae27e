/** Our kernels and their peers on one question, by turns. */
import type { NativeFloatDType } from '../../lib/tensor/dtype.js';
import type { BenchCase } from '../case.js';
import { inputSetsOf, openSampler, type Sampler, statistics, type Timing } from '../measure.js';
import type { Driver, PeerQuestion } from './driver.js';
import type { PeerName } from './list.js';

/** What a peer did. */
export interface PeerFigure {
  readonly name: PeerName;
  readonly medianMs: number;
  readonly p90Ms: number;
  readonly minMs: number;
  readonly samples: number;
  /** The implementation that was chosen, where the peer tells. */
  readonly note?: string;
}

/** A peer that has nothing for the row, and why. */
export interface PeerRefusal {
  readonly name: PeerName;
  readonly reason: string;
}

export type PeerResult = PeerFigure | PeerRefusal;

/** The strongest peer of a row. */
export interface BestPeer {
  readonly name: PeerName;
  /** In the unit of the row. */
  readonly rate: number;
  /** Our speed over the peer's: above 1 where we are faster. */
  readonly ratio: number;
}

/** The fastest of the peers by the median, held against our median; null where no peer has the op. */
export function bestPeerOf(results: readonly PeerResult[], ourMs: number, ourRate: number): BestPeer | null {
  const figures = results.filter((result): result is PeerFigure => 'medianMs' in result);
  if (figures.length === 0) return null;
  const best = figures.reduce((a, b) => (b.medianMs < a.medianMs ? b : a));
  const ratio = best.medianMs / ourMs;
  return { name: best.name, rate: ourRate / ratio, ratio };
}

/** Cases that ask the peers the same thing (the two families of an op), in the order of their first. */
export function byQuestion(cases: readonly BenchCase[]): BenchCase[][] {
  const groups = new Map<string, BenchCase[]>();
  for (const benchCase of cases) {
    const { peer, dtype } = benchCase;
    const key = peer ? [peer.op, peer.dtype ?? dtype, dtype, ...peer.dims].join(' ') : `alone ${groups.size}`;
    const group = groups.get(key);
    if (group) group.push(benchCase);
    else groups.set(key, [benchCase]);
  }
  return [...groups.values()];
}

/** Ours and theirs in turn so often, so that a noisy moment hits both alike. */
const rounds = 3;
/** Threads of a library that has just worked spin for a while: they may not do so at another's cost. */
const settleMs = 30;

export interface Comparison {
  readonly timings: readonly { readonly benchCase: BenchCase; readonly timing: Timing }[];
  readonly peers: readonly PeerResult[];
}

/** Measures the cases of one question and every peer that can answer it, for about `time` milliseconds each. */
export async function compare(
  cases: readonly BenchCase[],
  drivers: readonly Driver[],
  settings: { readonly time: number; readonly sets: number | null; readonly threads: number },
): Promise<Comparison> {
  const { peer, dtype } = cases[0]!;
  const count = settings.sets ?? Math.min(...cases.map((c) => inputSetsOf(c)));
  const refusals: PeerRefusal[] = [];
  const samplers: Sampler[] = [];
  const ours: number[][] = cases.map(() => []);
  const ready: { driver: Driver; note: string; samples: number[] }[] = [];
  const settle = () => new Promise((resolve) => setTimeout(resolve, settings.threads > 1 ? settleMs : 0));
  try {
    for (const benchCase of cases) samplers.push(await openSampler(benchCase, count));
    for (const driver of peer ? drivers : []) {
      const reason = await prepared(driver, peer!, dtype, count);
      if (reason === null) ready.push({ driver, note: driver.note, samples: [] });
      else refusals.push({ name: driver.name, reason });
    }
    for (let round = 0; round < rounds; round++) {
      await settle();
      for (const [i, sampler] of samplers.entries())
        ours[i]!.push(...(await sampler.measure(settings.time / rounds)));
      for (const { driver, samples } of ready) {
        await settle();
        samples.push(...(await driver.measure(settings.time / rounds)));
      }
    }
    const timings = [];
    for (const [i, benchCase] of cases.entries()) {
      const { runs: runsPerSample } = samplers[i]!;
      const figures = await samplers[i]!.figures();
      timings.push({
        benchCase,
        timing: { ...statistics(ours[i]!), runsPerSample, inputSets: count, figures },
      });
    }
    return {
      timings,
      peers: [
        ...ready.map(({ driver, note, samples }) => ({
          name: driver.name,
          ...statistics(samples),
          ...(note !== '' && { note }),
        })),
        ...refusals,
      ],
    };
  } finally {
    for (const sampler of samplers) sampler.close();
    for (const { driver } of ready) await driver.drop();
  }
}

async function prepared(
  driver: Driver,
  question: PeerQuestion,
  dtype: NativeFloatDType,
  sets: number,
): Promise<string | null> {
  try {
    return await driver.prepare(question, dtype, sets);
  } catch (error) {
    return (error as Error).message;
  }
}
