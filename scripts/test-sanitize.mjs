#!/usr/bin/env node
/**
 * Builds the addon with AddressSanitizer, LeakSanitizer and UndefinedBehaviorSanitizer into build/sanitize and runs the
 * tests that reach native code with it:
 *
 *   node scripts/test-sanitize.mjs [--all] [filter...] [--node-option...]
 *
 * Kernels are compiled and tested at two vector levels, portable and this processor's best; with --all at all that it
 * has, and alignment is checked, too, for which they take twice as long to compile.
 *
 * A finding ends the test process with an error, so it fails its test file. Nothing is suppressed: an entry for node
 * or V8 would hide the addon's own leaks, whose stacks go through both.
 */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { root } from './stale.mjs';

const folder = path.join(root, 'build/sanitize');
const areas = ['test/ops', 'test/tensor'];

function fail(line) {
  console.error(`test-sanitize: ${line}`);
  process.exit(1);
}

function run(command, args, options = {}) {
  const { status, error } = spawnSync(command, args, { cwd: root, stdio: 'inherit', ...options });
  if (error) fail(`${command}: ${error.message}`);
  return status ?? 1;
}

/** A step of the build: shows its warnings, and all of its output if it fails. */
function build(args, what) {
  const { status, stdout, stderr } = spawnSync('cmake', args, {
    cwd: root,
    encoding: 'utf8',
    maxBuffer: 2 ** 28,
  });
  const output = `${stdout}${stderr}`;
  if (status !== 0) fail(`${what} failed\n${output}`);
  for (const line of output.split('\n')) if (/\bwarning:/.test(line)) console.error(line);
}

/** A run-time library of the compiler that CMake will use. */
function runtimeLibrary(name) {
  const compiler = process.env.CXX?.split(' ')[0] || 'g++';
  const { stdout, error } = spawnSync(compiler, [`-print-file-name=${name}`], { encoding: 'utf8' });
  const file = stdout?.trim();
  if (error || !file || !path.isAbsolute(file))
    fail(
      `${name} was not found through ${compiler}; install g++ with its sanitizer libraries (libasan, libubsan)`,
    );
  return fs.realpathSync(file);
}

if (process.platform !== 'linux') fail('only Linux is supported');
if (spawnSync('cmake', ['--version']).error) fail('cmake was not found; "apt-get install cmake"');
const preload = [runtimeLibrary('libasan.so'), runtimeLibrary('libubsan.so')].join(' ');

const all = process.argv.includes('--all');
const args = process.argv.slice(2).filter((arg) => arg !== '--all');

/** Bits of ISOPOLICY_LEVELS in native/core/registry.h. */
function levels() {
  const flags = fs.readFileSync('/proc/cpuinfo', 'utf8');
  let mask = 1;
  if (flags.includes(' avx2')) mask |= 2;
  if (flags.includes(' avx512dq')) mask |= 4;
  if (flags.includes(' avx512_bf16')) mask |= 8;
  if (flags.includes(' amx_bf16')) mask |= 16;
  return !all && mask & 4 ? mask & ~2 : mask;
}

const start = Date.now();
build(
  [
    '-S',
    root,
    '-B',
    folder,
    '-DISOPOLICY_SANITIZE=ON',
    `-DISOPOLICY_SANITIZE_ALIGNMENT=${all ? 'ON' : 'OFF'}`,
    '-DISOPOLICY_CUDA=OFF',
    `-DISOPOLICY_LEVELS=${levels()}`,
  ],
  'configuring the sanitized build',
);
build(['--build', folder, '--parallel', String(os.availableParallelism())], 'the sanitized build');
console.log(`sanitized build: ${((Date.now() - start) / 1000).toFixed(0)} s`);

const chosen = args.some((arg) => !arg.startsWith('--')) ? args : [...areas, ...args];
const status = run(process.execPath, ['scripts/test.mjs', ...chosen], {
  env: {
    ...process.env,
    ISOPOLICY_ADDON: path.join(folder, 'isopolicy.node'),
    ISOPOLICY_TEST_WITHOUT: all ? '' : 'avx2,avx512,avx512bf16',
    LD_PRELOAD: preload,
    // A request beyond all memory has to fail as it does without the sanitizer, not to end the process.
    // UndefinedBehaviorSanitizer's checks end in an illegal instruction.
    ASAN_OPTIONS:
      'detect_leaks=1:detect_stack_use_after_return=1:allocator_may_return_null=1:handle_sigill=1',
  },
});
process.exit(status);
