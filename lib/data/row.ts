/** A row of a data set as plain values: strings, numbers, booleans, null, lists and objects of them. */
export interface DatasetRow {
  readonly file: string;
  /** Counted from 1: the line of a file of JSON lines, the element of a JSON array, the row of a table. */
  readonly number: number;
  readonly values: Readonly<Record<string, unknown>>;
}

/** Where a row is, for errors. */
export function placeOf(row: DatasetRow): string {
  return `row ${row.number} of ${row.file}`;
}

/** What all errors about data are said to come from. */
export const DATA = 'data';
