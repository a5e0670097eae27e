import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { before, describe, it } from 'node:test';
import type { Problem } from '../../lib/data/problems.js';
import { loadModelText, type ModelText } from '../../lib/models/languageModel.js';
import { type Environment, sampleJudged } from '../../lib/rl/environment.js';
import { resolveModelSource } from '../../lib/rl/modelSource.js';
import { openModelSource } from '../../lib/rl/openModelSource.js';
import { createProblemSet, type ProblemSetOptions } from '../../lib/rl/problemSet.js';
import type { RolloutEngine } from '../../lib/rollout/engine.js';
import type { SamplingOptions } from '../../lib/rollout/sampling.js';
import { EOS, writeCheckpointFolder } from '../support/checkpoint.js';
import { ownTensors } from '../support/owned.js';
import { temporaryFolder } from '../text/fixtures.js';

ownTensors();

const problems: Problem[] = ['1+1', '2+3', '40+2'].map((sum, i) => ({
  id: String(i),
  prompt: `${sum}=`,
  answers: [String(sum.split('+').reduce((total, term) => total + Number(term), 0))],
}));
const options: ProblemSetOptions = {
  template: 'plain',
  verifier: 'exact',
  maxPromptLength: 8,
  responseLength: 6,
};

let model = '';
let text: ModelText;
before(async () => {
  model = await writeCheckpointFolder(join(await temporaryFolder(), 'model'));
  text = await loadModelText(model);
});

/** An engine that answers every request with the same text, as far as it is let. */
function scripted(answer: string): RolloutEngine {
  return {
    async generate(requests: readonly object[], { onToken, maxNewTokens, stopTokens }: SamplingOptions) {
      return requests.map((_, request) => {
        const tokens: number[] = [];
        let finishReason = 'length';
        for (const token of [...text.tokenizer.encode(answer), EOS].slice(0, maxNewTokens)) {
          tokens.push(token);
          if (onToken?.(request, token, -1) === true || stopTokens?.includes(token)) {
            finishReason = 'stop';
            break;
          }
        }
        return { tokens: Int32Array.from(tokens), logprobs: new Float64Array(tokens.length), finishReason };
      });
    },
  } as unknown as RolloutEngine;
}

const draws = problems.map((_, prompt) => ({ prompt, promptId: prompt, sampleId: 0 }));
const sampled = (environment: Environment, answer: string) =>
  sampleJudged(scripted(answer), environment, draws, 1);

describe('createProblemSet', () => {
  it('writes prompts, judges responses as text without special tokens, and takes subsets', async () => {
    await using set = await createProblemSet(text, problems, options);
    assert.deepEqual(
      set.prompts.map((prompt) => set.format(prompt)),
      ['1+1=', '2+3=', '40+2='],
    );
    assert.deepEqual(set.stopTokens, [EOS]);
    assert.equal(set.verifierVersion, 'exact-1');
    assert.deepEqual([...(await sampled(set, '5')).rewards], [0, 1, 0]);
    const part = set.subset([2, 1]);
    assert.deepEqual(
      part.problems.map(({ id }) => id),
      ['2', '1'],
    );
    const judged = await sampleJudged(scripted('42'), part, draws.slice(0, 2), 1);
    assert.deepEqual([...judged.rewards], [1, 0]);
    assert.throws(() => set.subset([3]), /each of indices/);
  });

  it('a response without an end was cut off, and earns nothing', async () => {
    await using set = await createProblemSet(text, problems, { ...options, responseLength: 1 });
    const { rewards, truncated } = await sampled(set, '5');
    assert.deepEqual(
      [[...rewards], [...truncated]],
      [
        [0, 0, 0],
        [1, 1, 1],
      ],
    );
  });

  it('ends a response with a stop string of its template, which is part of what is judged', async () => {
    const long = { ...options, template: 'octothinker', verifier: 'math-stated', maxPromptLength: 600 };
    await using set = await createProblemSet(text, problems, { ...long, responseLength: 40 });
    const { completions, rewards, truncated } = await sampled(set, ' so <answer>5</answer> and on');
    assert.deepEqual([...rewards], [0, 1, 0]);
    assert.deepEqual([...truncated], [0, 0, 0]);
    assert.equal(set.format(completions[0]!.tokens), ' so <answer>5</answer>');
  });

  it('uses the chat template of the folder', async () => {
    await using set = await createProblemSet(text, problems, {
      ...options,
      template: 'chat',
      maxPromptLength: 9,
    });
    assert.equal(set.format(set.prompts[1]!), '<|user|>2+3=<|assistant|>');
  });

  it('leaves out problems with long prompts where it is told to, and counts them', async () => {
    const drop = { ...options, maxPromptLength: 4, overlongPrompts: 'drop' } as const;
    const ordered = [problems[2]!, problems[0]!, problems[1]!];
    await using set = await createProblemSet(text, ordered, drop);
    assert.equal(set.leftOut, 1);
    assert.deepEqual(set.problems, [problems[0], problems[1]]);
    assert.deepEqual(
      set.prompts.map((prompt) => set.format(prompt)),
      ['1+1=', '2+3='],
    );
    // Answers go with their prompts.
    assert.deepEqual([...(await sampleJudged(scripted('5'), set, draws.slice(0, 2), 1)).rewards], [0, 1]);
    await assert.rejects(
      createProblemSet(text, problems, { ...drop, maxPromptLength: 3 }),
      /got 4 \(3 of 3 prompts are longer, the longest has 5 tokens\)$/,
    );
    await assert.rejects(
      createProblemSet(text, problems, { ...drop, overlongPrompts: 'cut' as 'drop' }),
      /overlongPrompts to be one of error, drop/,
    );
  });

  it('says what does not fit', async () => {
    const rejects = (change: Partial<ProblemSetOptions>, message: RegExp, of = problems) =>
      assert.rejects(createProblemSet(text, of, { ...options, ...change }), message);
    await rejects(
      { maxPromptLength: 4 },
      /prompt of problem 2 to have at most maxPromptLength = 4 tokens, got 5 \(1 of 3 prompts are longer.*'drop'/,
    );
    await rejects({ template: 'r1' }, /a template for this model .*got "r1"/);
    await rejects({ template: 'chatt' }, /did you mean chat\?/);
    await rejects({ responseLength: 0 }, /responseLength/);
    await rejects(
      {},
      /problem 1 to have an answer/,
      problems.map((p, i) => (i === 1 ? { ...p, answers: [] } : p)),
    );
    const mute = await writeCheckpointFolder(join(await temporaryFolder(), 'mute'), {
      changes: { 'generation_config.json': undefined, 'tokenizer_config.json': {} },
    });
    await assert.rejects(
      createProblemSet(await loadModelText(mute), problems, options),
      /what ends a response/,
    );
  });
});

describe('openModelSource', () => {
  it('opens the problems of a data set, and tells the context that they need', async () => {
    const data = join(await temporaryFolder(), 'sums.jsonl');
    await writeFile(
      data,
      problems.map(({ prompt, answers }) => JSON.stringify({ prompt, answer: answers[0] })).join('\n'),
    );
    const source = resolveModelSource('test', {
      model,
      data,
      template: 'plain',
      verifier: 'exact',
      responseLength: 6,
    });
    await using opened = await openModelSource(source);
    assert.equal(opened.maxLength, 5 + 6);
    assert.deepEqual(
      opened.problems.problems.map(({ answers }) => answers),
      [['2'], ['5'], ['42']],
    );
    await assert.rejects(openModelSource({ ...source, responseLength: 92 }), /context of 96 tokens, got 97/);
    await assert.rejects(openModelSource({ ...source, answerColumn: 'answr' }), /did you mean answer\?/);
    await assert.rejects(openModelSource({ ...source, data: join(model, 'none.jsonl') }), /none\.jsonl/);
  });

  it("needs no answers for a user's verifier, which sees whole rows", async () => {
    const folder = await temporaryFolder();
    const [data, verifier] = [join(folder, 'words.jsonl'), join(folder, 'verifier.mjs')];
    await writeFile(data, '{"question": "a word", "level": 3}\n');
    await writeFile(verifier, 'export default (response, { row }) => response.length === row.level;');
    const source = resolveModelSource('test', {
      model,
      data,
      template: 'plain',
      verifier,
      responseLength: 6,
    });
    await using opened = await openModelSource(source);
    const one = await sampleJudged(scripted('abc'), opened.problems, draws.slice(0, 1), 1);
    assert.deepEqual([...one.rewards], [1]);
    await assert.rejects(openModelSource({ ...source, verifier: 'exact' }), /a column with the answer/);
  });

  it('lists everything that is wrong with options', () => {
    assert.throws(
      () =>
        resolveModelSource('train', {
          model: '',
          data: 'x',
          template: 'r2',
          responseLength: 0,
          verifier: 'v',
        }),
      (error: Error) =>
        [/model to be text/, /template/, /responseLength/, /verifier/].every((part) =>
          part.test(error.message),
        ),
    );
  });
});
