/** Reads the fields of one object of a dump; of a bad one it says file, line, field, what was expected and found. */
import { InvalidArgumentError } from '../../errors.js';
import { isObject, kindOf } from '../../io/jsonFile.js';
import { DIAGNOSE, placeText } from '../place.js';
import type { Place, SamplingSettings } from '../record.js';

/** An array of a row, not yet looked at, under the name that the row has for it. */
export interface Column {
  readonly name: string;
  readonly values: readonly unknown[];
}

/** From `start` to before `end`. */
export interface Range {
  readonly start: number;
  readonly end: number;
}

/** As text, since JSON has no name for them; in the spelling of JavaScript and in that of Python. */
const NUMBER_TEXTS: Readonly<Record<string, number>> = {
  NaN: Number.NaN,
  nan: Number.NaN,
  Infinity: Infinity,
  inf: Infinity,
  '-Infinity': -Infinity,
  '-inf': -Infinity,
};

/** A number, or one that JSON has only as text; null is NaN, "not there"; undefined where it is anything else. */
export function numberOf(value: unknown): number | undefined {
  if (typeof value === 'number') return value;
  if (value === null) return Number.NaN;
  return typeof value === 'string' && Object.hasOwn(NUMBER_TEXTS, value) ? NUMBER_TEXTS[value] : undefined;
}

/** Whether a value is a token's id: an integer from 0. */
export function isTokenId(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}

/** One object with the place it comes from. A field that is null is as one that is not there. */
export class Fields {
  readonly values: Readonly<Record<string, unknown>>;
  readonly place: Place;
  /** How a field of this object is called in messages. */
  readonly #label: (name: string) => string;

  constructor(
    values: Readonly<Record<string, unknown>>,
    place: Place,
    label: (name: string) => string = (name) => name,
  ) {
    this.values = values;
    this.place = place;
    this.#label = label;
  }

  /** Throws that a field was expected to be something else; `item` is the part of the field at fault, such as [3]. */
  fail(name: string, expected: string, got: unknown, item = ''): never {
    const field = `${this.#label(name)}${item} on ${placeText(this.place)}`;
    throw new InvalidArgumentError(`[${DIAGNOSE}] expected ${field} ${expected}, got ${kindOf(got)}`);
  }

  /** The first of these names that the object has. Two spellings of one field would leave open which counts. */
  find(...names: string[]): string | null {
    const found = names.filter((name) => this.get(name) !== null);
    if (found.length > 1) this.fail(found[1]!, `to be missing beside ${found[0]!}`, this.get(found[1]!));
    return found[0] ?? null;
  }

  /** The value of a field, null where it is missing. */
  get(name: string): unknown {
    return Object.hasOwn(this.values, name) ? (this.values[name] ?? null) : null;
  }

  /** The array under one of these names. */
  array(...names: string[]): Column | null {
    const name = this.find(...names);
    if (name === null) return null;
    const values = this.get(name);
    if (!Array.isArray(values)) this.fail(name, 'to be an array', values);
    return { name, values };
  }

  /** Expects all that are there to be as long as the first of them, and returns how long. */
  sameLength(...columns: (Column | null)[]): number {
    const [first, ...others] = columns.filter((column) => column !== null);
    if (first === undefined) return 0;
    for (const { name, values } of others) {
      if (values.length !== first.values.length) {
        this.fail(name, `to be as long as ${first.name} (${first.values.length})`, values);
      }
    }
    return first.values.length;
  }

  /**
   * The responses of a batch, where one of `keys` is an array of arrays: every array under one of `names` (keys among
   * them) has an element for each, what is no array is of all. Else the row is one response.
   */
  rows(keys: readonly string[], names: readonly string[]): Fields[] {
    const columns = names.filter((name) => Array.isArray(this.get(name)));
    const key = keys.find(
      (name) => columns.includes(name) && Array.isArray((this.get(name) as unknown[])[0]),
    );
    if (key === undefined) return [this];
    const count = (this.get(key) as unknown[]).length;
    for (const name of columns) {
      const values = this.get(name) as unknown[];
      if (values.length !== count) this.fail(name, `to have as many rows as ${key} (${count})`, values);
    }
    return Array.from({ length: count }, (_, i) => {
      const own = columns.map((name) => [name, (this.get(name) as unknown[])[i]]);
      const label = (name: string) =>
        columns.includes(name) ? `${this.#label(name)}[${i}]` : this.#label(name);
      return new Fields({ ...this.values, ...Object.fromEntries(own) }, this.place, label);
    });
  }

  /** Log-probs of tokens: NaN for null. */
  numbers(column: Column, range: Range = all(column)): Float64Array {
    const numbers = new Float64Array(range.end - range.start);
    for (let i = 0; i < numbers.length; i++) {
      const number = numberOf(column.values[range.start + i]);
      if (number === undefined) this.#failAt(column, range.start + i, 'to be a number or null');
      numbers[i] = number;
    }
    return numbers;
  }

  /** Ids of tokens. */
  ids(column: Column, range: Range = all(column)): number[] {
    return this.#items(column, range, isTokenId, 'to be the id of a token, an integer from 0');
  }

  texts(column: Column, range: Range = all(column)): string[] {
    return this.#items(column, range, (value) => typeof value === 'string', 'to be a text');
  }

  /** 1 = counts; of 0, 1, false and true. */
  mask(column: Column, range: Range = all(column)): Uint8Array {
    const mask = new Uint8Array(range.end - range.start);
    for (let i = 0; i < mask.length; i++) {
      const value = column.values[range.start + i];
      if (value !== 0 && value !== 1 && value !== true && value !== false) {
        this.#failAt(column, range.start + i, 'to be 0, 1, true or false');
      }
      mask[i] = Number(value);
    }
    return mask;
  }

  text(...names: string[]): string | null {
    const name = this.find(...names);
    if (name === null) return null;
    const value = this.get(name);
    return typeof value === 'string' ? value : this.fail(name, 'to be a text', value);
  }

  /** What something is known by, a text or an integer, as text. */
  id(...names: string[]): string | null {
    const name = this.find(...names);
    return name === null ? null : this.#idOf(name, this.get(name));
  }

  integer(...names: string[]): number | null {
    const name = this.find(...names);
    if (name === null) return null;
    const value = this.get(name);
    return isTokenId(value) ? value : this.fail(name, 'to be an integer from 0', value);
  }

  /** A log-prob: NaN for null, but not for nothing. */
  number(name: string): number {
    return numberOf(this.values[name]) ?? this.fail(name, 'to be a number or null', this.values[name]);
  }

  boolean(name: string): boolean | null {
    const value = this.get(name);
    return value === null || typeof value === 'boolean'
      ? value
      : this.fail(name, 'to be true or false', value);
  }

  /** The versions of the weights from the first token to the last, as engines count them: one, or `3-5`. */
  versionSpan(start: string, end: string): string | null {
    const first = this.id(start);
    const last = this.id(end) ?? first;
    return first === null || first === last ? last : `${first}-${last}`;
  }

  /** Of the response, or of each of `length` tokens. */
  weightsVersion(length: number, ...names: string[]): string | string[] | null {
    const name = this.find(...names);
    if (name === null) return null;
    const value = this.get(name);
    if (!Array.isArray(value)) return this.#idOf(name, value);
    if (value.length !== length) this.fail(name, `to be one version, or ${length}, one a token`, value);
    return value.map((version, i) => this.#idOf(name, version, `[${i}]`));
  }

  /** Temperature, top-p and top-k, as a person or an engine's request names them. */
  settings(): SamplingSettings {
    return { temperature: this.temperature(), topP: this.#topP(), topK: this.#topK() };
  }

  temperature(): number | null {
    const value = this.get('temperature');
    if (value === null) return null;
    const isTemperature = typeof value === 'number' && Number.isFinite(value) && value > 0;
    return isTemperature ? value : this.fail('temperature', 'to be a finite number above 0', value);
  }

  /** The object under this name. */
  object(name: string): Fields | null {
    const value = this.get(name);
    return value === null ? null : this.#inner(name, value, '');
  }

  /** The objects in the array under this name. */
  objects(name: string): Fields[] | null {
    return this.array(name)?.values.map((value, i) => this.#inner(name, value, `[${i}]`)) ?? null;
  }

  #inner(name: string, value: unknown, item: string): Fields {
    if (!isObject(value)) this.fail(name, 'to be an object', value, item);
    const prefix = `${this.#label(name)}${item}`;
    return new Fields(value, this.place, (inner) => `${prefix}.${inner}`);
  }

  #items<T>(
    column: Column,
    { start, end }: Range,
    isItem: (value: unknown) => value is T,
    expected: string,
  ): T[] {
    const items = column.values.slice(start, end);
    for (const [i, item] of items.entries()) {
      if (!isItem(item)) this.#failAt(column, start + i, expected);
    }
    return items as T[];
  }

  #failAt({ name, values }: Column, i: number, expected: string): never {
    this.fail(name, expected, values[i], `[${i}]`);
  }

  #idOf(name: string, value: unknown, item = ''): string {
    if (typeof value === 'string' && value !== '') return value;
    if (typeof value === 'number' && Number.isSafeInteger(value)) return String(value);
    return this.fail(name, 'to be a text or an integer', value, item);
  }

  #topP(): number | null {
    const name = this.find('topP', 'top_p');
    if (name === null) return null;
    const value = this.get(name);
    const isTopP = typeof value === 'number' && value > 0 && value <= 1;
    return isTopP ? value : this.fail(name, 'to be above 0 and at most 1', value);
  }

  /** Engines write both 0 and -1 for "all tokens": here it is -1. */
  #topK(): number | null {
    const name = this.find('topK', 'top_k');
    if (name === null) return null;
    const value = this.get(name);
    if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < -1) {
      this.fail(name, 'to be an integer of at least 1, or -1 for all', value);
    }
    return value === 0 ? -1 : value;
  }
}

function all({ values }: Column): Range {
  return { start: 0, end: values.length };
}
