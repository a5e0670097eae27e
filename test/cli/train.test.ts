import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { before, describe, it } from 'node:test';
import { formatYaml, parseYaml } from '../../lib/train/yaml.js';
import { type Tiny, tinyTraining } from '../train/tiny.js';
import {
  assertUsageErrors,
  isopolicy,
  start,
  temporaryFolder,
  type UsageCase,
  withoutAddon,
} from './command.js';

const folder = temporaryFolder();
let tiny: Tiny;
let file: string;
before(async () => {
  tiny = await tinyTraining();
  file = path.join(folder, 'train.yaml');
  fs.writeFileSync(file, formatYaml(tiny.options));
});

const out = (name: string) => path.join(folder, name);
const lines = (run: string): Record<string, unknown>[] =>
  fs
    .readFileSync(path.join(run, 'metrics.jsonl'), 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
const timeless = (run: string) =>
  lines(run).map((record) =>
    Object.fromEntries(Object.entries(record).filter(([key]) => !/^(time|memory)\//.test(key))),
  );

describe('isopolicy train', () => {
  it('runs from a file, is interrupted, goes on, and ends as a run that was not', async () => {
    const whole = isopolicy(['train', file, '--steps', '5', '--out', out('whole')]);
    assert.equal(whole.status, 0, whole.stderr);
    assert.match(whole.stdout, /^DONE {2}after 5 steps, /);
    assert.match(whole.stdout, /\nevaluation avg@3 \d\.\d{3} -> \d\.\d{3} \(best \d\.\d{3} after step \d\),/);
    assert.match(whole.stdout, /\nlast checkpoint: .*step-000005\n/);
    for (const line of whole.stdout.split('\n')) {
      assert.ok(line.length <= 80 || line.includes(folder) || line.includes(tiny.root), line);
    }
    const stopped = await start(['train', file, '--steps', '5', '--out', out('parts')], (line, child) => {
      if (line.startsWith('step 2/5')) child.kill('SIGINT');
    });
    assert.equal(stopped.status, 130, stopped.stderr);
    assert.match(
      stopped.stdout,
      /^INTERRUPTED {2}after \d steps, .*; resume with:\nisopolicy train --resume \S+\n/,
    );
    const resumed = isopolicy(['train', '--resume', out('parts'), '--json']);
    assert.equal(resumed.status, 0, resumed.stderr);
    assert.equal(JSON.parse(resumed.stdout).steps, 5);
    assert.deepEqual(timeless(out('parts')), timeless(out('whole')));
    const weights = (run: string) =>
      fs.readFileSync(path.join(run, 'checkpoint/step-000005/model.safetensors'));
    assert.ok(weights(out('parts')).equals(weights(out('whole'))));
    // Model and data may have been moved, and have to be the same.
    const elsewhere = out('moved-model');
    fs.cpSync(tiny.options.model, elsewhere, { recursive: true });
    const moved = isopolicy(['train', '--resume', out('parts'), '--model', elsewhere, '--json']);
    assert.equal(moved.status, 0, moved.stderr);
    assert.equal(JSON.parse(moved.stdout).model, elsewhere);
    const configFile = path.join(elsewhere, 'config.json');
    const described = fs.readFileSync(configFile, 'utf8');
    fs.writeFileSync(configFile, described.replace(/"rope_theta": \d+/, '"rope_theta": 77'));
    const other = isopolicy(['train', '--resume', out('parts'), '--model', elsewhere]);
    assert.equal(other.status, 2);
    assert.match(other.stderr, /moved-model to be described as the run's checkpoints are/);
    // Its own configuration makes the same run.
    const again = isopolicy(['train', out('whole/config.yaml'), '--out', out('again')]);
    assert.equal(again.status, 0, again.stderr);
    assert.deepEqual(timeless(out('again')), timeless(out('whole')));

    const page = isopolicy(['report', out('whole'), '--json', '--svg', out('svg')]);
    assert.equal(page.status, 0, page.stderr);
    assert.deepEqual(
      JSON.parse(page.stdout).svgs.map((name: string) => path.basename(name, '.svg')),
      ['evaluation', 'reward', 'mismatch', 'kl', 'largest', 'entropy', 'scale'],
    );
  });

  it('settings: preset, under a file, under flags and --set', () => {
    const print = (...args: string[]) => {
      const { status, stdout, stderr } = isopolicy(['train', ...args, '--print-config']);
      assert.equal(status, 0, stderr);
      return parseYaml(stdout, 'stdout') as Record<string, Record<string, unknown>>;
    };
    const preset = print('--preset', 'lora-oat');
    assert.deepEqual([preset.model, preset.data, preset.lora!.rank], [undefined, undefined, 1]);
    assert.deepEqual(preset.evaluation!.samples, 32);
    const config = print(
      ...['--preset', 'lora-oat', file, '--precision', 'bf16', '--learning-rate', '0.5', '--lora-rank', '3'],
      ...['--set', 'batch.groupSize=6', '--set', 'optimizer.betas=[0.5, 0.6]', '--set', 'steps=9'],
    );
    assert.equal(config.model, tiny.options.model);
    assert.deepEqual(config.batch, {
      promptsPerStep: 4,
      groupSize: 6,
      updatesPerStep: 2,
      microBatchTokens: 128,
      recompute: 'layers',
    });
    assert.deepEqual([config.optimizer!.learningRate, config.optimizer!.betas], [0.5, [0.5, 0.6]]);
    assert.deepEqual(
      [config.trainingPrecision, config.rolloutPrecision, config.lossScaler],
      ['bf16', 'bf16', 'none'],
    );
    assert.deepEqual([config.steps, config.lora!.rank, config.lora!.alpha], [9, 3, 2]);
  });

  it('--dry-run says what would be, and whether it fits', () => {
    const plan = isopolicy(['train', file, '--dry-run']);
    assert.equal(plan.status, 0, plan.stderr);
    assert.match(
      plan.stdout,
      /10 problems, the longest prompt of 5 tokens, with its response 37; 16 responses\na step; evaluation on 3 problems: 9 responses/,
    );
    assert.match(plan.stdout, /\nThe first prompt:\n3\+0=\nRight: 3\n/);
    for (const row of [
      'master weights',
      'optimizer moments',
      'gradients',
      'KV cache',
      '\\+ forward and backward',
    ]) {
      assert.match(plan.stdout, new RegExp(`\\n${row} +[\\d.]+ [KMG]iB  `));
    }
    for (const line of plan.stdout.split('\n'))
      assert.ok(line.length <= 80 || line.includes(tiny.root), line);
    const large = isopolicy(['train', file, '--dry-run', '--json', '--set', 'rollout.kvPages=2000000000']);
    assert.equal(large.status, 4, large.stderr);
    assert.equal(JSON.parse(large.stdout).fits, false);
    assert.match(large.stderr, /^isopolicy: \[memory\] expected a run within .*KV cache/);
    assert.ok(!fs.existsSync(out('runs')));
  });

  it('leaves out problems with long prompts where it is told to, and says so', () => {
    const data = out('long.jsonl');
    const row = (problem: string) => `${JSON.stringify({ problem, answer: '3' })}\n`;
    fs.writeFileSync(data, ['1+2=', '1+1+1=', '2+1='].map(row).join(''));
    const args = ['train', file, '--data', data, '--max-prompt-length', '4', '--steps', '1'];
    const refused = isopolicy([...args, '--set', 'evaluation=null', '--dry-run']);
    assert.equal(refused.status, 2);
    assert.match(refused.stderr, /prompt of problem 1 .*, got 6 \(1 of 3 .*--overlong-prompts drop/);
    const drop = [...args, '--overlong-prompts', 'drop', '--set', 'evaluation=null'];
    const plan = isopolicy([...drop, '--dry-run', '--json']);
    assert.equal(plan.status, 0, plan.stderr);
    const { problems, leftOut } = JSON.parse(plan.stdout);
    assert.deepEqual([problems, leftOut], [2, { training: 1, evaluation: 0 }]);
    const run = isopolicy([...drop, '--out', out('dropped')]);
    assert.equal(run.status, 0, run.stderr);
    assert.match(
      run.stderr,
      /^isopolicy: left out 1 of 3 problems in .*long\.jsonl, whose prompts are too long$/m,
    );
    assert.match(run.stdout.replaceAll('\n', ' '), /2 problems \(1 left out: their prompts are too long\)/);
  });

  it('mistakes are one line, and make no folder', () => {
    const bad = path.join(folder, 'bad.yaml');
    fs.writeFileSync(bad, 'steps: 3\nbatch: [\n');
    const missing = ['train', '--resume', out('x')];
    const withOut = (cases: readonly UsageCase[]) =>
      cases.map(([args, message]): UsageCase => [['train', ...args, '--out', out('none')], message]);
    assertUsageErrors(
      withOut([
        [[], /expected model to be text, got undefined; and data to be text, got undefined/],
        [[out('missing.yaml')], /a file of settings that can be read \(ENOENT\)/],
        [[file, '--set', 'batch.groupSiz=3'], /\(did you mean batch\.groupSize\?\), got "groupSiz"/],
        [[file, '--set', 'steps'], /--set to be name=value/],
        [[file, '--data', out('none.jsonl')], /none\.jsonl/],
        [[file, '--set', 'evaluation.data=/none.jsonl'], /none\.jsonl/],
        [[file, '--set', 'algorithmParameters.clip=3'], /each parameter to be one of/],
        [[file, '--algorithm', './missing.ts'], /missing\.ts/],
        [[file, '--model', folder], /config\.json/],
        [[bad], /bad\.yaml to be YAML, got at line 3, column 1/],
      ]),
    );
    assertUsageErrors(
      [
        ...withOut([
          [[file, '--preset', 'sanity'], /--preset to be one of sanity-oat/],
          [[file, '--resume', out('x')], /no file of settings beside --resume/],
          [['--resume', out('x'), '--steps', '3'], /no --steps beside --resume/],
        ]),
        [[...missing, '--print-config'], /no --print-config beside --resume: .*config\.yaml/],
        [[...missing, '--dry-run'], /no --dry-run beside --resume: .*config\.yaml/],
      ],
      withoutAddon,
    );
    assert.ok(!fs.existsSync(out('none')));
  });
});
