#!/usr/bin/env node
/**
 * Measures the math verifier on the gold answers of a data set: node scripts/math-verifier.mjs FILE.arrow [--out JSON]
 *
 * FILE.arrow is an Arrow IPC stream or file with a column `answer` of strings. Every answer has to equal itself; then all
 * pairs of different texts are compared, in both modes and through the functions that training calls, and those called
 * equal are listed. Shows what a comparison takes, and what answers made to be slow take. Writes JSON with --out. Needs
 * compiled TypeScript (npm run build:ts). Exits with 1 where an answer differs from itself, or where more than 1 in 2,000
 * pairs are called equal.
 */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { tableFromIPC } from 'apache-arrow';
import { atomicWriteFile } from '../dist/lib/io/atomicWrite.js';
import { parseAnswer } from '../dist/lib/tasks/math/answer.js';
import { likeness } from '../dist/lib/tasks/math/equal.js';
import { MathVerifier, mathVerifierVersion } from '../dist/lib/tasks/math/verifier.js';

const LARGEST_RATE = 1 / 2000;

function fail(line) {
  console.error(`math-verifier: ${line}`);
  process.exit(2);
}

function readAnswers(file) {
  let table;
  try {
    table = tableFromIPC(fs.readFileSync(file));
  } catch (error) {
    fail(`cannot read ${file}: ${error.message}`);
  }
  const column = table.getChild('answer');
  if (!column) fail(`expected ${file} to have a column answer, got ${table.schema.names.join(', ')}`);
  return [...column].map(String);
}

/** Median, 99th percentile and largest of times in microseconds. */
function spread(times) {
  const sorted = times.slice().sort();
  const at = (quantile) => Number(sorted[Math.floor(quantile * (sorted.length - 1))].toPrecision(3));
  return { medianMicroseconds: at(0.5), p99Microseconds: at(0.99), maxMicroseconds: at(1) };
}

/** What the two answers of a pair that counts as equal differ in. */
function differenceOf(a, b) {
  const [x, y] = [a, b].map((text) => parseAnswer(text).form.unit);
  if (x === '%' || y === '%') return 'percent sign';
  if (x !== y) return 'unit left out';
  return 'notation';
}

/** Compares each two different texts once; `judge` gives a reason, which begins with `same` or is `compute engine`. */
async function compareAll(texts, counts, judge) {
  const times = new Float64Array((texts.length * (texts.length - 1)) / 2);
  const reasons = {};
  const equal = [];
  let pair = 0;
  let equalRows = 0;
  const cpu = process.cpuUsage();
  for (let i = 0; i < texts.length; i++) {
    for (let j = 0; j < i; j++) {
      const began = performance.now();
      const how = await judge(texts[i], texts[j]);
      times[pair++] = (performance.now() - began) * 1000;
      reasons[how] = (reasons[how] ?? 0) + 1;
      if (!how.startsWith('same') && how !== 'compute engine') continue;
      equalRows += counts.get(texts[i]) * counts.get(texts[j]);
      equal.push({ a: texts[j], b: texts[i], how, differsIn: differenceOf(texts[i], texts[j]) });
    }
  }
  const { user, system } = process.cpuUsage(cpu);
  const rows = [...counts.values()].reduce((sum, count) => sum + count, 0);
  const sameText = [...counts.values()].reduce((sum, count) => sum + (count * (count - 1)) / 2, 0);
  const rowPairs = (rows * (rows - 1)) / 2 - sameText;
  return {
    pairs: pair,
    equal: equal.length,
    oneIn: Math.round(pair / equal.length),
    rowPairs,
    equalRowPairs: equalRows,
    oneInRowPairs: Math.round(rowPairs / equalRows),
    reasons,
    comparison: { ...spread(times), meanCpuMicroseconds: Number(((user + system) / pair).toPrecision(3)) },
    calledEqual: equal,
  };
}

/** Responses made to be slow: what each takes, and for how long at most the event loop stood still meanwhile. */
async function measureHard() {
  const box = (text) => `\\boxed{${text}}`;
  const nested = (open, middle, close, depth) => open.repeat(depth) + middle + close.repeat(depth);
  const hard = {
    '9^{9^{9}}': box('9^{9^{9}}'),
    '10^{10^{10}}': box('10^{10^{10}}'),
    'a tower of 60 powers of x': box(nested('x^{', '2', '}', 60)),
    '900 brackets': box(nested('(', '1', ')', 900)),
    '55 nested roots': box(nested('\\sqrt{2+', '2', '}', 55)),
    '55 nested sines': box(nested('\\sin(', '1', ')', 55)),
    'a million brackets': box('('.repeat(1e6)),
    '4 MB of junk before the box': `${'junk {$\\frac '.repeat(3e5)}${box('6')}`,
    '1 MB of unclosed boxes': '\\boxed{'.repeat(1.5e5),
    'a sum of 10^12 terms': box('\\sum_{k=1}^{10^{12}} k'),
    'an infinite sum': box('\\sum_{n=1}^{\\infty} \\frac{1}{n^2}'),
  };
  const verifier = new MathVerifier();
  // The first question starts a thread.
  await verifier.verify(box('\\max(1, 2)'), '2');
  const results = {};
  for (const [name, response] of Object.entries(hard)) {
    let last = performance.now();
    let longest = 0;
    const tick = () => {
      longest = Math.max(longest, performance.now() - last);
      last = performance.now();
    };
    const timer = setInterval(tick, 1);
    const began = performance.now();
    const { how } = await verifier.verify(response, '\\frac{\\pi^2}{7}');
    const took = performance.now() - began;
    await new Promise((resolve) => setTimeout(resolve, 5));
    tick();
    clearInterval(timer);
    results[name] = { how, milliseconds: Math.round(took), longestStallMilliseconds: Math.round(longest) };
  }
  await verifier.close();
  return results;
}

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: { out: { type: 'string' } },
});
if (positionals.length !== 1) fail('expected FILE.arrow [--out JSON]');
const [file] = positionals;
const answers = readAnswers(file);
const counts = new Map();
for (const answer of answers) counts.set(answer, (counts.get(answer) ?? 0) + 1);
const texts = [...counts.keys()];

const verifier = new MathVerifier();
const differing = [];
const kinds = {};
for (const text of texts) {
  const { kind } = parseAnswer(text).form;
  kinds[kind] = (kinds[kind] ?? 0) + 1;
  const { correct } = await verifier.verify(`\\boxed{${text}}`, text);
  if (!correct || likeness(text, text) !== 'same text') differing.push(text);
}
console.log(
  `${answers.length} answers, ${texts.length} different texts; ${differing.length} differ from themselves`,
);

const modes = {
  strict: await compareAll(texts, counts, likeness),
  symbolic: await compareAll(texts, counts, async (a, b) => (await verifier.verify(`\\boxed{${a}}`, b)).how),
};
await verifier.close();
for (const [mode, result] of Object.entries(modes)) {
  const { medianMicroseconds, p99Microseconds, meanCpuMicroseconds } = result.comparison;
  console.log(
    `${mode}: ${result.equal} of ${result.pairs} pairs are called equal (1 in ${result.oneIn}); ` +
      `a comparison takes ${medianMicroseconds} us (median), ${p99Microseconds} us (99 %), ` +
      `${meanCpuMicroseconds} us of processor time (mean)`,
  );
}
for (const { a, b, how, differsIn } of modes.symbolic.calledEqual)
  console.log(`  ${a}  |  ${b}  (${how}; ${differsIn})`);
const hard = await measureHard();
for (const [name, { how, milliseconds, longestStallMilliseconds }] of Object.entries(hard)) {
  console.log(
    `${name}: ${how}, ${milliseconds} ms, event loop still for ${longestStallMilliseconds} ms at most`,
  );
}

if (options.out) {
  const document = {
    version: mathVerifierVersion,
    command: `node scripts/math-verifier.mjs ${path.basename(file)}`,
    date: new Date().toISOString(),
    machine: `${os.cpus()[0].model.trim()}, ${os.availableParallelism()} cores, Node ${process.versions.node}`,
    loadAverage: Number(os.loadavg()[0].toFixed(1)),
    answers: answers.length,
    texts: texts.length,
    kinds,
    differFromThemselves: differing,
    modes,
    hard,
  };
  await atomicWriteFile(path.resolve(options.out), `${JSON.stringify(document, null, 1)}\n`);
}
const rates = Object.values(modes).map(({ equal, pairs }) => equal / pairs);
process.exitCode = differing.length > 0 || rates.some((rate) => rate > LARGEST_RATE) ? 1 : 0;
