#!/usr/bin/env node
/**
 * Runs the compiled tests: node scripts/test.mjs [filter...] [--node-option...]
 *
 * A filter is a file or a folder (test/rl, dist/test/rl, test/rl/grpo.test.ts) or a part of a path (grpo). What starts
 * with `--` goes to node, e.g. --test-name-pattern=scaler.
 */
import { spawnSync } from 'node:child_process';
import os from 'node:os';
import { listFiles, removeStale, root } from './stale.mjs';

const options = process.argv.slice(2).filter((arg) => arg.startsWith('--'));
const filters = process.argv
  .slice(2)
  .filter((arg) => !arg.startsWith('--'))
  .map((arg) =>
    arg
      .replace(/^\.\//, '')
      .replace(/^dist\//, '')
      .replace(/\.ts$/, '.js'),
  );

for (const file of removeStale()) console.error(`removed ${file}: its source is gone`);

const all = listFiles('dist/test').filter((file) => file.endsWith('.test.js'));
const chosen = all.filter((file) => filters.length === 0 || filters.some((filter) => file.includes(filter)));
if (chosen.length === 0) {
  console.error(
    all.length === 0
      ? 'no compiled tests in dist/test; run "npm run build:ts" first'
      : `none of the ${all.length} test files matches ${filters.join(', ')}`,
  );
  process.exit(1);
}

// Every test file is a process, and its kernels use all cores: a few at a time fill the gaps, more only queue.
const concurrency = Math.max(1, Math.min(4, os.availableParallelism()));
const { status, signal } = spawnSync(
  process.execPath,
  [
    '--test',
    `--test-concurrency=${concurrency}`,
    '--test-reporter=spec',
    '--test-timeout=600000', // ends a file that hangs, and fails it
    ...options,
    ...chosen,
  ],
  // Fresh tensors hold NaN, so that an output that a kernel does not write shows.
  { cwd: root, stdio: 'inherit', env: { ISOPOLICY_POISON: '1', ...process.env } },
);
if (signal) console.error(`the tests were ended by ${signal}`);
// Not process.exit: it skips the tear-down of the environment, and LeakSanitizer would report node's own memory.
process.exitCode = status ?? 1;
