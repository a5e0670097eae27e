/** Algorithms by name or from a user's own file. */
import { stat } from 'node:fs/promises';
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { InvalidArgumentError, IsopolicyError, invalid, nearest } from '../errors.js';
import { type AlgorithmParameters, createAlgorithm } from './algorithms.js';
import type { Algorithm } from './batch.js';
import { type PresetName, presetNames } from './presets.js';
import { enableTypeScript, stripTypes } from './typescript.js';

const FILE = /\.(ts|mts|js|mjs)$/;

/** Whether an algorithm's spec is a file rather than a preset's name. */
export function isAlgorithmFile(spec: string): boolean {
  return FILE.test(spec);
}

/**
 * Checks the form of an algorithm's spec: a preset, or the path of a file, which is made absolute so that a run can be
 * resumed from any folder. Whether the file is there shows when it is loaded.
 *
 * @throws InvalidArgumentError naming the nearest preset
 */
export function resolveAlgorithmSpec(where: string, spec: unknown, name = 'algorithm'): string {
  if (typeof spec === 'string' && isAlgorithmFile(spec)) return resolve(spec);
  if (presetNames.includes(spec as PresetName)) return spec as string;
  const plain = presetNames.filter((name) => !name.includes(':'));
  const near = typeof spec === 'string' ? nearest(spec, presetNames) : undefined;
  throw new InvalidArgumentError(
    `[${where}] expected ${name} to be one of ${plain.join(', ')}, a preset of paper:, oat: or verl: (isopolicy ` +
      `algorithms lists them), or a file ending in .ts, .mts, .js or .mjs, got ${JSON.stringify(spec)}` +
      (near === undefined ? '' : ` (did you mean ${near}?)`),
  );
}

/**
 * The algorithm that a spec names. A file's default export is an {@link Algorithm}, or a function from the parameters
 * to one. TypeScript is stripped of its types, not checked; the file may import 'isopolicy'.
 *
 * @param parameters what was asked for; an export that takes no parameters refuses them
 * @param defaults parameters where none was asked for, such as the task's length norm
 * @throws InvalidArgumentError on an unknown name, a file that is missing or does not run, or an export of another shape
 */
export async function loadAlgorithm(
  spec: string,
  parameters: AlgorithmParameters = {},
  defaults: AlgorithmParameters = {},
): Promise<Algorithm> {
  const all = { ...defaults, ...parameters };
  if (!isAlgorithmFile(spec)) {
    return createAlgorithm(resolveAlgorithmSpec('algorithm', spec) as PresetName, all);
  }
  const path = resolve(spec);
  const isFile = await stat(path).then(
    (found) => found.isFile(),
    () => false,
  );
  if (!isFile) throw new InvalidArgumentError(`[algorithm] expected a file that can be read, got ${path}`);
  enableTypeScript();
  let module: { default?: unknown };
  try {
    module = await import(pathToFileURL(path).href);
  } catch (cause) {
    throw new InvalidArgumentError(
      `[algorithm] expected ${path} to run, got ${firstLine(locate(path, cause))}`,
      {
        cause,
      },
    );
  }
  const exported = module.default;
  if (exported === undefined) {
    throw new InvalidArgumentError(`[algorithm] expected ${path} to have a default export, got none`);
  }
  if (typeof exported === 'function') return checkAlgorithm(path, await callFactory(path, exported, all));
  const [name] = Object.keys(parameters);
  if (name !== undefined) {
    throw new InvalidArgumentError(
      `[algorithm] expected no parameters for ${path}, whose default export is no function of them, got ${name}`,
    );
  }
  return checkAlgorithm(path, exported);
}

/** What a default export that is a function makes of the parameters. */
async function callFactory(path: string, factory: unknown, parameters: object): Promise<unknown> {
  try {
    return await (factory as (parameters: object) => unknown)(parameters);
  } catch (cause) {
    // Such as composeAlgorithm's, which says what is wrong better.
    if (cause instanceof IsopolicyError) throw cause;
    throw new InvalidArgumentError(
      `[algorithm] expected the default export of ${path} to return an algorithm, got ${firstLine(cause)}`,
      { cause },
    );
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

/** Expects an object of the shape of an algorithm. */
function checkAlgorithm(path: string, value: unknown): Algorithm {
  const where = 'algorithm';
  if (typeof value !== 'object' || value === null) {
    invalid(where, `the default export of ${path} to be an algorithm, or a function that returns one`, value);
  }
  const found = value as Record<string, unknown>;
  for (const [name, type] of [
    ['name', 'string'],
    ['needsOldLogprobs', 'boolean'],
    ['advantages', 'function'],
    ['loss', 'function'],
  ] as const) {
    if (typeof found[name] !== type) invalid(where, `${name} of ${path} to be a ${type}`, found[name]);
  }
  if (found.prepare !== undefined && typeof found.prepare !== 'function') {
    invalid(where, `prepare of ${path} to be a function`, found.prepare);
  }
  return value as Algorithm;
}
