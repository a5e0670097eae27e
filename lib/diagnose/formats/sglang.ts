/**
 * Answers of SGLang's own /generate (python/sglang/srt/managers/tokenizer_manager.py, August 2026); those of its
 * OpenAI endpoint are of the format vllm.
 *
 * `text`, `output_ids`, `prompt_token_ids`, and in `meta_info`: `id`, `output_token_logprobs` [tokens] of [logprob,
 * id, text or null], `output_top_logprobs` [tokens] of lists of the same or null, `input_token_logprobs` (from
 * `logprob_start_len` on; the first has null), `input_top_logprobs`, `weight_version`, `weight_versions`. Where
 * nothing was sampled, a text was scored: its log-probs are the input's (scored.ts). Ids are those of the log-probs,
 * `output_ids` repeats them. A row's own `id`, `step`, `batch`, `temperature`, `top_p`, `top_k` are read beside.
 */
import { isObject } from '../../io/jsonFile.js';
import type { DumpRecord, TopLogprobs } from '../record.js';
import { type Column, Fields, isTokenId, numberOf, type Range } from './fields.js';
import { type Format, recordOf } from './format.js';
import { scoredRange } from './scored.js';
import { withTop } from './series.js';
import { gather } from './topLogprobs.js';
import { weightsOf } from './weightSpans.js';

type Entry = readonly [logprob: number, id: number, text: string | null];

export const sglang: Format = {
  name: 'sglang',
  title: 'SGLang: answers of its own /generate',

  detects(row) {
    // A DataProto of verl has a meta_info, too.
    const meta = row.meta_info;
    return (
      isObject(meta) && ('finish_reason' in meta || 'output_token_logprobs' in meta) && !('choices' in row)
    );
  },

  records(row, place) {
    const fields = new Fields(row, place);
    const meta = fields.object('meta_info') ?? fields.fail('meta_info', 'to be an object', undefined);
    const name = 'output_token_logprobs';
    const output = meta.array(name) ?? meta.fail(name, 'to be an array', undefined);
    const input = meta.array('input_token_logprobs');
    const isScored = output.values.length === 0 && (input?.values.length ?? 0) > 0;
    const found = isScored ? scored(fields, meta, input!) : sampled(fields, meta, output, input);
    const length = isScored ? 0 : output.values.length;
    return [
      recordOf(place, {
        ...found,
        id: fields.id('id') ?? fields.id('rid') ?? meta.id('id'),
        step: fields.integer('step'),
        batch: fields.id('batch'),
        settings: fields.settings(),
        weightsVersion: weightsOf(meta, length, !isScored),
      }),
    ];
  },
};

function sampled(fields: Fields, meta: Fields, output: Column, input: Column | null): Partial<DumpRecord> {
  const prompt = fields.array('prompt_token_ids');
  const isWhole = input !== null && input.values.length === meta.integer('prompt_tokens');
  return {
    ...responseOf(meta, output, 'output_top_logprobs', { start: 0, end: output.values.length }),
    text: fields.text('text'),
    promptTokens: prompt
      ? fields.ids(prompt)
      : isWhole && input.values.length > 0
        ? idsOf(meta, input)
        : null,
  };
}

function scored(fields: Fields, meta: Fields, input: Column): Partial<DumpRecord> {
  const range = scoredRange(fields, input.values.length);
  return {
    ...responseOf(meta, input, 'input_top_logprobs', range),
    promptTokens: range.start > 0 ? idsOf(meta, input).slice(0, range.start) : null,
  };
}

function responseOf(
  meta: Fields,
  column: Column,
  topName: string,
  { start, end }: Range,
): Partial<DumpRecord> {
  const top = meta.array(topName);
  const isTop = top !== null && top.values.length > 0;
  if (isTop) meta.sameLength(column, top);
  const entries = column.values
    .slice(start, end)
    .map((value, t) => entryOf(meta, column.name, value, `[${start + t}]`));
  const texts = entries.map(([, , text]) => text);
  const topOf = (value: unknown, t: number): TopLogprobs | null => {
    if (value === null) return null;
    const item = `[${start + t}]`;
    if (!Array.isArray(value)) meta.fail(topName, 'to be an array or null', value, item);
    return gather(
      value.map((one, j) => {
        const [logprob, id] = entryOf(meta, topName, one, `${item}[${j}]`);
        return [id, logprob];
      }),
    );
  };
  return {
    tokens: entries.map(([, id]) => id),
    tokenTexts: texts.length > 0 && texts.every((text) => text !== null) ? texts : null,
    own: withTop(
      Float64Array.from(entries, ([logprob]) => logprob),
      isTop ? top.values.slice(start, end).map(topOf) : null,
    ),
  };
}

function idsOf(meta: Fields, column: Column): number[] {
  return column.values.map((value, i) => entryOf(meta, column.name, value, `[${i}]`)[1]);
}

function entryOf(meta: Fields, name: string, value: unknown, item: string): Entry {
  const [first, id, text = null] = Array.isArray(value) ? value : [];
  const logprob = numberOf(first);
  if (logprob === undefined || !isTokenId(id) || !(text === null || typeof text === 'string')) {
    meta.fail(name, 'to be [logprob, id, text or null]', value, item);
  }
  return [logprob, id, text];
}
