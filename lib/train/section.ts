import { attempt, checkChoice, checkInteger, checkNumber, invalid, nearest } from '../errors.js';
import { isObject } from '../io/jsonFile.js';

/** Names errors of a configuration. */
export const WHERE = 'train';

/**
 * A part of a configuration that is being checked. What is wrong is kept, under its dotted path, to be told all at once;
 * what was asked for then has its fallback's value, which nobody gets to see.
 */
export class Section {
  readonly #errors: unknown[];
  readonly #path: string;
  readonly #values: Readonly<Record<string, unknown>>;

  /**
   * @param names of all options; others are errors
   * @param sections names of the options of sections within this one, where a name may belong
   */
  constructor(
    errors: unknown[],
    path: string,
    value: unknown,
    names: readonly string[],
    sections: Readonly<Record<string, readonly string[]>> = {},
  ) {
    this.#errors = errors;
    this.#path = path;
    // A name with nothing behind it is null in YAML.
    const isSection = value === undefined || value === null || isObject(value);
    this.#values = isObject(value) ? value : {};
    if (!isSection)
      attempt(errors, () => invalid(WHERE, `${path} to be a section with ${list(names)}`, value));
    for (const name of Object.keys(this.#values)) {
      if (names.includes(name)) continue;
      const home = Object.keys(sections).find((section) => sections[section]!.includes(name));
      const near = home === undefined ? nearest(name, names) : `${home}.${name}`;
      const where = path === '' ? 'the options' : `the options of ${path}`;
      attempt(errors, () =>
        near === undefined
          ? invalid(WHERE, `${where} to be ${list(names)}`, name)
          : invalid(WHERE, `${where} to be known ones (did you mean ${this.#name(near)}?)`, name),
      );
    }
  }

  #name(name: string): string {
    return this.#path === '' ? name : `${this.#path}.${name}`;
  }

  #value<T>(name: string, fallback: T, check: (name: string, value: unknown) => T): T {
    return attempt(this.#errors, () => check(this.#name(name), this.#values[name] ?? fallback)) ?? fallback;
  }

  /** What has no default; undefined where it is wrong. */
  required<T>(name: string, check: (path: string, value: unknown) => T): T | undefined {
    return attempt(this.#errors, () => check(this.#name(name), this.#values[name]));
  }

  integer(name: string, fallback: number, min: number, max?: number): number {
    return this.#value(name, fallback, (path, value) => checkInteger(WHERE, path, value, min, max));
  }

  /** The same, or undefined where there is none. */
  optionalInteger(name: string, min: number, max?: number): number | undefined {
    return this.#values[name] === undefined ? undefined : this.integer(name, min, min, max);
  }

  number(name: string, fallback: number, min: number, max?: number): number {
    return this.#value(name, fallback, (path, value) => checkNumber(WHERE, path, value, min, max));
  }

  /** A number above 0. */
  positive(name: string, fallback: number, max?: number): number {
    return this.#value(name, fallback, (path, value) => {
      if (value === 0) invalid(WHERE, `${path} above 0`, value);
      return checkNumber(WHERE, path, value, 0, max);
    });
  }

  choice<T extends string>(name: string, fallback: T, choices: readonly T[]): T {
    return this.#value(name, fallback, (path, value) => checkChoice(WHERE, path, value, choices));
  }

  boolean(name: string, fallback: boolean): boolean {
    return this.#value(name, fallback, (path, value) =>
      typeof value === 'boolean' ? value : invalid(WHERE, `${path} to be true or false`, value),
    );
  }

  /** Any other option. */
  checked<T>(name: string, fallback: T, check: (path: string, value: unknown) => T): T {
    return this.#value(name, fallback, check);
  }
}

function list(names: readonly string[]): string {
  return `${names.slice(0, -1).join(', ')} and ${names.at(-1)}`;
}
