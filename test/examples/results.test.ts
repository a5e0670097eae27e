/** What docs/results.md and README.md rest on: committed runs that this version reads, and the figures drawn from them. */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { textOf } from '../../lib/cli/report.js';
import { buildSections } from '../../lib/report/build.js';

const root = path.resolve(import.meta.dirname, '../../..');
const results = path.join(root, 'docs/results');
const runs = fs
  .readdirSync(results)
  .filter((name) => fs.existsSync(path.join(results, name, 'config.json')))
  .sort();
const pages = ['README.md', 'docs/results.md'].map((name) => ({
  folder: path.dirname(path.join(root, name)),
  text: fs.readFileSync(path.join(root, name), 'utf8'),
}));

test('every committed run is one that report draws and tells of, and names no folder of a machine', async () => {
  assert.ok(runs.length >= 10);
  for (const name of runs) {
    const [section] = await buildSections([path.join(results, name)], textOf);
    assert.ok(section!.figures.length > 0, name);
    assert.ok(section!.text!.length > 100, name);
    for (const file of ['config.json', 'summary.json']) {
      assert.doesNotMatch(
        fs.readFileSync(path.join(results, name, file), 'utf8'),
        /"\/(tmp|work|home|root)\//,
        name,
      );
    }
  }
});

test('routes that differ are drawn of mixtures alone', async () => {
  for (const [name, drawn] of [
    ['train-moe-bf16', true],
    ['train-dense-bf16', false],
  ] as const) {
    const [section] = await buildSections([path.join(results, name)], textOf);
    const ids = section!.figures.map(({ id }) => id);
    assert.equal(ids.includes('flips'), drawn, ids.join(' '));
    assert.ok(ids.includes('evaluation') && ids.includes('reward'), ids.join(' '));
  }
});

test('every figure and folder that the pages name is there, and every committed run is named', () => {
  for (const { folder, text } of pages) {
    for (const [, target] of text.matchAll(/\]\(([\w./-]+)(?:#[\w-]+)?\)/g)) {
      assert.ok(fs.existsSync(path.join(folder, target!)), target);
    }
  }
  const named = pages.map(({ text }) => text).join('\n');
  for (const name of runs) assert.ok(named.includes(name), `docs/results/${name} is named by no page`);
});
