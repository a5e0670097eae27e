/** A user's own algorithm or verifier: the default export of a TypeScript or JavaScript file. */
import { stat } from 'node:fs/promises';
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { InvalidArgumentError, IsopolicyError } from '../errors.js';
import { enableTypeScript, stripTypes } from './typescript.js';

const FILE = /\.(ts|mts|js|mjs)$/;

/** Whether a spec is a file rather than a name. */
export function isUserModule(spec: string): boolean {
  return FILE.test(spec);
}

/**
 * The default export of a file. TypeScript is stripped of its types, not checked; the file may import 'isopolicy'.
 *
 * @throws InvalidArgumentError where the file is missing, does not run or exports nothing by default
 */
export async function importDefault(where: string, file: string): Promise<unknown> {
  const path = resolve(file);
  const isFile = await stat(path).then(
    (found) => found.isFile(),
    () => false,
  );
  if (!isFile) throw new InvalidArgumentError(`[${where}] expected a file that can be read, got ${path}`);
  enableTypeScript();
  let module: { default?: unknown };
  try {
    module = await import(pathToFileURL(path).href);
  } catch (cause) {
    throw new InvalidArgumentError(
      `[${where}] expected ${path} to run, got ${firstLine(locate(path, cause))}`,
      { cause },
    );
  }
  if (module.default === undefined) {
    throw new InvalidArgumentError(`[${where}] expected ${path} to have a default export, got none`);
  }
  return module.default;
}

/**
 * What a user's function returns. Its errors become ours, but for those of this package, such as composeAlgorithm's,
 * which say what is wrong better.
 *
 * @param what the function is asked for, as an error says it
 */
export async function callUser<T>(where: string, what: string, call: () => T | Promise<T>): Promise<T> {
  try {
    return await call();
  } catch (cause) {
    if (cause instanceof IsopolicyError) throw cause;
    throw new InvalidArgumentError(`[${where}] expected ${what}, got ${firstLine(cause)}`, { cause });
  }
}

/** Node does not say in which line of a module a syntax error is; the transformer does. */
function locate(path: string, error: unknown): unknown {
  if (!(error instanceof SyntaxError) || /\.m?ts$/.test(path)) return error;
  try {
    stripTypes(path);
  } catch (located) {
    return located;
  }
  return error;
}

function firstLine(error: unknown): string {
  return String(error instanceof Error ? error.message : error).split('\n')[0]!;
}
