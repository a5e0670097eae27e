#!/usr/bin/env node
/**
 * The noise of two engines that differ by rounding alone, on models of several depths and widths, and the law that
 * lib/diagnose/noiseFloor.ts predicts it by: node scripts/diagnose-floor.mjs --work DIR
 *
 * Bases are made in DIR, or taken from there. Writes docs/results/diagnose-floor.json.
 */
import fs from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { countedTokens } from '../dist/lib/diagnose/countedTokens.js';
import { sampleOf } from '../dist/lib/diagnose/sample.js';
import { TrainingEngine } from '../dist/lib/index.js';
import { prepareBase } from '../dist/lib/sanity/base.js';
import { resolveBaseOptions } from '../dist/lib/sanity/baseConfig.js';
import { sampleResponses } from '../dist/lib/sanity/subject.js';
import { root } from './stale.mjs';

const BASES = [
  { task: 'sort:16:10', baseSeed: 7, numLayers: 2, hiddenSize: 32 },
  { task: 'sort:16:10', baseSeed: 7, numLayers: 8, hiddenSize: 32 },
  { task: 'sort:16:10', baseSeed: 2, numLayers: 2, hiddenSize: 64 },
  { task: 'sort:16:10', baseSeed: 1, numLayers: 4, hiddenSize: 64 },
  { task: 'sort:16:10', baseSeed: 7, numLayers: 2, hiddenSize: 128 },
  { task: 'sort:16:10', baseSeed: 7, numLayers: 4, hiddenSize: 128 },
  { task: 'sort:16:10', baseSeed: 7, numLayers: 8, hiddenSize: 128 },
  { task: 'interleave:32:10', baseSeed: 1, numLayers: 4, hiddenSize: 64 },
  { task: 'interleave:32:10', baseSeed: 2, numLayers: 4, hiddenSize: 96 },
  { task: 'interleave:32:10', baseSeed: 3, numLayers: 8, hiddenSize: 64 },
  { task: 'interleave:64:10', baseSeed: 1, numLayers: 4, hiddenSize: 64 },
];
const UNITS = { bf16: 2 ** -8, fp16: 2 ** -11 };
/**
 * DeepSeek-R1-Distill-Qwen-1.5B in arXiv 2510.26788: mean |pi - mu| of 0.004 in bf16 and 0.0005 in fp16 at the start. It is about p (1
 * - p) times the noise of the logits; the mean of p (1 - p) is not reported, 0.09 is our guess.
 */
const PAPER = [
  { numLayers: 28, hiddenSize: 1536, precision: 'bf16', units: 0.004 / 0.09 / UNITS.bf16 },
  { numLayers: 28, hiddenSize: 1536, precision: 'fp16', units: 0.0005 / 0.09 / UNITS.fp16 },
];

const { values: flags } = parseArgs({ options: { work: { type: 'string' } } });
if (flags.work === undefined) throw new Error('expected --work DIR');

const measured = [];
for (const base of BASES) {
  const name = `${base.task.replaceAll(':', '-')}-${base.numLayers}-${base.hiddenSize}`;
  const subject = await prepareBase(resolveBaseOptions('floor', base), {
    directory: path.join(flags.work, name),
  });
  for (const precision of Object.keys(UNITS)) {
    const units = (await logitNoise(subject, precision)) / UNITS[precision];
    measured.push({ ...base, precision, units: round(units) });
    console.error(`${name} ${precision}: ${units.toFixed(1)} units`);
  }
  await subject[Symbol.asyncDispose]();
}
const law = fit([...measured, ...PAPER]);
const out = { command: 'node scripts/diagnose-floor.mjs', measured, paper: PAPER, law };
fs.writeFileSync(path.join(root, 'docs/results/diagnose-floor.json'), `${JSON.stringify(out)}\n`);
console.log(JSON.stringify(law));

/** Both engines by their own habits, on the same responses. */
async function logitNoise(subject, precision) {
  const { sequences, completions } = await sampleResponses(subject, { precision, count: 256, seed: 1 });
  const training = new TrainingEngine(subject.model, {
    precision,
    schedule: { kind: 'constant', learningRate: 0 },
  });
  const { offsets, logprobs } = await training.score(sequences);
  training.dispose();
  const none = { rollout: null, training: null };
  const pairs = completions.map((completion, s) => ({
    index: s,
    tokens: null,
    rollout: Float64Array.from(completion.logprobs),
    training: logprobs.slice(offsets[s], offsets[s + 1]),
    mask: new Uint8Array(completion.logprobs.length).fill(1),
    topLogprobs: none,
    weightsVersions: none,
    step: null,
    batch: null,
  }));
  return countedTokens(sampleOf(pairs)).logitNoise;
}

/** Least squares of log units on log layers and log width, by the normal equations. */
function fit(points) {
  const rows = points.map(({ numLayers, hiddenSize, units }) => [
    1,
    Math.log(numLayers / 4),
    Math.log(hiddenSize / 64),
    Math.log(units),
  ]);
  const m = [0, 1, 2].map((i) =>
    [0, 1, 2, 3].map((j) => rows.reduce((sum, row) => sum + row[i] * row[j], 0)),
  );
  for (let i = 0; i < 3; i++) {
    for (let k = 0; k < 3; k++) {
      if (k === i) continue;
      const factor = m[k][i] / m[i][i];
      m[k] = m[k].map((value, j) => value - factor * m[i][j]);
    }
  }
  const [a, layers, hidden] = [0, 1, 2].map((i) => m[i][3] / m[i][i]);
  const squares = rows.reduce((sum, [, l, h, y]) => sum + (y - a - layers * l - hidden * h) ** 2, 0);
  const deviation = Math.sqrt(squares / (rows.length - 3));
  return {
    usual: round(Math.exp(a)),
    layers: round(layers),
    hidden: round(hidden),
    logDeviation: round(deviation),
    points: rows.length,
  };
}

function round(value) {
  return Number(value.toPrecision(3));
}
