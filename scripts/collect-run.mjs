#!/usr/bin/env node
/**
 * Keeps a run for the documentation: node scripts/collect-run.mjs RUN DEST [--every N] [--commit HASH]
 *
 * DEST gets the configuration, the summary, the points, and of metrics what charts read, every N-th step (default 4): a
 * folder that `isopolicy report` takes like any other. source.json tells where it comes from.
 */
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';

const KEPT = [
  'step',
  'train/reward',
  'train/reward_window',
  'train/entropy',
  'train/skipped_updates',
  'scaler/scale',
  'mismatch/meanAbsLogRatio',
  'mismatch/klMuPiK3',
  'mismatch/seqLogRatioStd',
  'mismatch/ess',
  'mismatch/maxProbDiff',
  'mismatch/minProbDiff',
  'algorithm/updateEss',
];
/** Groups of metrics that are kept whole. */
const KEPT_GROUPS = ['eval/', 'routing/'];
const MOST_TOKENS = 250;
const MOST_RESPONSES = 120;

const { values, positionals } = parseArgs({
  options: { every: { type: 'string', default: '4' }, commit: { type: 'string' } },
  allowPositionals: true,
});
const [run, dest] = positionals;
const every = Number(values.every);
if (run === undefined || dest === undefined || !(every >= 1)) {
  console.error('usage: node scripts/collect-run.mjs RUN DEST [--every N] [--commit HASH]');
  process.exit(2);
}

const readJson = (file) => JSON.parse(fs.readFileSync(file, 'utf8'));
const lines = (file) => fs.readFileSync(file, 'utf8').split('\n').filter(Boolean);
const rounded = (_key, value) =>
  typeof value === 'number' && !Number.isInteger(value) ? Number(value.toPrecision(6)) : value;
const thin = (list, most) => {
  const stride = Math.max(1, Math.ceil(list.length / most));
  return list.filter((_, i) => i % stride === 0);
};

function copyMetrics(from, to) {
  const records = lines(from).map((line) => JSON.parse(line));
  const kept = records.filter((_, i) => i % every === 0 || i === records.length - 1);
  const text = kept.map((record) =>
    JSON.stringify(
      Object.fromEntries(
        Object.entries(record).filter(
          ([key]) => KEPT.includes(key) || KEPT_GROUPS.some((group) => key.startsWith(group)),
        ),
      ),
      rounded,
    ),
  );
  fs.mkdirSync(path.dirname(to), { recursive: true });
  fs.writeFileSync(to, `${text.join('\n')}\n`);
}

fs.rmSync(dest, { recursive: true, force: true });
fs.mkdirSync(dest, { recursive: true });
const config = readJson(path.join(run, 'config.json'));
const summary = readJson(path.join(run, 'summary.json'));
/** Models and data of this machine are told without the folder that they lie in. */
const model = config.config?.model ?? config.config?.source?.model;
const portable = (text) =>
  typeof model === 'string' ? text.replaceAll(`"${path.dirname(model)}/`, '"') : text;
fs.writeFileSync(path.join(dest, 'config.json'), portable(`${JSON.stringify(config, null, 1)}\n`));
fs.writeFileSync(path.join(dest, 'summary.json'), portable(`${JSON.stringify(summary, rounded)}\n`));
const source = {
  commit: values.commit ?? execFileSync('git', ['rev-parse', '--short', 'HEAD'], { encoding: 'utf8' }).trim(),
  version: config.version,
  machine: `${os.cpus()[0].model.trim()}, ${os.cpus().length} cores, Node ${process.versions.node}`,
  every,
};
fs.writeFileSync(path.join(dest, 'source.json'), `${JSON.stringify(source, null, 1)}\n`);
if (fs.existsSync(path.join(run, 'points.jsonl'))) {
  const points = lines(path.join(run, 'points.jsonl')).map((line) => {
    const { key, value } = JSON.parse(line);
    if (Array.isArray(value.tokens)) value.tokens = thin(value.tokens, MOST_TOKENS);
    if (Array.isArray(value.responses)) value.responses = thin(value.responses, MOST_RESPONSES);
    return JSON.stringify({ key, value }, rounded);
  });
  fs.writeFileSync(path.join(dest, 'points.jsonl'), `${points.join('\n')}\n`);
}
if (fs.existsSync(path.join(run, 'metrics.jsonl'))) {
  copyMetrics(path.join(run, 'metrics.jsonl'), path.join(dest, 'metrics.jsonl'));
}
for (const cell of summary.cells ?? []) {
  const metrics = path.join(run, cell.directory, 'metrics.jsonl');
  if (fs.existsSync(metrics)) copyMetrics(metrics, path.join(dest, cell.directory, 'metrics.jsonl'));
}
