import type { SanityEvent } from '../sanity/run.js';
import { formatNumber, formatShare } from './format.js';
import type { ProgressLine } from './progress.js';
import { StepProgress } from './stepProgress.js';

/** Turns the events of a run into lines of progress. */
export class SanityProgress {
  readonly #steps = new StepProgress();

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
}
