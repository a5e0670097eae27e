import { appendFile, open, readFile } from 'node:fs/promises';
import { InvalidArgumentError } from '../errors.js';

/**
 * Results of an experiment in one file, a line of JSON each, by key: what is there need not be measured again when the
 * experiment is resumed. A last line that a kill tore is cut off.
 */
export class PointLog<T> {
  readonly path: string;
  readonly #points: Map<string, T>;
  #last: Promise<void> = Promise.resolve();

  private constructor(path: string, points: Map<string, T>) {
    this.path = path;
    this.#points = points;
  }

  /** @throws InvalidArgumentError on a line other than the last that is damaged */
  static async open<T>(path: string): Promise<PointLog<T>> {
    let text = '';
    try {
      text = await readFile(path, 'utf8');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
    const whole = text.slice(0, text.lastIndexOf('\n') + 1);
    if (whole.length < text.length) {
      const file = await open(path, 'r+');
      await file.truncate(Buffer.byteLength(whole));
      await file.close();
    }
    return new PointLog(path, pointsOf<T>(whole, path));
  }

  /** All values of a log that is left as it is; none of a file that is missing. A torn last line is passed over. */
  static async read<T>(path: string): Promise<T[]> {
    const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOENT') throw error;
      return '';
    });
    return [...pointsOf<T>(text.slice(0, text.lastIndexOf('\n') + 1), path).values()];
  }

  get(key: string): T | undefined {
    return this.#points.get(key);
  }

  /** All values, in the order in which they were measured. */
  values(): T[] {
    return [...this.#points.values()];
  }

  get size(): number {
    return this.#points.size;
  }

  /** The value of a key: what the file has, or what `measure` gives, which is then written. */
  async measured(key: string, measure: () => Promise<T>): Promise<T> {
    const present = this.#points.get(key);
    if (present !== undefined) return present;
    const value = await measure();
    this.#points.set(key, value);
    const line = `${JSON.stringify({ key, value }, nonFiniteAsText)}\n`;
    this.#last = this.#last.then(() => appendFile(this.path, line));
    await this.#last;
    return value;
  }
}

/** Points by key, later ones in place of earlier ones. */
function pointsOf<T>(whole: string, path: string): Map<string, T> {
  const points = new Map<string, T>();
  whole.split('\n').forEach((line, i) => {
    if (line === '') return;
    try {
      const { key, value } = JSON.parse(line, restoreNonFinite);
      points.set(key, value);
    } catch (cause) {
      throw new InvalidArgumentError(`[experiment] expected line ${i + 1} of ${path} to be JSON`, {
        cause,
      });
    }
  });
  return points;
}

function nonFiniteAsText(_key: string, value: unknown): unknown {
  return typeof value === 'number' && !Number.isFinite(value) ? String(value) : value;
}

function restoreNonFinite(_key: string, value: unknown): unknown {
  return value === 'NaN' || value === 'Infinity' || value === '-Infinity' ? Number(value) : value;
}
