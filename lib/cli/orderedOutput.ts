/**
 * Several texts that grow at once, written one after another: what comes of the first is written at once, the others wait for
 * their turn. A text's heading comes with the first of it, or with its end.
 */
export class OrderedOutput {
  readonly #write: (text: string) => void;
  readonly #headings: readonly string[];
  readonly #waiting: string[];
  readonly #states: ('open' | 'ended' | 'left out')[];
  #current = 0;
  /** Whether the current text has begun, and whether one before it has. */
  #begun = false;
  #any = false;

  /** @param headings a line above each text; an empty one is left out */
  constructor(headings: readonly string[], write: (text: string) => void) {
    this.#headings = headings;
    this.#write = write;
    this.#waiting = headings.map(() => '');
    this.#states = headings.map(() => 'open');
  }

  /** The next piece of a text. */
  add(index: number, piece: string): void {
    this.#waiting[index] += piece;
    this.#flush();
  }

  /** No more comes of a text. */
  end(index: number): void {
    this.#states[index] = 'ended';
    this.#flush();
  }

  /** Nothing comes of a text, of which there has been none: it has no heading either. */
  leaveOut(index: number): void {
    this.#states[index] = 'left out';
    this.#flush();
  }

  #flush(): void {
    for (; this.#current < this.#headings.length; this.#current++) {
      const index = this.#current;
      const text = this.#waiting[index]!;
      const state = this.#states[index]!;
      this.#waiting[index] = '';
      if (text !== '' || state === 'ended') this.#begin(index);
      if (text !== '') this.#write(text);
      if (state === 'open') return;
      if (state === 'ended') this.#write('\n');
      this.#begun = false;
    }
  }

  #begin(index: number): void {
    if (this.#begun) return;
    const heading = this.#headings[index]!;
    if (heading !== '') this.#write(`${this.#any ? '\n' : ''}${heading}\n`);
    this.#begun = true;
    this.#any = true;
  }
}
