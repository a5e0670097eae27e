#!/usr/bin/env node
/**
 * The check of a machine with an NVIDIA GPU, in one command of under ten minutes: node scripts/gpu-check.mjs [options]
 *
 * Builds the addon with its CUDA side for this GPU in build/cuda (or takes one that was built), compares the devices that
 * it lists with nvidia-smi, runs every test of kernels and engines on the GPU, again on the paths of older GPUs, the
 * sanity test, mismatch and ladder, a large model, compute-sanitizer where it is installed, and the benchmark beside
 * PyTorch. What it saw goes to docs/results/gpu/ as JSON. Stages go on after one that fails; exits with 1 where anything
 * does not hold. Needs compiled TypeScript (npm run build:ts), and nvcc and cmake to build.
 */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { root } from './stale.mjs';

const { values: options } = parseArgs({
  options: {
    /** Folder of the results. */
    out: { type: 'string', default: 'docs/results/gpu' },
    /** An addon that was built with CUDA. */
    addon: { type: 'string' },
    /** Some of the stages, between commas. */
    only: { type: 'string' },
    /** Seconds that all stages may take; those that would begin later are left out. */
    budget: { type: 'string', default: '540' },
  },
});
const out = path.resolve(root, options.out);
const addon = path.resolve(root, options.addon ?? 'build/cuda/isopolicy.node');
const only = options.only?.split(',');
const began = performance.now();
const elapsed = () => (performance.now() - began) / 1000;
const problems = [];
const stages = {};
fs.mkdirSync(out, { recursive: true });

const onGpu = { ISOPOLICY_ADDON: addon, ISOPOLICY_DEVICE: 'cuda' };
const cli = 'dist/lib/cli/main.js';

function execute(command, args, env, seconds) {
  return spawnSync(command, args, {
    cwd: root,
    encoding: 'utf8',
    maxBuffer: 2 ** 28,
    timeout: seconds * 1000,
    env: { ...process.env, ...env },
  });
}

/**
 * Runs one stage, shows the end of its output if it fails, and returns its stdout where it succeeds.
 *
 * @param limit seconds it may take
 */
function stage(name, command, args, { env = onGpu, limit = 120, found = () => ({}) } = {}) {
  if (only && !only.includes(name)) return undefined;
  const left = Number(options.budget) - elapsed();
  if (left < 5) {
    problems.push(`${name}: left out, ${options.budget} s were used up`);
    stages[name] = { leftOut: true };
    return undefined;
  }
  console.log(`== ${name}`);
  const start = performance.now();
  const { status, stdout, stderr, error } = execute(command, args, env, Math.min(limit, left));
  const seconds = Math.round((performance.now() - start) / 100) / 10;
  fs.writeFileSync(path.join(root, 'build', `gpu-check-${name}.log`), `${stdout}${stderr}`);
  stages[name] = { seconds, ok: status === 0, ...found(stdout ?? '') };
  console.log(`   ${seconds} s, ${status === 0 ? 'ok' : 'FAILED'} ${JSON.stringify(found(stdout ?? ''))}`);
  if (status === 0) return stdout;
  problems.push(`${name}: ${error?.code ?? `exit status ${status}`}`);
  const lines = `${stdout}${stderr}`.split('\n');
  const telling = lines.filter((line) => /not ok|✖|error|Error|FAILED/.test(line));
  console.log([...telling.slice(0, 40), '...', ...lines.slice(-15)].join('\n'));
  return undefined;
}

/** Counts of node's test runner. */
function counts(text) {
  const of = (word) => Number(new RegExp(`^(?:#|ℹ) ${word} (\\d+)`, 'm').exec(text)?.[1] ?? Number.NaN);
  return { pass: of('pass'), fail: of('fail'), skipped: of('skipped') };
}

function jsonOf(text) {
  return text === undefined ? null : JSON.parse(text);
}

/** Devices as the driver's own tool lists them. */
function driverDevices() {
  const query = '--query-gpu=name,compute_cap,memory.total,driver_version';
  const { status, stdout } = execute('nvidia-smi', [query, '--format=csv,noheader,nounits'], {}, 30);
  if (status !== 0) {
    problems.push('nvidia-smi lists no device');
    return [];
  }
  return stdout
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const [name, computeCapability, mebibytes, driver] = line.split(', ');
      return { name, computeCapability, mebibytes: Number(mebibytes), driver };
    });
}

/** The addon has to list what the driver does. */
function compareDevices(expected, listed) {
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
}

const expected = driverDevices();
const capability = expected[0]?.computeCapability.replace('.', '') ?? '90';
if (!options.addon) {
  const architecture = capability === '90' ? '90a' : capability;
  const configure = ['-S', '.', '-B', 'build/cuda', '-DISOPOLICY_CUDA=ON'];
  stage('configure', 'cmake', [...configure, `-DCMAKE_CUDA_ARCHITECTURES=${architecture}-real`], { env: {} });
  const parallel = String(os.availableParallelism());
  stage('build', 'cmake', ['--build', 'build/cuda', '--parallel', parallel], { env: {}, limit: 400 });
}

const info = jsonOf(stage('info', process.execPath, [cli, 'info', '--json'])) ?? {};
compareDevices(expected, info.cudaDevices ?? []);

const tests = [
  'test/cuda',
  'test/tensor',
  'test/ops',
  'test/autograd',
  'test/models/decoder',
  'test/engines',
];
const runTests = ['scripts/test.mjs'];
stage('tests', process.execPath, [...runTests, ...tests], { limit: 240, found: counts });
stage('tests-sm80', process.execPath, [...runTests, 'test/ops', 'test/engines/matched'], {
  env: { ...onGpu, ISOPOLICY_CUDA_CAPABILITY: '80' },
  found: counts,
});
stage(
  'memcheck',
  'compute-sanitizer',
  ['--tool', 'memcheck', '--error-exitcode', '7', process.execPath, 'dist/test/ops/gemm.test.js'],
  { limit: 60, found: counts },
);

const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'isopolicy-gpu-'));
const run = (name, ...args) =>
  jsonOf(
    stage(
      name,
      process.execPath,
      [cli, ...args, '--device', 'cuda', '--json', '--out', path.join(folder, name)],
      {
        limit: 150,
      },
    ),
  );
const experiments = {
  'sanity-fp16': run('sanity-fp16', 'sanity', '--precision', 'fp16', '--seed', '1'),
  mismatch: run('mismatch', 'mismatch'),
  ladder: run('ladder', 'ladder'),
};
const largeModels = ['bf16', 'fp16'].map((precision) =>
  jsonOf(
    stage(`model-${precision}`, process.execPath, [
      'dist/bench/largeModel.js',
      ...['--device', 'cuda', '--size', '1.5b', '--precision', precision],
    ]),
  ),
);
stage(
  'bench',
  process.execPath,
  [
    'dist/bench/main.js',
    ...['--device', 'cuda', '--dtype', 'fp16,bf16', '--peers', 'torch-cuda'],
    ...['--out', path.join(out, 'bench.json')],
  ],
  { limit: 240 },
);

const write = (name, value) => fs.writeFileSync(path.join(out, name), `${JSON.stringify(value, null, 2)}\n`);
write('check.json', {
  commit: process.env.ISOPOLICY_COMMIT ?? execute('git', ['rev-parse', 'HEAD'], {}, 10).stdout?.trim(),
  node: process.version,
  cuda: { driver: info.cudaDriver, runtime: info.cudaRuntime },
  nvidiaSmi: expected,
  devices: info.cudaDevices ?? [],
  cudaProblem: info.cudaProblem ?? '',
  stages,
  problems,
});
// Where the runs lay on that machine is nobody's business.
for (const summary of Object.values(experiments)) if (summary) delete summary.directory;
if (!only) write('experiments.json', { ...experiments, largeModels });
console.log(problems.length === 0 ? 'GPU check passed' : `GPU check FAILED\n${problems.join('\n')}`);
console.log(`${elapsed().toFixed(0)} s; results in ${out}`);
process.exit(problems.length === 0 ? 0 : 1);
