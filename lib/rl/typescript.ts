/**
 * Lets this process import TypeScript, and 'isopolicy' from files that have no copy of it nearby: hooks for Node's
 * module loader, which strip types with the transformer that newer versions of Node have built in.
 */
import { readFileSync } from 'node:fs';
import module from 'node:module';
import { basename } from 'node:path';
import { fileURLToPath } from 'node:url';

interface Hooks {
  resolve(specifier: string, context: object, next: (specifier: string, context: object) => unknown): unknown;
  load(url: string, context: object, next: (url: string, context: object) => unknown): unknown;
}

let enabled = false;

/** Installs the hooks, once. */
export function enableTypeScript(): void {
  if (enabled) return;
  enabled = true;
  const { registerHooks } = module as unknown as { registerHooks?: (hooks: Hooks) => void };
  if (registerHooks) registerHooks({ resolve, load });
  // Node 20 runs hooks on a thread of their own: this file is loaded there again.
  else module.register(import.meta.url);
}

const own = new URL('../index.js', import.meta.url).href;

/** 'isopolicy' is this package, whatever folder the importing file is in. */
export function resolve(
  specifier: string,
  context: object,
  next: (specifier: string, context: object) => unknown,
): unknown {
  if (specifier === 'isopolicy') return { url: own, format: 'module', shortCircuit: true };
  return next(specifier, context);
}

/** The source of a TypeScript file without its types. */
export function load(url: string, context: object, next: (url: string, context: object) => unknown): unknown {
  if (!/\.m?ts$/.test(url)) return next(url, context);
  return { format: 'module', source: stripTypes(fileURLToPath(url)), shortCircuit: true };
}

/**
 * The source of a TypeScript or JavaScript file without types.
 *
 * @throws SyntaxError with the file's name and the line, which Node's own lacks for modules
 */
export function stripTypes(path: string): string {
  const { transformSync } = module.createRequire(import.meta.url)('@swc/wasm-typescript');
  try {
    return transformSync(readFileSync(path, 'utf8'), { mode: 'strip-only', module: true, filename: path })
      .code;
  } catch (error) {
    const { message, startLine } = error as { message: string; startLine?: number };
    throw new SyntaxError(`${basename(path)}:${startLine}: ${message}`, { cause: error });
  }
}
