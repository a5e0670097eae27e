/**
 * Progress on stderr: on a terminal one live line, rewritten in place and never wider than the terminal; elsewhere
 * plain lines.
 */

/** A part of a line of progress. Where room is short, `short` stands in for it; then the least important parts go. */
export interface Part {
  readonly text: string;
  readonly short?: string;
  /** The lowest goes first. */
  readonly importance: number;
}

/** One state of the work. */
export interface ProgressLine {
  /** A new phase leaves the last line of the one before on the screen. */
  readonly phase: string;
  readonly parts: readonly Part[];
}

const GAP = '  ';
/** Least time between two drawings of the live line. */
const DRAW_EVERY_MS = 100;

/** The parts as one line of at most `width` columns: shortened from the end, then thinned out, then cut. */
export function fitLine(parts: readonly Part[], width = Number.POSITIVE_INFINITY): string {
  const left = parts.map(({ text, importance }) => ({ text, importance }));
  const line = () => left.map(({ text }) => text).join(GAP);
  for (let i = parts.length - 1; i >= 0 && line().length > width; i--) {
    left[i]!.text = parts[i]!.short ?? parts[i]!.text;
  }
  while (left.length > 1 && line().length > width) {
    const least = Math.min(...left.map(({ importance }) => importance));
    const last = left.findLastIndex(({ importance }) => importance === least);
    left.splice(last, 1);
  }
  return line().slice(0, Math.max(0, width));
}

/** What the writer needs of a stream; process.stderr is one. */
export interface ProgressStream {
  readonly isTTY?: boolean;
  readonly columns?: number;
  write(text: string): unknown;
}

/** Writes progress to a stream. Call {@link end} before anything else is written to the terminal. */
export class ProgressWriter {
  readonly #stream: ProgressStream;
  readonly #live: boolean;
  readonly #logEveryMs: number;
  #current: ProgressLine | undefined;
  #drawn = '';
  #drawnAt = Number.NEGATIVE_INFINITY;
  #timer: NodeJS.Timeout | undefined;

  /** @param logEveryMs least time between lines where they all stay, as in a file: of work whose steps are not told apart */
  constructor(stream: ProgressStream = process.stderr, { logEveryMs = 0 } = {}) {
    this.#stream = stream;
    this.#logEveryMs = logEveryMs;
    this.#live = stream.isTTY === true && process.env.TERM !== 'dumb';
  }

  update(line: ProgressLine): void {
    if (!this.#live) {
      const now = performance.now();
      if (now - this.#drawnAt < this.#logEveryMs) return;
      this.#drawnAt = now;
      this.#stream.write(`${fitLine(line.parts)}\n`);
      return;
    }
    const newPhase = this.#current !== undefined && this.#current.phase !== line.phase;
    if (newPhase) this.end();
    this.#current = line;
    const wait = this.#drawnAt + DRAW_EVERY_MS - performance.now();
    if (wait <= 0 || newPhase) this.#draw();
    else this.#timer ??= setTimeout(() => this.#draw(), wait).unref();
  }

  /** Writes a line that stays, above the live one. */
  note(message: string): void {
    if (this.#drawn !== '') this.#stream.write('\r\x1b[K');
    this.#stream.write(`${message}\n`);
    this.#drawn = '';
    if (this.#current !== undefined) this.#draw();
  }

  /** Leaves the live line as it is and goes on below it. */
  end(): void {
    if (this.#current !== undefined) {
      this.#draw();
      this.#stream.write('\n');
    }
    this.#current = undefined;
    this.#drawn = '';
  }

  #draw(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#current === undefined) return;
    // The last column stays free: some terminals wrap as soon as it is filled.
    const line = fitLine(this.#current.parts, (this.#stream.columns || 80) - 1);
    this.#drawnAt = performance.now();
    if (line === this.#drawn) return;
    this.#stream.write(`\r${line}\x1b[K`);
    this.#drawn = line;
  }
}
