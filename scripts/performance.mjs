#!/usr/bin/env node
/**
 * Fills the tables of docs/performance.md and docs/performance-rows.md from docs/results/: node scripts/performance.mjs [--run]
 *
 * With --run everything is measured first (about half an hour; see docs/performance.md), and the charts are drawn. The
 * tables stand between comments of the pages, `<!-- targets -->` to `<!-- end of targets -->`; nothing else changes.
 */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { outcomes } from '../dist/bench/summary.js';
import { root } from './stale.mjs';

const page = path.join(root, 'docs/performance.md');
const rowsPage = path.join(root, 'docs/performance-rows.md');
const results = path.join(root, 'docs/results/performance.json');
/** The same of a machine without tile registers, quick shapes alone. */
const pairsResults = path.join(root, 'docs/results/performance-zen5.json');
const scaling = path.join(root, 'docs/results/scaling.json');

function run(script, ...args) {
  console.log(`${script} ${args.join(' ')}`);
  const { status } = spawnSync(process.execPath, [script, ...args], { cwd: root, stdio: 'inherit' });
  // 1: some row failed, which the JSON tells; the others count.
  if (status !== 0 && status !== 1) process.exit(status ?? 2);
}

const read = (file) => JSON.parse(fs.readFileSync(file, 'utf8'));

/** Three digits, as far as they mean something. */
function digits(x) {
  if (x === null || x === undefined || !Number.isFinite(x)) return '';
  return x >= 100 ? String(Math.round(x)) : x.toPrecision(x >= 1 ? 3 : 2);
}

const percent = (x) => (x === null ? '' : `${Math.round(100 * x)} %`);

function table(head, rows) {
  const line = (cells) => `| ${cells.join(' | ')} |`;
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n');
}

function targetsTable(document) {
  const head = ['what', 'family', 'threads', 'rows', 'median', 'worst', 'worst at', 'target', ''];
  return table(
    head,
    outcomes(document).map((o) => [
      o.what,
      o.family,
      o.threads,
      o.rows,
      digits(o.median),
      digits(o.worst),
      o.where,
      `${o.bound} ${o.unit === 'x' ? '' : o.unit}`.trim(),
      o.met ? 'met' : 'not met',
    ]),
  );
}

function rowsTable(document) {
  const head = [
    'op',
    'family',
    'type',
    'shape',
    'threads',
    'ms',
    'rate',
    'of the roof',
    'best peer',
    'its rate',
  ];
  return table(
    [...head, 'ours / peer', 'threads against one'],
    document.rows.map((row) => [
      row.op,
      row.family,
      row.dtype,
      row.shape,
      row.threads,
      digits(row.medianMs),
      `${digits(row.rate)} ${row.unit}`,
      row.share === null ? '' : `${percent(row.share)} ${row.roof}`,
      row.bestPeer ? `${row.bestPeer.name}${row.peerDtype ? ` (${row.peerDtype})` : ''}` : '',
      digits(row.bestPeer?.rate),
      row.bestPeer ? row.bestPeer.ratio.toFixed(2) : '',
      row.scaling === null ? '' : row.scaling.toFixed(2),
    ]),
  );
}

function machineText({ machine, date, commit, command, peaks, peers }) {
  const best = (threads, kind) =>
    Math.max(...peaks.filter((p) => p.threads === threads).map((p) => p[kind]?.best ?? 0));
  const threadCounts = [...new Set(peaks.map((p) => p.threads))];
  const show = (threads, kind, unit) => {
    const value = best(threads, kind);
    return value > 0 ? `${kind} ${Math.round(value)} ${unit}` : null;
  };
  const peakText = threadCounts.map((threads) => {
    const arithmetic = ['fma', 'bf16', 'amx'].map((kind) => show(threads, kind, 'GFLOP/s'));
    const memory = ['read', 'copy'].map((kind) => show(threads, kind, 'GB/s'));
    const all = [...arithmetic, ...memory].filter(Boolean).join(', ');
    return `${threads} ${threads === 1 ? 'thread' : 'threads'}: ${all}`;
  });
  const versions = new Map(peers.present.map(({ name, version }) => [name, version]));
  return [
    `- Machine: ${machine.cpu}, ${machine.cores} cores, level \`${machine.vectorLevel}\`, Node ${machine.node}.`,
    `- Command: \`${command}\`, ${date.slice(0, 10)}, commit ${commit?.slice(0, 12) ?? 'unknown'}.`,
    ...peakText.map((text) => `- Measured peaks, ${text}.`),
    `- Peers: ${[...versions].map(([name, version]) => `${name} (${version})`).join('; ') || 'none'}.`,
    ...peers.missing.map(({ name, missing }) => `- Not there: ${name} (${missing}).`),
  ].join('\n');
}

function memoryTable({ memory }) {
  return table(
    ['memory a token', 'hidden', 'layers', 'measured, bytes', 'predicted, bytes'],
    memory.map(({ of, model, measured, predicted }) => [
      of === 'kvCache' ? 'KV cache' : 'training',
      model.hidden,
      model.layers,
      Math.round(measured),
      predicted,
    ]),
  );
}

function fill(text, name, content) {
  const begin = `<!-- ${name} -->`;
  const end = `<!-- end of ${name} -->`;
  const from = text.indexOf(begin);
  const to = text.indexOf(end);
  if (from < 0 || to < from) throw new Error(`no ${begin} ... ${end} in the page`);
  return `${text.slice(0, from + begin.length)}\n\n${content}\n\n${text.slice(to)}`;
}

const { values } = readArgs();

function readArgs() {
  try {
    return parseArgs({ options: { run: { type: 'boolean', default: false } } });
  } catch (error) {
    console.error(`performance: ${error.message}`);
    return process.exit(2);
  }
}

if (values.run) {
  const bench = 'dist/bench/main.js';
  run(
    bench,
    '--peers',
    '--shapes',
    'full',
    '--threads',
    '1,2',
    '--time',
    '40',
    '--out',
    path.relative(root, results),
  );
  run(bench, '--scaling', '--out', path.relative(root, scaling));
  run('scripts/charts.mjs');
}
/** Replaces tables of a page: [name, content]. */
function fillPage(file, tables) {
  const text = tables.reduce(
    (filled, [name, content]) => fill(filled, name, content),
    fs.readFileSync(file, 'utf8'),
  );
  fs.writeFileSync(file, text);
  spawnSync(path.join(root, 'node_modules/.bin/biome'), ['format', '--write', file], { stdio: 'ignore' });
  console.log(path.relative(root, file));
}

if (fs.existsSync(results)) {
  const document = read(results);
  const machine = ['machine', machineText(document)];
  fillPage(page, [machine, ['targets', targetsTable(document)]]);
  fillPage(rowsPage, [machine, ['rows', rowsTable(document)]]);
}
if (fs.existsSync(pairsResults)) {
  const document = read(pairsResults);
  fillPage(page, [
    ['machine without tiles', machineText(document)],
    ['targets without tiles', targetsTable(document)],
  ]);
}
if (fs.existsSync(scaling)) fillPage(page, [['memory', memoryTable(read(scaling))]]);
