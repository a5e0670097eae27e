import type { SanityEvent } from '../sanity/run.js';
import { formatClock, formatNumber, formatShare } from './format.js';
import type { ProgressLine } from './progress.js';
import { StepProgress } from './stepProgress.js';

/** Events of a filter that the time left is estimated from. */
const RECENT_EVENTS = 5;

/** Turns the events of a run into lines of progress. */
export class SanityProgress {
  readonly #steps = new StepProgress();
  /** Problems tried, and seconds, at the last events of the filter. */
  readonly #filtered: { readonly tried: number; readonly at: number }[] = [];

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
      case 'select': {
        const left = this.#filterSecondsLeft(event.tried, event.candidates);
        return {
          phase: 'select',
          parts: [
            {
              text: `selecting problems  ${event.tried}/${event.candidates} tried`,
              short: `selecting  ${event.tried}/${event.candidates}`,
              importance: 2,
            },
            { text: `${event.kept} kept`, importance: 1 },
            ...(left >= 1 ? [{ text: `about ${formatClock(left)} left`, importance: 3 }] : []),
          ],
        };
      }
      case 'resume':
        return { phase: 'resume', parts: [{ text: `resuming after step ${event.step}`, importance: 1 }] };
      case 'step':
        // Since a run ends as soon as it has passed.
        return this.#steps.line(event.record, event.steps, 'at most ');
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
  /** From the pace of the last problems: what an earlier run has tried comes at once, and tells no pace. */
  #filterSecondsLeft(tried: number, candidates: number): number {
    this.#filtered.push({ tried, at: performance.now() / 1e3 });
    if (this.#filtered.length > RECENT_EVENTS) this.#filtered.shift();
    const [first, last] = [this.#filtered[0]!, this.#filtered.at(-1)!];
    if (last.tried === first.tried) return 0;
    return ((last.at - first.at) / (last.tried - first.tried)) * (candidates - tried);
  }
}
