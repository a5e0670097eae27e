/** Other weights for a moment: for an engine that is made of them. */
import type { Snapshot } from './runStep.js';

/**
 * Runs `body` with these masters in place of the model's own, which are back afterwards. An engine that is made in it keeps
 * its rounded copies.
 */
export async function withMasters<T>(masters: Snapshot, body: () => T): Promise<T> {
  const own = new Map();
  for (const { master } of masters.keys()) own.set(master, await master.floats());
  try {
    for (const [{ master }, values] of masters) master.upload(values);
    return body();
  } finally {
    for (const [master, values] of own) master.upload(values);
  }
}
