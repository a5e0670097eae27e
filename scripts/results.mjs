#!/usr/bin/env node
/**
 * Draws every figure of docs/results.md anew: node scripts/results.mjs
 *
 * Each folder of docs/results that holds a run (see collect-run.mjs) becomes SVGs in docs/charts/<its name>/, drawn by
 * `isopolicy report`. The same data give the same bytes.
 */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { root } from './stale.mjs';

const results = path.join(root, 'docs/results');
const page = path.join(fs.mkdtempSync(path.join(os.tmpdir(), 'isopolicy-results-')), 'report.html');
for (const name of fs.readdirSync(results).sort()) {
  const run = path.join(results, name);
  if (!fs.existsSync(path.join(run, 'config.json'))) continue;
  const svg = path.join(root, 'docs/charts', name);
  const command = path.join(root, 'dist/lib/cli/main.js');
  const { status } = spawnSync(process.execPath, [command, 'report', run, '--out', page, '--svg', svg], {
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  if (status !== 0) process.exit(status ?? 1);
}
fs.rmSync(path.dirname(page), { recursive: true });
