/** Configurations over one another: what a file, a flag or --set says stands in place of what a preset has. */
import { invalid } from '../errors.js';
import { isObject } from '../io/jsonFile.js';
import { WHERE } from './section.js';

type Options = Readonly<Record<string, unknown>>;

/** What an option of its own is about: with another value it says nothing any more. */
const DEPENDENT = [
  ['algorithm', 'algorithmParameters'],
  ['trainingPrecision', 'lossScaler'],
] as const;

/**
 * The options of `above` over those of `below`, section by section; other values, lists and null too, stand in place of what
 * was there. Another algorithm does not take over the parameters, nor another precision the loss scaler.
 */
export function overlay(below: Options, above: Options): Options {
  const stale = DEPENDENT.filter(([of]) => above[of] !== undefined && above[of] !== below[of]);
  const base = Object.entries(below).filter(([name]) => !stale.some(([, dependent]) => dependent === name));
  return merge(Object.fromEntries(base), above);
}

function merge(below: Options, above: Options): Options {
  // Entries: a name such as __proto__ stays a name, to be refused like any other.
  const merged = Object.entries(above).map(([name, value]) => {
    const before = Object.hasOwn(below, name) ? below[name] : undefined;
    return [name, isObject(before) && isObject(value) ? merge(before, value) : value];
  });
  return Object.fromEntries([...Object.entries(below), ...merged]);
}

/** The options that `a.b=value` sets; `parse` reads the value. */
export function assignment(text: string, parse: (value: string) => unknown): Options {
  const { path, value } = splitAssignment(text);
  return path.reduceRight<unknown>((inner, name) => ({ [name]: inner }), parse(value)) as Options;
}

/** @throws InvalidArgumentError where the text is no assignment */
export function splitAssignment(text: string): { readonly path: string[]; readonly value: string } {
  const match = /^([A-Za-z]\w*(?:\.[A-Za-z]\w*)*)=(.*)$/s.exec(text);
  if (match === null) invalid(WHERE, '--set to be name=value or section.name=value', text);
  // A shell variable that is not set, most likely.
  if (match[2]!.trim() === '') invalid(WHERE, `--set ${match[1]}= to have a value (null for none)`, match[2]);
  return { path: match[1]!.split('.'), value: match[2]! };
}
