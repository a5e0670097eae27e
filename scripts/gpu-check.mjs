#!/usr/bin/env node
/**
 * The check of a machine with an NVIDIA GPU, in one command: node scripts/gpu-check.mjs [--out FILE]
 *
 * Builds the addon with its CUDA side in build/cuda, compares the devices it lists with nvidia-smi, runs the tests of
 * the tensor floor through it, and writes what it saw as JSON (default: docs/results/gpu/check.json). Needs nvcc, cmake
 * and compiled TypeScript (npm run build:ts). Exits with 1 where something does not hold.
 */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { root } from './stale.mjs';

const { values: options } = parseArgs({ options: { out: { type: 'string' } } });
const out = path.resolve(options.out ?? path.join(root, 'docs/results/gpu/check.json'));
const addon = path.join(root, 'build/cuda/isopolicy.node');
const problems = [];
const seconds = {};

/** Runs a command whose output the reader sees; a failure is a problem of the check. */
function stage(name, command, args, env = {}) {
  const began = performance.now();
  const { status, error } = spawnSync(command, args, {
    cwd: root,
    stdio: 'inherit',
    env: { ...process.env, ...env },
  });
  seconds[name] = Math.round((performance.now() - began) / 100) / 10;
  if (status !== 0) problems.push(`${name}: ${error?.message ?? `exit status ${status}`}`);
  return status === 0;
}

function capture(command, args, env = {}) {
  const { status, stdout, stderr, error } = spawnSync(command, args, {
    cwd: root,
    encoding: 'utf8',
    env: { ...process.env, ...env },
  });
  if (status !== 0)
    problems.push(`${command} ${args.join(' ')}: ${error?.message ?? (stderr.trim() || status)}`);
  return status === 0 ? stdout.trim() : '';
}

/** Devices as the driver's own tool lists them. */
function driverDevices() {
  const query = '--query-gpu=name,compute_cap,memory.total,driver_version';
  const text = capture('nvidia-smi', [query, '--format=csv,noheader,nounits']);
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const [name, computeCapability, mebibytes, driver] = line.split(', ');
      return { name, computeCapability, mebibytes: Number(mebibytes), driver };
    });
}

const parallel = String(os.availableParallelism());
const built =
  stage('configure', 'cmake', ['-S', '.', '-B', 'build/cuda', '-DISOPOLICY_CUDA=ON']) &&
  stage('build', 'cmake', ['--build', 'build/cuda', '--parallel', parallel]);
const expected = driverDevices();
let info = {};
if (built) {
  const text = capture(process.execPath, ['dist/lib/cli/main.js', 'info', '--json'], {
    ISOPOLICY_ADDON: addon,
  });
  info = text === '' ? {} : JSON.parse(text);
  const listed = info.cudaDevices ?? [];
  if (expected.length === 0) problems.push('nvidia-smi lists no device');
  if (listed.length !== expected.length) {
    problems.push(
      `expected ${expected.length} devices, as nvidia-smi lists them, got ${listed.length}: ${info.cudaProblem}`,
    );
  }
  for (const [i, device] of listed.entries()) {
    const { name, computeCapability, mebibytes } = expected[i] ?? {};
    const same = device.name === name && device.computeCapability === computeCapability;
    // The driver keeps some of the memory that nvidia-smi counts.
    const memory = device.totalBytes / 2 ** 20 / mebibytes;
    if (!same || !(memory > 0.9 && memory <= 1)) {
      problems.push(
        `device ${i}: expected ${JSON.stringify(expected[i])}, as nvidia-smi has it, got ${JSON.stringify(device)}`,
      );
    }
  }
  stage('test', process.execPath, ['scripts/test.mjs', 'test/tensor'], { ISOPOLICY_ADDON: addon });
}

const result = {
  commit: process.env.ISOPOLICY_COMMIT ?? capture('git', ['rev-parse', 'HEAD']),
  node: process.version,
  nvcc: capture('nvcc', ['--version']).split('\n').at(-1),
  nvidiaSmi: expected,
  devices: info.cudaDevices ?? [],
  cudaProblem: info.cudaProblem ?? '',
  seconds,
  problems,
};
fs.mkdirSync(path.dirname(out), { recursive: true });
fs.writeFileSync(out, `${JSON.stringify(result, null, 2)}\n`);
console.log(problems.length === 0 ? 'GPU check passed' : `GPU check FAILED\n${problems.join('\n')}`);
console.log(out);
process.exit(problems.length === 0 ? 0 : 1);
