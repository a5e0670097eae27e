import { exitCodes } from './exitCodes.js';
import type { ProgressWriter } from './progress.js';

/** A signal that the first SIGINT or SIGTERM aborts, with a note; the second ends the process. */
export function interruptible(
  writer: ProgressWriter,
  note: string,
): { signal: AbortSignal; release: () => void } {
  const controller = new AbortController();
  const onSignal = () => {
    if (controller.signal.aborted) {
      writer.end();
      process.exit(exitCodes.interrupted);
    }
    controller.abort();
    writer.note(`${note} (again to stop at once)`);
  };
  process.on('SIGINT', onSignal);
  process.on('SIGTERM', onSignal);
  return {
    signal: controller.signal,
    release: () => {
      process.off('SIGINT', onSignal);
      process.off('SIGTERM', onSignal);
    },
  };
}
