import { type Routes, RoutesLog, type RoutesShape } from '../models/routes.js';
import { tidy } from '../tensor/scope.js';
import { readTensors, type Tensor, tensor } from '../tensor/tensor.js';
import { type DecodeRow, DecodeStep } from './decodeStep.js';
import { type Draws, drawnTensors, type RolloutRows } from './draws.js';
import type { KvCache } from './kvCache.js';
import type { ResolvedSampling } from './sampling.js';

export interface GenerationRequest {
  readonly prompt: ArrayLike<number>;
  /** Names the draw, with the sample and the position; uint31. */
  readonly promptId: number;
  readonly sampleId: number;
}

export interface Completion {
  /** The response, its stop token included. */
  readonly tokens: Int32Array;
  /** log mu of each token under the distribution it was sampled from, in nats. */
  readonly logprobs: Float64Array;
  /** `length`: cut off at maxNewTokens. */
  readonly finishReason: 'stop' | 'length';
  /** Where `recordRoutes` asked for it: the experts that the tokens of prompt and response went to. */
  readonly routes?: Routes;
}

/** What a generation takes from its engine. */
export interface GenerationParts {
  readonly cache: KvCache;
  readonly decodeStep: DecodeStep;
  readonly maxPrefillTokens: number;
  /** What the routes that are to be recorded are made of. */
  readonly routes: RoutesShape | null;
  /** Runs whole prompts and draws a token for each of `lastRows`. */
  readonly prefill: (rows: RolloutRows, lastRows: Tensor, keys: Tensor) => Draws;
}

interface Running extends DecodeRow {
  readonly request: number;
  readonly tokens: number[];
  readonly logprobs: number[];
  /** Of the tokens that went in, where they are recorded. */
  readonly routes: RoutesLog | undefined;
  /** Tokens drawn or about to be drawn by a pass that is queued. */
  queued: number;
  ended: boolean;
}

/** Steps that are queued and read together; `sequences` are the rows of each, some of them unused. */
interface Pass {
  readonly sequences: readonly (Running | undefined)[];
  readonly steps: number;
  /** Tokens that went in for each of `sequences`, in their order: 1, or its prompt. */
  readonly lengths: readonly number[] | 1;
  /** Ids and log-probs, [steps, rows]; routes, [steps, mixtures, tokens, k]. */
  readonly draws: Promise<(Float32Array | Int32Array)[]>;
}

/**
 * Continuous batching: admits requests as slots and pages come free, and draws one token a pass for all that run.
 *
 * The next pass is queued before the draws of the last one are read, since its ids stay on the device: the native
 * threads never wait for JavaScript. So a sequence that meets a stop token has a row in one more pass, which writes
 * within the pages reserved for it and whose draw is dropped. No other row is touched by that. Where nothing can end
 * a sequence early, several steps are one pass.
 */
export class Generation {
  readonly #requests: readonly GenerationRequest[];
  readonly #sampling: ResolvedSampling;
  readonly #parts: GenerationParts;
  readonly #completions: Completion[];
  #running: Running[] = [];
  #next = 0;

  constructor(requests: readonly GenerationRequest[], sampling: ResolvedSampling, parts: GenerationParts) {
    this.#requests = requests;
    this.#sampling = sampling;
    this.#parts = parts;
    this.#completions = new Array(requests.length);
  }

  async run(): Promise<Completion[]> {
    const passes: Pass[] = [];
    const queue = (pass: Pass) => {
      pass.draws.catch(() => undefined); // the pass before reports the failure, if it failed, too
      passes.push(pass);
    };
    try {
      for (;;) {
        const admitted = this.#admit();
        if (admitted.length > 0) queue(this.#prefill(admitted));
        const unfinished = this.#running.filter(({ queued }) => queued < this.#sampling.maxNewTokens);
        if (unfinished.length > 0) queue(this.#decode(unfinished));
        if (passes.length === 0) return this.#completions;
        const ahead = unfinished.length > 0 ? 1 : 0;
        while (passes.length > ahead) {
          await this.#read(passes.shift()!);
          this.#running = this.#running.filter(({ ended }) => !ended);
        }
      }
    } catch (error) {
      await Promise.allSettled(passes.map(({ draws }) => draws));
      for (const { ended, slot } of this.#running) if (!ended) this.#parts.cache.release(slot);
      throw error;
    }
  }

  /** Takes on the next requests, as many as there is room for. */
  #admit(): Running[] {
    const { cache, maxPrefillTokens } = this.#parts;
    const admitted: Running[] = [];
    let promptTokens = 0;
    for (; this.#next < this.#requests.length; this.#next++) {
      const { prompt, promptId, sampleId } = this.#requests[this.#next]!;
      if (admitted.length > 0 && promptTokens + prompt.length > maxPrefillTokens) break;
      const slot = cache.reserve(prompt.length + this.#sampling.maxNewTokens);
      if (slot === undefined) break;
      promptTokens += prompt.length;
      const sequence: Running = {
        request: this.#next,
        slot,
        promptId,
        sampleId,
        position: prompt.length - 1,
        last: undefined,
        tokens: [],
        logprobs: [],
        routes: this.#parts.routes ? new RoutesLog(this.#parts.routes, prompt.length) : undefined,
        queued: 0,
        ended: false,
      };
      admitted.push(sequence);
      this.#running.push(sequence);
    }
    cache.uploadTable();
    return admitted;
  }

  /** Queues the prompts of `admitted` and the draw of each one's first token. */
  #prefill(admitted: readonly Running[]): Pass {
    const ids: number[] = [];
    const positions: number[] = [];
    const slots: number[] = [];
    const lastRows: number[] = [];
    const keys: number[] = [];
    for (const { request, slot } of admitted) {
      const { prompt, promptId, sampleId } = this.#requests[request]!;
      for (let i = 0; i < prompt.length; i++) {
        ids.push(prompt[i]!);
        positions.push(i);
        slots.push(slot);
      }
      lastRows.push(ids.length - 1);
      keys.push(promptId, sampleId, prompt.length, slot);
    }
    const draws = tidy(() => {
      const vector = (values: number[]) => tensor(values, [values.length], 'int32');
      const rows = { ids: vector(ids), positions: vector(positions), slots: vector(slots) };
      const keyRows = tensor(keys, [admitted.length, 4], 'int32');
      return this.#parts.prefill(rows, vector(lastRows), keyRows);
    });
    for (const [row, sequence] of admitted.entries()) {
      sequence.last = { ids: draws[0], row };
      advance(sequence, 1);
    }
    const drawn = drawnTensors(draws);
    const read = readTensors(drawn).finally(() => {
      for (const t of drawn) t.dispose();
    });
    const lengths = admitted.map(({ request }) => this.#requests[request]!.prompt.length);
    return { sequences: admitted, steps: 1, lengths, draws: read };
  }

  /** Queues the next steps: one where a token may end a sequence, else as many as all still have to go. */
  #decode(sequences: readonly Running[]): Pass {
    const { stopTokens, onToken, maxNewTokens } = this.#sampling;
    const left = sequences.map(({ queued }) => maxNewTokens - queued);
    const steps = stopTokens.length > 0 || onToken ? 1 : Math.min(DecodeStep.maxSteps, ...left);
    const { rows, draws } = this.#parts.decodeStep.queue(sequences, this.#sampling, steps);
    for (const sequence of sequences) advance(sequence, steps);
    return { sequences: rows, steps, lengths: 1, draws };
  }

  /** Takes in what a pass drew, once it has. */
  async #read({ sequences, steps, lengths, draws }: Pass): Promise<void> {
    const [ids, logprobs, routes] = await draws;
    const tokens = lengths === 1 ? sequences.length : lengths.reduce((sum, n) => sum + n, 0);
    const routesOfStep = routes ? routes.length / steps : 0;
    for (let step = 0, at = 0; step < steps; step++) {
      const own = routes?.subarray(step * routesOfStep, (step + 1) * routesOfStep);
      let token = 0;
      for (const [row, sequence] of sequences.entries()) {
        const count = lengths === 1 ? 1 : lengths[row]!;
        if (sequence && !sequence.ended) {
          if (own) sequence.routes!.append(own, tokens, token, count);
          this.#accept(sequence, ids![at]!, logprobs![at]!);
        }
        token += count;
        at++;
      }
    }
  }

  #accept(sequence: Running, token: number, logprob: number): void {
    const { tokens, logprobs, routes, request, slot } = sequence;
    tokens.push(token);
    logprobs.push(logprob);
    const { stopTokens, onToken } = this.#sampling;
    const ended = onToken?.(request, token, logprob) === true;
    const stopped = ended || stopTokens.includes(token);
    if (!stopped && tokens.length < this.#sampling.maxNewTokens) return;
    sequence.ended = true;
    this.#parts.cache.release(slot);
    this.#completions[request] = {
      tokens: Int32Array.from(tokens),
      logprobs: Float64Array.from(logprobs),
      finishReason: stopped ? 'stop' : 'length',
      ...(routes && { routes: routes.routes() }),
    };
  }
}

function advance(sequence: Running, steps: number): void {
  sequence.position += steps;
  sequence.queued += steps;
}
