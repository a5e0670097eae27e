#!/usr/bin/env node
/**
 * Makes the committed record of sanity runs: node scripts/collect-sanity.mjs OUT.json RUN_DIR...
 *
 * OUT.json is an array with an object a run, in the order given: what was run (`name`, `command`, `task`, `precision`,
 * `algorithm`, `numerics`, `seed`, `version`), `summary` (summary.json as it is) and `points`, one a step: `step` (from
 * 0), `rewardWindow` (mean reward of the last ten steps) and `meanAbsLogRatio` (|log pi - log mu| per token, in nats),
 * both to six digits; null where a value was not finite.
 */
import fs from 'node:fs';
import path from 'node:path';

function fail(line) {
  console.error(`collect-sanity: ${line}`);
  process.exit(1);
}

function read(file) {
  try {
    return fs.readFileSync(file, 'utf8');
  } catch (error) {
    return fail(`cannot read ${file}: ${error.message}`);
  }
}

function parse(file, text = read(file)) {
  try {
    return JSON.parse(text);
  } catch (error) {
    return fail(`${file} is not JSON: ${error.message}`);
  }
}

/** Options of a resolved configuration as the command line spells them; the precisions are two options of their own. */
function commandOf(config) {
  const flags = Object.entries(config).map(([name, value]) => {
    const flag = name === 'numLayers' ? 'layers' : name.replace(/[A-Z]/g, (c) => `-${c.toLowerCase()}`);
    return `--${flag} ${value}`;
  });
  return ['isopolicy sanity', ...flags].join(' ');
}

function rounded(value, file, step) {
  if (typeof value === 'number') return Number(value.toPrecision(6));
  if (['NaN', 'Infinity', '-Infinity'].includes(value)) return null;
  return fail(`${file}: step ${step} lacks a value that a sanity run writes`);
}

function collect(directory) {
  const configFile = path.join(directory, 'config.json');
  const { command, version, config } = parse(configFile);
  if (command !== 'sanity') fail(`${directory} is a run of "${command}", not of "sanity"`);
  const summary = parse(path.join(directory, 'summary.json'));
  if (summary.interrupted) fail(`${directory} was interrupted; finish it with "isopolicy sanity --resume"`);

  const file = path.join(directory, 'metrics.jsonl');
  const records = read(file)
    .split('\n')
    .filter(Boolean)
    .map((line) => parse(file, line));
  if (records.length !== summary.steps)
    fail(`${file} has ${records.length} steps, summary.json ${summary.steps}`);
  return {
    name: path.basename(path.resolve(directory)),
    command: commandOf(config),
    version,
    task: config.task,
    precision: { training: config.trainingPrecision, rollout: config.rolloutPrecision },
    algorithm: config.algorithm,
    numerics: config.numerics,
    seed: config.seed,
    summary,
    points: records.map((record) => ({
      step: record.step,
      rewardWindow: rounded(record['train/reward_window'], file, record.step),
      meanAbsLogRatio: rounded(record['mismatch/meanAbsLogRatio'], file, record.step),
    })),
  };
}

/** JSON with a line a field and a line a point, so that a changed run is a readable diff. */
function format({ points, ...run }) {
  const fields = Object.entries(run).map(
    ([name, value]) => `    ${JSON.stringify(name)}: ${JSON.stringify(value)}`,
  );
  const lines = points.map((point) => `      ${JSON.stringify(point)}`);
  return `  {\n${fields.join(',\n')},\n    "points": [\n${lines.join(',\n')}\n    ]\n  }`;
}

const [out, ...directories] = process.argv.slice(2);
if (out === undefined || directories.length === 0 || out.startsWith('-'))
  fail('usage: node scripts/collect-sanity.mjs OUT.json RUN_DIR...');
if (!out.endsWith('.json')) fail(`expected the first argument to be the .json file to write, got ${out}`);
const runs = directories.map(collect);
const twice = runs.find((run, i) => runs.findIndex((other) => other.name === run.name) !== i);
if (twice) fail(`two runs are named ${twice.name}`);
fs.writeFileSync(out, `[\n${runs.map(format).join(',\n')}\n]\n`);
for (const { name, summary, points } of runs)
  console.log(`${name}: ${points.length} steps, ${summary.passed ? 'passed' : 'not passed'}`);
