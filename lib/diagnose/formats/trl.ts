/**
 * TRL, as of 1.10.dev (July 2026), three shapes:
 *
 * - what `GRPOTrainer._generate_and_score_completions` returns (trl/trainer/grpo_trainer.py), a response or a whole
 *   batch a row: `completion_ids` [C], right-padded, with `completion_mask` (0 for padding); `tool_mask` (0 for a
 *   tool's tokens, where tools are used); `sampling_per_token_logps` of vLLM (padded with 0.0) and
 *   `old_per_token_logps` of the model trained, null without vLLM's correction; `prompt_ids` [P], left-padded, with
 *   `prompt_mask`;
 * - the answer of trl vllm-serve's /generate/ (trl/scripts/vllm_serve.py): `completion_ids`, and `logprobs` with
 *   `logprob_token_ids` [responses][C][k] by rank, in which the token drawn is one of the k; `prompt_ids` a prompt,
 *   not a response;
 * - a RolloutSample of AsyncGRPOTrainer (trl/experimental/async_grpo): `input_ids` of prompt and response,
 *   `completion_mask`, and `old_log_probs`, which are the generator's.
 */
import type { DumpRecord, Series, TopLogprobs } from '../record.js';
import { type Column, Fields, numberOf } from './fields.js';
import { type Format, recordOf } from './format.js';
import { keptRange, maskedSequence, seriesOf, withTop } from './series.js';

const ROLLOUT = 'sampling_per_token_logps';
const TRAINING = 'old_per_token_logps';
const KEYS = ['completion_ids', 'completion_mask', ROLLOUT, TRAINING, 'input_ids', 'old_log_probs'];
const NAMES = [...KEYS, 'tool_mask', 'prompt_ids', 'prompt_mask', 'logprobs', 'logprob_token_ids'];
const OF_ROW = ['id', 'step', 'batch', 'temperature', 'top_p', 'top_k', 'model_version'];

export const trl: Format = {
  name: 'trl',
  title: 'TRL: rows or batches of GRPOTrainer, AsyncGRPOTrainer, answers of vllm-serve',

  detects(row) {
    if (ROLLOUT in row || TRAINING in row) return true;
    if ('completion_ids' in row && 'logprobs' in row) return true;
    return 'input_ids' in row && 'completion_mask' in row && 'old_log_probs' in row;
  },

  records(row, place) {
    return new Fields(promptEach(row), place).rows(KEYS, [...NAMES, ...OF_ROW]).map((fields) => {
      const common = {
        id: fields.id('id'),
        step: fields.integer('step'),
        batch: fields.id('batch'),
        settings: fields.settings(),
        weightsVersion: fields.id('model_version'),
      };
      const found = 'old_log_probs' in row ? fromWholeSequence(fields) : fromCompletion(fields);
      return recordOf(place, { ...common, ...found });
    });
  },
};

/** A server answers n responses a prompt, in order: the prompt of each. */
function promptEach(row: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> {
  const { prompt_ids: prompts, completion_ids: completions } = row;
  if (!('logprobs' in row) || !Array.isArray(prompts) || !Array.isArray(completions)) return row;
  const each = completions.length / prompts.length;
  if (!Array.isArray(prompts[0]) || each <= 1 || !Number.isInteger(each)) return row;
  return { ...row, prompt_ids: completions.map((_, i) => prompts[Math.floor(i / each)]) };
}

function fromCompletion(fields: Fields): Partial<DumpRecord> {
  const tokens = fields.array('completion_ids');
  const rollout = fields.array(ROLLOUT);
  const training = fields.array(TRAINING);
  const ranked = rollout === null && training === null ? fields.array('logprobs') : null;
  const mask = fields.array('completion_mask');
  const toolMask = fields.array('tool_mask');
  const length = fields.sameLength(rollout ?? training ?? ranked, training, tokens, mask, toolMask);
  const isThere = mask && fields.mask(mask);
  const range = isThere === null ? { start: 0, end: length } : keptRange(isThere);
  const counts = isThere ?? new Uint8Array(length).fill(1);
  // In a tool mask padding is 1.
  const tool = toolMask && fields.mask(toolMask);
  const prompt = fields.array('prompt_ids');
  const promptMask = fields.array('prompt_mask');
  if (prompt !== null) fields.sameLength(prompt, promptMask);
  const ids = tokens && fields.ids(tokens, range);
  return {
    tokens: ids,
    ...(ranked !== null && ids !== null
      ? { own: rankedSeries(fields, ranked, ids, range.start) }
      : seriesOf(fields, { rollout, training }, range, ROLLOUT)),
    mask:
      isThere === null && tool === null
        ? null
        : counts.map((count, i) => count & (tool?.[i] ?? 1)).slice(range.start, range.end),
    promptTokens: prompt && fields.ids(prompt, promptMask ? keptRange(fields.mask(promptMask)) : undefined),
  };
}

function fromWholeSequence(fields: Fields): Partial<DumpRecord> {
  const mask = fields.array('completion_mask');
  if (mask === null) fields.fail('completion_mask', 'to be an array', undefined);
  const rollout = fields.array('old_log_probs');
  const { range: _, ...found } = maskedSequence(
    fields,
    fields.array('input_ids'),
    mask,
    { rollout, training: null },
    'old_log_probs',
  );
  return found;
}

/** Of each position from `start` on the log-probs of k tokens, the one drawn among them. */
function rankedSeries(fields: Fields, ranked: Column, ids: readonly number[], start: number): Series {
  const candidates = fields.array('logprob_token_ids');
  if (candidates === null) fields.fail('logprob_token_ids', 'to be an array beside logprobs', undefined);
  fields.sameLength(ranked, candidates);
  const logprobs = new Float64Array(ids.length);
  const top: TopLogprobs[] = [];
  for (const [t, id] of ids.entries()) {
    const row = (column: Column): Column => {
      const values = column.values[start + t];
      if (!Array.isArray(values)) fields.fail(column.name, 'to be an array', values, `[${start + t}]`);
      return { name: `${column.name}[${start + t}]`, values };
    };
    const [numbers, tokens] = [row(ranked), row(candidates)];
    fields.sameLength(numbers, tokens);
    const drawn = tokens.values.indexOf(id);
    if (drawn < 0) fields.fail(tokens.name, `to have ${id}, the token of the response`, tokens.values);
    const entry = { tokens: fields.ids(tokens), logprobs: [...fields.numbers(numbers)] };
    logprobs[t] = numberOf(numbers.values[drawn])!;
    top.push(entry);
  }
  const isMore = top.some(({ tokens }) => tokens.length > 1);
  return withTop(logprobs, isMore ? top : null);
}
