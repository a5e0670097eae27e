#!/usr/bin/env node
/**
 * Builds the addon with its CUDA side compiled for the CPU, against the emulator of native/cuda/emulation, into
 * build/emulated/isopolicy.node, and runs tests with it: see --help.
 *
 * The rest of the addon is taken from build/Release as scripts/install.mjs left it. Only what changed is compiled.
 */
import { spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { root } from './stale.mjs';

const help = `Runs CUDA kernels without a GPU, thread by thread on the CPU.

  node scripts/emulate.mjs [options] [TEST...]

  TEST           tests to run on the emulated device, as scripts/test.mjs takes them (test/ops, rmsNorm; after --
                 also node's options); without any, the addon is only built
  --selftest     build and run the emulator's own test instead
  --sanitize     with AddressSanitizer (in build/emulated-sanitize)
  --order=ORDER  in which order threads run: forward (default), reverse or random:SEED; a result that depends on it
                 tells of a missing barrier
  --capability=C the compute capability: 90 (default), 89, 86 or 80
  --only=WORD    compile only files whose path has the word, and link nothing: a quick look for errors

The addon that was built is for any program: ISOPOLICY_ADDON=$PWD/build/emulated/isopolicy.node ISOPOLICY_DEVICE=cuda`;

function fail(line) {
  console.error(`emulate: ${line}`);
  process.exit(1);
}

let options;
let tests;
try {
  ({ values: options, positionals: tests } = parseArgs({
    allowPositionals: true,
    options: {
      help: { type: 'boolean', short: 'h' },
      selftest: { type: 'boolean' },
      sanitize: { type: 'boolean' },
      order: { type: 'string' },
      capability: { type: 'string' },
      only: { type: 'string' },
    },
  }));
} catch (error) {
  fail(`${error.message}; see --help`);
}
if (options.help) {
  console.log(help);
  process.exit(0);
}
if (process.platform !== 'linux') fail('only Linux is supported');

const lists = JSON.parse(fs.readFileSync(path.join(root, 'native/sources.json'), 'utf8'));
const folder = path.join(root, options.sanitize ? 'build/emulated-sanitize' : 'build/emulated');
const emulation = 'native/cuda/emulation';
const common = [
  ...lists.flags.filter((flag) => !flag.startsWith('-O')),
  ...'-std=c++20 -fPIC -pthread -fno-strict-aliasing -Wno-unknown-pragmas -DISOPOLICY_EMULATED'.split(' '),
  ...['-I', emulation, '-I', 'native'],
  ...(process.env.ISOPOLICY_WERROR === '1' ? ['-Werror'] : []),
  ...(options.sanitize ? ['-fsanitize=address', '-g1'] : []),
];
// fmaf as an instruction: a sum is still only fused where it is written so (-ffp-contract=off is among the flags).
if (/\bfma\b/.test(fs.readFileSync('/proc/cpuinfo', 'utf8'))) common.push('-mfma');
const modified = (file) => fs.statSync(file, { throwIfNoEntry: false })?.mtimeMs ?? 0;

/** What an object was made of, by the compiler's dependency file; undefined where there is none. */
function dependencies(file, base) {
  if (!fs.existsSync(file)) return undefined;
  const text = fs.readFileSync(file, 'utf8').replaceAll('\\\n', ' ');
  const rule = text.split('\n').find((line) => /^[^ ]*\.o:/.test(line));
  return rule
    ?.slice(rule.indexOf(':') + 1)
    .split(' ')
    .filter(Boolean)
    .map((name) => path.resolve(base, name));
}

/** The object of a source, compiled anew if it, what it includes or its command changed. */
async function compile(source) {
  const object = path.join(folder, `${source}.o`);
  const command = [
    ...common,
    source.endsWith('.cu') ? '-O1' : '-O2',
    ...['-MMD', '-MF', `${object}.d`, '-x', 'c++', '-c', source, '-o', object],
  ];
  const stamp = command.join(' ');
  const made = modified(object);
  const inputs = dependencies(`${object}.d`, root);
  const before = fs.existsSync(`${object}.command`) && fs.readFileSync(`${object}.command`, 'utf8');
  if (before === stamp && inputs?.every((file) => modified(file) > 0 && modified(file) <= made))
    return object;
  fs.mkdirSync(path.dirname(object), { recursive: true });
  fs.rmSync(object, { force: true });
  const child = spawn(process.env.CXX ?? 'g++', command, { cwd: root, stdio: 'inherit' });
  const status = await new Promise((resolve) => {
    child.on('error', (error) => fail(error.message));
    child.on('close', resolve);
  });
  if (status !== 0) return undefined;
  fs.writeFileSync(`${object}.command`, stamp);
  return object;
}

async function compileAll(sources) {
  const objects = new Array(sources.length);
  let next = 0;
  const worker = async () => {
    while (next < sources.length) {
      const mine = next++;
      objects[mine] = await compile(sources[mine]);
    }
  };
  await Promise.all([worker(), worker()]);
  const failed = sources.filter((_, i) => objects[i] === undefined);
  if (failed.length > 0) fail(`did not compile: ${failed.join(', ')}`);
  return objects;
}

/** The objects of the CPU build, which must be of the sources as they are. */
function cpuObjects() {
  return lists.core
    .filter((source) => source !== 'native/cuda/stub.cc')
    .map((source) => {
      const name = `Release/obj.target/isopolicy/${source.replace(/\.cc$/, '.o')}`;
      const object = path.join(root, 'build', name);
      const inputs = dependencies(
        path.join(root, 'build/Release/.deps', `${name}.d`),
        path.join(root, 'build'),
      );
      const changed = inputs
        ? inputs.find(
            (file) => file.startsWith(path.join(root, 'native')) && modified(file) > modified(object),
          )
        : source;
      if (changed)
        fail(
          `${path.relative(root, changed)} is newer than the build: run "ISOPOLICY_BUILD=cpu node scripts/install.mjs" first`,
        );
      return object;
    });
}

function run(command, args, env = process.env) {
  const { status, error } = spawnSync(command, args, { cwd: root, stdio: 'inherit', env });
  if (error) fail(`${command}: ${error.message}`);
  return status ?? 1;
}

function link(objects, target, ...flags) {
  if (modified(target) > Math.max(...objects.map(modified))) return;
  const sanitize = options.sanitize ? ['-fsanitize=address'] : [];
  const all = ['-pthread', ...sanitize, ...flags, '-o', target, ...objects];
  if (run(process.env.CXX ?? 'g++', all) !== 0) fail('linking failed');
}

const environment = { ...process.env };
if (options.order) environment.ISOPOLICY_EMULATED_ORDER = options.order;
if (options.capability) environment.ISOPOLICY_EMULATED_CAPABILITY = options.capability;
// A kernel that fails is left in the middle: what it holds is not freed.
if (options.sanitize) environment.ASAN_OPTIONS = 'detect_leaks=0:allocator_may_return_null=1';

const emulator = lists.emulation;
if (options.only) {
  await compileAll([...emulator, ...lists.cuda].filter((source) => source.includes(options.only)));
} else if (options.selftest) {
  const program = path.join(folder, 'selftest');
  // Besides the emulator it needs what makes tensor maps.
  const more = ['native/cuda/launcher.cu', 'native/cuda/checks.cu', 'native/cuda/shared/tensor_map.cu'];
  link(await compileAll([...emulator, ...more]), program);
  process.exit(run(program, tests, environment));
} else {
  const objects = cpuObjects();
  objects.push(
    ...(await compileAll([...lists.cuda, ...emulator.filter((source) => !source.includes('/selftest'))])),
  );
  const addon = path.join(folder, 'isopolicy.node');
  link(objects, addon, '-shared', '-Wl,--exclude-libs,ALL');
  if (tests.length === 0) process.exit(0);
  environment.ISOPOLICY_ADDON = addon;
  environment.ISOPOLICY_DEVICE = 'cuda';
  if (options.sanitize) {
    const { stdout } = spawnSync('g++', ['-print-file-name=libasan.so'], { encoding: 'utf8' });
    environment.LD_PRELOAD = fs.realpathSync(stdout.trim());
  }
  process.exit(run(process.execPath, ['scripts/test.mjs', ...tests], environment));
}
