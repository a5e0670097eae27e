import { boundaries } from './boundaries.js';
import { chunks } from './chunks.js';
import { floor } from './floor.js';
import { identity } from './identity.js';
import { keptMass } from './keptMass.js';
import { lattice } from './lattice.js';
import { outliers } from './outliers.js';
import { position } from './position.js';
import { promptCounted } from './promptCounted.js';
import { scaled } from './scaled.js';
import { shift } from './shift.js';
import type { Signature } from './signature.js';
import { temperature } from './temperature.js';
import { uncertainty } from './uncertainty.js';
import { weightUpdate } from './weightUpdate.js';
import { zeroFill } from './zeroFill.js';

/** All signatures; of two that explain as much the first is the more specific. */
export const signatures: readonly Signature[] = [
  zeroFill,
  promptCounted,
  shift,
  scaled,
  temperature,
  keptMass,
  weightUpdate,
  outliers,
  boundaries,
  chunks,
  lattice,
  identity,
  position,
  uncertainty,
  floor,
];
