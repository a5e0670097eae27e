import { checkBoolean } from '../errors.js';
import {
  checkRoutes,
  expectMixture,
  type Routes,
  RoutesRecorder,
  RoutesReplay,
  type RoutesShape,
  splitRoutes,
} from '../models/routes.js';
import { packedTokens, type TokenSequence } from '../models/sequences.js';
import type { Routing } from '../nn/forward.js';
import { type LoadBalance, loadBalance } from '../ops/loadBalance.js';
import { routerLoad } from '../ops/route.js';
import { tidy } from '../tensor/scope.js';
import { copy, empty, type Tensor } from '../tensor/tensor.js';

/** What a call may ask of the routers of a mixture of experts. */
export interface RoutingOptions {
  /**
   * For each sequence the experts that its tokens go to, in place of the routers' choice: those that the rollout engine
   * recorded ("R3", arXiv 2510.11370) or an earlier pass of the training engine. Gradients still reach the routers, through
   * the weights of these experts.
   */
  readonly replay?: readonly Routes[];
  /** Whether the result tells which experts were used; default false. */
  readonly recordRoutes?: boolean;
}

/** Which experts were used, and how evenly. */
export interface RoutingRecord {
  /** Of each sequence. */
  readonly routes: readonly Routes[];
  /** Of each layer that is a mixture, over all tokens of all sequences. */
  readonly load: readonly LoadBalance[];
}

/** The routing of one call's passes: what they replay, and what is noted of them. */
export class CallRouting {
  readonly #sequences: readonly TokenSequence[];
  readonly #options: RoutingOptions;
  /** Null where nothing is asked for. */
  readonly #shape: RoutesShape | null;
  readonly #routes: Routes[] = [];
  /** By mixture and expert. */
  readonly #counts: Float64Array;
  readonly #probabilities: Float64Array;
  #tokens = 0;

  /** @throws InvalidArgumentError for a dense model, or routes that are not those of the sequences */
  constructor(
    where: string,
    shape: RoutesShape | null,
    sequences: readonly TokenSequence[],
    options: RoutingOptions,
  ) {
    const { replay } = options;
    const recordRoutes = checkBoolean(where, 'recordRoutes', options.recordRoutes ?? false);
    this.#sequences = sequences;
    this.#options = options;
    if (replay) checkRoutes(where, 'replay', replay, sequences, expectMixture(where, 'replay', shape));
    if (recordRoutes) expectMixture(where, 'recordRoutes', shape);
    this.#shape = replay || recordRoutes ? shape : null;
    const size = this.#shape && recordRoutes ? this.#shape.layers.length * this.#shape.experts : 0;
    this.#counts = new Float64Array(size);
    this.#probabilities = new Float64Array(size);
  }

  /** Of the pass of the sequences `begin` to `end`, before it is queued. */
  pass(begin: number, end: number): PassRouting | undefined {
    if (!this.#shape) return undefined;
    const { replay, recordRoutes } = this.#options;
    const part = this.#sequences.slice(begin, end);
    return new PassRouting(this.#shape, part, replay?.slice(begin, end), recordRoutes ?? false, (values) => {
      const [ids, counts, probabilities] = values;
      this.#routes.push(...splitRoutes(part, ids!, this.#shape!));
      for (let i = 0; i < this.#counts.length; i++) {
        this.#counts[i]! += counts![i]!;
        this.#probabilities[i]! += probabilities![i]!;
      }
      this.#tokens += packedTokens(part);
    });
  }

  /** Forgets what passes noted, for passes of the same sequences that follow. */
  reset(): void {
    this.#routes.length = 0;
    this.#counts.fill(0);
    this.#probabilities.fill(0);
    this.#tokens = 0;
  }

  /** What the passes noted, where that was asked for. */
  record(): { routing?: RoutingRecord } {
    if (!this.#shape || !this.#options.recordRoutes) return {};
    const { layers, experts } = this.#shape;
    const load = layers.map((_, l) => {
      const own = (values: Float64Array) => values.subarray(l * experts, (l + 1) * experts);
      return loadBalance(own(this.#counts), own(this.#probabilities), this.#tokens);
    });
    return { routing: { routes: this.#routes, load } };
  }
}

/** The routing of one pass. */
export class PassRouting implements Routing, Disposable {
  readonly given: NonNullable<Routing['given']> | undefined;
  readonly seen: NonNullable<Routing['seen']> | undefined;
  /** What {@link accept} wants the values of, once the pass is queued. */
  readonly noted: readonly Tensor[];
  readonly accept: (values: readonly ArrayLike<number>[]) => void;
  readonly #owned: Disposable[] = [];

  constructor(
    shape: RoutesShape,
    sequences: readonly TokenSequence[],
    replay: readonly Routes[] | undefined,
    record: boolean,
    accept: (values: readonly ArrayLike<number>[]) => void,
  ) {
    if (replay) {
      const replayed = new RoutesReplay(sequences, replay, shape);
      this.#owned.push(replayed);
      this.given = replayed.given;
    }
    this.accept = record ? accept : () => undefined;
    if (!record) {
      this.noted = [];
      return;
    }
    const { layers, experts } = shape;
    const routes = new RoutesRecorder(shape, packedTokens(sequences));
    const counts = empty([layers.length, experts], 'int32');
    const probabilities = empty([layers.length, experts]);
    this.#owned.push(routes, counts, probabilities);
    this.noted = [routes.ids, counts, probabilities];
    this.seen = (layer, logits, ids) => {
      routes.seen(layer, logits, ids);
      const l = layers.indexOf(layer);
      tidy(() => {
        const load = routerLoad(logits, ids);
        copy(load.counts.reshape(1, experts), counts.rows(l, l + 1));
        copy(load.probabilities.reshape(1, experts), probabilities.rows(l, l + 1));
      });
    };
  }

  [Symbol.dispose](): void {
    for (const owned of this.#owned) owned[Symbol.dispose]();
  }
}
