import type { Parameter } from '../../autograd/parameter.js';
import { type Routes, type RoutesShape, routesPerToken } from '../../models/routes.js';
import type { TokenSequence } from '../../models/sequences.js';
import type { Numerics } from '../../numerics.js';
import { CounterRandom } from '../../random.js';
import { engineNumerics } from '../../rl/engineChoices.js';
import { type Draw, sampleDraws } from '../../rl/environment.js';
import { RolloutEngine, type RolloutOptions } from '../../rollout/engine.js';
import type { Subject } from '../../sanity/subject.js';
import type { TrainingEngine } from '../../training/engine.js';
import { tokensOf } from './change.js';
import type { Dump, PlainRecord, PlainTop } from './fault.js';
import { type Logged, logDistributions, type Piece } from './logged.js';
import type { RunConfig } from './runConfig.js';

/** Masters of trainable parameters as they once were. */
export type Snapshot = ReadonlyMap<Parameter, Float32Array>;

/** A response and what the engine that sampled it says of it. */
export interface Response {
  readonly sequence: TokenSequence;
  readonly logged: Logged;
}

export interface Settings {
  /** Default 1. */
  readonly temperature?: number;
  /** Default 1. */
  readonly topP?: number;
}

/** Responses that an engine takes together, in turn: few, and many. */
const BATCH_SIZES = [8, 24];
const FAULT_STREAM = 0x6661756c;

/** Everything about a step that faults start from. */
export interface RunStepParts {
  readonly subject: Subject;
  readonly config: RunConfig;
  readonly step: number;
  /** Updates behind the weights. */
  readonly version: number;
  readonly draws: readonly Draw[];
  readonly training: TrainingEngine;
  readonly snapshots: ReadonlyMap<number, Snapshot>;
}

/** A step of a run without faults, with the model as it then is; good until the run goes on. */
export class RunStep {
  readonly subject: Subject;
  readonly config: RunConfig;
  readonly step: number;
  readonly version: number;
  readonly draws: readonly Draw[];
  /** [responses] which of them the rollout engine takes together, from 0. */
  readonly batches: readonly number[];
  readonly numerics: { readonly rollout: Numerics; readonly training: Numerics };
  readonly #training: TrainingEngine;
  readonly #snapshots: ReadonlyMap<number, Snapshot>;
  #responses: readonly Response[] = [];
  #rollout: readonly PlainRecord[] = [];
  #trained: readonly PlainRecord[] = [];

  private constructor(parts: RunStepParts) {
    this.subject = parts.subject;
    this.config = parts.config;
    this.step = parts.step;
    this.version = parts.version;
    this.draws = parts.draws;
    this.batches = batchesOf(parts.draws.length);
    this.numerics = engineNumerics(parts.config.numerics);
    this.#training = parts.training;
    this.#snapshots = parts.snapshots;
  }

  /** Samples the responses with the weights that the rollout engine has, and scores them with the training engine. */
  static async of(parts: RunStepParts, rollout: RolloutEngine): Promise<RunStep> {
    const step = new RunStep(parts);
    step.#responses = await step.sample(rollout);
    const { rollout: own, training: trained } = await step.dump(step.#responses);
    step.#rollout = own;
    step.#trained = trained;
    return step;
  }

  /** Of the run without a fault. */
  get responses(): readonly Response[] {
    return this.#responses;
  }

  get sequences(): readonly TokenSequence[] {
    return this.#responses.map(({ sequence }) => sequence);
  }

  /** The rollout engine's records without a fault. */
  get rollout(): readonly PlainRecord[] {
    return this.#rollout;
  }

  /** The training engine's records without a fault. */
  get training(): readonly PlainRecord[] {
    return this.#trained;
  }

  /** Random numbers of a fault: the same in all steps, unless the step is among `ids`. */
  random(...ids: readonly number[]): CounterRandom {
    return new CounterRandom(this.config.seed, FAULT_STREAM, ...ids);
  }

  /** Masters of a version that the fault asked for. */
  snapshot(version: number): Snapshot {
    return this.#snapshots.get(version)!;
  }

  /** Another rollout engine with the weights that the model has now, and options other than the run's. */
  rolloutEngine(options: Partial<RolloutOptions> = {}): RolloutEngine {
    return new RolloutEngine(this.subject.model, {
      precision: this.config.precision,
      numerics: this.numerics.rollout,
      ...options,
    });
  }

  /** Samples the step's responses, or those of some draws, from an engine with the weights that it has. */
  async sample(
    engine: RolloutEngine,
    { temperature = 1, topP = 1 }: Settings = {},
    draws: readonly Draw[] = this.draws,
  ): Promise<Response[]> {
    const { environment } = this.subject;
    const { seed, top: count } = this.config;
    const completions = await sampleDraws(engine, environment, draws, seed, { temperature, topP });
    const sequences = completions.map(({ tokens }, i) => ({
      prompt: environment.prompts[draws[i]!.prompt]!,
      response: tokens,
    }));
    const logged =
      count === 0
        ? null
        : await this.#log(sequences, (pieces) => engine.distributions(ofPieces(pieces), { temperature }));
    return completions.map(({ logprobs }, i) => {
      const own = Array.from(logprobs);
      const whole = logged?.[i];
      const top = whole?.top?.map((all, t) => keptOf(all, topP, own[t]! - whole.logprobs[t]!));
      return { sequence: sequences[i]!, logged: { logprobs: own, top } };
    });
  }

  /** What an engine like the rollout engine says of given responses. */
  async scoreBy(engine: RolloutEngine, sequences: readonly TokenSequence[]): Promise<Logged[]> {
    return this.#log(sequences, (pieces) => engine.distributions(ofPieces(pieces)));
  }

  /** What the training engine says of given responses, with routes in place of its own choice where these are given. */
  async score(sequences: readonly TokenSequence[], replay?: readonly Routes[]): Promise<Logged[]> {
    const { routesShape } = this.#training;
    const perToken = routesShape ? routesPerToken(routesShape) : 0;
    return this.#log(sequences, (pieces) =>
      this.#training.distributions(ofPieces(pieces), {
        ...(replay && {
          replay: pieces.map(({ index, tokens }) => replay[index]!.slice(0, tokens * perToken)),
        }),
      }),
    );
  }

  /**
   * The experts that the training engine's routers choose for the step's responses.
   *
   * @throws InvalidArgumentError for a dense model
   */
  async ownRoutes(): Promise<{ readonly shape: RoutesShape; readonly routes: readonly Routes[] }> {
    const { routing } = await this.#training.score(this.sequences, { recordRoutes: true });
    return { shape: this.#training.routesShape!, routes: routing!.routes };
  }

  #log(
    sequences: readonly TokenSequence[],
    distributions: (pieces: readonly Piece[]) => Promise<readonly Float32Array[]>,
  ): Promise<Logged[]> {
    const { vocabSize } = this.subject.model.config;
    return logDistributions(sequences, { vocabSize, top: this.config.top }, distributions);
  }

  /**
   * Dumps of responses that a faulty engine sampled, which the training engine scores as it should: all of their tokens are
   * touched.
   *
   * @param settings as both dumps claim them
   */
  async dump(responses: readonly Response[], settings: Settings = {}): Promise<Dump> {
    const sequences = responses.map(({ sequence }) => sequence);
    const logged = responses.map((response) => response.logged);
    const rollout = this.records(sequences, logged, settings);
    const training = this.records(sequences, await this.score(sequences), settings);
    return { rollout, training, touched: tokensOf(rollout) };
  }

  /** What one engine says of the step's responses as a dump has it, in the order of their draws. */
  records(
    sequences: readonly TokenSequence[],
    logged: readonly Logged[],
    { temperature = 1, topP = 1 }: Settings = {},
  ): PlainRecord[] {
    const { step, version, subject } = this;
    return sequences.map(({ prompt, response }, i) => {
      const { logprobs, top } = logged[i]!;
      const tokens = Array.from(response);
      return {
        id: `${step}-${i}`,
        step,
        batch: `${step}-${this.batches[i]}`,
        weightsVersion: String(version),
        temperature,
        topP,
        promptTokens: Array.from(prompt),
        tokens,
        text: tokens.map((token) => subject.format([token])),
        mask: tokens.map(() => 1),
        logprobs,
        ...(top && { topLogprobs: top }),
      };
    });
  }
}

function ofPieces(pieces: readonly Piece[]): TokenSequence[] {
  return pieces.map(({ sequence }) => sequence);
}

/** [responses] the batch of each: few and many in turn. */
function batchesOf(count: number): number[] {
  const batches: number[] = [];
  for (let batch = 0; batches.length < count; batch++) {
    const size = Math.min(BATCH_SIZES[batch % BATCH_SIZES.length]!, count - batches.length);
    batches.push(...Array<number>(size).fill(batch));
  }
  return batches;
}

/**
 * Of the most likely tokens those that top-p sampling keeps, renormalised: `gain` is what the log-prob of the token that
 * was drawn has gained by that.
 */
function keptOf(all: PlainTop, topP: number, gain: number): PlainTop {
  if (topP === 1) return all;
  const kept: (readonly [number, number])[] = [];
  let mass = 0;
  for (const [token, logprob] of all) {
    if (kept.length > 0 && mass >= topP) break;
    kept.push([token, logprob + gain]);
    mass += Math.exp(logprob);
  }
  return kept;
}
