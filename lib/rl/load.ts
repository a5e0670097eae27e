/** Algorithms by name or from a user's own file. */
import { resolve } from 'node:path';
import { InvalidArgumentError, invalid, nearest } from '../errors.js';
import { type AlgorithmParameters, createAlgorithm } from './algorithms.js';
import type { Algorithm } from './batch.js';
import { type PresetName, presetNames } from './presets.js';
import { callUser, importDefault, isUserModule } from './userModule.js';

/**
 * Checks the form of an algorithm's spec: a preset, or the path of a file, which is made absolute so that a run can be
 * resumed from any folder. Whether the file is there shows when it is loaded.
 *
 * @throws InvalidArgumentError naming the nearest preset
 */
export function resolveAlgorithmSpec(where: string, spec: unknown, name = 'algorithm'): string {
  if (typeof spec === 'string' && isUserModule(spec)) return resolve(spec);
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
  if (!isUserModule(spec)) {
    return createAlgorithm(resolveAlgorithmSpec('algorithm', spec) as PresetName, all);
  }
  const path = resolve(spec);
  const exported = await importDefault('algorithm', path);
  if (typeof exported === 'function') {
    const made = `the default export of ${path} to return an algorithm`;
    return checkAlgorithm(path, await callUser('algorithm', made, () => exported(all)));
  }
  const [name] = Object.keys(parameters);
  if (name !== undefined) {
    throw new InvalidArgumentError(
      `[algorithm] expected no parameters for ${path}, whose default export is no function of them, got ${name}`,
    );
  }
  return checkAlgorithm(path, exported);
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
