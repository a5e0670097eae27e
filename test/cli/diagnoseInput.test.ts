/** What other people's files do to the command: names, pipes, full disks. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { displayWidth } from '../../lib/cli/terminalText.js';
import { synthetic, usualNoise } from '../diagnose/synthetic.js';
import { assertUsageError, isopolicy, main, temporaryFolder, withoutAddon } from './command.js';

const folder = temporaryFolder();
const { pairs } = synthetic({ responses: 30, length: 8, noise: usualNoise('bf16') });

type Row = Record<string, unknown>;

function write(name: string, rows: readonly Row[]): string {
  const file = path.join(folder, name);
  fs.mkdirSync(path.dirname(file), { recursive: true });
  fs.writeFileSync(file, rows.map((row) => `${JSON.stringify(row)}\n`).join(''));
  return file;
}

const rowsOf = (side: 'rollout' | 'training', idOf = (i: number) => `r${i}`): Row[] =>
  pairs.map(({ tokens, [side]: logprobs }, i) => ({ id: idOf(i), tokens, logprobs: [...logprobs] }));

const rollout = write('rollout.jsonl', rowsOf('rollout'));
const training = write('training.jsonl', rowsOf('training'));
const run = (...args: readonly string[]) => isopolicy(['diagnose', ...args], withoutAddon);

const nasty = [
  '\u001b[31mred\u001b]0;title\u0007',
  'a\nb\r\tc',
  'x'.repeat(3000),
  '</script><img src=x onerror=alert(1)>',
  '|a|`b`*c*',
  '\u202e日本語🙂',
  '__proto__',
];
const nastyId = (i: number) => `${nasty[i % nasty.length]}${i < nasty.length ? '' : i}`;

test('ids, texts and paths of any kind stay text: on a terminal, in Markdown, JSON and the page', () => {
  const deep = path.join('<img src=y onerror=alert(2)>', `${'long '.repeat(20)}`, 'rollout.jsonl');
  const texts = rowsOf('rollout', nastyId).map((row, i) => ({
    ...row,
    text: (row.tokens as number[]).map((_, t) => nasty[(i + t) % nasty.length]),
  }));
  const file = write(deep, texts);
  const other = write('nasty.jsonl', rowsOf('training', nastyId).slice(3));
  const out = path.join(folder, 'nasty');
  const { status, stdout, stderr } = run(file, other, '--out', out);
  assert.equal(status, 1, stderr);
  assert.match(stdout, /^SUSPICIOUS /);
  for (const line of stdout.trimEnd().split('\n')) {
    assert.ok(displayWidth(line) <= 80, line);
    assert.doesNotMatch(line, /\p{C}/u);
  }
  // However long the path: the line is there, and what was found.
  assert.match(stdout, /rollout\.jsonl:3,\s+id\s+x+…x+:\s+not\s+in\s+training/);
  const found = JSON.parse(run(file, other, '--json').stdout);
  assert.deepEqual(found.prechecks[0].examples, [
    `${file}:1, id ${nastyId(0)}: not in training`,
    `${file}:2, id ${nastyId(1)}: not in training`,
    `${file}:3, id ${nastyId(2)}: not in training`,
  ]);
  const markdown = fs.readFileSync(path.join(out, 'diagnosis.md'), 'utf8');
  const page = fs.readFileSync(path.join(out, 'report.html'), 'utf8');
  assert.ok(page.includes('onerror=alert(2)'), 'the path is on the page');
  for (const text of [markdown, page]) assert.doesNotMatch(text, /<img|<\/script><img/);
});

test('an id that is there twice is told without all of its text', () => {
  const twice = write('twice.jsonl', [...rowsOf('training', nastyId), rowsOf('training', nastyId)[2]!]);
  const outcome = run(write('nasty-rollout.jsonl', rowsOf('rollout', nastyId)), twice);
  assertUsageError(outcome, /id x{80}\.\.\. on .*twice\.jsonl:3 and .*twice\.jsonl:31"/);
  assert.ok(outcome.stderr.length < 600);
});

test('JSON is JSON whatever the numbers are', () => {
  const bare = path.join(folder, 'bare.jsonl');
  const text = fs.readFileSync(training, 'utf8');
  for (const [number, cause] of [
    ['NaN', 'not-finite'],
    ['-Infinity', 'not-finite'],
    ['-1e400', 'not-finite'],
    ['-1e308', 'outliers'],
  ] as const) {
    fs.writeFileSync(bare, text.replace(/(?<="logprobs":\[)[^,]+/, number));
    const { status, stdout } = run(rollout, bare, '--json', '--dtype', 'bf16');
    assert.equal(status, 2);
    assert.equal(JSON.parse(stdout).cause, cause, number);
  }
});

test('a pipe is refused at once, and a reader that stops is no error', {
  skip: process.platform === 'win32',
}, () => {
  const shell = (script: string) =>
    spawnSync('bash', ['-c', script, process.execPath, main, rollout, training], {
      encoding: 'utf8',
      timeout: 60_000,
    });
  const pipe = shell('cat "$3" | "$0" "$1" diagnose "$2" /dev/stdin');
  assertUsageError(
    pipe,
    /\/dev\/stdin to be a file, got "a pipe, which can be read only once: write it to a file"/,
  );
  const head = shell('"$0" "$1" diagnose "$2" "$3" --json | head -c 10; echo " $' + '{PIPESTATUS[0]}"');
  assert.equal(head.stdout, '{"verdict" 0\n');
  assert.equal(head.stderr, '');
});

test('a failure that is no verdict does not end as one', () => {
  // The page can't be written where a folder is in its place.
  const out = path.join(folder, 'occupied');
  fs.mkdirSync(path.join(out, 'report.html'), { recursive: true });
  const { status, stdout, stderr } = run(rollout, training, '--out', out);
  assert.equal(status, 2);
  assert.equal(stdout, '');
  assert.match(stderr, /^isopolicy: EISDIR: [^\n]*report\.html'\n$/);
  assert.deepEqual(fs.readdirSync(out), ['report.html']);
});
