#!/usr/bin/env node
/** Lines by folder, and a warning for every file that has grown too long to be one thing; never fails. */
import fs from 'node:fs';
import path from 'node:path';
import { listFiles, root } from './stale.mjs';

const alarm = 600;
const folders = ['native', 'lib', 'test', 'bench', 'examples', 'scripts'];

const long = [];
for (const folder of folders) {
  const files = listFiles(folder).filter((file) => /\.(ts|mjs|cjs|js|h|cc|cu|cuh)$/.test(file));
  let total = 0;
  for (const file of files) {
    const lines = fs.readFileSync(path.join(root, file), 'utf8').split('\n').length - 1;
    total += lines;
    if (lines > alarm) long.push([lines, file]);
  }
  if (files.length > 0)
    console.log(
      `${folder.padEnd(9)}${String(files.length).padStart(4)} files ${String(total).padStart(6)} lines`,
    );
}
for (const [lines, file] of long.sort((a, b) => b[0] - a[0]))
  console.log(`warning: ${file} has ${lines} lines, more than ${alarm}`);
