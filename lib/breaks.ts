import { setImmediate } from 'node:timers/promises';

/** Milliseconds of work on end. */
const LONGEST = 20;

/** Lets timers, signals and other work of the process have their turn during work that waits for nothing. */
export class Breaks {
  readonly #signal: AbortSignal | undefined;
  #next = performance.now() + LONGEST;

  constructor(signal?: AbortSignal) {
    this.#signal = signal;
  }

  /** A break if it is due. @throws the signal's reason, once it is aborted */
  async take(): Promise<void> {
    if (performance.now() >= this.#next) {
      await setImmediate();
      this.#next = performance.now() + LONGEST;
    }
    this.#signal?.throwIfAborted();
  }
}
