import { InvalidArgumentError } from '../errors.js';
import type { Tensor } from './tensor.js';

/** The tensors made while it is open, disposed of when it closes, unless they were kept. */
class Scope {
  readonly #tensors = new Set<Tensor>();

  add(t: Tensor): void {
    this.#tensors.add(t);
  }

  remove(t: Tensor): boolean {
    return this.#tensors.delete(t);
  }

  close(): void {
    for (const t of this.#tensors) t.dispose();
    this.#tensors.clear();
  }
}

const scopes: Scope[] = [];

/** @internal */
export function currentScope(): Scope | undefined {
  return scopes.at(-1);
}

/** Takes a tensor out of the open scopes, so that it outlives them; its owner must dispose of it. */
export function keep<T extends Tensor>(t: T): T {
  for (const scope of scopes) {
    if (scope.remove(t)) {
      t.release();
      break;
    }
  }
  return t;
}

/**
 * Runs `body` and disposes of every tensor made in it, but for those it returns (in an array or an object too).
 * The body must be synchronous: work that awaits would let other code's tensors fall into this scope.
 */
export function tidy<R>(body: () => R): R {
  const scope = new Scope();
  scopes.push(scope);
  let result: R;
  try {
    result = body();
    if (result instanceof Promise)
      throw new InvalidArgumentError(
        '[tidy] expected a synchronous function, got one that returns a promise',
      );
  } catch (error) {
    scopes.splice(scopes.indexOf(scope), 1);
    scope.close();
    throw error;
  }
  scopes.splice(scopes.indexOf(scope), 1);
  const parent = currentScope();
  for (const t of tensorsIn(result)) {
    if (!scope.remove(t)) continue;
    if (parent) parent.add(t);
    else t.release();
  }
  scope.close();
  return result;
}

/** The tensors that a value holds: itself, or those one level down in an array, a map or a plain object. */
function* tensorsIn(value: unknown): Generator<Tensor> {
  if (value === null || typeof value !== 'object') return;
  if (isTensor(value)) yield value;
  else if (value instanceof Map || Array.isArray(value))
    for (const item of value.values()) yield* tensorsIn(item);
  else if (Object.getPrototypeOf(value) === Object.prototype) {
    for (const item of Object.values(value)) if (isTensor(item)) yield item;
  }
}

function isTensor(value: unknown): value is Tensor {
  return typeof value === 'object' && value !== null && 'handle' in value && 'release' in value;
}
