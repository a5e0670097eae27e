import assert from 'node:assert/strict';
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after } from 'node:test';

/** The compiled command. */
export const main = path.resolve(import.meta.dirname, '../../lib/cli/main.js');

export interface Outcome {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** A folder that goes when the tests of the file have run. */
export function temporaryFolder(): string {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'isopolicy-cli-'));
  after(() => fs.rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** Runs the command to its end. */
export function isopolicy(args: readonly string[], env: Record<string, string> = {}, cwd?: string): Outcome {
  const { status, stdout, stderr } = spawnSync(process.execPath, [main, ...args], {
    encoding: 'utf8',
    env: { ...process.env, ...env },
    ...(cwd !== undefined && { cwd }),
  });
  return { status, stdout, stderr };
}

/**
 * Runs commands one after another in one process: for tables of what is refused and the like, where processes of their own
 * would spend their time on starting.
 */
export function isopolicyEach(
  commands: readonly (readonly string[])[],
  env: Record<string, string> = {},
): Outcome[] {
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [path.resolve(import.meta.dirname, 'commands.js')],
    {
      encoding: 'utf8',
      env: { ...process.env, ...env },
      input: JSON.stringify(commands),
      maxBuffer: 2 ** 28,
    },
  );
  assert.equal(status, 0, stderr);
  const outcomes = JSON.parse(stdout) as Outcome[];
  assert.equal(outcomes.length, commands.length);
  return outcomes;
}

/** Bad usage: exit code 2, nothing on stdout, one line on stderr, no stack. */
export function assertUsageError(
  { status, stdout, stderr }: Outcome,
  message: RegExp,
  label = 'isopolicy',
): void {
  assert.equal(status, 2, `${label}: ${stderr}`);
  assert.equal(stdout, '');
  assert.match(stderr, /^isopolicy: [^\n]+\n$/, 'one line');
  assert.match(stderr, message);
  assert.doesNotMatch(stderr, /\bat .*:\d+/);
}

/** What is refused, and the message that says so. */
export type UsageCase = readonly [args: readonly string[], message: RegExp];

export function assertUsageErrors(cases: readonly UsageCase[], env: Record<string, string> = {}): void {
  const outcomes = isopolicyEach(
    cases.map(([args]) => args),
    env,
  );
  for (const [i, [args, message]] of cases.entries()) assertUsageError(outcomes[i]!, message, args.join(' '));
}

/** An environment in which the addon can't be loaded. */
export const withoutAddon = { ISOPOLICY_ADDON: '/nonexistent/isopolicy.node' };

/**
 * Starts the command and calls `onLine` with each line of stderr as it comes; resolves when the process has ended.
 */
export function start(
  args: readonly string[],
  onLine: (line: string, child: ChildProcess) => void,
): Promise<Outcome & { readonly signal: NodeJS.Signals | null }> {
  const child = spawn(process.execPath, [main, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  let stdout = '';
  let stderr = '';
  let seen = 0;
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
    for (let end = stderr.indexOf('\n', seen); end >= 0; end = stderr.indexOf('\n', seen)) {
      const line = stderr.slice(seen, end);
      seen = end + 1;
      onLine(line, child);
    }
  });
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (status, signal) => resolve({ status, signal, stdout, stderr }));
  });
}
