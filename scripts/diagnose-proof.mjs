#!/usr/bin/env node
/**
 * What `isopolicy diagnose` makes of faults that are known: node scripts/diagnose-proof.mjs --work DIR
 *
 * Every fault of `isopolicy inject` at every strength, and clean runs, on bases and seeds that no rule was written with. What is
 * done is kept in DIR (bases, a line a diagnosis), so that it can be interrupted, and shared: `--part 1/2` and `--part 2/2`
 * do half of it each. Once all is there, it is written to docs/results/diagnose.json and printed as tables.
 */
import fs from 'node:fs';
import path from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { diagnose } from '../dist/lib/diagnose/diagnose.js';
import { levels } from '../dist/lib/instruments/faults/fault.js';
import { faults } from '../dist/lib/instruments/faults/index.js';
import { runSteps } from '../dist/lib/instruments/faults/run.js';
import { resolveRunOptions } from '../dist/lib/instruments/faults/runConfig.js';
import { prepareBase } from '../dist/lib/sanity/base.js';
import { resolveBaseOptions } from '../dist/lib/sanity/baseConfig.js';
import { drawConfusion, summarize } from './diagnose-tables.mjs';
import { root } from './stale.mjs';

/** Rules were written with base seeds below 40 and run seeds below 4000. */
const BASES = [
  { name: 'sort-16', task: 'sort:16:10', baseSeed: 41 },
  { name: 'sort-16-shallow', task: 'sort:16:10', baseSeed: 42, numLayers: 2 },
  { name: 'interleave-16', task: 'interleave:16:10', baseSeed: 41 },
  { name: 'interleave-32', task: 'interleave:32:10', baseSeed: 42 },
  { name: 'sort-16-experts', task: 'sort:16:10', baseSeed: 43, numExperts: 8 },
];
const SETTINGS = ['fp16', 'bf16'].flatMap((precision) =>
  ['default', 'matched'].map((numerics) => ({ precision, numerics })),
);
const FAULT_SEEDS = [4001, 4002];
/** Seeds of runs without a fault alone, on dense bases. */
const CLEAN_SEEDS = Array.from({ length: 11 }, (_, i) => 4003 + i);
/** Of the confidence: fewer than by default, which changes nothing else. */
const DRAWS = 10;

const { values: flags } = parseArgs({
  options: { work: { type: 'string' }, part: { type: 'string', default: '1/1' } },
});
if (flags.work === undefined) throw new Error('expected --work DIR');
const [part, parts] = flags.part.split('/').map(Number);
fs.mkdirSync(flags.work, { recursive: true });

const runs = BASES.flatMap((base) =>
  [...FAULT_SEEDS, ...(base.numExperts ? [] : CLEAN_SEEDS)].flatMap((seed) =>
    SETTINGS.map((setting) => ({ base, seed, ...setting })),
  ),
);
const log = path.join(flags.work, `points-${part}-of-${parts}.jsonl`);
const done = new Set(readPoints().map(keyOf));
for (const [i, run] of runs.entries()) {
  if (i % parts !== part - 1 || done.has(keyOf(run))) continue;
  const start = performance.now();
  const points = await pointsOf(run);
  // All of a run at once: what is interrupted is done again.
  fs.appendFileSync(log, points.map((point) => `${JSON.stringify(point)}\n`).join(''));
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  console.error(`${i + 1}/${runs.length} ${keyOf(run)}: ${points.length} diagnoses in ${seconds} s`);
}

const points = readPoints();
const keys = new Set(points.map(keyOf));
const missing = runs.filter((run) => !keys.has(keyOf(run)));
if (missing.length > 0) {
  console.error(`${missing.length} of ${runs.length} runs are not done yet`);
} else {
  const order = new Map(runs.map((run, i) => [keyOf(run), i]));
  points.sort((a, b) => order.get(keyOf(a)) - order.get(keyOf(b)));
  const summary = summarize(points);
  const out = {
    command: 'node scripts/diagnose-proof.mjs',
    bases: BASES,
    faultSeeds: FAULT_SEEDS,
    cleanSeeds: CLEAN_SEEDS,
    ...summary.json,
    points,
  };
  fs.writeFileSync(path.join(root, 'docs/results/diagnose.json'), `${JSON.stringify(out)}\n`);
  const chart = path.join(root, 'docs/charts/diagnose');
  fs.mkdirSync(chart, { recursive: true });
  fs.writeFileSync(path.join(chart, 'confusion.svg'), `${await drawConfusion(points)}\n`);
  console.log(summary.text);
}

function keyOf({ base, seed, precision, numerics }) {
  return `${base.name ?? base} ${precision} ${numerics} ${seed}`;
}

function readPoints() {
  return fs
    .readdirSync(flags.work)
    .filter((name) => /^points-.*\.jsonl$/.test(name))
    .flatMap((name) => fs.readFileSync(path.join(flags.work, name), 'utf8').trim().split('\n'))
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line));
}

/** Runs `body` while no other part makes or opens that base. */
async function alone(name, body) {
  const lock = path.join(flags.work, `${name}.lock`);
  for (;;) {
    try {
      fs.mkdirSync(lock);
      break;
    } catch (error) {
      if (error.code !== 'EEXIST') throw error;
      await setTimeout(500);
    }
  }
  try {
    return await body();
  } finally {
    fs.rmdirSync(lock);
  }
}

/** One run with every fault that is defined on it, each diagnosed. */
async function pointsOf({ base, seed, precision, numerics }) {
  const { name, ...options } = base;
  // A run moves the weights: each has its own copy.
  const subject = await alone(name, () =>
    prepareBase(resolveBaseOptions('proof', options), { directory: path.join(flags.work, 'bases', name) }),
  );
  const config = resolveRunOptions('proof', { precision, numerics, seed });
  const jobs = [];
  for (const fault of faults) {
    if (fault.name !== 'none' && !FAULT_SEEDS.includes(seed)) continue;
    for (const level of fault.name === 'none' ? ['ordinary'] : levels) {
      const strength = fault.strengths[level];
      try {
        fault.check?.({ model: subject.model.config, config }, strength);
      } catch {
        continue;
      }
      jobs.push({ fault, level, strength, rollout: [], training: [] });
    }
  }
  const versions = new Set(jobs.flatMap(({ fault, strength }) => fault.versions?.(config, strength) ?? []));
  for await (const step of runSteps(subject, config, { versions })) {
    for (const job of jobs) {
      const dump = await job.fault.apply(step, job.strength);
      job.rollout.push(...dump.rollout);
      job.training.push(...dump.training);
    }
  }
  await subject[Symbol.asyncDispose]();
  const points = [];
  for (const { fault, level, strength, rollout, training } of jobs) {
    const { verdict, cause, confidence, signatures } = await diagnose(rollout, training, {
      dtype: precision,
      draws: DRAWS,
    });
    const found = signatures.filter((signature) => signature.found).map((signature) => signature.name);
    const units = signatures.find((signature) => signature.name === 'floor')?.values.units;
    points.push({
      base: name,
      precision,
      numerics,
      seed,
      fault: fault.name,
      level,
      strength,
      verdict,
      cause,
      confidence,
      found,
      ...(units !== undefined && { units: Number(units.toPrecision(4)) }),
    });
  }
  return points;
}
