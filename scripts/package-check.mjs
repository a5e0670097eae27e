#!/usr/bin/env node
/**
 * Packs the package, checks what is in it, installs it in an empty folder as a user would (a real compile), and uses it
 * there: node scripts/package-check.mjs [--script FILE] [--cli] [--sanity] [--prebuilt] [--keep]
 *
 * With --prebuilt the addon of this checkout stands in for the compile, if the package has every file that went into it: the
 * same bytes make the same addon.
 */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { removeStale, root } from './stale.mjs';

const { values: options } = parseArgs({
  options: {
    script: { type: 'string' }, // an ES module to run in the folder instead of the one below
    cli: { type: 'boolean' }, // also `isopolicy --version`
    sanity: { type: 'boolean' }, // also two steps of `isopolicy sanity`, a grid and a report; implies --cli
    prebuilt: { type: 'boolean' }, // do not compile: see above
    keep: { type: 'boolean' }, // leave the folder behind
  },
});

const defaultScript = `
import { gemm, tensor } from 'isopolicy';
const [a, b] = [tensor([1, 2, 3, 4], [2, 2], 'bf16'), tensor([5, 6, 7, 8], [2, 2], 'bf16')];
const product = await gemm(a, b, { family: 'rollout' }).data();
if (product.join() !== '19,22,43,50') throw new Error('a product of ' + product);
console.log('a bf16 product:', product.join(' '));
`;

const required = [
  'package.json',
  'README.md',
  'LICENSE',
  'binding.gyp',
  'CMakeLists.txt',
  'dist/lib/index.js',
  'dist/lib/index.d.ts',
  'dist/lib/cli/main.js',
  'native/sources.json',
  'native/binding/addon.cc',
  'native/cuda/device.cu',
  'scripts/install.mjs',
  'scripts/sources.cjs',
];
const unwanted = [
  /^build\//,
  /^dist\/(?!lib\/)/,
  /^test\//,
  /\.test\./,
  /^bench\//,
  /^node_modules\//,
  /^\./,
  /^runs\//,
];

const addon = 'build/Release/isopolicy.node';
const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'isopolicy-package-'));

function finish(code) {
  if (options.keep) console.log(`package-check: left ${folder}`);
  else fs.rmSync(folder, { recursive: true, force: true });
  process.exit(code);
}

function fail(line) {
  console.error(`package-check: ${line}`);
  finish(1);
}

/** Runs a command to its end, with its duration; shows its output when it fails. */
/** Runs a command that must end with one of these exit codes. */
function run(what, command, args, cwd, allowed = [0]) {
  const start = Date.now();
  const { status, stdout, stderr, error } = spawnSync(command, args, {
    cwd,
    encoding: 'utf8',
    maxBuffer: 2 ** 28,
  });
  if (error || !allowed.includes(status))
    fail(`${what} failed (${error?.message ?? `exit ${status}`})\n${stdout}${stderr}`);
  console.log(`package-check: ${what}: ok, ${((Date.now() - start) / 1000).toFixed(1)} s`);
  return { status, stdout, stderr };
}

function checkContents(tarball) {
  const listing = spawnSync('tar', ['-tzf', tarball], { encoding: 'utf8', maxBuffer: 2 ** 26 });
  if (listing.status !== 0) fail(`tar could not list ${tarball}\n${listing.stderr}`);
  const files = listing.stdout
    .split('\n')
    .filter(Boolean)
    .map((file) => file.replace(/^package\//, ''));
  const lists = JSON.parse(fs.readFileSync(path.join(root, 'native/sources.json'), 'utf8'));
  const missing = [...required, ...lists.core, ...lists.cuda].filter((file) => !files.includes(file));
  if (missing.length > 0) fail(`the tarball lacks ${missing.join(', ')}`);
  const extra = files.filter((file) => unwanted.some((pattern) => pattern.test(file)));
  if (extra.length > 0) fail(`the tarball should not hold ${extra.join(', ')}`);
  const kib = (fs.statSync(tarball).size / 1024).toFixed(0);
  console.log(`package-check: contents: ok, ${files.length} files, ${kib} KiB`);
}

/** Gives an installed package this checkout's addon, if it has what that was compiled from. */
function takeAddon(installed, sources) {
  for (const file of [
    ...sources,
    'binding.gyp',
    'scripts/install.mjs',
    'scripts/sources.cjs',
    'native/sources.json',
  ]) {
    const packed = path.join(installed, file);
    if (!fs.existsSync(packed)) fail(`the tarball lacks ${file}, which the addon is compiled from`);
    if (!fs.readFileSync(packed).equals(fs.readFileSync(path.join(root, file))))
      fail(`the tarball has another ${file}`);
  }
  fs.mkdirSync(path.dirname(path.join(installed, addon)), { recursive: true });
  fs.copyFileSync(path.join(root, addon), path.join(installed, addon));
  console.log(`package-check: addon: taken from this checkout, ${sources.length} sources are the same`);
}

/** Every file of the project that the compiler read for this checkout's addon, by what it told make; undefined if make was not asked. */
function compiledSources() {
  const build = path.join(root, 'build');
  if (!fs.existsSync(path.join(root, addon)))
    fail(`--prebuilt needs ${addon}; run "npm run build:native" first`);
  if (!fs.existsSync(path.join(build, 'Release/.deps'))) {
    console.log(`package-check: ${addon} was not made with node-gyp, the package is compiled`);
    return undefined;
  }
  const rules = fs
    .readdirSync(path.join(build, 'Release/.deps'), { recursive: true })
    .filter((file) => file.endsWith('.o.d'))
    .flatMap((file) => [
      ...fs.readFileSync(path.join(build, 'Release/.deps', file), 'utf8').matchAll(/^(\S+):$/gm),
    ]);
  const files = new Set(rules.map(([, file]) => path.relative(root, path.resolve(build, file))));
  const sources = [...files].filter((file) => file.startsWith(`native${path.sep}`)).sort();
  const lists = JSON.parse(fs.readFileSync(path.join(root, 'native/sources.json'), 'utf8'));
  const unread = lists.core.filter((file) => !files.has(file));
  if (unread.length > 0)
    fail(`${addon} was not made with node-gyp from ${unread.join(', ')}; run "npm run build:cpu" first`);
  return sources;
}

function isJson(text) {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

function lines(text) {
  return text
    .trim()
    .split('\n')
    .map((line) => `  ${line}`)
    .join('\n');
}

removeStale();
run('npm pack', 'npm', ['pack', '--pack-destination', folder], root);
const name = fs.readdirSync(folder).find((file) => file.endsWith('.tgz'));
if (!name) fail('npm pack left no tarball');
checkContents(path.join(folder, name));

const app = path.join(folder, 'app');
fs.mkdirSync(app);
fs.writeFileSync(
  path.join(app, 'package.json'),
  JSON.stringify({ name: 'app', private: true, type: 'module' }),
);
const install = ['install', `../${name}`, '--prefer-offline', '--no-audit', '--no-fund'];
const sources = options.prebuilt ? compiledSources() : undefined;
run('npm install', 'npm', sources ? [...install, '--ignore-scripts'] : install, app);
const installed = path.join(app, 'node_modules/isopolicy');
if (sources) takeAddon(installed, sources);
if (!fs.existsSync(path.join(installed, addon)))
  fail('npm install built no addon; were install scripts blocked?');

const script = options.script ? fs.readFileSync(options.script, 'utf8') : defaultScript;
fs.writeFileSync(path.join(app, 'check.mjs'), script);
console.log(lines(run('script', process.execPath, ['check.mjs'], app).stdout));

if (options.cli || options.sanity) {
  const { version } = JSON.parse(fs.readFileSync(path.join(root, 'package.json'), 'utf8'));
  const printed = run('isopolicy --version', 'npx', ['isopolicy', '--version'], app).stdout.trim();
  if (printed !== version)
    fail(`isopolicy --version printed ${JSON.stringify(printed)}, expected ${version}`);
}
if (options.sanity) {
  const args = ['isopolicy', 'sanity', '--steps', '2', '--threads', '2', '--out', 'run', '--json'];
  // Two steps are too few to pass, which exit code 3 says.
  const { status, stdout } = run('isopolicy sanity', 'npx', args, app, [0, 3]);
  if (!isJson(stdout)) fail(`isopolicy sanity --json printed no JSON object:\n${stdout}`);
  const { passed, steps } = JSON.parse(stdout);
  if (passed !== (status === 0) || steps !== 2)
    fail(`isopolicy sanity ended with exit code ${status} and\n${stdout}`);
  if (!fs.existsSync(path.join(app, 'run/summary.json'))) fail('isopolicy sanity left no summary.json');

  // An algorithm in TypeScript, a grid's worker processes, and a page: what the package takes along for each.
  fs.copyFileSync(path.join(root, 'examples/my-algorithm.ts'), path.join(app, 'my-algorithm.ts'));
  const tiny =
    '--task sort:2:4 --hidden-size 32 --layers 1 --base-accuracy 0.15 --candidates 20 --samples-per-problem 10 --steps 2';
  const grid = [
    'isopolicy',
    'grid',
    '--algorithms',
    './my-algorithm.ts',
    '--precisions',
    'fp16',
    '--seeds',
    '1',
  ];
  run('isopolicy grid', 'npx', [...grid, ...tiny.split(' '), '--out', 'grid'], app);
  run('isopolicy report', 'npx', ['isopolicy', 'report', 'run', 'grid', '--out', 'page.html'], app);
  if (!fs.readFileSync(path.join(app, 'page.html'), 'utf8').includes('my-algorithm'))
    fail('isopolicy report left the algorithm out of its page');
  console.log(lines(stdout.slice(0, 2000)));
}
finish(0);
