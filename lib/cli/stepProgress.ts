import type { StepRecord } from '../rl/record.js';
import { formatClock, formatCount, formatNumber, formatScale, formatShare } from './format.js';
import type { ProgressLine } from './progress.js';

/** Steps that the time left is estimated from. */
const RECENT_STEPS = 10;

/** Turns the steps of a training run into lines of progress. */
export class StepProgress {
  /** Seconds that the run had taken after each of the last steps. */
  readonly #times: number[] = [];

  /** @param before the time left, such as `at most ` */
  line(record: StepRecord, steps: number, before = ''): ProgressLine {
    const value = (name: string) => record[name] ?? Number.NaN;
    const done = `${record.step + 1}/${steps}`;
    const left = `${before}${formatClock(this.#secondsLeft(record, steps))}`;
    return {
      phase: 'train',
      parts: [
        { text: `step ${done}`, short: done, importance: 6 },
        { text: `reward ${formatShare(value('train/reward_window'))}`, importance: 5 },
        { text: `KL ${formatNumber(value('mismatch/klMuPiK3'), 2)}`, importance: 3 },
        { text: `scale ${formatScale(value('scaler/scale'))}`, importance: 2 },
        { text: `${formatCount(value('time/tokens_per_s'))} tok/s`, importance: 1 },
        { text: `${left} left`, short: left, importance: 4 },
      ],
    };
  }

  /** From the pace of the recent steps, saving included. */
  #secondsLeft(record: StepRecord, steps: number): number {
    this.#times.push(record['time/total_s'] ?? Number.NaN);
    if (this.#times.length > RECENT_STEPS + 1) this.#times.shift();
    const pace =
      this.#times.length > 1
        ? (this.#times.at(-1)! - this.#times[0]!) / (this.#times.length - 1)
        : (record['time/step_s'] ?? Number.NaN);
    return pace * (steps - record.step - 1);
  }
}
