/**
 * Our own format: one response a line (docs/diagnose.md).
 *
 * `id`, `tokens`, `logprobs`, `mask`, `text`, `step`, `batch`, `temperature`, `topP`, `topK`, `weightsVersion`,
 * `promptTokens`, `topLogprobs`; or, of both engines, `rolloutLogprobs` and `trainingLogprobs` with
 * `rolloutTopLogprobs` and `trainingTopLogprobs`. Each in snake_case, too.
 */
import type { Series } from '../record.js';
import { type Column, Fields } from './fields.js';
import { type Format, recordOf } from './format.js';
import { topLogprobsOf } from './topLogprobs.js';

const OWN = ['logprobs'];
const ROLLOUT = ['rolloutLogprobs', 'rollout_logprobs'];
const TRAINING = ['trainingLogprobs', 'training_logprobs'];
/** Fields that other formats have beside one of the names above. */
const OTHERS = ['choices', 'meta_info', 'token_ids', 'completion_ids'];

export const plain: Format = {
  name: 'plain',
  title: 'one response a line: id, tokens, logprobs (docs/diagnose.md)',

  detects(row) {
    const names = [...OWN, ...ROLLOUT, ...TRAINING];
    const logprobs = row.logprobs ?? null;
    const isObject = typeof logprobs === 'object' && logprobs !== null && !Array.isArray(logprobs);
    return !isObject && names.some((name) => name in row) && !OTHERS.some((name) => name in row);
  },

  records(row, place) {
    const fields = new Fields(row, place);
    const own = fields.array(...OWN);
    const rollout = fields.array(...ROLLOUT);
    const training = fields.array(...TRAINING);
    const named = rollout ?? training;
    if (own !== null && named !== null)
      fields.fail(named.name, 'to be missing beside logprobs', named.values);
    const single = own ?? (rollout === null || training === null ? named : null);
    if (single === null && rollout === null) {
      fields.fail('logprobs', 'to be an array of numbers', fields.get('logprobs') ?? undefined);
    }
    const tokens = fields.array('tokens');
    const mask = fields.array('mask');
    const texts = Array.isArray(fields.get('text')) ? fields.array('text') : null;
    const length = fields.sameLength(own ?? rollout, training, tokens, mask, texts);
    const top = {
      own: fields.array('topLogprobs', 'top_logprobs'),
      rollout: fields.array('rolloutTopLogprobs', 'rollout_top_logprobs'),
      training: fields.array('trainingTopLogprobs', 'training_top_logprobs'),
    };
    const series = (column: Column, topColumn: Column | null): Series => {
      fields.sameLength(column, topColumn);
      const logprobs = fields.numbers(column);
      return topColumn === null ? { logprobs } : { logprobs, topLogprobs: topLogprobsOf(fields, topColumn) };
    };
    const prompt = fields.array('promptTokens', 'prompt_tokens');
    return [
      recordOf(place, {
        id: fields.id('id'),
        tokens: tokens && fields.ids(tokens),
        tokenTexts: texts && fields.texts(texts),
        text: texts === null ? fields.text('text') : null,
        own: single && series(single, top.own ?? (single === training ? top.training : top.rollout)),
        both:
          single === null
            ? { rollout: series(rollout!, top.rollout), training: series(training!, top.training) }
            : null,
        mask: mask && fields.mask(mask),
        promptTokens: prompt && fields.ids(prompt),
        step: fields.integer('step'),
        batch: fields.id('batch'),
        settings: fields.settings(),
        weightsVersion: fields.weightsVersion(length, 'weightsVersion', 'weights_version'),
      }),
    ];
  },
};
