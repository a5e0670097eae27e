import { InternalError, invalid } from '../errors.js';
import { kindOf } from '../io/jsonFile.js';
import { detectFormat, type Format, type FormatName, formatNames, formatOf } from './formats/index.js';
import { DIAGNOSE, placeText } from './place.js';
import type { DumpRecord, Place } from './record.js';

/** The one format of all rows of a dump: the one that was named, or the one that its first row looks like. */
export class RowFormat {
  readonly #path: string;
  readonly #chosen: Format | undefined;
  #detected: { format: Format; place: Place } | undefined;

  /** @param path the dump's, for messages */
  constructor(path: string, chosen: FormatName | undefined) {
    this.#path = path;
    this.#chosen = chosen === undefined ? undefined : formatOf(chosen);
  }

  /** Known once a row has been seen. */
  get format(): Format {
    const format = this.#chosen ?? this.#detected?.format;
    if (format === undefined) throw new InternalError(`[${DIAGNOSE}] ${this.#path} has not been read`);
    return format;
  }

  /**
   * The responses of a row.
   *
   * @throws InvalidArgumentError naming file, line and what was found there
   */
  records(row: Readonly<Record<string, unknown>>, place: Place): DumpRecord[] {
    return (this.#chosen ?? this.#detect(row, place)).records(row, place);
  }

  /** Rows of two formats in one file are two dumps that somebody put together. */
  #detect(row: Readonly<Record<string, unknown>>, place: Place): Format {
    const format = detectFormat(row);
    const here = placeText(place);
    if (this.#detected === undefined) {
      if (format === undefined) {
        invalid(DIAGNOSE, `${here} to be in one of the formats ${formatNames.join(', ')}`, kindOf(row));
      }
      this.#detected = { format, place };
    }
    const first = this.#detected;
    if (format !== first.format) {
      invalid(
        DIAGNOSE,
        `${here} to be in the format ${first.format.name}, as ${placeText(first.place)} is`,
        format === undefined ? kindOf(row) : `the format ${format.name}`,
      );
    }
    return format;
  }
}
