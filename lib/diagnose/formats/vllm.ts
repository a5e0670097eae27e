/**
 * Answers of OpenAI's API as vLLM gives them (vllm/entrypoints/openai/chat_completion/protocol.py and
 * completion/protocol.py, August 2026), and SGLang, too:
 *
 * - chat: `choices[].logprobs.content[]` of {token, logprob, top_logprobs: [{token, logprob}]};
 * - completions: `choices[].logprobs` of {tokens, token_logprobs, top_logprobs: [{token: logprob}]}; with `echo`, the
 *   prompt first;
 * - `prompt_logprobs` [prompt] of {id: {logprob, rank, decoded_token}}, where the choice has no log-probs of its own:
 *   a text that was scored (scored.ts);
 * - a line of a batch's output: {custom_id, response: {body}};
 * - a choice alone; and RequestOutput of `LLM.generate` (vllm/outputs.py) as JSON: `outputs[].logprobs` [tokens] of
 *   {id: {logprob, ...}}.
 *
 * Ids are in `token_ids` and `prompt_token_ids` (`return_token_ids`) or in texts such as `token_id:123`
 * (`return_tokens_as_token_ids`). The API has -9999.0 for minus infinity. A row's own `id`, `step`, `batch`,
 * `temperature`, `top_p`, `top_k` are read beside; of several choices each is `id#index`.
 */
import { Fields } from './fields.js';
import { type Format, recordOf } from './format.js';
import { answerOf } from './openAi.js';
import { requestOutput, scoredPrompt } from './vllmDicts.js';
import { weightsOf } from './weightSpans.js';

export const vllm: Format = {
  name: 'vllm',
  title: "vLLM, SGLang and others with OpenAI's API: chat and completions, batch output, RequestOutput",

  detects(row) {
    if ('choices' in row || ('custom_id' in row && 'response' in row)) return true;
    if ('outputs' in row && 'prompt_token_ids' in row) return true;
    const logprobs = row.logprobs ?? null;
    return (
      typeof logprobs === 'object' &&
      logprobs !== null &&
      ('content' in logprobs || 'token_logprobs' in logprobs)
    );
  },

  records(row, place) {
    const fields = new Fields(row, place);
    const body = 'custom_id' in row ? bodyOf(fields) : fields;
    const outputs = body.objects('outputs');
    const alone = 'logprobs' in body.values ? [body] : null;
    const choices =
      outputs ?? body.objects('choices') ?? alone ?? body.fail('choices', 'to be an array', undefined);
    const id = fields.id('custom_id') ?? body.id('id') ?? body.id('request_id');
    const metadata = body.object('metadata');
    return choices.map((choice, i) => {
      const answer =
        outputs === null
          ? (answerOf(fields, body, choice) ?? scoredPrompt(fields, body, choice))
          : requestOutput(body, choice);
      return recordOf(place, {
        ...answer,
        step: fields.integer('step'),
        batch: fields.id('batch'),
        settings: fields.settings(),
        weightsVersion: metadata && weightsOf(metadata, answer.own.logprobs.length, choices.length === 1),
        id: id !== null && choices.length > 1 ? `${id}#${choice.integer('index') ?? i}` : id,
      });
    });
  },
};

/** The answer in a line of a batch's output. */
function bodyOf(line: Fields): Fields {
  const response = line.object('response') ?? line.fail('response', 'to be an object', null);
  return response.object('body') ?? response.fail('body', 'to be an object', null);
}
