import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';

const root = path.resolve(import.meta.dirname, '../../..');
const lists: Record<'core' | 'cuda' | 'emulation' | 'flags', string[]> = JSON.parse(
  fs.readFileSync(path.join(root, 'native/sources.json'), 'utf8'),
);

/** Files below native/ that end so, as the lists name them. */
function onDisk(ending: string): string[] {
  return fs
    .readdirSync(path.join(root, 'native'), { recursive: true, encoding: 'utf8' })
    .map((file) => `native/${file.split(path.sep).join('/')}`)
    .filter((file) => file.endsWith(ending));
}

/** What `node scripts/sources.cjs` prints, as binding.gyp reads it. */
function printed(argument: string, env: NodeJS.ProcessEnv = {}): string[] {
  const { stdout, status } = spawnSync(process.execPath, ['scripts/sources.cjs', argument], {
    cwd: root,
    encoding: 'utf8',
    env: { ...process.env, ISOPOLICY_WERROR: '', ...env },
  });
  assert.equal(status, 0);
  return stdout.split('\n');
}

test('every C++ source is listed once, and every listed source exists', () => {
  assert.deepEqual([...lists.core, ...lists.emulation].sort(), onDisk('.cc').sort());
});

test('every CUDA source is listed once, and every listed source exists', () => {
  assert.deepEqual([...lists.cuda].sort(), onDisk('.cu').sort());
});

test('the stub that CMake leaves out of a CUDA build is a listed source', () => {
  const cmake = fs.readFileSync(path.join(root, 'CMakeLists.txt'), 'utf8');
  const stub = /list\(REMOVE_ITEM core_sources (\S+)\)/.exec(cmake)?.[1];
  assert.ok(lists.core.includes(String(stub)), `CMakeLists.txt removes ${stub}`);
});

test('binding.gyp gets the same lists that CMake reads', () => {
  assert.deepEqual(printed('core'), lists.core);
  assert.deepEqual(printed('flags'), lists.flags);
});

test('ISOPOLICY_WERROR=1 makes warnings errors, other values do not', () => {
  assert.deepEqual(printed('flags', { ISOPOLICY_WERROR: '1' }), [...lists.flags, '-Werror']);
  assert.deepEqual(printed('flags', { ISOPOLICY_WERROR: '0' }), lists.flags);
});

test('the flags keep sums as they are written', () => {
  assert.ok(lists.flags.includes('-ffp-contract=off'));
  assert.ok(!lists.flags.some((flag) => /fast-math|-Ofast|associative|-march=|-mfma/.test(flag)));
});
