/** What a row of the benchmark measures. */
import type { NativeFloatDType } from '../lib/tensor/dtype.js';
import { tidy } from '../lib/tensor/scope.js';
import { copy, empty, randomNormal, type Tensor, tensor } from '../lib/tensor/tensor.js';
import type { BenchOptions, FamilyName, GroupName } from './arguments.js';
import type { PeerQuestion } from './peers/driver.js';

/** One set of inputs, and the op on them. */
export interface InputSet {
  /** Queues the op and lets go of its outputs; or does the whole of something that waits for results itself. */
  run(): void | Promise<void>;
  /** Whether `run` does nothing but queue ops, so that it can be recorded. Default false. */
  readonly recordable?: boolean;
  /** Other numbers that came about, once the case has been timed. */
  figures?(): Figures | Promise<Figures>;
  dispose(): void;
}

/** Numbers beside the time of a row, by what they are: `timerP99Ms`, `scratchBytes`. */
export type Figures = Readonly<Record<string, number>>;

export interface BenchCase {
  readonly group: GroupName;
  readonly op: string;
  readonly family: FamilyName;
  readonly dtype: NativeFloatDType;
  readonly shape: string;
  readonly unit: 'GFLOP/s' | 'GB/s' | 'ns/op' | 'tokens/s';
  /** Floating-point operations of a run, 2 a multiply-add; 0 where memory alone counts. */
  readonly flops: number;
  /** The least that a run must read and write. */
  readonly bytes: number;
  /** Whether a good part of `bytes` is written, so that copying may be the better yardstick. Default false. */
  readonly writes?: boolean;
  /** Tokens that a run learns or makes; default 0. */
  readonly tokens?: number;
  /** Ops that a run queues; default 1. */
  readonly ops?: number;
  /** Time the calls alone, not the work that they queue. Default false. */
  readonly callsOnly?: boolean;
  /** Memory of an input set: sets are rotated until they exceed the caches. */
  readonly inputBytes: number;
  /** What other libraries are asked, where they have the op. */
  readonly peer?: PeerQuestion;
  prepare(seed: number): InputSet;
}

/** What a row is called in `--rows` and in failures. */
export function nameOf({
  op,
  family,
  dtype,
  shape,
}: Pick<BenchCase, 'op' | 'family' | 'dtype' | 'shape'>): string {
  return `${op} ${family} ${dtype} ${shape}`;
}

export type CaseSelection = Pick<BenchOptions, 'dtypes' | 'families' | 'shapes' | 'device' | 'peers'>;

/** The sizes of a group's cases. A GPU has its own: what keeps a processor busy is a trifle to it. */
export interface Sizes<T> {
  /** To try whether all of it runs, in an emulator, too. */
  readonly tiny: readonly T[];
  readonly cpu: { readonly quick: readonly T[]; readonly full: readonly T[] };
  readonly cuda: { readonly quick: readonly T[]; readonly full: readonly T[] };
}

export function sizesOf<T>({ shapes, device }: CaseSelection, sizes: Sizes<T>): readonly T[] {
  return shapes === 'tiny' ? sizes.tiny : sizes[device][shapes];
}

/** The families among `of` that were asked for. */
export function familiesOf<T extends FamilyName>(selection: CaseSelection, ...of: T[]): T[] {
  return of.filter((family) => selection.families.includes(family));
}

/** Runs `body` on what lives as long as the set. */
export function inputSet(owned: readonly { dispose(): void }[], body: () => void): InputSet {
  return {
    recordable: true,
    // A block: what a body returned would outlive the scope.
    run: () =>
      tidy(() => {
        body();
      }),
    dispose: () => {
      for (const each of owned) each.dispose();
    },
  };
}

const blockElements = 2 ** 20;

/** Normal values; a tensor above a million elements repeats a block of a million, which is made much faster. */
export function normalInput(
  shape: readonly number[],
  dtype: NativeFloatDType,
  seed: number,
  std = 1,
): Tensor {
  const size = shape.reduce((product, d) => product * d, 1);
  if (size <= blockElements) return randomNormal(shape, { seed, std, dtype });
  const out = empty(shape, dtype);
  tidy(() => {
    const block = randomNormal([blockElements], { seed, std, dtype });
    const flat = out.reshape(size);
    for (let at = 0; at < size; at += blockElements) {
      const count = Math.min(blockElements, size - at);
      copy(block.rows(0, count), flat.rows(at, at + count));
    }
  });
  return out;
}

/** Integers from 0 to below - 1, spread over the range. */
export function idInput(count: number, below: number, seed: number): Tensor {
  const ids = Int32Array.from({ length: count }, (_, i) => ((i + seed) * 7919) % below);
  return tensor(ids, [count], 'int32');
}
