/**
 * slime 0.3 (August 2026), two dumps that torch.save writes, read as JSON: of `--save-debug-rollout-data`
 * (slime/observability/rollout_data_utils.py, each sample is Sample.to_dict of slime/utils/types.py) and of
 * `--save-debug-train-data` (train_data_utils.py). A row is a sample, the whole dump {rollout_id, samples}, or the
 * trainer's batch (slime/ray/rollout.py) with a column for each field.
 *
 * `tokens` of prompt and response, of which the last `response_length` are the response; `rollout_log_probs`
 * [response], 0.0 for a tool's tokens, and the trainer's `log_probs`; `loss_mask` [response]; `weight_versions`, one
 * for each call of the engine; `remove_sample`, for which the trainer makes the mask 0. The trainer's dump has plural
 * names for some.
 */
import type { DumpRecord } from '../record.js';
import { Fields } from './fields.js';
import { type Format, recordOf } from './format.js';
import { seriesOf } from './series.js';

const KEYS = ['tokens', 'rollout_log_probs', 'log_probs', 'loss_mask', 'loss_masks'];
const LENGTHS = ['response_length', 'response_lengths'];
const IDS = ['index', 'sample_index', 'sample_indices'];
const NAMES = [
  ...KEYS,
  ...LENGTHS,
  ...IDS,
  'id',
  'step',
  'batch',
  'response',
  'remove_sample',
  'temperature',
  'top_p',
  'top_k',
];

export const slime: Format = {
  name: 'slime',
  title: 'slime: samples of its debug dumps of rollout and training data',

  detects(row) {
    const isSample = LENGTHS.some((name) => name in row) && 'tokens' in row;
    return (isSample && !('logprobs' in row)) || ('samples' in row && 'rollout_id' in row);
  },

  records(row, place) {
    const fields = new Fields(row, place);
    const samples = fields.objects('samples');
    if (samples === null) return fields.rows(KEYS, NAMES).map((sample) => recordOfSample(sample, null));
    const step = fields.integer('rollout_id');
    return samples.map((sample) => recordOfSample(sample, step));
  },
};

function recordOfSample(fields: Fields, rolloutId: number | null): DumpRecord {
  const whole = fields.array('tokens') ?? fields.fail('tokens', 'to be an array', undefined);
  const length = fields.integer(...LENGTHS) ?? fields.fail(LENGTHS[0]!, 'to be an integer from 0', undefined);
  const start = whole.values.length - length;
  if (start < 0) {
    fields.fail(
      fields.find(...LENGTHS)!,
      `to be at most ${whole.values.length}, the number of tokens`,
      length,
    );
  }
  const response = { name: 'the response', values: whole.values.slice(start) };
  // An aborted sample has neither tokens nor log-probs.
  const empty = length === 0 ? { name: 'rollout_log_probs', values: [] } : null;
  const rollout = fields.array('rollout_log_probs') ?? empty;
  const training = fields.array('log_probs');
  const mask = fields.array('loss_mask', 'loss_masks');
  fields.sameLength(response, rollout, training, mask);
  const range = { start: 0, end: length };
  const isRemoved = fields.boolean('remove_sample') === true;
  return recordOf(fields.place, {
    id: fields.id('id') ?? fields.id(...IDS),
    tokens: fields.ids(whole, { start, end: whole.values.length }),
    text: fields.text('response'),
    ...seriesOf(fields, { rollout, training }, range, 'rollout_log_probs'),
    mask: isRemoved ? new Uint8Array(length) : mask && fields.mask(mask),
    promptTokens: start > 0 ? fields.ids(whole, { start: 0, end: start }) : null,
    step: fields.integer('step') ?? rolloutId,
    batch: fields.id('batch'),
    settings: fields.settings(),
    weightsVersion: versions(fields),
  });
}

/** Which tokens a version made isn't told: one where all calls had the same, else all that took part. */
function versions(fields: Fields): string | null {
  const column = fields.array('weight_versions');
  if (column === null || column.values.length === 0) return null;
  const all = fields.weightsVersion(column.values.length, 'weight_versions') as string[];
  return [...new Set(all)].join(', ');
}
