#!/usr/bin/env node
/**
 * Draws the charts of the documentation: node scripts/charts.mjs [--out DIR] [SPEC.vl.json...]
 *
 * Each Vega-Lite spec (by default all of docs/charts) becomes an SVG beside it, or in DIR. Data come from the JSON file
 * that the spec's `data.url` names, relative to the spec. The same spec and data give the same bytes.
 */
import fs from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
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

/** Draws as reports do: what vega and vega-lite warn of is a mistake in a spec or in its data. */
async function draw(file, folder) {
  const spec = readJson(file, `cannot read ${file}`);
  const { url, ...data } = spec.data ?? {};
  if (url === undefined) fail(`${file}: expected data.url to name a JSON file`);
  const values = readJson(path.resolve(path.dirname(file), url), `${file}: cannot read its data`);
  const svg = await drawSvg({ ...spec, data: { ...data, values } }).catch((error) =>
    fail(`${file}: ${error.message.replaceAll('\n', ' ')}`),
  );
  const out = path.join(folder ?? path.dirname(file), `${path.basename(file, '.vl.json')}.svg`);
  try {
    fs.writeFileSync(out, `${svg}\n`);
  } catch (error) {
    fail(`cannot write ${out}: ${error.message}`);
  }
  console.log(path.relative(process.cwd(), out));
}

/** The command line, or one line of what is wrong with it. */
function readArguments() {
  try {
    return parseArgs({ options: { out: { type: 'string' } }, allowPositionals: true });
  } catch (error) {
    return fail(error.message.replaceAll('\n', ' '));
  }
}

const { values: options, positionals } = readArguments();
const renderer = path.join(root, 'dist/lib/report/render.js');
if (!fs.existsSync(renderer)) fail(`expected ${renderer}, got none: npm run build:ts makes it`);
const { drawSvg } = await import(pathToFileURL(renderer));
const specs =
  positionals.length > 0
    ? positionals
    : listFiles('docs/charts')
        .filter((file) => file.endsWith('.vl.json'))
        .map((file) => path.join(root, file));
for (const file of specs) await draw(file, options.out);
