import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { InvalidArgumentError } from '../../lib/errors.js';
import { loadChatTemplate } from '../../lib/text/chatTemplate.js';
import { strftime } from '../../lib/text/strftime.js';
import { layOut, readFixture, temporaryFolder } from './fixtures.js';

const user = [{ role: 'user', content: 'Hi' }];

function refuses(message: RegExp): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof InvalidArgumentError, String(error));
    assert.match(error.message, message);
    return true;
  };
}

for (const shape of ['llama3', 'qwen2', 'mixtral'] as const) {
  it(`a chat template of the shape of ${shape} gives what transformers makes of it`, async () => {
    const { files, chats } = await readFixture(shape);
    const template = await loadChatTemplate(await layOut(files));
    assert.equal(chats.length, 12);
    for (const { messages, options, text } of chats) {
      const { add_generation_prompt, tools, ...variables } = options;
      const given = {
        addGenerationPrompt: add_generation_prompt as boolean,
        variables,
        ...(tools !== undefined && { tools: tools as unknown[] }),
      };
      assert.equal(template.render(messages, given), text, JSON.stringify(options));
    }
  });
}

describe('a chat template', () => {
  it('is worked out by hand', async () => {
    const qwen2 = await loadChatTemplate(await layOut((await readFixture('qwen2')).files));
    assert.equal(qwen2.render(user), '<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n');
    assert.equal(
      qwen2.render(user, { variables: { enable_thinking: false } }),
      '<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n',
    );
    const mixtral = await loadChatTemplate(await layOut((await readFixture('mixtral')).files));
    assert.equal(
      mixtral.render([...user, { role: 'assistant', content: 'Yes' }, { role: 'user', content: 'No' }]),
      '<s> [INST] Hi [/INST] Yes</s> [INST] No [/INST]',
    );
  });

  it('reads the clock that it is given', async () => {
    const llama3 = await loadChatTemplate(await layOut((await readFixture('llama3')).files));
    assert.match(llama3.render(user, { now: new Date(2024, 6, 6, 12) }), /Date: 06 Jul 2024\n/);
  });

  it('complains with its own words, and names its file', async () => {
    const llama3 = await loadChatTemplate(await layOut((await readFixture('llama3')).files));
    assert.throws(
      () => llama3.render([{ role: 'tool', content: '' }]),
      refuses(
        /\[chat template\] expected .*tokenizer_config\.json to take these messages, got: no such role: tool/,
      ),
    );
    assert.throws(() => llama3.render([]), refuses(/expected messages, got "an array of 0"/));
  });

  const folder = (files: Record<string, unknown>) => layOut(new Map(Object.entries(files)));
  const renders = async (files: Record<string, unknown>) =>
    (await loadChatTemplate(await folder(files))).render(user);

  it('is taken from chat_template.jinja, chat_template.json or tokenizer_config.json, in this order', async () => {
    const config = { 'tokenizer_config.json': { chat_template: 'config', bos_token: '<s>' } };
    const json = { 'chat_template.json': { chat_template: 'json' } };
    assert.equal(await renders(config), 'config');
    assert.equal(await renders({ ...config, ...json }), 'json');
    assert.equal(
      await renders({ ...config, ...json, 'chat_template.jinja': '{{ bos_token }}jinja{{ eos_token }}' }),
      '<s>jinja',
    );
  });

  it('can be one of several, or a file of the user', async () => {
    const several = await folder({
      'tokenizer_config.json': {
        chat_template: [
          { name: 'default', template: 'plain' },
          { name: 'tool_use', template: 'tools {{ tools | length }}' },
          { name: 'rag', template: 'documents' },
        ],
      },
    });
    const template = await loadChatTemplate(several);
    assert.equal(template.render(user), 'plain');
    assert.equal(template.render(user, { tools: [{}, {}] }), 'tools 2');
    const named = await loadChatTemplate(several, { name: 'rag' });
    assert.equal(named.render(user, { tools: [{}] }), 'documents');
    await assert.rejects(
      loadChatTemplate(several, { name: 'other' }),
      refuses(/one of the templates default, tool_use, rag of .*, got "other"/),
    );
    const own = await folder({ mine: '[{{ messages[0].content }}]' });
    assert.equal((await loadChatTemplate(several, { file: join(own, 'mine') })).render(user), '[Hi]');
    await assert.rejects(
      loadChatTemplate(several, { file: join(own, 'yours') }),
      refuses(/the file of a template, got ".*yours"/),
    );
    const onlyNamed = await folder({
      'tokenizer_config.json': { chat_template: [{ name: 'rag', template: 'x' }] },
    });
    const rag = await loadChatTemplate(onlyNamed);
    assert.throws(
      () => rag.render(user),
      refuses(/^\[chat template\] expected a default among .*, got "only rag"$/),
    );
  });

  it('that is missing is told with what can be done', async () => {
    await assert.rejects(
      loadChatTemplate(await folder({ 'tokenizer_config.json': {} })),
      refuses(
        /expected .* to have a chat template \(chat_template\.jinja, .*\), got none: base models .*Give the file of a template, or choose/,
      ),
    );
    await assert.rejects(
      loadChatTemplate(join(await temporaryFolder(), 'x')),
      refuses(/folder of a model \(ENOENT\)/),
    );
  });

  const damaged: [what: string, files: Record<string, unknown>, message: RegExp][] = [
    ['no Jinja', { 'chat_template.jinja': '{% if %}' }, /chat_template\.jinja to be a Jinja template, got: /],
    ['no JSON', { 'chat_template.json': '{' }, /chat_template\.json to be JSON/],
    [
      'a pointer',
      { 'chat_template.jinja': 'version https://git-lfs.github.com/spec/v1\n' },
      /Git LFS pointer/,
    ],
    [
      'a number',
      { 'tokenizer_config.json': { chat_template: 3 } },
      /tokenizer_config\.json to be a text or a list of name and template, got "the number 3"/,
    ],
    [
      'an empty list',
      { 'tokenizer_config.json': { chat_template: [] } },
      /list of name and template, got "an array of 0"/,
    ],
    ['a list of texts', { 'tokenizer_config.json': { chat_template: ['a'] } }, /list of name and template/],
  ];
  for (const [what, files, message] of damaged) {
    it(`that is ${what} is told with its file`, async () => {
      await assert.rejects(loadChatTemplate(await folder(files)), refuses(message));
    });
  }

  it('can count only so far', async () => {
    assert.equal(
      await renders({
        'chat_template.jinja':
          '{% for i in range(3) %}{{ i }}{% endfor %}{% for i in range(9, 1, -4) %}{{ i }}{% endfor %}',
      }),
      '01295',
    );
    const endless = await loadChatTemplate(
      await folder({ 'chat_template.jinja': '{% for i in range(1000000000) %}x{% endfor %}' }),
    );
    assert.throws(
      () => endless.render(user),
      refuses(/chat_template\.jinja .*range of more than 100000 numbers/),
    );
  });
});

it('strftime writes as C does', () => {
  const time = new Date(2009, 1, 3, 14, 5, 7);
  assert.equal(
    strftime(time, '%Y-%m-%d %H:%M:%S %I %p %y %B %b %A %a %-d %-m %-H 100%%'),
    '2009-02-03 14:05:07 02 PM 09 February Feb Tuesday Tue 3 2 14 100%',
  );
  assert.equal(strftime(new Date(2009, 1, 3, 0), '%I%p'), '12AM');
  assert.throws(() => strftime(time, '%Q'), /\[strftime\] expected one of .*, got "%Q"/);
});
