/**
 * Threads that judge answers, each killed when a question takes too long and replaced when the next one comes.
 *
 * Threads start when there is work, and an idle one keeps no process alive.
 */
import { Worker } from 'node:worker_threads';
import { InternalError } from '../../errors.js';
import type { Judgement, Question, Reply } from './judgeWorker.js';

interface Job {
  readonly question: Question;
  readonly settle: (judgement: Judgement) => void;
  readonly reject: (error: unknown) => void;
}

export class JudgePool {
  readonly #size: number;
  readonly #timeLimit: number;
  readonly #queue: Job[] = [];
  readonly #idle: Thread[] = [];
  readonly #busy = new Set<Thread>();
  #runners = 0;
  #closed = false;

  /**
   * @param size most threads at a time
   * @param timeLimit milliseconds that a question may take, from when a thread gets it
   */
  constructor(size: number, timeLimit: number) {
    this.#size = size;
    this.#timeLimit = timeLimit;
  }

  /**
   * Whether two answers say the same.
   *
   * @throws InternalError where a thread or the Compute Engine cannot be loaded, or the pool is closed
   */
  ask(question: Question): Promise<Judgement> {
    if (this.#closed) return Promise.reject(closedError());
    return new Promise((settle, reject) => {
      this.#queue.push({ question, settle, reject });
      if (this.#runners < this.#size) void this.#run();
    });
  }

  /** Ends all threads; questions that are not answered yet are rejected. */
  async close(): Promise<void> {
    this.#closed = true;
    for (const job of this.#queue.splice(0)) job.reject(closedError());
    await Promise.all([...this.#idle.splice(0), ...this.#busy].map((thread) => thread.end()));
  }

  /** Answers question after question, until there is none, on one thread at a time. */
  async #run(): Promise<void> {
    this.#runners++;
    let thread = this.#idle.pop();
    if (thread?.ended) thread = undefined;
    for (let job = this.#queue.shift(); job; job = this.#queue.shift()) {
      try {
        thread ??= new Thread();
        this.#busy.add(thread);
        const judgement = await thread.ask(job.question, this.#timeLimit);
        if (this.#closed) throw closedError();
        job.settle(judgement);
      } catch (error) {
        job.reject(this.#closed ? closedError() : error);
      }
      if (thread?.ended) {
        this.#busy.delete(thread);
        thread = undefined;
      }
    }
    if (thread) {
      this.#busy.delete(thread);
      this.#idle.push(thread);
    }
    this.#runners--;
  }
}

function closedError(): Error {
  return new InternalError('[MathVerifier] expected to stay open until every answer was judged, got closed');
}

/** Memory of a thread, in MiB: the Compute Engine takes some 60, and no honest question much more. */
const LIMITS = { maxOldGenerationSizeMb: 512, stackSizeMb: 4 };
/** Milliseconds after which a thread or an engine that does not start is given up; either takes about 200. */
const START_LIMIT = 60_000;

/** One worker; it ends when an answer takes too long. */
class Thread {
  readonly #worker = new Worker(new URL('./judgeWorker.js', import.meta.url), {
    resourceLimits: LIMITS,
    // Some options of this process, `--input-type` for one, would be wrong there.
    execArgv: [],
  });
  /** What arrives next, a reply or the reason why there will be none. */
  #hear: (news: Reply | Error) => void = () => {};
  #started = false;
  ended = false;

  constructor() {
    this.#worker.on('message', (reply: Reply) => this.#hear(reply));
    this.#worker.on('error', (error: Error) => this.#hear(error));
    this.#worker.on('exit', (code) => {
      this.ended = true;
      this.#hear(new Error(`the thread ended with code ${code}`));
    });
  }

  /** @throws InternalError where the thread, or the engine that it asks, cannot start */
  async ask(question: Question, timeLimit: number): Promise<Judgement> {
    this.#worker.ref();
    if (!this.#started) {
      await this.#ready('the thread');
      this.#started = true;
    }
    const first = this.#news(timeLimit);
    this.#worker.postMessage(question);
    let reply = await first;
    if (isReply(reply) && 'loading' in reply) {
      // The time to load the engine is no question's.
      await this.#ready('the Compute Engine');
      reply = await this.#news(timeLimit);
    }
    this.#worker.unref();
    if (isReply(reply) && 'judgement' in reply) return reply.judgement;
    // The verdict need not wait until the thread is dead.
    void this.end();
    return reply ? 'failed' : 'time limit';
  }

  async #ready(what: string): Promise<void> {
    const news = await this.#news(START_LIMIT);
    if (isReply(news)) return;
    await this.end();
    throw new InternalError(`[MathVerifier] expected ${what} to load, got an error`, { cause: news });
  }

  /** The next thing that is heard of the thread; undefined for nothing within `limit` milliseconds. */
  #news(limit: number): Promise<Reply | Error | undefined> {
    return new Promise((resolve) => {
      const timer = setTimeout(() => resolve(undefined), limit);
      this.#hear = (news) => {
        clearTimeout(timer);
        resolve(news);
      };
    });
  }

  async end(): Promise<void> {
    this.ended = true;
    await this.#worker.terminate();
  }
}

function isReply(news: Reply | Error | undefined): news is Reply {
  return news !== undefined && !(news instanceof Error);
}
