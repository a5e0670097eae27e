/** A peer's driver: a child process that is asked one thing at a time, in the lines that driver.h tells of. */
import { type ChildProcess, type ChildProcessByStdio, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import type { NativeFloatDType } from '../../lib/tensor/dtype.js';
import { startCommand } from './build.js';
import type { PeerName, PeerProgram } from './list.js';

/** An op of a driver, with its dimensions. */
export interface PeerQuestion {
  readonly op: string;
  readonly dims: readonly number[];
  /** Where it is not the dtype of the row. */
  readonly dtype?: NativeFloatDType;
}

/** The line that prepares a question. */
export function prepareLine({ op, dims }: PeerQuestion, dtype: NativeFloatDType, sets: number): string {
  return ['prepare', op, dtype, sets, ...dims].join(' ');
}

/** An answer as its first word and the rest; a driver that ended has none. */
export function parseAnswer(line: string | undefined): { word: string; rest: string } {
  if (line === undefined) return { word: 'none', rest: 'the driver ended' };
  const at = line.indexOf(' ');
  return at < 0 ? { word: line, rest: '' } : { word: line.slice(0, at), rest: line.slice(at + 1) };
}

/** Milliseconds of one run, one figure a sample. */
export function parseSamples(rest: string): number[] {
  const samples = rest.split(' ').map(Number);
  if (samples.length === 0 || !samples.every((ms) => ms > 0))
    throw new Error(`expected the milliseconds of samples, got ${JSON.stringify(rest)}`);
  return samples;
}

/** Longer than any preparation: a driver that hangs ends the row, not the benchmark. */
const patienceMs = 180_000;

/** Drivers that run: a stopped one would not notice that this process has ended. */
const running = new Set<ChildProcess>();

function endRunning(): void {
  for (const child of running) child.kill('SIGKILL');
  running.clear();
}

/** Sees to it, once, that drivers end with this process, on Ctrl-C, too. */
function endWithProcess(): void {
  if (process.listeners('exit').includes(endRunning)) return;
  process.on('exit', endRunning);
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.once(signal, () => {
      endRunning();
      process.kill(process.pid, signal); // now as if nobody had listened
    });
}

export class Driver {
  readonly name: PeerName;
  /** What the library says of itself; empty before it was started. */
  version = '';
  /** What it says of how it computes what was prepared: the implementation that it chose. */
  note = '';
  readonly #program: PeerProgram;
  #child: ChildProcessByStdio<Writable, Readable, null> | undefined;
  #lines: AsyncIterator<string> | undefined;

  constructor(program: PeerProgram) {
    this.#program = program;
    this.name = program.name;
  }

  /**
   * Makes the inputs and runs each set once.
   *
   * @returns null where the peer is ready, else why it has no answer
   */
  async prepare(question: PeerQuestion, dtype: NativeFloatDType, sets: number): Promise<string | null> {
    await this.#start();
    const { word, rest } = await this.#ask(prepareLine(question, question.dtype ?? dtype, sets));
    this.note = rest;
    return word === 'ready' ? null : rest;
  }

  /** Measures what was prepared for about so many milliseconds. */
  async measure(milliseconds: number): Promise<number[]> {
    const { word, rest } = await this.#ask(`time ${milliseconds}`);
    if (word !== 'samples') throw new Error(`${this.name}: ${rest}`);
    return parseSamples(rest);
  }

  /** Lets go of what was prepared. */
  async drop(): Promise<void> {
    if (this.#child) await this.#ask('drop');
  }

  /** Ends the process. */
  close(): void {
    if (this.#child) running.delete(this.#child);
    this.#child?.kill('SIGKILL'); // a stopped process would not take anything less
    this.#child = undefined;
    this.#lines = undefined;
  }

  async #start(): Promise<void> {
    if (this.#child) return;
    const [command, ...args] = startCommand(this.#program);
    const child = spawn(command!, args, {
      env: { ...process.env, ...this.#program.env },
      stdio: ['pipe', 'pipe', process.env.ISOPOLICY_PEERS_DEBUG ? 'inherit' : 'ignore'],
    }) as ChildProcessByStdio<Writable, Readable, null>;
    endWithProcess();
    running.add(child);
    child.on('error', () => this.close());
    child.stdin.on('error', () => {}); // shows as a missing answer
    this.#child = child;
    this.#lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    const { word, rest } = await this.#answer();
    child.kill('SIGSTOP');
    if (word !== 'hello') throw new Error(`${this.name} does not start: ${rest}`);
    this.version = rest;
  }

  /** Between questions the process is stopped: some libraries' threads poll for a second after their work. */
  async #ask(line: string): Promise<{ word: string; rest: string }> {
    const child = this.#child;
    child?.kill('SIGCONT');
    child?.stdin.write(`${line}\n`);
    const answer = await this.#answer();
    child?.kill('SIGSTOP');
    return answer;
  }

  async #answer(): Promise<{ word: string; rest: string }> {
    let timer: NodeJS.Timeout | undefined;
    const tooLate = new Promise<undefined>((resolve) => {
      timer = setTimeout(() => resolve(undefined), patienceMs);
    });
    const next = this.#lines?.next().then(({ value, done }) => (done ? undefined : value));
    const line = await Promise.race([next, tooLate]);
    clearTimeout(timer);
    if (line === undefined) this.close(); // the next question starts it anew
    return parseAnswer(line);
  }
}
