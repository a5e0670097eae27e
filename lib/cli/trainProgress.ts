import type { TrainEvent } from '../train/run.js';
import { count } from './format.js';
import type { ProgressLine } from './progress.js';
import { StepProgress } from './stepProgress.js';

/** Turns the events of a training run into lines of progress. */
export class TrainProgress {
  readonly #steps = new StepProgress();

  /** The line that shows `event`. */
  line(event: TrainEvent): ProgressLine {
    switch (event.kind) {
      case 'load':
        return { phase: 'load', parts: [{ text: `loading ${event.model}`, importance: 1 }] };
      case 'resume':
        return { phase: 'resume', parts: [{ text: `resuming after step ${event.step}`, importance: 1 }] };
      case 'evaluate': {
        const after = event.step === 0 ? 'before the first step' : `after step ${event.step}`;
        return {
          phase: 'train',
          parts: [
            { text: `evaluating ${after}`, short: 'evaluating', importance: 2 },
            { text: count(event.responses, 'response'), importance: 1 },
          ],
        };
      }
      case 'step':
        return this.#steps.line(event.record, event.steps);
    }
  }
}
