/** Sees the decode steps of an engine from outside: each is one replay of a recording. */
import { Recording } from '../lib/runtime.js';

/** When a replay was called, and for how many milliseconds the call lasted. */
export interface Replay {
  readonly at: number;
  readonly callMs: number;
}

/** Runs `body` and notes every replay meanwhile. */
export async function replaysOf(body: () => Promise<unknown>): Promise<Replay[]> {
  const { replay } = Recording.prototype;
  const replays: Replay[] = [];
  Recording.prototype.replay = function noted() {
    const at = performance.now();
    replay.call(this);
    replays.push({ at, callMs: performance.now() - at });
  };
  try {
    await body();
    return replays;
  } finally {
    Recording.prototype.replay = replay;
  }
}
