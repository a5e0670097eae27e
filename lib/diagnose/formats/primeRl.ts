/**
 * prime-rl, four shapes:
 *
 * - `enable_token_export` of the trainer (src/prime_rl/trainer/rl/token_export.py, schema 1; prime-rl 0.8, August
 *   2026): a sequence a line with prompt and response, `token_ids`, `loss_mask`, `inference_logprobs` and
 *   `trainer_logprobs`, null where not finite; `step`, `rank`, `micro_step`, `export_sequence_idx`;
 * - a TrainingSample of 0.8 (src/prime_rl/transports/rollouts/types.py): `token_ids`, `mask`, `logprobs`,
 *   `temperatures` [prompt + response];
 * - a TrainingSample up to 0.5, also the `tokens` of a step of verifiers: `prompt_ids`, `completion_ids`,
 *   `completion_mask` (false for tools' tokens), `completion_logprobs`, `completion_temperatures`;
 * - traces of verifiers' v1 environments, which prime-rl writes by default (primeRlTrace.ts).
 */
import type { DumpRecord } from '../record.js';
import { type Column, Fields } from './fields.js';
import { type Format, recordOf } from './format.js';
import { isTrace, traceRecords } from './primeRlTrace.js';
import { maskedSequence, seriesOf } from './series.js';

const SAMPLE = ['mask', 'logprobs'];
const EXPORTED = ['inference_logprobs', 'trainer_logprobs'];

export const primeRl: Format = {
  name: 'prime-rl',
  title: "prime-rl: the trainer's token export, training samples, traces",

  detects(row) {
    if ('completion_logprobs' in row || isTrace(row)) return true;
    if (!('token_ids' in row)) return false;
    return EXPORTED.some((name) => name in row) || SAMPLE.every((name) => name in row);
  },

  records(row, place) {
    if (isTrace(row)) return traceRecords(row, place);
    const fields = new Fields(row, place);
    return [
      recordOf(place, 'completion_logprobs' in row ? fromCompletion(fields) : fromWholeSequence(fields)),
    ];
  },
};

function fromCompletion(fields: Fields): Partial<DumpRecord> {
  const rollout = fields.array('completion_logprobs');
  const tokens = fields.array('completion_ids');
  const mask = fields.array('completion_mask');
  const temperatures = fields.array('completion_temperatures');
  const length = fields.sameLength(rollout, tokens, mask, temperatures);
  const range = { start: 0, end: length };
  const prompt = fields.array('prompt_ids');
  const counts = mask && fields.mask(mask);
  return {
    ...common(fields),
    tokens: tokens && fields.ids(tokens),
    ...seriesOf(fields, { rollout, training: null }, range, 'completion_logprobs'),
    mask: counts,
    promptTokens: prompt && fields.ids(prompt),
    settings: settings(fields, temperatures, 0, counts),
  };
}

function fromWholeSequence(fields: Fields): Partial<DumpRecord> {
  const tokens = fields.array('token_ids');
  const mask = fields.array('loss_mask', 'mask');
  if (mask === null) fields.fail('loss_mask', 'to be an array', undefined);
  const temperatures = fields.array('temperatures');
  // Filled late: a sample may have been written before.
  const each = temperatures?.values.length === 0 ? null : temperatures;
  fields.sameLength(mask, each);
  const { range, ...found } = maskedSequence(
    fields,
    tokens,
    mask,
    { rollout: fields.array('inference_logprobs', 'logprobs'), training: fields.array('trainer_logprobs') },
    'inference_logprobs',
  );
  return { ...common(fields), ...found, settings: settings(fields, each, range.start, found.mask) };
}

/** An export is known by step, rank and number; sequences of one micro-step went through the trainer together. */
function common(fields: Fields): Partial<DumpRecord> {
  const step = fields.integer('step');
  const [rank, number, micro] = ['rank', 'export_sequence_idx', 'micro_step'].map((name) =>
    fields.integer(name),
  );
  const exported = step === null || rank === null ? null : `step ${step} rank ${rank}`;
  return {
    id: fields.id('id') ?? (exported === null || number === null ? null : `${exported} #${number}`),
    step,
    batch:
      fields.id('batch') ?? (exported === null || micro === null ? null : `${exported} micro-step ${micro}`),
  };
}

/** The temperature of the tokens that count; null where they have several. */
function settings(fields: Fields, each: Column | null, start: number, mask: Uint8Array | null) {
  const found = fields.settings();
  if (each === null) return found;
  const length = mask?.length ?? each.values.length;
  const counted = each.values.slice(start, start + length).filter((_, i) => mask === null || mask[i] === 1);
  const values = new Set(counted);
  if (values.size !== 1) return found;
  const temperature = new Fields({ temperature: counted[0] }, fields.place, () => each.name).temperature();
  return { ...found, temperature };
}
