#!/usr/bin/env node
/**
 * Draws every figure of docs/results.md and README.md anew: node scripts/results.mjs
 *
 * A figure is docs/charts/<name>/<id>.svg, drawn by `isopolicy report` from the run that docs/results/<name> holds (see
 * collect-run.mjs). The same data give the same bytes.
 */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { root } from './stale.mjs';

const pages = ['README.md', 'docs/results.md'].map((file) => fs.readFileSync(path.join(root, file), 'utf8'));
const figures = new Set(pages.flatMap((text) => text.match(/charts\/[\w.-]+\/[\w.-]+\.svg/g) ?? []));
const temporary = fs.mkdtempSync(path.join(os.tmpdir(), 'isopolicy-results-'));
for (const name of new Set([...figures].map((figure) => figure.split('/')[1]))) {
  const svg = path.join(temporary, name);
  const command = path.join(root, 'dist/lib/cli/main.js');
  const run = path.join(root, 'docs/results', name);
  const args = [command, 'report', run, '--out', path.join(temporary, `${name}.html`), '--svg', svg];
  const { status } = spawnSync(process.execPath, args, { stdio: ['ignore', 'ignore', 'inherit'] });
  if (status !== 0) process.exit(status ?? 1);
  for (const figure of figures) {
    const [, folder, file] = figure.split('/');
    if (folder !== name) continue;
    const target = path.join(root, 'docs', figure);
    fs.mkdirSync(path.dirname(target), { recursive: true });
    fs.copyFileSync(path.join(svg, file), target);
    console.log(`docs/${figure}`);
  }
}
fs.rmSync(temporary, { recursive: true });
