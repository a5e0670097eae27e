import type { StepRecord } from '../rl/record.js';
import type { SanityEvent } from '../sanity/run.js';
import { formatClock, formatCount, formatNumber, formatScale, formatShare } from './format.js';
import type { ProgressLine } from './progress.js';

/** Steps that the time left is estimated from. */
const RECENT_STEPS = 10;

/** Turns the events of a run into lines of progress. */
export class SanityProgress {
  /** Seconds that the run had taken after each of the last steps. */
  readonly #times: number[] = [];

  /** The line that shows `event`. */
  line(event: SanityEvent): ProgressLine {
    switch (event.kind) {
      case 'teach':
        return {
          phase: 'teach',
          parts: [
            { text: `teaching  step ${event.step}`, importance: 3 },
            { text: `loss ${formatNumber(event.loss)}`, importance: 1 },
            { text: `accuracy ${formatShare(event.accuracy)}`, importance: 2 },
          ],
        };
      case 'load':
        return { phase: 'load', parts: [{ text: `loading ${event.model}`, importance: 1 }] };
      case 'select':
        return {
          phase: 'select',
          parts: [
            {
              text: `selecting problems  ${event.tried}/${event.candidates} tried`,
              short: `selecting  ${event.tried}/${event.candidates}`,
              importance: 2,
            },
            { text: `${event.kept} kept`, importance: 1 },
          ],
        };
      case 'resume':
        return { phase: 'resume', parts: [{ text: `resuming after step ${event.step}`, importance: 1 }] };
      case 'step':
        return this.#step(event.record, event.steps);
      case 'effect': {
        const { precision, numerics } = event.setting;
        return {
          phase: 'effect',
          parts: [
            {
              text: `measuring the mismatch in ${precision}, ${numerics} numerics`,
              short: `measuring ${precision}, ${numerics}`,
              importance: 1,
            },
          ],
        };
      }
    }
  }

  #step(record: StepRecord, steps: number): ProgressLine {
    const value = (name: string) => record[name] ?? Number.NaN;
    const done = `${record.step + 1}/${steps}`;
    const left = formatClock(this.#secondsLeft(record, steps));
    return {
      phase: 'train',
      parts: [
        { text: `step ${done}`, short: done, importance: 6 },
        { text: `reward ${formatShare(value('train/reward_window'))}`, importance: 5 },
        { text: `KL ${formatNumber(value('mismatch/klMuPiK3'), 2)}`, importance: 3 },
        { text: `scale ${formatScale(value('scaler/scale'))}`, importance: 2 },
        { text: `${formatCount(value('time/tokens_per_s'))} tok/s`, importance: 1 },
        { text: `at most ${left} left`, short: `at most ${left}`, importance: 4 },
      ],
    };
  }

  /** From the pace of the recent steps, saving included; "at most", since a run ends as soon as it has passed. */
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
