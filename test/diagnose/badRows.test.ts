/** What is wrong in a row of a dump is told with file, line and field, and by nothing but an InvalidArgumentError. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { type FormatName, formatNames, formatOf } from '../../lib/diagnose/formats/index.js';
import { InvalidArgumentError } from '../../lib/errors.js';

const place = { file: 'rollout.jsonl', line: 12 };

/** A format, a row, and the message, in which @ is the place. */
const table = `
plain {"logprobs":"abc"} => logprobs @ to be an array, got the string "abc"
plain {"logprobs":null} => logprobs @ to be an array of numbers, got nothing
plain {"logprobs":[-1,"x"]} => logprobs[1] @ to be a number or null, got the string "x"
plain {"logprobs":[[-1]]} => logprobs[0] @ to be a number or null, got an array of 1
plain {"logprobs":[true]} => logprobs[0] @ to be a number or null, got the boolean true
plain {"logprobs":["-1"]} => logprobs[0] @ to be a number or null, got the string "-1"
plain {"logprobs":[{}]} => logprobs[0] @ to be a number or null, got an object with no keys
plain {"logprobs":[-1],"rolloutLogprobs":[-1]} => rolloutLogprobs @ to be missing beside logprobs, got an array of 1
plain {"logprobs":[-1],"topLogprobs":[null],"top_logprobs":[null]} => top_logprobs @ to be missing beside topLogprobs, got an array of 1
plain {"logprobs":[-1],"tokens":[1,2]} => tokens @ to be as long as logprobs (1), got an array of 2
plain {"logprobs":[-1],"mask":[]} => mask @ to be as long as logprobs (1), got an array of 0
plain {"logprobs":[-1],"text":["a","b"]} => text @ to be as long as logprobs (1), got an array of 2
plain {"logprobs":[-1],"topLogprobs":[]} => topLogprobs @ to be as long as logprobs (1), got an array of 0
plain {"rolloutLogprobs":[-1],"trainingLogprobs":[]} => trainingLogprobs @ to be as long as rolloutLogprobs (1), got an array of 0
plain {"logprobs":[-1],"tokens":[1.5]} => tokens[0] @ to be the id of a token, an integer from 0, got the number 1.5
plain {"logprobs":[-1],"tokens":[-1]} => tokens[0] @ to be the id of a token, an integer from 0, got the number -1
plain {"logprobs":[-1],"tokens":["a"]} => tokens[0] @ to be the id of a token, an integer from 0, got the string "a"
plain {"logprobs":[-1],"tokens":{"0":1}} => tokens @ to be an array, got an object with 0
plain {"logprobs":[-1],"mask":[0.5]} => mask[0] @ to be 0, 1, true or false, got the number 0.5
plain {"logprobs":[-1],"mask":["1"]} => mask[0] @ to be 0, 1, true or false, got the string "1"
plain {"logprobs":[-1],"mask":[null]} => mask[0] @ to be 0, 1, true or false, got null
plain {"logprobs":[-1],"text":5} => text @ to be a text, got the number 5
plain {"logprobs":[-1],"text":[5]} => text[0] @ to be a text, got the number 5
plain {"logprobs":[],"id":1.5} => id @ to be a text or an integer, got the number 1.5
plain {"logprobs":[],"id":9007199254740992} => id @ to be a text or an integer, got the number 9007199254740992
plain {"logprobs":[],"id":""} => id @ to be a text or an integer, got the string ""
plain {"logprobs":[],"step":-1} => step @ to be an integer from 0, got the number -1
plain {"logprobs":[],"temperature":0} => temperature @ to be a finite number above 0, got the number 0
plain {"logprobs":[],"temperature":-1} => temperature @ to be a finite number above 0, got the number -1
plain {"logprobs":[],"temperature":"hot"} => temperature @ to be a finite number above 0, got the string "hot"
plain {"logprobs":[],"topP":1.5} => topP @ to be above 0 and at most 1, got the number 1.5
plain {"logprobs":[],"top_p":0} => top_p @ to be above 0 and at most 1, got the number 0
plain {"logprobs":[],"topK":-2} => topK @ to be an integer of at least 1, or -1 for all, got the number -2
plain {"logprobs":[-1],"weightsVersion":["a","b"]} => weightsVersion @ to be one version, or 1, one a token, got an array of 2
plain {"logprobs":[-1],"weightsVersion":[null]} => weightsVersion[0] @ to be a text or an integer, got null
plain {"logprobs":[-1],"topLogprobs":[5]} => topLogprobs[0] @ to be an object {token: logprob} or null, got the number 5
plain {"logprobs":[-1],"topLogprobs":[{"5":"x"}]} => topLogprobs[0]["5"] @ to be a number or null, got the string "x"
plain {"logprobs":[-1],"topLogprobs":[[[5]]]} => topLogprobs[0][0] @ to be [token, logprob], got an array of 1
plain {"logprobs":[-1],"topLogprobs":[[[1.5,-1]]]} => topLogprobs[0][0] @ to be [token, logprob], got an array of 2
verl {"responses":[1],"response_mask":[1],"rollout_log_probs":null} => rollout_log_probs @ to be an array of numbers, got nothing
verl {"responses":[1,2],"rollout_log_probs":[-1,-2],"old_log_probs":[-1]} => old_log_probs @ to be as long as rollout_log_probs (2), got an array of 1
verl {"responses":[1,2],"rollout_log_probs":[-1,-2],"attention_mask":[1]} => attention_mask @ to be at least as long as the response (2), got an array of 1
verl {"responses":[[1],[2]],"rollout_log_probs":[[-1]]} => rollout_log_probs @ to have as many rows as responses (2), got an array of 1
verl {"responses":[[1],[2]],"rollout_log_probs":[[-1],["x"]]} => rollout_log_probs[1][0] @ to be a number or null, got the string "x"
verl {"responses":[[1],5],"rollout_log_probs":[[-1],[-2]]} => responses[1] @ to be an array, got the number 5
verl {"responses":[[1]],"rollout_log_probs":[[-1]],"step":[1,2]} => step @ to have as many rows as responses (1), got an array of 2
trl {"completion_ids":[1],"sampling_per_token_logps":null} => sampling_per_token_logps @ to be an array of numbers, got nothing
trl {"completion_ids":[1],"sampling_per_token_logps":[-1],"prompt_ids":[1],"prompt_mask":[]} => prompt_mask @ to be as long as prompt_ids (1), got an array of 0
trl {"completion_ids":[1],"logprobs":[[-1]]} => logprob_token_ids @ to be an array beside logprobs, got nothing
trl {"completion_ids":[1],"logprobs":[[-1]],"logprob_token_ids":[[2]]} => logprob_token_ids[0] @ to have 1, the token of the response, got an array of 1
trl {"completion_ids":[1],"logprobs":[-1],"logprob_token_ids":[[1]]} => logprobs[0] @ to be an array, got the number -1
trl {"input_ids":[1],"completion_mask":null,"old_log_probs":[-1]} => completion_mask @ to be an array, got nothing
vllm {"choices":5} => choices @ to be an array, got the number 5
vllm {"choices":[5]} => choices[0] @ to be an object, got the number 5
vllm {"choices":[{"logprobs":null}]} => choices[0].logprobs @ to be an object, got nothing
vllm {"choices":[{"logprobs":5}]} => choices[0].logprobs @ to be an object, got the number 5
vllm {"choices":[{"logprobs":{"content":null}}]} => choices[0].logprobs.content @ to be an array, got nothing
vllm {"choices":[{"logprobs":{"content":[{"token":"a"}]}}]} => choices[0].logprobs.content[0].logprob @ to be a number or null, got nothing
vllm {"choices":[{"logprobs":{"content":[{"logprob":-1}]}}]} => choices[0].logprobs.content[0].token @ to be a text, got nothing
vllm {"choices":[{"logprobs":{"content":[{"token":"a","logprob":-1,"top_logprobs":[5]}]}}]} => choices[0].logprobs.content[0].top_logprobs[0] @ to be {token, logprob}, got the number 5
vllm {"choices":[{"token_ids":[1,2],"logprobs":{"content":[{"token":"a","logprob":-1}]}}]} => choices[0].token_ids @ to be as long as the log-probs (1), got an array of 2
vllm {"choices":[{"logprobs":{"tokens":["a"],"token_logprobs":[]}}]} => choices[0].logprobs.tokens @ to be as long as token_logprobs (0), got an array of 1
vllm {"choices":[{"logprobs":{"tokens":["a"]}}]} => choices[0].logprobs.token_logprobs @ to be an array, got nothing
vllm {"choices":[{"logprobs":{"token_logprobs":[-1]}}]} => choices[0].logprobs.tokens @ to be an array, got nothing
vllm {"choices":[{"logprobs":null}],"prompt_token_ids":[1,2],"prompt_logprobs":[null,5]} => prompt_logprobs[1] @ to be an object or null, got the number 5
vllm {"choices":[{"logprobs":null}],"prompt_logprobs":[null,null]} => prompt_logprobs[1] @ to have one token, or to stand beside prompt_token_ids, got null
vllm {"custom_id":"a","response":{"body":null}} => response.body @ to be an object, got null
vllm {"custom_id":"a","response":null,"error":{"code":5}} => response @ to be an object, got null
vllm {"custom_id":"a","response":{"body":{"error":{}}}} => response.body.choices @ to be an array, got nothing
vllm {"prompt_token_ids":[1],"outputs":[{"token_ids":[1],"logprobs":null}]} => outputs[0].logprobs @ to be an array, got nothing
vllm {"prompt_token_ids":[1],"outputs":[{"token_ids":[1],"logprobs":[{"2":{"logprob":-1}}]}]} => outputs[0].logprobs[0] @ to have {logprob} of token 1, got an object with 2
vllm {"prompt_token_ids":[1],"outputs":[{"token_ids":[1],"logprobs":[{"1":{"logprob":"x"}}]}]} => outputs[0].logprobs[0] @ to have {logprob} of token 1, got an object with logprob
vllm {"prompt_token_ids":[1],"outputs":[{"token_ids":[1],"logprobs":[{"a":{"logprob":-1}}]}]} => outputs[0].logprobs[0] @ to have ids of tokens as keys, got the string "a"
vllm {"choices":[{"logprobs":null}],"prompt_logprobs":[null,{"2":{"logprob":-1},"3":{"logprob":-1}}]} => prompt_logprobs[1] @ to have one token, or to stand beside prompt_token_ids, got an object with 2, 3
vllm {"choices":[{"logprobs":null}],"prompt_logprobs":[null],"response_length":2} => response_length @ to be at most 1, the number of tokens, got the number 2
sglang {"meta_info":{"output_token_logprobs":[[-1,5],[-1,6],[-1,7]],"weight_versions":[{"version":"1","start":0,"end":1},{"version":"2","start":1,"end":2}]}} => meta_info.weight_versions @ to cover the 3 tokens of the response, got an array of 2
sglang {"meta_info":5} => meta_info @ to be an object, got the number 5
sglang {"meta_info":{}} => meta_info.output_token_logprobs @ to be an array, got nothing
sglang {"meta_info":{"output_token_logprobs":[[-1,"a",null]]}} => meta_info.output_token_logprobs[0] @ to be [logprob, id, text or null], got an array of 3
sglang {"meta_info":{"output_token_logprobs":[-1]}} => meta_info.output_token_logprobs[0] @ to be [logprob, id, text or null], got the number -1
sglang {"meta_info":{"output_token_logprobs":[[-1,5,null]],"output_top_logprobs":[5]}} => meta_info.output_top_logprobs[0] @ to be an array or null, got the number 5
sglang {"meta_info":{"output_token_logprobs":[[-1,5,null]],"output_top_logprobs":[[5]]}} => meta_info.output_top_logprobs[0][0] @ to be [logprob, id, text or null], got the number 5
sglang {"meta_info":{"output_token_logprobs":[[-1,5,null]],"output_top_logprobs":[null,null]}} => meta_info.output_top_logprobs @ to be as long as output_token_logprobs (1), got an array of 2
sglang {"meta_info":{"output_token_logprobs":[[-1,5,null]],"weight_versions":[{"version":"1","start":0,"end":1},{"version":"2","start":1,"end":9}]}} => meta_info.weight_versions @ to be spans {version, start, end} that follow each other up to 1, got an object with version, start, end
sglang {"meta_info":{"output_token_logprobs":[[-1,5,null]],"weight_versions":[{"version":"1"},{"version":"2"}]}} => meta_info.weight_versions @ to be spans {version, start, end} that follow each other up to 1, got an object with version
prime-rl {"token_ids":[1],"loss_mask":[true],"inference_logprobs":null,"trainer_logprobs":null} => inference_logprobs @ to be an array of numbers, got nothing
prime-rl {"token_ids":[1],"inference_logprobs":[-1]} => loss_mask @ to be an array, got nothing
prime-rl {"token_ids":[1],"mask":[true],"logprobs":[-1],"temperatures":[0]} => temperatures @ to be a finite number above 0, got the number 0
prime-rl {"completion_ids":[1,2],"completion_logprobs":[-1]} => completion_ids @ to be as long as completion_logprobs (1), got an array of 2
prime-rl {"nodes":[{"token_ids":[1],"mask":[true],"logprobs":[-1,-2]}]} => nodes[0].logprobs @ to have one element for each sampled token (1), got an array of 2
prime-rl {"nodes":[{"token_ids":[1],"mask":[true],"logprobs":[-1],"parent":0}]} => nodes[0].parent @ to be a node before 0, got the number 0
prime-rl {"traces":[{"nodes":5}]} => traces[0].nodes @ to be an array, got the number 5
slime {"tokens":[1],"response_length":2,"rollout_log_probs":[-1,-2]} => response_length @ to be at most 1, the number of tokens, got the number 2
slime {"tokens":[1],"response_length":1,"rollout_log_probs":null} => rollout_log_probs @ to be an array of numbers, got nothing
slime {"tokens":[1],"response_length":1,"rollout_log_probs":[-1],"loss_mask":[]} => loss_mask @ to be as long as the response (1), got an array of 0
slime {"rollout_id":1,"samples":[{"response_length":1}]} => samples[0].tokens @ to be an array, got nothing
slime {"tokens":[1],"response_length":1,"rollout_log_probs":[-1],"remove_sample":1} => remove_sample @ to be true or false, got the number 1
`;

describe('bad rows', () => {
  for (const line of table.trim().split('\n')) {
    it(line, () => {
      const [, format, row, message] = /^(\S+) (.*) => (.*)$/.exec(line)!;
      assert.throws(
        () => formatOf(format as FormatName).records(JSON.parse(row!), place),
        (error) => {
          assert.ok(error instanceof InvalidArgumentError);
          assert.equal(error.message, `[diagnose] expected ${message!.replace('@', 'on rollout.jsonl:12')}`);
          return true;
        },
      );
    });
  }

  it('of any kind give records or an InvalidArgumentError', () => {
    const names =
      'id logprobs tokens mask text topLogprobs rollout_log_probs old_log_probs responses response_mask ' +
      'attention_mask completion_ids completion_mask completion_logprobs sampling_per_token_logps token_ids nodes ' +
      'traces samples response_length choices outputs prompt_logprobs content token_logprobs meta_info ' +
      'output_token_logprobs constructor __proto__';
    const key = fc.constantFrom(...names.split(' '));
    const { value } = fc.letrec<{ value: unknown }>((tie) => ({
      value: fc.oneof(
        { maxDepth: 4 },
        fc.constantFrom(null, true, 0, 1, -1, 1.5, 'NaN', 'a', ''),
        fc.array(tie('value'), { maxLength: 3 }),
        fc.dictionary(key, tie('value'), { maxKeys: 4 }),
      ),
    }));
    fc.assert(
      fc.property(fc.constantFrom(...formatNames), fc.dictionary(key, value), (name, row) => {
        try {
          for (const record of formatOf(name).records(row, place)) {
            const series = record.own ?? record.both!.rollout;
            const length = series.logprobs.length;
            for (const column of [record.tokens, record.mask, record.tokenTexts, series.topLogprobs]) {
              assert.equal(column?.length ?? length, length);
            }
          }
        } catch (error) {
          assert.ok(error instanceof InvalidArgumentError, String(error));
          assert.match(error.message, /^\[diagnose\] expected .* on rollout\.jsonl:12 .*, got /s);
        }
      }),
      { numRuns: 20000 },
    );
  });
});
