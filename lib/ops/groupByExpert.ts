import { checkInteger } from '../errors.js';
import { callFallible, type Tensor } from '../tensor/tensor.js';

/** Where the choices of a router go; all int32, on the device. */
export interface ExpertGroups {
  /** [tokens, k]: the row of each choice, a permutation of 0 to tokens k - 1. */
  readonly rows: Tensor;
  /** [tokens k]: the token of each row, as `gatherRows` takes it. */
  readonly tokens: Tensor;
  /** [E + 1]: expert e has the rows from offsets[e] to offsets[e + 1] - 1. */
  readonly offsets: Tensor;
}

/**
 * Gives every choice (token, slot) of a router a row, sorted by expert and for one expert in the order of the choices:
 * `gatherRows(x, tokens)` is the input of {@link groupedLinear}, {@link combineExperts} takes its results back.
 *
 * Shapes depend on the shape of `ids` alone, so that the op can be recorded and replayed.
 *
 * @param ids int32 [tokens, k], as `route` gives them
 * @param experts E
 * @throws InvalidArgumentError for wrong shapes or types; a DeviceError from the next read for an id that is not from 0 to
 *   E - 1
 */
export function groupByExpert(ids: Tensor, experts: number): ExpertGroups {
  checkInteger('groupByExpert', 'experts', experts, 1);
  const [rows, tokens, offsets] = callFallible('groupByExpert', [ids.handle, experts]);
  return { rows: rows!, tokens: tokens!, offsets: offsets! };
}
