import { attempt, checkInteger, InvalidArgumentError, invalid, throwTogether } from '../errors.js';
import { resolveAlgorithmSpec } from '../rl/load.js';
import { type BaseConfig, baseConfigOf } from '../sanity/baseConfig.js';
import { resolveSanityOptions, type SanityOptions, type TaskSanityConfig } from '../sanity/config.js';
import { checkFloatDtype } from '../tensor/dtype.js';
import { type Cell, cellName, type PrecisionPair } from './cell.js';

/** What all runs of a grid have in common: options of a sanity run. */
export type CommonOptions = Omit<
  SanityOptions,
  'algorithm' | 'trainingPrecision' | 'rolloutPrecision' | 'seed'
>;

/** What a grid can be asked for: every algorithm in every pair of precisions with every seed. */
export interface GridOptions {
  /** Default `pg-seq-is`. */
  readonly algorithms?: readonly string[];
  /** Default `fp16:fp16` and `bf16:bf16`; a single precision is both engines'. */
  readonly precisions?: readonly string[];
  /** Default 1, 2, 3. Without a baseSeed each seed has a base of its own. */
  readonly seeds?: readonly number[];
  readonly common?: CommonOptions;
}

export interface GridConfig {
  readonly cells: readonly Cell[];
  readonly common: CommonOptions;
}

/** A pair of precisions from `fp16:bf16` (training : rollout) or `fp16` (both). */
export function parsePrecisionPair(where: string, text: string): PrecisionPair {
  const parts = text.split(':');
  if (parts.length > 2) invalid(where, 'a pair of precisions to be training:rollout', text);
  const [training, rollout = training] = parts.map((part) =>
    checkFloatDtype(where, `each precision of ${JSON.stringify(text)}`, part),
  );
  return { training: training!, rollout: rollout! };
}

/**
 * The cells of a grid, in the order algorithm, precisions, seed; doubles are left out.
 *
 * @throws InvalidArgumentError on an unknown algorithm or precision (naming the nearest), or a bad common option
 */
export function resolveGridOptions(options: GridOptions): GridConfig {
  const where = 'grid';
  const { algorithms = ['pg-seq-is'], precisions = ['fp16', 'bf16'], seeds = [1, 2, 3] } = options;
  for (const [name, list] of Object.entries({ algorithms, precisions, seeds })) {
    if (list.length === 0) invalid(where, `at least one of ${name}`, 'none');
  }
  const errors: unknown[] = [];
  const checked = <T, U>(list: readonly T[], check: (value: T) => U): U[] =>
    list.flatMap((value) => attempt(errors, () => [check(value)]) ?? []);
  const specs = checked(algorithms, (algorithm) => resolveAlgorithmSpec(where, algorithm));
  const pairs = checked(precisions, (text) => parsePrecisionPair(where, text));
  const whole = checked(seeds, (seed) => checkInteger(where, 'each seed', seed, 0, 2 ** 31 - 1));
  throwTogether(where, errors);
  const cells = specs.flatMap((algorithm) =>
    pairs.flatMap((pair) => whole.map((seed): Cell => ({ algorithm, ...pair, seed }))),
  );
  const config = { cells: uniqueCells(cells), common: options.common ?? {} };
  for (const cell of config.cells) cellConfig(config, cell);
  return config;
}

/**
 * A grid with the cells of another beside its own, and with more steps where the other says so, so that results
 * accumulate.
 *
 * @throws InvalidArgumentError where another common option than the steps differs, or steps would change the course
 * of runs that have begun
 */
export function extendGrid(grid: GridConfig, more: GridOptions): GridConfig {
  const where = 'grid';
  const { steps, ...others } = more.common ?? {};
  const changed = Object.keys(others);
  if (changed.length > 0) {
    throw new InvalidArgumentError(
      `[${where}] expected no ${changed.join(', ')} beside --resume, which goes on with the runs as they were configured`,
    );
  }
  const stepsNow = resolveSanityOptions(grid.common).steps;
  if (steps !== undefined && steps < stepsNow) {
    invalid(where, `steps to be at least the grid's ${stepsNow}`, steps);
  }
  if (steps !== undefined && steps > stepsNow && resolveSanityOptions(grid.common).schedule !== 'constant') {
    invalid(
      where,
      'schedule constant for more steps: a learning rate that falls depends on their number',
      resolveSanityOptions(grid.common).schedule,
    );
  }
  const { cells } = grid;
  const names = (values: readonly string[]) => [...new Set(values)];
  const added =
    more.algorithms || more.precisions || more.seeds
      ? resolveGridOptions({
          algorithms: more.algorithms ?? names(cells.map(({ algorithm }) => algorithm)),
          precisions:
            more.precisions ?? names(cells.map(({ training, rollout }) => `${training}:${rollout}`)),
          seeds: more.seeds ?? [...new Set(cells.map(({ seed }) => seed))],
          common: grid.common,
        }).cells
      : [];
  return {
    cells: uniqueCells([...cells, ...added]),
    common: { ...grid.common, ...(steps !== undefined && { steps }) },
  };
}

/** The configuration of a cell's run. */
export function cellConfig(grid: GridConfig, { algorithm, training, rollout, seed }: Cell): TaskSanityConfig {
  return resolveSanityOptions({
    ...grid.common,
    algorithm,
    trainingPrecision: training,
    rolloutPrecision: rollout,
    seed,
  });
}

/** The bases that the cells start from, each once, by the name of its folder. */
export function gridBases(grid: GridConfig): Map<string, BaseConfig> {
  const bases = new Map<string, BaseConfig>();
  for (const cell of grid.cells) {
    const config = cellConfig(grid, cell);
    bases.set(baseName(config), baseConfigOf(config));
  }
  return bases;
}

/** The name of a base's folder, which tells every option that makes it. */
export function baseName(config: BaseConfig): string {
  const { task, hiddenSize, numLayers, baseAccuracy, teachSteps, candidates, samplesPerProblem } = config;
  const experts = config.numExperts === undefined ? [] : [`e${config.numExperts}`];
  const size = [`d${hiddenSize}`, `l${numLayers}`, ...experts];
  const parts = [task, ...size, `a${baseAccuracy}`, `t${teachSteps}`];
  const set = `c${candidates}x${samplesPerProblem}-s${config.solvedAtLeast}-${config.solvedAtMost}`;
  return [...parts, set, `seed${config.baseSeed}`].join('-').replaceAll(':', '-');
}

/** Cells that are the same once; others that would share a folder are refused, as of files of one name. */
function uniqueCells(cells: readonly Cell[]): Cell[] {
  const unique = new Map<string, Cell>();
  for (const cell of cells) {
    const name = cellName(cell);
    const other = unique.get(name);
    if (other !== undefined && other.algorithm !== cell.algorithm) {
      throw new InvalidArgumentError(
        `[grid] expected algorithms with names of their own, got ${other.algorithm} and ${cell.algorithm}: their runs would share a folder`,
      );
    }
    unique.set(name, cell);
  }
  return [...unique.values()];
}
