/**
 * Several texts that grow at once, written one after another: what comes of the first is written at once, the others wait for
 * their turn.
 */
export class OrderedOutput {
  readonly #write: (text: string) => void;
  readonly #headings: readonly string[];
  readonly #waiting: string[];
  readonly #ended: boolean[];
  #current = -1;

  /** @param headings a line above each text; an empty one is left out */
  constructor(headings: readonly string[], write: (text: string) => void) {
    this.#headings = headings;
    this.#write = write;
    this.#waiting = headings.map(() => '');
    this.#ended = headings.map(() => false);
  }

  /** The next piece of a text. */
  add(index: number, piece: string): void {
    this.#waiting[index] += piece;
    this.#flush();
  }

  /** No more comes of a text. */
  end(index: number): void {
    this.#ended[index] = true;
    this.#flush();
  }

  #flush(): void {
    for (;;) {
      if (this.#current < 0) this.#next();
      const index = this.#current;
      if (index >= this.#headings.length) return;
      const text = this.#waiting[index]!;
      this.#waiting[index] = '';
      if (text !== '') this.#write(text);
      if (!this.#ended[index]) return;
      this.#write('\n');
      this.#next();
    }
  }

  #next(): void {
    this.#current++;
    const heading = this.#headings[this.#current] ?? '';
    if (heading !== '') this.#write(`${this.#current > 0 ? '\n' : ''}${heading}\n`);
  }
}
