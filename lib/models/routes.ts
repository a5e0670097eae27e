import { invalid } from '../errors.js';
import type { Routing } from '../nn/forward.js';
import { copy, empty, type Tensor, tensor, view } from '../tensor/tensor.js';
import { isMixtureLayer, type ResolvedDecoderConfig } from './config.js';
import { packedTokens, passTokens, type TokenSequence } from './sequences.js';

/**
 * The experts that a sequence's tokens went to, [tokens, mixtures, expertsPerToken]: of every token but the last, which
 * nothing is predicted from, and of every layer that is a mixture, in the order in which the router prefers them.
 */
export type Routes = Uint16Array;

/** What a model's {@link Routes} are made of. */
export interface RoutesShape {
  /** The layers that are mixtures, from 0. */
  readonly layers: readonly number[];
  readonly experts: number;
  readonly expertsPerToken: number;
}

/** Null for a dense model, which routes nothing. */
export function routesShape(config: ResolvedDecoderConfig): RoutesShape | null {
  if (config.numExperts === 0) return null;
  const all = Array.from({ length: config.numLayers }, (_, layer) => layer);
  return {
    layers: all.filter((layer) => isMixtureLayer(config, layer)),
    experts: config.numExperts,
    expertsPerToken: config.numExpertsPerToken,
  };
}

/** Numbers that {@link Routes} have for a token. */
export function routesPerToken({ layers, expertsPerToken }: RoutesShape): number {
  return layers.length * expertsPerToken;
}

/** The shape that a model's routes have. @throws InvalidArgumentError, naming what asks for them, for a dense model */
export function expectMixture(where: string, name: string, shape: RoutesShape | null): RoutesShape {
  if (shape === null) invalid(where, `${name} for a mixture of experts alone`, 'a dense model');
  return shape;
}

/**
 * Checks that there are routes for each sequence, of its own length and of this model's mixtures.
 *
 * @throws InvalidArgumentError naming the sequence at fault
 */
export function checkRoutes(
  where: string,
  name: string,
  routes: readonly Routes[],
  sequences: readonly TokenSequence[],
  shape: RoutesShape,
): void {
  if (!Array.isArray(routes) || routes.length !== sequences.length) {
    const found = Array.isArray(routes) ? routes.length : routes;
    invalid(where, `${name} of ${sequences.length} sequences`, found);
  }
  const { layers, experts, expertsPerToken } = shape;
  sequences.forEach((sequence, s) => {
    const own = routes[s]!;
    if (!(own instanceof Uint16Array)) invalid(where, `${name}[${s}] to be a Uint16Array`, own);
    const tokens = passTokens(sequence);
    if (own.length !== tokens * routesPerToken(shape)) {
      const wanted = `${tokens} tokens, ${layers.length} mixtures and ${expertsPerToken} experts a token`;
      const length = tokens * routesPerToken(shape);
      invalid(where, `${name}[${s}] of length ${length} (${wanted})`, own.length);
    }
    for (let i = 0; i < own.length; i++) {
      if (own[i]! >= experts) invalid(where, `${name}[${s}][${i}] below numExperts = ${experts}`, own[i]);
    }
  });
}

/** Calls `visit` with where each token's experts in each mixture begin, in routes and in [mixtures, tokens, k]. */
function eachChoice(
  { layers, expertsPerToken: k }: RoutesShape,
  first: number,
  count: number,
  tokens: number,
  visit: (inRoutes: number, inPass: number) => void,
): void {
  for (let t = 0, at = 0; t < count; t++) {
    for (let l = 0; l < layers.length; l++, at += k) visit(at, (l * tokens + first + t) * k);
  }
}

/** Routes that are collected token by token from passes. */
export class RoutesLog {
  readonly #shape: RoutesShape;
  #values: Uint16Array;
  #length = 0;

  /** @param tokens that there is room for; more come in as they may */
  constructor(shape: RoutesShape, tokens: number) {
    this.#shape = shape;
    this.#values = new Uint16Array(tokens * routesPerToken(shape));
  }

  /** Appends `count` tokens of a pass, from `first` on, whose ids are [mixtures, tokens, k]. */
  append(ids: ArrayLike<number>, tokens: number, first: number, count: number): void {
    const begin = this.#length;
    this.#length += count * routesPerToken(this.#shape);
    if (this.#length > this.#values.length) {
      const larger = new Uint16Array(Math.max(this.#length, 2 * this.#values.length));
      larger.set(this.#values);
      this.#values = larger;
    }
    const { expertsPerToken: k } = this.#shape;
    eachChoice(this.#shape, first, count, tokens, (to, from) => {
      for (let i = 0; i < k; i++) this.#values[begin + to + i] = ids[from + i]!;
    });
  }

  /** All of them. */
  routes(): Routes {
    return this.#values.slice(0, this.#length);
  }
}

/** The routes of a pass of packed sequences from its ids, [mixtures, tokens, k]. */
export function splitRoutes(
  sequences: readonly TokenSequence[],
  ids: ArrayLike<number>,
  shape: RoutesShape,
): Routes[] {
  const tokens = ids.length / routesPerToken(shape);
  let first = 0;
  return sequences.map((sequence) => {
    const count = passTokens(sequence);
    const log = new RoutesLog(shape, count);
    log.append(ids, tokens, first, count);
    first += count;
    return log.routes();
  });
}

/** Notes the experts that a pass uses, on the device. It can itself be recorded and replayed. */
export class RoutesRecorder implements Disposable {
  /** int32 [mixtures, tokens, k]. */
  readonly ids: Tensor;
  readonly #shape: RoutesShape;

  constructor(shape: RoutesShape, tokens: number) {
    this.#shape = shape;
    this.ids = empty([shape.layers.length, tokens, shape.expertsPerToken], 'int32');
  }

  readonly seen: NonNullable<Routing['seen']> = (layer, _logits, ids) => {
    using own = view(this.ids, this.#shape.layers.indexOf(layer) * ids.size, ids.shape);
    copy(ids, own);
  };

  [Symbol.dispose](): void {
    this.ids.dispose();
  }
}

/** Gives the tokens of a pass of packed sequences the experts that their routes name. */
export class RoutesReplay implements Disposable {
  readonly #layers: ReadonlyMap<number, Tensor>;

  constructor(sequences: readonly TokenSequence[], routes: readonly Routes[], shape: RoutesShape) {
    const { layers, expertsPerToken: k } = shape;
    const tokens = packedTokens(sequences);
    const ids = new Int32Array(tokens * routesPerToken(shape));
    let first = 0;
    sequences.forEach((sequence, s) => {
      const count = passTokens(sequence);
      const own = routes[s]!;
      eachChoice(shape, first, count, tokens, (from, to) => {
        for (let i = 0; i < k; i++) ids[to + i] = own[from + i]!;
      });
      first += count;
    });
    const size = tokens * k;
    this.#layers = new Map(
      layers.map((layer, l) => [layer, tensor(ids.subarray(l * size, (l + 1) * size), [tokens, k], 'int32')]),
    );
  }

  readonly given: NonNullable<Routing['given']> = (layer) => this.#layers.get(layer);

  [Symbol.dispose](): void {
    for (const t of this.#layers.values()) t.dispose();
  }
}
