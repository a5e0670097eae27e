/** The commands of experiments: bad input before any work, output in 80 columns, interruption and resumption. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import {
  assertUsageErrors,
  isopolicy,
  isopolicyEach,
  start,
  temporaryFolder,
  type UsageCase,
  withoutAddon,
} from './command.js';

const folder = temporaryFolder();
const out = (name: string) => path.join(folder, name);
const base = [
  ...['--task', 'sort:2:4', '--hidden-size', '32', '--layers', '1', '--base-accuracy', '0.15'],
  ...['--candidates', '20', '--samples-per-problem', '10'],
];
const bases = out('bases');

test('what is unknown or contradicts itself is one line, and makes no folder', () => {
  const cases: UsageCase[] = [
    [['ladder', '--precisions', 'bf61'], /did you mean bf16\?/],
    [['ladder', '--run', 'x', '--task', 'sort:4:4'], /no --task beside --run/],
    [['mismatch', '--run', 'x', '--layers', '2', '--base', 'y'], /no --layers, --base beside --run/],
    [['mismatch', '--samples', '12'], /samples to be a multiple of 8, got 12/],
    [['mismatch', '--precisions', 'bf16:fp16:fp32'], /training:rollout, got "bf16:fp16:fp32"/],
    [['mismatch', '--base-seeds', '1,x'], /--base-seeds to be whole numbers, got "x"/],
    [['dial', '--formats', 'e9m3'], /got "e9m3" \(did you mean e8m3\?\)/],
    [['ladder', '--precisions', 'bfloat16'], /did you mean bf16\?/],
    [['ladder', '--run', 'nowhere'], /\[run\] expected the folder of a run/],
    [['mismatch', '--run', 'nowhere'], /\[run\] expected the folder of a run/],
    [['headroom', '--run', 'nowhere'], /\[run\] expected the folder of a run/],
    [
      ['grid', '--algorithms', './a/own.ts,./b/own.ts'],
      /names of their own, got .*a\/own\.ts and .*b\/own\.ts/,
    ],
    [['dial', '--lengths', '3,,4'], /--lengths to be values between commas/],
    [['dial', '--widths', '33'], /hiddenSize to be a multiple of 32/],
    [['headroom', '--samples', '9'], /multiple of 8/],
    [['headroom', '--loss-scaler', 'tourch'], /did you mean torch\?/],
    [['grid', '--algorithms', 'gsop'], /did you mean gspo\?/],
    [['grid', '--precisions', 'fp16:bf61'], /did you mean bf16\?/],
    [
      ['grid', '--algorithms', 'gsop,grpo', '--precisions', 'bf61', '--seeds', '1'],
      /did you mean gspo\?.*; and .*did you mean bf16\?/,
    ],
    [['grid', '--bases', '/proc/none'], /--bases to be a folder that can be written/],
    [['dial', '--bases', import.meta.filename], /--bases to be a folder, not \(in\) a file/],
    [['grid', '--seeds', '1,-2'], /--seeds to be whole numbers/],
    [['grid', '--set', 'clipHigh'], /--set to be name=value/],
    [['grid', '--algorithms', 'dr-grpo', '--set', 'clipHihg=0.3'], /did you mean clipHigh\?/],
    [
      ['sanity', '--algorithm', 'grpo-token-tis', '--set', 'importance.high=0.5', '--set', 'clipLow=2'],
      /clipLow .*got 2.*importance\.high of at least 1/,
    ],
    [
      ['sanity', '--tensorboard', import.meta.filename],
      /--tensorboard to be a folder, not \(in\) a file \(EEXIST\)/,
    ],
    [['grid', '--tensorboard', path.join(import.meta.filename, 'x')], /--tensorboard to be a folder, not/],
    [
      ['sanity', '--algorithm', 'grpo', '--set', 'clipHihg=1', '--set', 'clipLwo=1', '--set', 'vetoBelow=2'],
      /clipHihg.*mean clipHigh\?.*clipLwo.*mean clipLow\?.*vetoBelow below 1/,
    ],
    [
      ['sanity', '--algorithm', 'grpo', '--set', 'rejections=[{"level":"token","measure":"k1","high":2}]'],
      /measure ratio for k1, with bounds of r itself/,
    ],
    [
      [
        ...['sanity', '--solved-at-least', '0.9', '--solved-at-most', '0.1', '--numerics', 'matched'],
        ...['--rollout-precision', 'bf16', '--prompts-per-step', '1', '--updates-per-step', '9'],
        ...['--algorithm', 'grpo-seq-mis', '--set', 'importance.low=5'],
      ],
      /solvedAtLeast .*; and one precision .*; and updatesPerStep .*; and importance\.low of at most 1/,
    ],
    [['sanity', '--algorithm', 'grpo', '--set', 'loss=gspo'], /each parameter .*got "loss"/],
    [['sanity', '--algorithm', './nowhere.ts'], /a file that can be read/],
    [['simulate'], /expected <run>, the folder of a sanity run, got none/],
    [['simulate', 'nowhere'], /the folder of a run/],
    [['simulate', 'nowhere', '--algorithms', 'gsop'], /did you mean gspo\?/],
  ];
  const unmade = (i: number) => out(`unmade-${i}`);
  assertUsageErrors(cases.map(([args, message], i) => [[...args, '--out', unmade(i)], message]));
  for (const [i, [args]] of cases.entries()) assert.ok(!fs.existsSync(unmade(i)), args.join(' '));
});

test('every command has help without the addon, in 80 columns', () => {
  const commands = ['grid', 'mismatch', 'ladder', 'dial', 'simulate', 'headroom', 'report'];
  const helps = isopolicyEach(
    commands.map((command) => [command, '--help']),
    withoutAddon,
  );
  for (const [i, command] of commands.entries()) {
    const { status, stdout } = helps[i]!;
    assert.equal(status, 0, command);
    for (const line of stdout.split('\n')) assert.ok(line.length <= 80, `${command}: ${line}`);
    assert.match(stdout, /Example/);
  }
});

test('what is named twice is measured once and counts once', () => {
  const twice = [...base, '--samples', '16', '--threads', '1', '--json'];
  const json = (args: readonly string[]) => {
    const { status, stdout, stderr } = isopolicy(args);
    assert.equal(status, 0, stderr);
    return JSON.parse(stdout);
  };
  const mismatch = json([
    ...['mismatch', ...twice, '--base', bases, '--out', out('mismatch-twice')],
    ...['--precisions', 'bf16,bf16:bf16', '--lengths', '2,2', '--base-seeds', '1,1'],
  ]);
  const responses = mismatch.groups.map((group: { responses: number }) => group.responses);
  assert.deepEqual([responses, mismatch.points.length], [[16], 1]);
  const dial = json([
    ...['dial', ...twice, '--bases', bases, '--out', out('dial-twice')],
    ...['--formats', 'tf32,e8m10,e8m7', '--base-seeds', '1,1', '--widths', '32,32'],
  ]);
  const formats = dial.points.map((point: { format: string }) => point.format);
  assert.deepEqual(formats, ['e8m10', 'e8m7']);
  const ladder = json(['ladder', ...twice, '--precisions', 'bf16,bf16', '--out', out('ladder-twice')]);
  assert.equal(ladder.results.length, 1);
});

test('results are text of 80 columns on stdout, or one JSON object', () => {
  for (const [name, args] of [
    ['mismatch', ['mismatch', ...base, '--samples', '16', '--lengths', '2,3', '--base', bases]],
    ['ladder', ['ladder', ...base, '--samples', '16', '--precisions', 'bf16']],
    [
      'dial',
      [
        'dial',
        ...base,
        '--samples',
        '16',
        '--formats',
        'e8m7,e8m6,fp16',
        '--base-seeds',
        '1,2',
        '--bases',
        bases,
      ],
    ],
    ['headroom', ['headroom', ...base, '--samples', '16']],
    [
      'grid',
      [
        'grid',
        ...base,
        '--steps',
        '3',
        '--seeds',
        '1',
        '--prompts-per-step',
        '4',
        '--group-size',
        '4',
        '--bases',
        bases,
      ],
    ],
  ] as const) {
    const text = isopolicy([...args, '--out', out(name), '--threads', '1']);
    assert.equal(text.status, 0, text.stderr);
    assert.ok(text.stdout.endsWith(`run directory: ${out(name)}\n`));
    for (const line of text.stdout.split('\n')) {
      assert.ok(line.length <= 80 || line.includes(folder), `${name}: ${line}`);
      assert.ok(!line.includes('\x1b'), 'no colour into a pipe');
    }
    if (name === 'mismatch') assert.match(text.stdout, /\nentropy, nats +tokens +bf16 \|log r\|/);
  }
  // What is finished is not done again, and says the same.
  const names = ['mismatch', 'ladder', 'dial', 'headroom', 'grid'];
  const resumed = isopolicyEach(names.map((name) => [name, '--resume', out(name), '--json']));
  for (const [i, { status, stdout, stderr }] of resumed.entries()) {
    assert.equal(status, 0, stderr);
    const { directory, ...summary } = JSON.parse(stdout);
    assert.equal(directory, out(names[i]!));
    assert.deepEqual(JSON.parse(fs.readFileSync(path.join(directory, 'summary.json'), 'utf8')), summary);
  }
  assertUsageErrors(
    names.map((name) => [['sanity', '--resume', out(name)], /--resume to be the folder of a sanity run/]),
  );
});

test('simulate makes a run directory like the others, without the addon', () => {
  const run = out('recorded');
  const small = ['--steps', '3', '--prompts-per-step', '4', '--group-size', '4', '--base', out('base')];
  const recorded = isopolicy(['sanity', ...base, ...small, '--record-every', '1', '--out', run]);
  assert.equal(recorded.status, 3, recorded.stderr);
  const kept = out('simulated');
  const text = isopolicy(['simulate', run, '--out', kept], withoutAddon);
  assert.equal(text.status, 0, text.stderr);
  assert.ok(text.stdout.endsWith(`run directory: ${kept}\n`));
  for (const line of text.stdout.split('\n'))
    assert.ok(line.length <= 80 || line.includes(folder), `too wide: ${line}`);
  assert.equal(JSON.parse(fs.readFileSync(path.join(kept, 'config.json'), 'utf8')).command, 'simulate');
  const json = isopolicy(['simulate', '--resume', kept, '--json'], withoutAddon);
  assert.equal(json.status, 0, json.stderr);
  const { directory, ...summary } = JSON.parse(json.stdout);
  assert.equal(directory, kept);
  assert.ok(summary.simulations.length > 10);
  assert.deepEqual(JSON.parse(fs.readFileSync(path.join(kept, 'summary.json'), 'utf8')), summary);
  const page = out('simulated.html');
  assert.equal(isopolicy(['report', kept, '--out', page], withoutAddon).status, 0);
  // The same text, which has nothing that HTML escapes.
  assert.ok(fs.readFileSync(page, 'utf8').includes(`<pre>${text.stdout.trimEnd()}</pre>`));

  const file = out('taken.json');
  fs.writeFileSync(file, '{}');
  const refused: UsageCase[] = [
    [
      [run, '--out', kept],
      /expected out to be a folder without a run \(it has config\.json; choose another, or resume/,
    ],
    [[run, '--out', file], /expected out to be a folder, not \(in\) a file .*taken\.json/],
    [[run, '--resume', kept], /expected no <run> beside --resume, .*, got /],
    [['--resume', kept, '--algorithms', 'pg-seq-is'], /no --algorithms beside --resume/],
    [['--resume', run], /--resume to be the folder of a simulate run/],
  ];
  assertUsageErrors(refused.map(([args, message]) => [['simulate', ...args], message]));
  assert.equal(fs.readFileSync(file, 'utf8'), '{}');
});

test('a grid that is interrupted ends its runs with a step, and goes on to the same results', async () => {
  const args = ['grid', ...base, '--steps', '16', '--seeds', '1,2', '--precisions', 'fp16', '--bases', bases];
  const small = ['--prompts-per-step', '4', '--group-size', '4', '--updates-per-step', '1', '--jobs', '2'];
  const whole = isopolicy([...args, ...small, '--out', out('whole'), '--json']);
  assert.equal(whole.status, 0, whole.stderr);
  let sent = false;
  const stopped = await start([...args, ...small, '--out', out('stopped')], (line, child) => {
    if (!sent && /step [5-9]\/16/.test(line)) {
      sent = true;
      child.kill('SIGINT');
    }
  });
  assert.equal(stopped.status, 130, stopped.stderr);
  assert.match(stopped.stdout, /^INTERRUPTED {2}resume with: isopolicy grid --resume/);
  const board = out('grid-board');
  const resumed = isopolicy(['grid', '--resume', out('stopped'), '--tensorboard', board, '--json']);
  assert.equal(resumed.status, 0, resumed.stderr);
  const outcome = (text: string) =>
    JSON.parse(text).cells.map(
      ({ summary: { seconds, ...summary } }: { summary: { seconds: number } }) => summary,
    );
  assert.deepEqual(outcome(resumed.stdout), outcome(whole.stdout));
  // Event files of the runs that went on, each in a folder that is named as the run's.
  const boards = fs.readdirSync(board).sort();
  assert.ok(boards.length > 0);
  for (const run of boards) {
    assert.ok(fs.existsSync(path.join(out('stopped'), 'runs', run, 'summary.json')), run);
    const [file, ...others] = fs.readdirSync(path.join(board, run));
    assert.deepEqual(others, []);
    assert.match(file!, /^events\.out\.tfevents\./);
    const text = fs.readFileSync(path.join(board, run, file!), 'latin1');
    for (const tag of ['train/reward', 'mismatch/klMuPiK3']) assert.ok(text.includes(tag), tag);
  }
});

test('sanity writes TensorBoard files on request', () => {
  const board = out('board');
  const small = ['--steps', '2', '--prompts-per-step', '4', '--group-size', '4', '--updates-per-step', '1'];
  const { status, stderr } = isopolicy([
    'sanity',
    ...base,
    ...small,
    '--out',
    out('tb'),
    '--tensorboard',
    board,
  ]);
  assert.equal(status, 3, stderr);
  const [file] = fs.readdirSync(board);
  assert.match(file!, /^events\.out\.tfevents\./);
  const text = fs.readFileSync(path.join(board, file!), 'latin1');
  for (const tag of ['train/reward', 'mismatch/klMuPiK3', 'scaler/scale']) assert.ok(text.includes(tag), tag);
});

test('a page that cannot be written ends before it is drawn, by its own name', (t) => {
  if (process.platform !== 'linux') return t.skip('of /proc');
  const run = out('for-a-page');
  fs.mkdirSync(run);
  fs.writeFileSync(
    path.join(run, 'config.json'),
    JSON.stringify({ formatVersion: 1, command: 'ladder', config: {} }),
  );
  for (const [place, message] of [
    ['/proc/x/page.html', /the folder of --out to be a folder that can be written \(ENOENT\)/],
    [folder, /expected --out to be a file/],
  ] as const) {
    const { status, stderr } = isopolicy(['report', run, '--out', place]);
    assert.equal(status, 2, stderr);
    assert.match(stderr, message);
  }
});
