import { type Recording, record } from '../runtime.js';
import { keep, tidy } from '../tensor/scope.js';
import { full, readTensors, type Tensor } from '../tensor/tensor.js';
import type { RolloutRows } from './engine.js';
import type { ResolvedSampling } from './sampling.js';

/** One running sequence: its last token and where that stands, and the names of its draw. */
export interface DecodeRow {
  readonly id: number;
  readonly slot: number;
  readonly position: number;
  readonly promptId: number;
  readonly sampleId: number;
}

type Step = (rows: RolloutRows, keys: Tensor, sampling: ResolvedSampling) => [Tensor, Tensor];

interface Recorded {
  readonly recording: Recording;
  readonly outputs: [Tensor, Tensor];
}

/** The input tensors of one number of rows; recordings read them, each step uploads into them. */
interface Inputs extends RolloutRows {
  readonly keys: Tensor;
  readonly recorded: Map<string, Recorded>;
}

const maxRecordings = 8;

/**
 * The decode step: one token a running sequence. The ops are recorded once for each number of rows (rounded up to a
 * power of two, spare rows marked unused) and sampling setting, and replayed with one call.
 */
export class DecodeStep implements Disposable {
  readonly #maxBatch: number;
  readonly #step: Step;
  readonly #inputs = new Map<number, Inputs>();

  constructor(maxBatch: number, step: Step) {
    this.#maxBatch = maxBatch;
    this.#step = step;
  }

  /** Draws the next token of every row: ids and log-probs, [rows]. */
  async run(
    rows: readonly DecodeRow[],
    sampling: ResolvedSampling,
  ): Promise<{ ids: Int32Array; logprobs: Float32Array }> {
    const count = Math.min(this.#maxBatch, 2 ** Math.ceil(Math.log2(rows.length)));
    const inputs = this.#inputsFor(count);
    const unused: DecodeRow = { id: 0, slot: -1, position: 0, promptId: 0, sampleId: 0 };
    const column = (value: (row: DecodeRow) => number) =>
      Int32Array.from({ length: count }, (_, i) => value(rows[i] ?? unused));
    inputs.ids.upload(column((row) => row.id));
    inputs.positions.upload(column((row) => row.position));
    inputs.slots.upload(column((row) => row.slot));
    const keys = new Int32Array(4 * count);
    for (let i = 0; i < count; i++) {
      const { promptId, sampleId, position, slot } = rows[i] ?? unused;
      keys.set([promptId, sampleId, position + 1, slot], 4 * i);
    }
    inputs.keys.upload(keys);
    const { recording, outputs } = this.#recordedFor(inputs, sampling);
    recording.replay();
    const [ids, logprobs] = await readTensors(outputs);
    return { ids: ids as Int32Array, logprobs: logprobs as Float32Array };
  }

  #inputsFor(count: number): Inputs {
    let inputs = this.#inputs.get(count);
    if (!inputs) {
      const vector = () => keep(full([count], 0, 'int32'));
      inputs = {
        ids: vector(),
        positions: vector(),
        slots: vector(),
        keys: keep(full([count, 4], 0, 'int32')),
        recorded: new Map(),
      };
      this.#inputs.set(count, inputs);
    }
    return inputs;
  }

  #recordedFor(inputs: Inputs, sampling: ResolvedSampling): Recorded {
    const { seed, temperature, topK, topP } = sampling;
    const key = `${seed} ${temperature} ${topK} ${topP}`;
    let recorded = inputs.recorded.get(key);
    if (!recorded) {
      if (inputs.recorded.size >= maxRecordings) {
        const [oldest, { recording, outputs }] = inputs.recorded.entries().next().value!;
        inputs.recorded.delete(oldest);
        recording.dispose();
        for (const t of outputs) t.dispose();
      }
      const { recording, result } = record(() => tidy(() => this.#step(inputs, inputs.keys, sampling)));
      recorded = { recording, outputs: result };
      inputs.recorded.set(key, recorded);
    }
    return recorded;
  }

  [Symbol.dispose](): void {
    for (const { ids, positions, slots, keys, recorded } of this.#inputs.values()) {
      for (const { recording, outputs } of recorded.values()) {
        recording.dispose();
        for (const t of outputs) t.dispose();
      }
      for (const t of [ids, positions, slots, keys]) t.dispose();
    }
    this.#inputs.clear();
  }
}
