import assert from 'node:assert/strict';
import { resolve } from 'node:path';
import { describe, it } from 'node:test';
import { InvalidArgumentError } from '../../lib/errors.js';
import { resolveTrainOptions, type TrainOptions } from '../../lib/train/config.js';
import { assignment, overlay } from '../../lib/train/layers.js';
import { type TrainPresetName, trainPresetNames, trainPresets } from '../../lib/train/presets.js';
import { formatYaml, parseValue, parseYaml } from '../../lib/train/yaml.js';

const paths = { model: 'some/model', data: 'some/data.jsonl' };

function problemsOf(options: object): string {
  try {
    resolveTrainOptions({ ...paths, ...options } as TrainOptions);
  } catch (error) {
    assert.ok(error instanceof InvalidArgumentError);
    return error.message;
  }
  assert.fail('nothing was found to be wrong');
}

describe('resolveTrainOptions', () => {
  it('fills in the defaults, with absolute paths, and resolves to itself', () => {
    const config = resolveTrainOptions(paths);
    assert.deepEqual(
      [config.model, config.data, config.evaluation, config.lora],
      [resolve('some/model'), resolve('some/data.jsonl'), null, null],
    );
    assert.deepEqual(config.batch, {
      promptsPerStep: 64,
      groupSize: 8,
      updatesPerStep: 4,
      microBatchTokens: 4096,
      recompute: 'none',
    });
    assert.deepEqual(
      [config.trainingPrecision, config.rolloutPrecision, config.lossScaler, config.optimizer.learningRate],
      ['fp16', 'fp16', 'verl', 1e-6],
    );
    const full = resolveTrainOptions({
      ...paths,
      lora: { rank: 4, rollout: 'factored', targets: ['q_proj'] },
      evaluation: { data: 'other', count: 3 },
      rollout: { kvPages: 100 },
      algorithmParameters: { constantLength: 5 },
    });
    assert.deepEqual([full.lora?.alpha, full.optimizer.learningRate], [8, 4e-5]);
    for (const resolved of [config, full]) assert.deepEqual(resolveTrainOptions(resolved), resolved);
  });

  it('evaluation takes over template, verifier and lengths, and has its own', () => {
    const { evaluation } = resolveTrainOptions({
      ...paths,
      template: 'plain',
      verifier: 'exact',
      overlongPrompts: 'drop',
      responseLength: 77,
      evaluation: { data: 'b', maxPromptLength: 5 },
    });
    assert.deepEqual(evaluation, {
      data: resolve('b'),
      dataSeed: 0,
      template: 'plain',
      verifier: 'exact',
      maxPromptLength: 5,
      overlongPrompts: 'drop',
      responseLength: 77,
      every: 16,
      atStart: true,
      samples: 32,
      temperature: 0.6,
      topP: 0.95,
    });
    assert.equal(resolveTrainOptions({ ...paths, evaluation: { every: 3 } }).evaluation, null);
  });

  it('tells everything that is wrong at once, by its path', () => {
    const message = problemsOf({
      model: '',
      template: 'qwen',
      steps: 0,
      seed: 0.5,
      truncated: 'maks',
      trainingPrecision: 'fp12',
      numerics: 'same',
      algorithm: 'grop',
      algorithmParameters: 3,
      stepz: 4,
      updatesPerStep: 2,
      batch: { groupSize: 1, recompute: 'all', promptPerStep: 2 },
      optimizer: { learningRate: -1, betas: [0.9, 1], schedule: 'cosin', maxGradNorm: 0, warmupSteps: 'ten' },
      lora: { alpha: 0, targets: ['q'] },
      evaluation: { data: 'x', every: 0, topP: 0, atStart: 'yes', count: 0, verifier: 'maths', ks: 3 },
      checkpoint: { keepLast: 0 },
      rollout: [1],
    });
    for (const expected of [
      'model to be text, got ""',
      'template to be one of',
      'steps to be an integer of at least 1 and at most 1000000, got 0',
      'seed to be an integer of at least 0, got 0.5',
      'truncated to be one of train, mask, got "maks" (did you mean mask?)',
      'trainingPrecision to be',
      'numerics to be one of default, matched, got "same"',
      'algorithm to be one of',
      'algorithmParameters to be a section, got 3',
      '(did you mean steps?), got "stepz"',
      '(did you mean batch.updatesPerStep?), got "updatesPerStep"',
      'batch.groupSize to be an integer of at least 2 and at most 65536, got 1',
      'batch.recompute to be one of none, layers, got "all"',
      '(did you mean batch.promptsPerStep?), got "promptPerStep"',
      'optimizer.learningRate to be a finite number of at least 0, got -1',
      'optimizer.betas[1] below 1, got 1',
      'optimizer.schedule to be one of constant, linear, cosine, got "cosin" (did you mean cosine?)',
      'optimizer.maxGradNorm above 0, got 0',
      'optimizer.warmupSteps to be an integer of at least 0 and at most 1000000, got "ten"',
      'lora.rank to be an integer of at least 1, got undefined',
      'lora.alpha above 0, got 0',
      'each of lora.targets to be one of q_proj',
      'evaluation.every to be an integer',
      'evaluation.topP above 0, got 0',
      'evaluation.atStart to be true or false, got "yes"',
      'evaluation.count to be an integer of at least 1, got 0',
      'evaluation.verifier to be one of math',
      'the options of evaluation to be',
      'checkpoint.keepLast to be an integer of at least 1',
      'rollout to be a section with maxBatch and kvPages, got [1]',
    ]) {
      assert.ok(
        message.includes(expected),
        `${expected}\nis not told in\n${message.replaceAll('; and ', '\n')}`,
      );
    }
    assert.equal(message.split('; and ').length, 30, message.replaceAll('; and ', '\n'));
    assert.match(problemsOf({ data: undefined }), /^\[train\] expected data to be text, got undefined$/);
    assert.match(
      problemsOf({ numerics: 'matched', rolloutPrecision: 'fp32' }),
      /one precision for both engines/,
    );
    assert.match(problemsOf(JSON.parse('{"__proto__": {"steps": 3}}')), /got "__proto__"/);
  });
});

describe('layers', () => {
  it('lie over one another, section by section', () => {
    const below = {
      steps: 1,
      batch: { groupSize: 8, updatesPerStep: 4 },
      evaluation: { every: 5 },
      list: [1, 2],
    };
    assert.deepEqual(overlay(below, { batch: { groupSize: 2 }, evaluation: null, list: [3] }), {
      steps: 1,
      batch: { groupSize: 2, updatesPerStep: 4 },
      evaluation: null,
      list: [3],
    });
    assert.equal(below.batch.groupSize, 8);
    assert.equal(({} as { steps?: number }).steps, undefined);
    overlay({}, JSON.parse('{"__proto__": {"steps": 3}}'));
    assert.equal(({} as { steps?: number }).steps, undefined);
  });

  it('what depends on a value does not outlive it', () => {
    const preset = {
      algorithm: 'grpo',
      algorithmParameters: { clipHigh: 1 },
      trainingPrecision: 'fp16',
      lossScaler: 'deepspeed',
    };
    assert.deepEqual(overlay(preset, { algorithm: 'gspo', trainingPrecision: 'bf16' }), {
      algorithm: 'gspo',
      trainingPrecision: 'bf16',
    });
    assert.deepEqual(overlay(preset, { algorithm: 'grpo', trainingPrecision: 'fp16' }), preset);
    assert.deepEqual(overlay(preset, { trainingPrecision: 'bf16', lossScaler: 'torch' }).lossScaler, 'torch');
  });

  it('--set has YAML values at dotted paths', () => {
    const set = (text: string) => assignment(text, (value) => parseValue(value, '--set'));
    assert.deepEqual(set('optimizer.eps=1e-15'), { optimizer: { eps: 1e-15 } });
    assert.deepEqual(set('optimizer.betas=[0.9, 0.999]'), { optimizer: { betas: [0.9, 0.999] } });
    assert.deepEqual(set('evaluation=null'), { evaluation: null });
    assert.deepEqual(set('data=a=b'), { data: 'a=b' });
    for (const text of ['steps', '=3', 'a..b=1', '.a=1', 'a b=1']) {
      assert.throws(() => set(text), /\[train\] expected --set to be name=value or section\.name=value/);
    }
    assert.throws(() => set('optimizer.eps= '), /--set optimizer\.eps= to have a value \(null for none\)/);
    assert.throws(() => set('batch={a: 1'), /\[train\] expected --set to be YAML, got at line 1, column \d+/);
  });
});

describe('YAML', () => {
  it('what is written is read again', () => {
    const config = resolveTrainOptions({ ...paths, evaluation: { data: 'x' }, optimizer: { eps: 1e-15 } });
    assert.deepEqual(parseYaml(formatYaml(config), 'config.yaml'), config);
    assert.deepEqual(parseYaml(JSON.stringify(config), 'config.json'), config);
    assert.deepEqual(parseYaml('# nothing\n', 'x'), {});
  });

  it('errors say line and column', () => {
    const fails = (text: string, expected: RegExp) =>
      assert.throws(() => parseYaml(text, 'a.yaml'), expected);
    fails(
      'steps: 3\nbatch: {groupSize: 8\nseed: 1\n',
      /^InvalidArgumentError: \[train\] expected a\.yaml to be YAML, got at line 3, column 1: /,
    );
    fails('steps: 3\nseed: 1\nsteps: 4\n', /line 3, column 1: Map keys must be unique/);
    fails('- steps\n', /a\.yaml to hold options by name, got \[steps\]/);
    fails('3', /a\.yaml to hold options by name, got 3/);
    fails('steps: 3\n---\nsteps: 4\n', /got at line 2, column 1: a second document$/);
    fails('a: *b\n', /a\.yaml to be YAML/);
    fails('a: !!js/function x\n', /line 1, column 4/);
  });
});

describe('trainPresets', () => {
  /** ../shared/paper.md, 3.2: prompts, group, updates, learning rate, betas, eps, decay, warm-up, lengths. */
  const table: Record<TrainPresetName, readonly unknown[]> = {
    'sanity-oat': [64, 8, 4, 1e-6, [0.9, 0.95], 1e-8, 0, 0, 1024, 8192],
    'sanity-verl': [64, 8, 4, 1e-6, [0.9, 0.95], 1e-15, 0, 0, 1024, 8192],
    'lora-oat': [64, 8, 4, 4e-5, [0.9, 0.95], 1e-8, 0, 0, 1024, 3000],
    octothinker: [128, 8, 8, 1e-6, [0.9, 0.95], 1e-8, 0, 0, 1024, 3000],
    moe: [512, 16, 16, 1e-6, [0.9, 0.95], 1e-15, 0, 0, 2048, 20480],
    'dense-14b': [512, 16, 16, 1e-6, [0.9, 0.999], 1e-8, 0.1, 10, 2048, 20480],
  };

  it("have the numbers of the paper's table, and resolve", () => {
    assert.deepEqual([...trainPresetNames].sort(), Object.keys(table).sort());
    for (const name of trainPresetNames) {
      const options = { ...trainPresets[name].options, ...paths } as TrainOptions;
      const config = resolveTrainOptions({ ...options, evaluation: { ...options.evaluation, data: 'x' } });
      const { batch, optimizer: o } = config;
      const found = [
        batch.promptsPerStep,
        batch.groupSize,
        batch.updatesPerStep,
        o.learningRate,
        o.betas,
        o.eps,
        o.weightDecay,
        o.warmupSteps,
        config.maxPromptLength,
        config.responseLength,
      ];
      assert.deepEqual(found, table[name], name);
      assert.deepEqual([o.schedule, o.maxGradNorm, config.truncated], ['constant', 1, 'train'], name);
    }
    const { lora } = resolveTrainOptions({ ...trainPresets['lora-oat'].options, ...paths });
    assert.deepEqual([lora?.rank, lora?.alpha, lora?.targets?.length], [1, 2, 7]);
  });
});
