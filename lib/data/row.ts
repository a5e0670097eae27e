/** A row of a data set as plain values: strings, numbers, booleans, null, lists and objects of them. */
export interface DatasetRow {
  readonly file: string;
  /** What a row of the file is: a line of JSON, an element of a JSON array, a row of a table. */
  readonly unit: 'line' | 'element' | 'row';
  /** Which one, counted from 1. */
  readonly number: number;
  readonly values: Readonly<Record<string, unknown>>;
}

/** Where a row is, for errors. */
export function placeOf(row: DatasetRow): string {
  return `${row.unit} ${row.number} of ${row.file}`;
}

/** What all errors about data are said to come from. */
export const DATA = 'data';
