import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';

const root = path.resolve(import.meta.dirname, '../../..');
const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'isopolicy-install-'));
after(() => fs.rmSync(folder, { recursive: true }));

/** Runs the install script with exactly this environment. */
function install(args: string[], env: NodeJS.ProcessEnv) {
  const { status, stdout, stderr } = spawnSync(process.execPath, ['scripts/install.mjs', ...args], {
    cwd: root,
    encoding: 'utf8',
    env,
  });
  return { status, stdout, lines: stderr.trim().split('\n') };
}

/** A folder for PATH that holds programs of these names; none of them works. */
function programs(...names: string[]): string {
  const bin = fs.mkdtempSync(path.join(folder, 'bin-'));
  for (const name of names) fs.writeFileSync(path.join(bin, name), '#!/bin/false\n', { mode: 0o755 });
  return bin;
}

test('an unknown ISOPOLICY_BUILD is refused by name', () => {
  for (const value of ['tpu', 'skip', 'CUDA', 'auto ']) {
    const { status, lines } = install([], { PATH: '', ISOPOLICY_BUILD: value });
    assert.equal(status, 1);
    assert.deepEqual(lines, [
      `isopolicy: [install] expected ISOPOLICY_BUILD to be one of auto, cpu, cuda, got ${JSON.stringify(value)}`,
    ]);
  }
});

test('an unknown option is refused', () => {
  const { status, lines } = install(['--fast'], { PATH: '' });
  assert.equal(status, 1);
  assert.match(lines.join('\n'), /--fast/);
});

test('cuda names everything that is missing, and builds nothing', () => {
  const { status, lines } = install([], { PATH: '', ISOPOLICY_BUILD: 'cuda' });
  assert.equal(status, 1);
  assert.equal(lines.length, 1, lines.join('\n'));
  assert.match(lines[0]!, /ISOPOLICY_BUILD=cuda, but missing: nvcc \(looked in .*PATH\); cmake/);
});

test('cuda with nvcc but no cmake names cmake alone', () => {
  const { status, lines } = install([], { PATH: programs('nvcc'), ISOPOLICY_BUILD: 'cuda' });
  assert.equal(status, 1);
  assert.match(lines.at(-1)!, /missing: cmake/);
  assert.doesNotMatch(lines.at(-1)!, /nvcc/);
});

test('a CUDACXX that does not exist is not replaced by another nvcc', () => {
  const env = { PATH: programs('nvcc', 'cmake'), CUDACXX: '/nowhere/nvcc', ISOPOLICY_BUILD: 'cuda' };
  const { status, lines } = install([], env);
  assert.equal(status, 1);
  assert.match(lines.at(-1)!, /missing: nvcc \(looked in CUDACXX=\/nowhere\/nvcc\)/);
});

test('auto takes CUDA with nvcc, a driver and cmake', () => {
  const { status, stdout } = install(['--dry-run'], { PATH: programs('nvcc', 'nvidia-smi', 'cmake') });
  assert.equal(status, 0);
  assert.match(stdout, /would build with CUDA \(.*nvcc and an NVIDIA driver/);
});

test('auto finds nvcc in CUDA_HOME', () => {
  const home = path.join(folder, 'toolkit');
  fs.mkdirSync(home);
  fs.renameSync(programs('nvcc'), path.join(home, 'bin'));
  const { stdout } = install(['--dry-run'], { PATH: programs('nvidia-smi', 'cmake'), CUDA_HOME: home });
  assert.ok(stdout.includes(`${home}/bin/nvcc`), stdout);
});

test('auto builds for the CPU without nvcc or without cmake, and says why', () => {
  const withoutNvcc = install(['--dry-run'], { PATH: programs('nvidia-smi', 'cmake') });
  assert.match(withoutNvcc.stdout, /would build for the CPU \(no CUDA, missing: nvcc/);
  const withoutCmake = install(['--dry-run'], { PATH: programs('nvcc', 'nvidia-smi') });
  assert.match(withoutCmake.stdout, /would build for the CPU \(no CUDA, missing: cmake/);
});

const driver =
  fs.existsSync('/proc/driver/nvidia/version') ||
  String(spawnSync('/sbin/ldconfig', ['-p'], { encoding: 'utf8' }).stdout).includes('libcuda.so.1');
test('auto builds for the CPU without a driver', { skip: driver && 'this machine has a driver' }, () => {
  const { stdout } = install(['--dry-run'], { PATH: programs('nvcc', 'cmake') });
  assert.match(stdout, /would build for the CPU \(no CUDA, missing: an NVIDIA driver/);
});

test('cpu is never CUDA', () => {
  const env = { PATH: programs('nvcc', 'nvidia-smi', 'cmake'), ISOPOLICY_BUILD: 'cpu' };
  assert.match(install(['--dry-run'], env).stdout, /would build for the CPU \(ISOPOLICY_BUILD=cpu\)/);
});

test('help needs nothing', () => {
  const { status, stdout } = install(['--help'], { PATH: '' });
  assert.equal(status, 0);
  for (const word of [
    'ISOPOLICY_BUILD=auto',
    'ISOPOLICY_BUILD=cpu',
    'ISOPOLICY_BUILD=cuda',
    'CUDACXX',
    '--nodedir',
  ])
    assert.ok(stdout.includes(word), word);
});
