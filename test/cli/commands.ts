/** Runs command lines one after another in this process: JSON of them on stdin, of their outcomes on stdout. */
import { readFileSync, writeSync } from 'node:fs';
import { runCommandLine } from '../../lib/cli/commandLine.js';
import type { Outcome } from './command.js';

const [node, main] = process.argv as [string, string];
const outcomes: Outcome[] = [];
for (const args of JSON.parse(readFileSync(0, 'utf8')) as string[][]) {
  const texts = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr'] as const) {
    process[name].write = (text: string | Uint8Array): boolean => {
      texts[name] += text;
      return true;
    };
  }
  process.argv = [node, main, ...args];
  process.exitCode = undefined;
  await runCommandLine();
  outcomes.push({ status: Number(process.exitCode ?? 0), ...texts });
}
process.exitCode = 0;
const text = Buffer.from(JSON.stringify(outcomes));
for (let at = 0; at < text.length; ) at += writeSync(1, text, at);
