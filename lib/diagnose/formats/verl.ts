/**
 * verl: `batch.batch` of a DataProto as JSON, a response or a whole padded batch a row (or all of a DataProto:
 * `batch`, `non_tensor_batch`, `meta_info`), as verl/experimental/agent_loop/agent_loop.py (`_postprocess`,
 * `as_dict`, AgentLoopOutput) and verl/trainer/ppo/ray_trainer.py fill it; verl 0.8 to 0.10.dev (August 2026). verl's
 * own JSONL (`trainer.rollout_data_dir`) has texts only: the series come into it as `reward_extra_info`, or from a
 * line of Python (docs/diagnose.md).
 *
 * `responses` [R], right-padded; `response_mask` [R], 1 for tokens of the model, 0 for tools' and padding;
 * `attention_mask` [P + R], 0 for padding alone; `rollout_log_probs` (padded with 0.0) and `old_log_probs`, which the
 * actor computes before the first update, [R] each; `prompts` [P], left-padded. Of a single agent loop:
 * `response_ids`, `response_logprobs`, `prompt_ids`; of one call: `token_ids`, `log_probs`.
 */
import { isObject } from '../../io/jsonFile.js';
import type { DumpRecord } from '../record.js';
import { type Column, Fields, type Range } from './fields.js';
import { type Format, recordOf } from './format.js';
import { keptRange, seriesOf } from './series.js';

const TOKENS = ['responses', 'response_ids', 'token_ids'];
const ROLLOUT = ['rollout_log_probs', 'response_logprobs'];
const TRAINING = 'old_log_probs';
/** What either engine calls its result before it gets a name in the batch. */
const UNNAMED = 'log_probs';
const KEYS = [...TOKENS, ...ROLLOUT, TRAINING, UNNAMED, 'response_mask'];
const NAMES = [
  ...KEYS,
  'attention_mask',
  'prompts',
  'prompt_ids',
  'id',
  'request_id',
  'uid',
  'output',
  'step',
  'global_steps',
];
const NUMBERS = ['min_global_steps', 'max_global_steps', 'temperature', 'top_p', 'top_k', 'batch'];
/** Fields of other projects beside the same names. */
const OTHERS = ['tokens', 'completion_mask', 'choices'];

export const verl: Format = {
  name: 'verl',
  title: 'verl: rows or batches of a DataProto',

  detects(row) {
    const flat = flattened(row);
    const isCall = UNNAMED in flat && 'token_ids' in flat;
    return (
      (isCall || [...ROLLOUT, TRAINING].some((name) => name in flat)) && !OTHERS.some((name) => name in flat)
    );
  },

  records(row, place) {
    return new Fields(flattened(row), place).rows(KEYS, [...NAMES, ...NUMBERS]).map(recordOfRow);
  },
};

/** A whole DataProto has its columns in three objects. */
function flattened(row: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> {
  const { batch, non_tensor_batch: others, meta_info: settings, ...rest } = row;
  if (!isObject(batch)) return row;
  return { ...rest, ...(isObject(settings) && settings), ...(isObject(others) && others), ...batch };
}

function recordOfRow(fields: Fields): DumpRecord {
  const tokens = fields.array(...TOKENS);
  const rollout = fields.array(...ROLLOUT);
  const training = fields.array(TRAINING);
  const unnamed = rollout === null && training === null ? fields.array(UNNAMED) : null;
  const mask = fields.array('response_mask');
  const length = fields.sameLength(rollout ?? training ?? unnamed, training, tokens, mask);
  const attention = fields.array('attention_mask');
  const prompts = fields.array('prompts', 'prompt_ids');
  const range = rangeOf(fields, length, attention, mask);
  const counts = mask ?? (attention && tailOf(attention, length));
  return recordOf(fields.place, {
    id: fields.id('id') ?? fields.id('request_id') ?? uniqueUid(fields),
    tokens: tokens && fields.ids(tokens, range),
    text: fields.text('output'),
    ...seriesOf(fields, { own: unnamed, rollout, training }, range, ROLLOUT[0]!),
    mask: counts && fields.mask(counts, range),
    promptTokens: prompts && fields.ids(prompts, promptRange(fields, prompts, length, attention)),
    step: fields.integer('step') ?? fields.integer('global_steps'),
    batch: fields.id('batch'),
    settings: fields.settings(),
    weightsVersion: fields.versionSpan('min_global_steps', 'max_global_steps'),
  });
}

/**
 * The response without its padding; `attention_mask` knows it best, as `response_mask` is 0 for a tool's last words,
 * too.
 */
function rangeOf(fields: Fields, length: number, attention: Column | null, mask: Column | null): Range {
  if (attention === null) return mask === null ? { start: 0, end: length } : keptRange(fields.mask(mask));
  if (attention.values.length < length) {
    fields.fail(attention.name, `to be at least as long as the response (${length})`, attention.values);
  }
  return keptRange(fields.mask(tailOf(attention, length)));
}

function tailOf({ name, values }: Column, length: number): Column {
  return { name, values: values.slice(values.length - length) };
}

function promptRange(fields: Fields, prompts: Column, length: number, attention: Column | null): Range {
  const all = { start: 0, end: prompts.values.length };
  if (attention?.values.length !== all.end + length) return all;
  return keptRange(fields.mask({ name: attention.name, values: attention.values.slice(0, all.end) }));
}

/**
 * `uid` is of a prompt and shared by its samples, except where it is the key of one sample:
 * `{uid}_{rollout}_{output}`.
 */
function uniqueUid(fields: Fields): string | null {
  const uid = fields.id('uid');
  return uid !== null && /_\d+_\d+$/.test(uid) ? uid : null;
}
