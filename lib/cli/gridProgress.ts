import type { GridEvent } from '../grid/run.js';
import { formatNumber, formatShare } from './format.js';
import type { ProgressLine } from './progress.js';

/** Turns the events of a grid into lines of progress: how many runs are done, and what one of those running says. */
export class GridProgress {
  line({ job, done, jobs, event, failure }: GridEvent): ProgressLine {
    const base = { text: `${done}/${jobs} done`, importance: 3 };
    const name = { text: job, importance: 2 };
    if (failure !== undefined) {
      return { phase: `failed ${job}`, parts: [base, name, { text: `failed: ${failure}`, importance: 1 }] };
    }
    return { phase: 'grid', parts: [base, name, ...this.#parts(event)] };
  }

  #parts(event: GridEvent['event']): ProgressLine['parts'] {
    switch (event?.kind) {
      case 'teach':
        return [
          { text: `teaching step ${event.step}, accuracy ${formatShare(event.accuracy)}`, importance: 1 },
        ];
      case 'load':
        return [{ text: `loading ${event.model}`, importance: 1 }];
      case 'select':
        return [{ text: `selecting ${event.tried}/${event.candidates}`, importance: 1 }];
      case 'step': {
        const value = (key: string) => event.record[key] ?? Number.NaN;
        return [
          { text: `step ${event.record.step + 1}/${event.steps}`, importance: 1 },
          { text: `reward ${formatShare(value('train/reward_window'))}`, importance: 1 },
          { text: `KL ${formatNumber(value('mismatch/klMuPiK3'), 2)}`, importance: 0 },
        ];
      }
      case 'resume':
        return [{ text: `goes on after step ${event.step}`, importance: 1 }];
      case 'effect':
        return [{ text: 'measures the mismatch', importance: 1 }];
      case undefined:
        return [];
    }
  }
}
