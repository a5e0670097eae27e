/** The faults by name, in the order in which help lists them. */
import { checkChoice } from '../../errors.js';
import { batchVariance } from './batchVariance.js';
import { bf16Head } from './bf16Head.js';
import { corruptedLayer } from './corruptedLayer.js';
import { dividedByTemperature } from './dividedByTemperature.js';
import type { Fault } from './fault.js';
import { logits16 } from './logits16.js';
import { maskShifted } from './maskShifted.js';
import { none } from './none.js';
import { offByOne } from './offByOne.js';
import { promptCounted } from './promptCounted.js';
import { retokenised } from './retokenised.js';
import { routingFlip } from './routingFlip.js';
import { splitK } from './splitK.js';
import { staleWeights } from './staleWeights.js';
import { temperature } from './temperature.js';
import { topPMass } from './topPMass.js';
import { zeroFill } from './zeroFill.js';

export const faults: readonly Fault[] = [
  none,
  offByOne,
  temperature,
  dividedByTemperature,
  topPMass,
  staleWeights,
  zeroFill,
  bf16Head,
  logits16,
  splitK,
  batchVariance,
  retokenised,
  promptCounted,
  maskShifted,
  corruptedLayer,
  routingFlip,
];

export const faultNames: readonly string[] = faults.map(({ name }) => name);

/** @throws InvalidArgumentError naming the nearest fault */
export function faultOf(where: string, name: unknown): Fault {
  const known = checkChoice(where, 'fault', name, faultNames);
  return faults.find((fault) => fault.name === known)!;
}
