/** Configurations as YAML 1.2, of which JSON is a part. */
import { parseDocument, stringify } from 'yaml';
import { InvalidArgumentError, invalid } from '../errors.js';
import { isObject } from '../io/jsonFile.js';
import { WHERE } from './section.js';

/**
 * The section that a file holds.
 *
 * @param where names the text in errors
 * @throws InvalidArgumentError with line and column of what is no YAML, or where it holds anything else than a section
 */
export function parseYaml(text: string, where: string): Record<string, unknown> {
  const value = parseValue(text, where);
  if (value === null || value === undefined) return {};
  if (!isObject(value)) invalid(WHERE, `${where} to hold options by name`, value);
  return value;
}

/**
 * Any value: `1e-6`, `[0.9, 0.95]`, `text`.
 *
 * @throws InvalidArgumentError as {@link parseYaml} does
 */
export function parseValue(text: string, where: string): unknown {
  const document = parseDocument(text, { prettyErrors: true, version: '1.2' });
  const [error] = [...document.errors, ...document.warnings];
  if (error !== undefined) {
    const { line, col } = error.linePos?.[0] ?? { line: 1, col: 1 };
    const [message] = error.message.replace(/ at line \d+, column \d+:?/, '').split('\n');
    const reason = error.code === 'MULTIPLE_DOCS' ? 'a second document' : message;
    throw new InvalidArgumentError(
      `[${WHERE}] expected ${where} to be YAML, got at line ${line}, column ${col}: ${reason}`,
      { cause: error },
    );
  }
  try {
    return document.toJS({ maxAliasCount: 100 });
  } catch (cause) {
    // Aliases of what is not there, or far too many.
    invalid(WHERE, `${where} to be YAML`, (cause as Error).message);
  }
}

/** A configuration as text that {@link parseYaml} reads. */
export function formatYaml(options: object): string {
  return stringify(options, { version: '1.2', lineWidth: 0 });
}
