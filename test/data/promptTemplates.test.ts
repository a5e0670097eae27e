import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Problem } from '../../lib/data/problems.js';
import {
  checkPromptTokens,
  encodePrompt,
  promptTemplate,
  promptTemplates,
} from '../../lib/data/promptTemplates.js';
import { loadChatTemplate } from '../../lib/text/chatTemplate.js';
import { loadTokenizer } from '../../lib/text/tokenizer.js';
import { layOut, readFixture, type Shape } from '../text/fixtures.js';
import { refuses } from './fixtures.js';

const problem: Problem = { id: '3', prompt: 'What is $1+1$?', answers: ['2'] };
const folderOf = async (shape: Shape) => layOut((await readFixture(shape)).files);

describe('a prompt template', () => {
  const texts: Record<string, string> = {
    'qwen-math':
      '<|im_start|>system\nPlease reason step by step, and put your final answer within \\boxed{}.<|im_end|>\n' +
      '<|im_start|>user\nWhat is $1+1$?<|im_end|>\n<|im_start|>assistant\n',
    qwen3:
      '<|im_start|>user\nQuestion: What is $1+1$?\nPlease reason step by step, and put your final answer within \\boxed{}.' +
      '<|im_end|>\n<|im_start|>assistant\n',
    r1:
      '<｜begin▁of▁sentence｜><｜User｜>What is $1+1$? Please reason step by step, and put your final answer within \\boxed{}.\n' +
      '<｜Assistant｜><think>\n',
    plain: 'What is $1+1$?',
  };
  for (const [name, text] of Object.entries(texts)) {
    it(`${name} is text around the question`, () => {
      assert.equal(promptTemplate(name).render(problem), text);
      // verl's data have the question as the only message.
      const prompt = [{ role: 'user', content: 'What is $1+1$?' }];
      assert.equal(promptTemplate(name).render({ ...problem, prompt }), text);
    });
  }

  it('octothinker begins a conversation and ends where the answer is closed', () => {
    const template = promptTemplate('octothinker');
    const text = template.render(problem);
    assert.match(
      text,
      /^A conversation between User and Assistant\. .*<\/answer>\.\nUser: What is \$1\+1\$\?\nAssistant: <think>$/s,
    );
    assert.deepEqual(template.stop, ['</answer>']);
  });

  it('chat is the template of the model', async () => {
    const chat = await loadChatTemplate(await folderOf('qwen2'));
    assert.equal(
      promptTemplate('chat').render(problem, chat),
      '<|im_start|>user\nWhat is $1+1$?<|im_end|>\n<|im_start|>assistant\n',
    );
    assert.equal(
      promptTemplate('chat-math').render(problem, chat, { variables: { enable_thinking: false } }),
      '<|im_start|>user\nWhat is $1+1$? Please reason step by step, and put your final answer within \\boxed{}.<|im_end|>\n' +
        '<|im_start|>assistant\n<think>\n\n</think>\n\n',
    );
    const prompt = [
      { role: 'system', content: 's' },
      { role: 'user', content: 'u' },
    ];
    assert.equal(
      promptTemplate('chat').render({ ...problem, prompt }, chat),
      '<|im_start|>system\ns<|im_end|>\n<|im_start|>user\nu<|im_end|>\n<|im_start|>assistant\n',
    );
    assert.throws(
      () => promptTemplate('chat').render(problem),
      refuses(/\[prompt\] expected a chat template for chat, got "none"/),
    );
    assert.throws(
      () => promptTemplate('plain').render({ ...problem, prompt }),
      refuses(
        /problem 3 to be one question, which plain can ask \(chat takes conversations\), got "system, user"/,
      ),
    );
  });

  it('that is not known is told with those that are', () => {
    assert.throws(
      () => promptTemplate('qwen-maths'),
      refuses(
        /\[prompt\] expected the template to be one of qwen-math, qwen3, r1, octothinker, plain, chat, chat-math, got "qwen-maths" \(did you mean qwen-math\?\)/,
      ),
    );
    assert.ok([...promptTemplates.values()].every(({ summary }) => summary.length > 0));
  });

  it('for another family than the model is told', async () => {
    const tokenizer = await loadTokenizer(await folderOf('qwen2'));
    checkPromptTokens(promptTemplate('qwen-math'), tokenizer);
    checkPromptTokens(promptTemplate('plain'), tokenizer);
    assert.throws(
      () => checkPromptTokens(promptTemplate('r1'), tokenizer),
      refuses(
        /a template for this model \(.*tokenizer\.json has no <｜begin▁of▁sentence｜>, <｜User｜>, <｜Assistant｜>\), got "r1"/,
      ),
    );
  });
});

describe('the ids of a prompt', () => {
  it('begin with the token of the beginning once', async () => {
    const r1 = await loadTokenizer(await folderOf('r1'));
    const template = promptTemplate('r1');
    const ids = encodePrompt(template, template.render(problem), r1);
    assert.equal(ids[0], r1.bosId);
    assert.equal(ids.filter((id) => id === r1.bosId).length, 1);
    assert.equal(r1.decode(ids), template.render(problem));
    assert.equal(ids[1], r1.tokenToId('<｜User｜>'));

    const folder = await folderOf('llama3');
    const llama3 = await loadTokenizer(folder);
    for (const name of ['octothinker', 'plain']) {
      const text = promptTemplate(name).render(problem);
      const whole = encodePrompt(promptTemplate(name), text, llama3);
      assert.equal(whole[0], llama3.bosId);
      assert.equal(llama3.decode(whole, { skipSpecialTokens: true }), text);
    }
    const chat = promptTemplate('chat').render(problem, await loadChatTemplate(folder));
    assert.equal(
      encodePrompt(promptTemplate('chat'), chat, llama3).filter((id) => id === llama3.bosId).length,
      1,
    );
  });

  it('begin with none where the model has none', async () => {
    const qwen2 = await loadTokenizer(await folderOf('qwen2'));
    const template = promptTemplate('qwen-math');
    assert.equal(encodePrompt(template, template.render(problem), qwen2)[0], qwen2.tokenToId('<|im_start|>'));
  });
});
