#!/usr/bin/env node
/**
 * Draws the charts of the documentation: node scripts/charts.mjs [--out DIR] [SPEC.vl.json...]
 *
 * Each Vega-Lite spec (by default all of docs/charts) becomes an SVG beside it, or in DIR. Data come from the JSON file
 * that the spec's `data.url` names, relative to the spec. The same spec and data give the same bytes.
 */
import fs from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { parse, View, Warn } from 'vega';
import { compile } from 'vega-lite';
import { listFiles, root } from './stale.mjs';

function fail(line) {
  console.error(`charts: ${line}`);
  process.exit(1);
}

function readJson(file, why) {
  try {
    return JSON.parse(fs.readFileSync(file, 'utf8'));
  } catch (error) {
    return fail(`${why}: ${error.message}`);
  }
}

/** What vega and vega-lite warn of (a field that is missing, an infinite extent) is a mistake in a spec or in its data. */
function strictLogger(file) {
  const logger = {
    level: () => logger,
    error: (...messages) => fail(`${file}: ${messages.join(' ')}`),
    warn: (...messages) => fail(`${file}: ${messages.join(' ')}`),
    info: () => logger,
    debug: () => logger,
  };
  return logger;
}

async function draw(file, folder) {
  const spec = readJson(file, `cannot read ${file}`);
  const { url, ...data } = spec.data ?? {};
  if (url === undefined) fail(`${file}: expected data.url to name a JSON file`);
  const values = readJson(path.resolve(path.dirname(file), url), `${file}: cannot read its data`);
  const logger = strictLogger(file);
  const compiled = compile({ ...spec, data: { ...data, values } }, { logger }).spec;
  const view = new View(parse(compiled), { renderer: 'none', logLevel: Warn, logger });
  const svg = await view.toSVG();
  view.finalize();
  const out = path.join(folder ?? path.dirname(file), `${path.basename(file, '.vl.json')}.svg`);
  fs.writeFileSync(out, `${svg}\n`);
  console.log(path.relative(process.cwd(), out));
}

const { values: options, positionals } = parseArgs({
  options: { out: { type: 'string' } },
  allowPositionals: true,
});
const specs =
  positionals.length > 0
    ? positionals
    : listFiles('docs/charts')
        .filter((file) => file.endsWith('.vl.json'))
        .map((file) => path.join(root, file));
for (const file of specs) await draw(file, options.out);
