/** Runs asynchronous work one piece at a time, in the order of the calls. */
export class Turns {
  #last: Promise<unknown> = Promise.resolve();

  /** Runs `body` once everything before it has ended, well or not. */
  take<R>(body: () => Promise<R>): Promise<R> {
    const result = this.#last.then(body);
    this.#last = result.catch(() => undefined);
    return result;
  }
}
