#!/usr/bin/env node
/** Checks the format of the native sources, or with --write mends it: node scripts/clang-format.mjs [--write] */
import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { listFiles, root } from './stale.mjs';

const write = process.argv.includes('--write');
const program = path.join(root, 'node_modules/.bin/clang-format');
const files = listFiles('native').filter((file) => /\.(h|cc|cu|cuh)$/.test(file));

/** The replacements that clang-format would make, as XML; a well-formed file has none. */
function needsFormat(file) {
  const { stdout, stderr, error, status } = spawnSync(program, ['--output-replacements-xml', file], {
    cwd: root,
    encoding: 'utf8',
  });
  if (error || status !== 0) {
    console.error(`clang-format: ${error?.message ?? stderr}`);
    process.exit(2);
  }
  return stdout.includes('<replacement ');
}

const unformatted = files.filter(needsFormat);
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
