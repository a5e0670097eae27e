import { InvalidArgumentError, invalid, nearest } from '../errors.js';
import type { Dataset } from './dataset.js';
import { DATA, type DatasetRow, placeOf } from './row.js';

/** A column, or a member of a column of objects: `reward_model.ground_truth`. */
export interface Column {
  readonly name: string;
  /** The column of the table, and the members to go down from it. */
  readonly path: readonly [string, ...string[]];
}

/**
 * The column that is meant: the one that is named, or the first of the usual ones that the data set has.
 *
 * @param what what is looked for, as errors say it
 * @throws InvalidArgumentError naming the file, its columns, and the nearest of them
 */
export function findColumn(
  dataset: Dataset,
  what: string,
  named: string | undefined,
  usual: readonly string[],
): Column {
  for (const name of named === undefined ? usual : [named]) {
    // A column's own name may have dots.
    if (dataset.columns.includes(name)) return { name, path: [name] };
    const path = name.split('.') as [string, ...string[]];
    if (dataset.columns.includes(path[0])) return { name, path };
  }
  const wanted = named === undefined ? `one of ${usual.join(', ')}` : named;
  const near = (named === undefined ? usual : [named])
    .map((name) => nearest(name, dataset.columns))
    .find((column) => column !== undefined);
  const hint = near === undefined ? '' : ` (did you mean ${near}?)`;
  throw new InvalidArgumentError(
    `[${DATA}] expected ${dataset.files[0]} to have a column with the ${what}, ${wanted}, ` +
      `got ${dataset.columns.length === 0 ? 'no rows' : dataset.columns.join(', ')}${hint}`,
  );
}

/** Whether a data set has a column of that name, or the column that it goes down from. */
export function hasColumn(dataset: Dataset, name: string): boolean {
  return dataset.columns.includes(name) || dataset.columns.includes(name.split('.')[0]!);
}

/**
 * The value of a column in a row.
 *
 * @throws InvalidArgumentError naming the row and what it has instead
 */
export function columnOf(row: DatasetRow, { name, path }: Column): unknown {
  let value: unknown = row.values;
  for (const member of path) {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, member)) {
      const members =
        typeof value === 'object' && value !== null ? Object.keys(value).join(', ') : String(value);
      invalid(DATA, `${placeOf(row)} to have ${name}`, members);
    }
    value = (value as Record<string, unknown>)[member];
  }
  return value;
}
