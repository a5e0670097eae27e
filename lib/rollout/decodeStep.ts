import { type Recording, record } from '../runtime.js';
import { keep, tidy } from '../tensor/scope.js';
import { copy, empty, full, readTensors, type Tensor, view } from '../tensor/tensor.js';
import { type Draws, drawnTensors, type RolloutRows } from './draws.js';
import type { ResolvedSampling } from './sampling.js';

/** One running sequence: where its last token is and stands, and the names of its draw. */
export interface DecodeRow {
  readonly slot: number;
  readonly promptId: number;
  readonly sampleId: number;
  /** Of the last token. */
  position: number;
  /** The last token, on the device: JavaScript may not have read it yet. */
  last: { readonly ids: Tensor; readonly row: number } | undefined;
}

type Step = (rows: RolloutRows, keys: Tensor, sampling: ResolvedSampling) => Draws;

interface Recorded {
  readonly recording: Recording;
  readonly outputs: readonly Tensor[];
  /** What several steps draw before it is read; made when first needed. */
  history: History | undefined;
}

/** The input tensors of one number of rows; recordings read them. */
interface Inputs extends RolloutRows {
  readonly keys: Tensor;
  /** int32 [6 rows]: positions, slots and keys, which are views of it, so that one upload brings a step's. */
  readonly state: Tensor;
  /** What the next upload brings; kept, so that a step makes no garbage of it. */
  readonly nextState: Int32Array;
  readonly recorded: Map<string, Recorded>;
}

/** The outputs of up to `maxSteps` steps, [maxSteps, ...], and a view of each step's. */
interface History {
  readonly whole: readonly Tensor[];
  readonly steps: readonly (readonly Tensor[])[];
}

const maxRecordings = 8;

/**
 * The decode step: one token a running sequence. The ops are recorded once for each number of rows (rounded up to a
 * power of two, spare rows marked unused) and sampling setting, and replayed with one call. What is drawn is the
 * next step's input without leaving the device.
 */
export class DecodeStep implements Disposable {
  /** Most steps that one call queues. */
  static readonly maxSteps = 16;
  /** The numbers of rows that steps of up to `maxBatch` sequences have: powers of two, and `maxBatch`. */
  static rowCounts(maxBatch: number): number[] {
    const powers = Array.from({ length: Math.ceil(Math.log2(maxBatch)) }, (_, i) => 2 ** i);
    return [...powers, maxBatch];
  }

  readonly #maxBatch: number;
  readonly #step: Step;
  readonly #inputs = new Map<number, Inputs>();

  constructor(maxBatch: number, step: Step) {
    this.#maxBatch = maxBatch;
    this.#step = step;
  }

  /**
   * Queues the draws of the next `steps` tokens of every sequence: which sequence has which row, and ids and log-probs,
   * [steps, rows], with routes, [steps, mixtures, rows, k], where they are recorded. They are read together: to wake the JavaScript thread stops one of the native threads
   * for up to a tenth of a small model's step.
   */
  queue<R extends DecodeRow>(
    sequences: readonly R[],
    sampling: ResolvedSampling,
    steps: number,
  ): { rows: readonly (R | undefined)[]; draws: Promise<(Float32Array | Int32Array)[]> } {
    const count = Math.min(this.#maxBatch, 2 ** Math.ceil(Math.log2(sequences.length)));
    const inputs = this.#inputsFor(count);
    const recorded = this.#recordedFor(inputs, sampling);
    const { recording, outputs } = recorded;
    const rows = placeRows(sequences, inputs.ids);
    const history = steps > 1 ? historyOf(recorded) : undefined;
    for (let step = 0; step < steps; step++) {
      writeState(rows, step, inputs.nextState);
      inputs.state.upload(inputs.nextState);
      recording.replay();
      if (history) for (const [i, kept] of history.steps[step]!.entries()) copy(outputs[i]!, kept);
    }
    if (!history) return { rows, draws: readTensors(outputs) };
    const drawn = tidy(() => history.whole.map((t) => keep(t.rows(0, steps))));
    const draws = readTensors(drawn);
    for (const t of drawn) t.dispose();
    return { rows, draws };
  }

  #inputsFor(count: number): Inputs {
    let inputs = this.#inputs.get(count);
    if (!inputs) {
      const ids = keep(full([count], 0, 'int32'));
      const state = keep(full([6 * count], 0, 'int32'));
      inputs = {
        ids,
        state,
        nextState: new Int32Array(6 * count),
        positions: keep(view(state, 0, [count])),
        slots: keep(view(state, count, [count])),
        keys: keep(view(state, 2 * count, [count, 4])),
        recorded: new Map(),
      };
      this.#inputs.set(count, inputs);
    }
    return inputs;
  }

  #recordedFor(inputs: Inputs, sampling: ResolvedSampling): Recorded {
    const { seed, temperature, topK, topP, recordRoutes } = sampling;
    const key = `${seed} ${temperature} ${topK} ${topP} ${recordRoutes}`;
    let recorded = inputs.recorded.get(key);
    if (!recorded) {
      if (inputs.recorded.size >= maxRecordings) {
        const [oldest, first] = inputs.recorded.entries().next().value!;
        inputs.recorded.delete(oldest);
        disposeRecorded(first);
      }
      const { recording, result } = record(() =>
        tidy(() => {
          const draws = this.#step(inputs, inputs.keys, sampling);
          copy(draws[0], inputs.ids);
          return drawnTensors(draws);
        }),
      );
      recorded = { recording, outputs: result, history: undefined };
      inputs.recorded.set(key, recorded);
    }
    return recorded;
  }

  [Symbol.dispose](): void {
    for (const { ids, positions, slots, keys, state, recorded } of this.#inputs.values()) {
      for (const each of recorded.values()) disposeRecorded(each);
      for (const t of [ids, positions, slots, keys, state]) t.dispose();
    }
    this.#inputs.clear();
  }
}

function disposeRecorded({ recording, outputs, history }: Recorded): void {
  recording.dispose();
  for (const t of outputs) t.dispose();
  for (const t of history ? [...history.whole, ...history.steps.flat()] : []) t.dispose();
}

function historyOf(recorded: Recorded): History {
  const { outputs } = recorded;
  if (!recorded.history) {
    const whole = outputs.map(({ shape, dtype }) => keep(empty([DecodeStep.maxSteps, ...shape], dtype)));
    recorded.history = {
      whole,
      steps: Array.from({ length: DecodeStep.maxSteps }, (_, step) =>
        outputs.map(({ size, shape }, i) => keep(view(whole[i]!, step * size, shape))),
      ),
    };
  }
  return recorded.history;
}

/**
 * Gives every sequence a row of `ids` that holds its last token: the row it has there already, or a free one that the
 * token is copied to.
 */
function placeRows<R extends DecodeRow>(sequences: readonly R[], ids: Tensor): (R | undefined)[] {
  const rows: (R | undefined)[] = new Array(ids.size).fill(undefined);
  const moving: R[] = [];
  for (const sequence of sequences) {
    if (sequence.last!.ids === ids) rows[sequence.last!.row] = sequence;
    else moving.push(sequence);
  }
  let row = 0;
  for (let i = 0; i < moving.length; ) {
    while (rows[row]) row++;
    // As many at once as lie side by side, there and here.
    const from = moving[i]!.last!;
    let length = 0;
    for (; i < moving.length && row + length < rows.length && !rows[row + length]; i++, length++) {
      const { last } = moving[i]!;
      if (last!.ids !== from.ids || last!.row !== from.row + length) break;
      rows[row + length] = moving[i]!;
      moving[i]!.last = { ids, row: row + length };
    }
    tidy(() => {
      copy(from.ids.rows(from.row, from.row + length), ids.rows(row, row + length));
    });
  }
  return rows;
}

/** Writes positions, slots and keys of the rows `step` tokens on, as `Inputs.state` has them. */
function writeState(rows: readonly (DecodeRow | undefined)[], step: number, state: Int32Array): void {
  const count = rows.length;
  for (let row = 0; row < count; row++) {
    const sequence = rows[row];
    const { slot = -1, promptId = 0, sampleId = 0 } = sequence ?? {};
    const position = sequence ? sequence.position + step : 0;
    state[row] = position;
    state[count + row] = slot;
    const key = 2 * count + 4 * row;
    state[key] = promptId;
    state[key + 1] = sampleId;
    state[key + 2] = position + 1;
    state[key + 3] = slot;
  }
}
