/** What a diagnosis was made from. */
import type { FileProvenance, Provenance } from './diagnosis.js';
import type { AnyDump } from './pairs.js';

/**
 * Of the files of a diagnosis, once they have been read.
 *
 * @param training null: the other file has both engines' log-probs
 * @param version isopolicy's
 */
export function provenanceOf(
  rollout: AnyDump,
  training: AnyDump | null,
  version: string,
  command: string,
): Provenance {
  const files =
    training === null
      ? [fileProvenance('both', rollout)]
      : [fileProvenance('rollout', rollout), fileProvenance('training', training)];
  return { files, version, node: process.version, command };
}

function fileProvenance(side: FileProvenance['side'], dump: AnyDump): FileProvenance {
  const { path, compressed, format, whole } = dump;
  return { side, path, ...whole, format: format.name, compressed };
}
