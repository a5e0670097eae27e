#!/usr/bin/env node
/**
 * Runs the compiled tests, with the addon as it is built, under other versions of Node:
 * node scripts/node-versions.mjs [--filter PATH] [version...]   (by default 22 24 26)
 *
 * The binaries come from the npm package `node`. The addon is not rebuilt: it uses Node-API version 9, so one build is
 * expected to serve them all, and this is the check. Run by hand before a release; it takes a full test run a version.
 */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { root } from './stale.mjs';

const { values, positionals } = parseArgs({
  options: { filter: { type: 'string', multiple: true, default: [] } },
  allowPositionals: true,
});
const versions = positionals.length > 0 ? positionals : ['22', '24', '26'];
const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'isopolicy-node-'));

/** The test runner's closing line of that name, e.g. `ℹ pass 81`. */
const closing = (output, name) => output.match(new RegExp(`^(?:#|ℹ) ${name} (\\d+)$`, 'm'))?.[1] ?? '-';

function check(version) {
  const prefix = path.join(folder, version);
  fs.mkdirSync(prefix);
  const install = spawnSync(
    'npm',
    ['install', '--prefix', prefix, '--no-audit', '--no-fund', `node@${version}`],
    {
      encoding: 'utf8',
    },
  );
  const node = path.join(prefix, 'node_modules/node/bin/node');
  if (install.status !== 0 || !fs.existsSync(node)) {
    console.error(install.stderr);
    return { node: `node@${version} could not be installed`, ok: false };
  }
  const print = "process.version + ' (Node-API ' + process.versions.napi + ')'";
  const exact = spawnSync(node, ['-p', print], { encoding: 'utf8' });
  const start = Date.now();
  const { status, stdout, stderr } = spawnSync(node, ['scripts/test.mjs', ...values.filter], {
    cwd: root,
    encoding: 'utf8',
    maxBuffer: 2 ** 28,
  });
  if (status !== 0) console.error(`${stdout.slice(-8000)}${stderr}`);
  return {
    node: exact.stdout.trim(),
    tests: closing(stdout, 'tests'),
    pass: closing(stdout, 'pass'),
    fail: closing(stdout, 'fail'),
    skipped: closing(stdout, 'skipped'),
    seconds: Math.round((Date.now() - start) / 1000),
    ok: status === 0,
  };
}

const results = versions.map(check);
fs.rmSync(folder, { recursive: true, force: true });
console.table(results);
process.exitCode = results.every((result) => result.ok) ? 0 : 1;
