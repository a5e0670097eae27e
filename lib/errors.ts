/**
 * The three kinds of error that isopolicy throws, each with a stable `code`.
 *
 * Messages have one form, `[where] expected X, got Y`, and name the argument at fault.
 */
export type ErrorCode = 'ERR_INVALID_ARGUMENT' | 'ERR_DEVICE' | 'ERR_INTERNAL';

export class IsopolicyError extends Error {
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
    this.code = code;
  }
}

/** A bad argument, thrown at the call, before any work is queued. */
export class InvalidArgumentError extends IsopolicyError {
  constructor(message: string, options?: ErrorOptions) {
    super('ERR_INVALID_ARGUMENT', message, options);
  }
}

/** Work that failed on the device after it was queued; thrown by the next read, its stack points to the call. */
export class DeviceError extends IsopolicyError {
  constructor(message: string, options?: ErrorOptions) {
    super('ERR_DEVICE', message, options);
  }
}

/** A broken promise of isopolicy itself, or an addon that cannot be loaded. */
export class InternalError extends IsopolicyError {
  constructor(message: string, options?: ErrorOptions) {
    super('ERR_INTERNAL', message, options);
  }
}

/** Throws an {@link InvalidArgumentError} in the project's one form: `[where] expected X, got Y`. */
export function invalid(where: string, expected: string, got: unknown): never {
  throw new InvalidArgumentError(`[${where}] expected ${expected}, got ${describe(got)}`);
}

/** What `body` returns; what it throws is kept in `errors`, for {@link throwTogether} to tell with the others. */
export function attempt<T>(errors: unknown[], body: () => T): T | undefined {
  try {
    return body();
  } catch (error) {
    errors.push(error);
    return undefined;
  }
}

/** Throws what checks found, all bad arguments as one error, so that nobody mends them one by one; nothing for none. */
export function throwTogether(where: string, errors: readonly unknown[]): void {
  if (errors.length === 0) return;
  const other = errors.find((error) => !(error instanceof InvalidArgumentError));
  if (other !== undefined || errors.length === 1) throw other ?? errors[0];
  const problems = errors.map((error) => (error as Error).message.replace(/^\[[^\]]*\] expected /, ''));
  throw new InvalidArgumentError(`[${where}] expected ${problems.join('; and ')}`, { cause: errors });
}

function describe(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(value);
  if (Array.isArray(value)) return `[${value.map((item) => inArray(item)).join(', ')}]`;
  return inArray(value);
}

/** Asks nothing of objects from a file: these may hold anything, under names such as toString, too. */
function inArray(value: unknown): string {
  if (typeof value !== 'object' || value === null) return String(value);
  const name: unknown = value.constructor?.name;
  return typeof name === 'string' ? name : 'object';
}

/** Expects a finite integer within `[min, max]` and returns it. */
export function checkInteger(
  where: string,
  name: string,
  value: unknown,
  min: number,
  max = 2 ** 31 - 1,
): number {
  if (typeof value !== 'number' || !Number.isInteger(value) || value < min || value > max) {
    const upper = max === 2 ** 31 - 1 ? '' : ` and at most ${max}`;
    invalid(where, `${name} to be an integer of at least ${min}${upper}`, value);
  }
  return value;
}

/** Expects a finite number within `[min, max]` (both inclusive) and returns it. */
export function checkNumber(
  where: string,
  name: string,
  value: unknown,
  min = -Infinity,
  max = Infinity,
): number {
  if (typeof value !== 'number' || !Number.isFinite(value) || value < min || value > max) {
    const range =
      min === -Infinity && max === Infinity
        ? ''
        : max === Infinity
          ? ` of at least ${min}`
          : ` between ${min} and ${max}`;
    invalid(where, `${name} to be a finite number${range}`, value);
  }
  return value;
}

/** Expects true or false and returns it. */
export function checkBoolean(where: string, name: string, value: unknown): boolean {
  if (typeof value !== 'boolean') invalid(where, `${name} to be true or false`, value);
  return value;
}

/** Expects one of the listed strings and returns it; names the nearest one when it looks like a slip. */
export function checkChoice<T extends string>(
  where: string,
  name: string,
  value: unknown,
  choices: readonly T[],
): T {
  if (choices.includes(value as T)) return value as T;
  const near = typeof value === 'string' ? nearest(value, choices) : undefined;
  const hint = near === undefined ? '' : ` (did you mean ${near}?)`;
  throw new InvalidArgumentError(
    `[${where}] expected ${name} to be one of ${choices.join(', ')}, got ${describe(value)}${hint}`,
  );
}

/** The choice within edit distance 3 (and less than half the word) of `word`, if there is one. */
export function nearest(word: string, choices: readonly string[]): string | undefined {
  let best: string | undefined;
  let bestDistance = Math.min(4, Math.ceil(word.length / 2) + 1);
  for (const choice of choices) {
    const distance = editDistance(word.toLowerCase(), choice.toLowerCase());
    if (distance < bestDistance) {
      best = choice;
      bestDistance = distance;
    }
  }
  return best;
}

/** Optimal string alignment: insertions, deletions, substitutions, and neighbours that changed places. */
function editDistance(a: string, b: string): number {
  const rows = [Array.from({ length: b.length + 1 }, (_, j) => j)];
  for (let i = 1; i <= a.length; i++) {
    const above = rows[i - 1]!;
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1];
      let distance = Math.min(above[j - 1]! + (same ? 0 : 1), above[j]! + 1, row[j - 1]! + 1);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
        distance = Math.min(distance, rows[i - 2]![j - 2]! + 1);
      }
      row.push(distance);
    }
    rows.push(row);
  }
  return rows[a.length]![b.length]!;
}
