#!/usr/bin/env node
/** Checks the format of the native sources, or with --write mends it: node scripts/clang-format.mjs [--write] */
import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { listFiles, root } from './stale.mjs';

const write = process.argv.includes('--write');
const program = path.join(root, 'node_modules/.bin/clang-format');
const files = ['native', 'bench/peers'].flatMap(listFiles).filter((file) => /\.(h|cc|cu|cuh)$/.test(file));

const check = spawnSync(program, ['--dry-run', ...files], {
  cwd: root,
  encoding: 'utf8',
  maxBuffer: 2 ** 28,
});
if (check.error || check.status !== 0) {
  console.error(`clang-format: ${check.error?.message ?? check.stderr}`);
  process.exit(2);
}
const marked = check.stderr.matchAll(/^(.+?):\d+:\d+: warning: code should be clang-formatted/gm);
const unformatted = [...new Set(Array.from(marked, ([, file]) => file))];

if (write && unformatted.length > 0) {
  const { status } = spawnSync(program, ['-i', ...unformatted], { cwd: root, stdio: 'inherit' });
  if (status !== 0) process.exit(2);
}
for (const file of unformatted) console.log(`${write ? 'formatted' : 'not formatted:'} ${file}`);
if (!write && unformatted.length > 0) {
  console.error(`${unformatted.length} of ${files.length} native files need "npm run format"`);
  process.exit(1);
}
console.log(`clang-format: ${files.length} native files ${write ? 'formatted' : 'checked'}`);
