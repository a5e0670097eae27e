import { add } from '../ops/elementwise.js';
import type { Tensor } from '../tensor/tensor.js';
import { type Differentiable, gradients, type Operands } from './gradients.js';

interface Entry<Op extends Differentiable = Differentiable> {
  readonly op: Op;
  readonly operands: Operands[Op];
  readonly outputs: readonly Tensor[];
}

/** A part of the forward pass of which nothing but the outputs was kept. */
interface Checkpoint {
  /** Runs the part again, recorded this time; its outputs in the same order. */
  readonly rerun: (tape: Tape) => readonly Tensor[];
  readonly outputs: readonly Tensor[];
}

/**
 * The ops of one forward pass, in order, for one backward pass.
 *
 * The tape owns the outputs that are recorded on it: the backward pass disposes of each as soon as nothing before
 * it can need it, and {@link dispose} disposes of what is left when no backward pass was run.
 */
export class Tape {
  #entries: (Entry | Checkpoint)[] = [];
  #owned: Tensor[] = [];
  /** Sees the whole gradient of each output that has one, before it is passed on. */
  watch: ((output: Tensor, gradient: Tensor) => void) | undefined;

  /** Hands over an input, such as token ids, to be disposed of with the tape. */
  own(t: Tensor): Tensor {
    this.#owned.push(t);
    return t;
  }

  record<Op extends Differentiable>(op: Op, operands: Operands[Op], outputs: readonly Tensor[]): void {
    this.#entries.push({ op, operands, outputs });
  }

  /**
   * Runs `body` and keeps its outputs alone; the backward pass runs it again, for all that was recorded, when it gets
   * there (gradient checkpointing; Chen et al. 2016, arXiv 1604.06174). The gradients have the same bits as without:
   * the same ops in the same order, on the same inputs.
   *
   * @param body the same ops each time, recorded on the tape that it is given, a new one each time. Tensors from outside
   *   have to be outputs of this tape or to live as long, and nothing may be written over them. All that it returns are
   *   outputs of its own.
   */
  checkpoint<R extends Record<keyof R, Tensor | null>>(body: (tape: Tape) => R): R {
    const first = new Tape();
    let outputs: readonly Tensor[] = [];
    try {
      const result = body(first);
      outputs = tensorsOf(result);
      this.#entries.push({ rerun: (tape) => tensorsOf(body(tape)), outputs });
      return result;
    } finally {
      first.#dispose(outputs);
    }
  }

  /**
   * Adds d(loss)/d(parameter) to the gradient of every parameter that the recorded ops read.
   *
   * Gradients of activations have the dtype of the activation; where several ops read one activation their
   * gradients are added in that dtype, the last reader first.
   *
   * @param output an output of a recorded op
   * @param gradient d(loss)/d(output), of the output's shape; the caller keeps it
   */
  backward(output: Tensor, gradient: Tensor): void {
    const flow = new GradientFlow();
    flow.seed(output, gradient);
    try {
      this.#propagate(flow);
    } finally {
      flow.finish();
      this.dispose();
    }
  }

  #propagate(flow: GradientFlow): void {
    for (const entry of this.#entries.toReversed()) {
      const { outputs } = entry;
      if ('rerun' in entry) {
        this.#rerun(entry, flow);
        continue;
      }
      const incoming = outputs.map((t) => flow.take(t));
      for (const [i, gradient] of incoming.entries()) {
        if (gradient) this.watch?.(outputs[i]!, gradient);
      }
      if (incoming.some((g) => g !== undefined)) propagate(entry.op, entry.operands, outputs, incoming, flow);
      for (const g of incoming) if (g) flow.release(g);
      for (const t of outputs) t.dispose();
    }
  }

  /** The gradients on their way go on through the ops that are recorded now, as if these had been from the start. */
  #rerun({ rerun, outputs }: Checkpoint, flow: GradientFlow): void {
    const reached = outputs.some((t) => flow.has(t));
    for (const t of outputs) t.dispose();
    if (!reached) return;
    const tape = new Tape();
    tape.watch = this.watch;
    try {
      const again = rerun(tape);
      for (const [i, t] of again.entries()) flow.move(outputs[i]!, t);
      tape.#propagate(flow);
    } finally {
      tape.dispose();
    }
  }

  /** Lets go of everything recorded. */
  dispose(): void {
    this.#dispose([]);
  }

  #dispose(but: readonly Tensor[]): void {
    for (const { outputs } of this.#entries) for (const t of outputs) if (!but.includes(t)) t.dispose();
    for (const t of this.#owned) t.dispose();
    this.#entries = [];
    this.#owned = [];
  }
}

function tensorsOf<R extends Record<keyof R, Tensor | null>>(result: R): Tensor[] {
  return Object.values<Tensor | null>(result).filter((t) => t !== null);
}

function propagate<Op extends Differentiable>(
  op: Op,
  operands: Operands[Op],
  outputs: readonly Tensor[],
  incoming: readonly (Tensor | undefined)[],
  flow: GradientFlow,
): void {
  gradients[op](operands, { outputs, incoming }, flow);
  flow.settle();
}

/** Gradients on their way from the outputs to the inputs, each disposed of once nobody holds it. */
export class GradientFlow {
  readonly #pending = new Map<Tensor, Tensor>();
  readonly #holders = new Map<Tensor, number>();
  /** Views of gradients that others read, too, and those gradients. */
  readonly #sharing = new Set<Tensor>();
  #fresh: Tensor[] = [];
  #seed: Tensor | undefined;

  /** The caller's own gradient: never disposed of here. */
  seed(t: Tensor, gradient: Tensor): void {
    this.#seed = gradient;
    this.#pending.set(t, gradient);
    this.#holders.set(gradient, 2);
  }

  /** Adds `gradient` to the gradient of `t`; the flow owns it from here on, and it may be given for several. */
  add(t: Tensor, gradient: Tensor): void {
    if (!this.#holders.has(gradient)) {
      this.#holders.set(gradient, 0);
      this.#fresh.push(gradient);
    }
    const present = this.#pending.get(t);
    if (present) {
      const sum = add(present, gradient);
      this.#pending.set(t, sum);
      this.#holders.set(sum, 1);
      this.release(present);
    } else {
      this.#pending.set(t, gradient);
      this.#holders.set(gradient, this.#holders.get(gradient)! + 1);
    }
  }

  has(t: Tensor): boolean {
    return this.#pending.has(t);
  }

  /** What is the gradient of `from` so far is that of `to`. */
  move(from: Tensor, to: Tensor): void {
    const gradient = this.take(from);
    if (gradient) this.#pending.set(to, gradient);
  }

  /** Whether a gradient that was taken is read by nobody else, so that its memory may serve for what is made of it. */
  mayOverwrite(gradient: Tensor): boolean {
    return this.#holders.get(gradient) === 1 && !this.#sharing.has(gradient);
  }

  /** The same gradient in another shape, to be added in turn. */
  view(gradient: Tensor, shape: readonly number[]): Tensor {
    const view = gradient.reshape(...shape);
    if (!this.mayOverwrite(gradient)) this.#sharing.add(view).add(gradient);
    return view;
  }

  /** After an op's gradient: what it gave that was only added to something else is dropped. */
  settle(): void {
    for (const gradient of this.#fresh) {
      if (this.#holders.get(gradient) !== 0) continue;
      this.#holders.delete(gradient);
      gradient.dispose();
    }
    this.#fresh = [];
  }

  take(t: Tensor): Tensor | undefined {
    const gradient = this.#pending.get(t);
    this.#pending.delete(t);
    return gradient;
  }

  release(gradient: Tensor): void {
    const holders = (this.#holders.get(gradient) ?? 0) - 1;
    if (holders > 0) {
      this.#holders.set(gradient, holders);
    } else {
      this.#holders.delete(gradient);
      gradient.dispose();
    }
  }

  /** After the last op, or one that failed: gradients that were still on their way are dropped. */
  finish(): void {
    for (const gradient of this.#holders.keys()) if (gradient !== this.#seed) gradient.dispose();
    this.#holders.clear();
    this.#sharing.clear();
    this.#pending.clear();
    this.#fresh = [];
  }
}
