#!/usr/bin/env node
/**
 * Builds the native addon: the install script of the package, and `npm run build:native` in a checkout.
 *
 * Uses nothing but Node until it has chosen a build, so that it can always say what is missing.
 */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const help = `Builds the native addon of isopolicy into build/Release/isopolicy.node.

  node scripts/install.mjs [--nodedir=DIR] [--dry-run] [--help]

  --nodedir=DIR  Node's headers are in DIR/include/node (or set npm_config_nodedir); by default those beside the
                 running node, then /usr/include/node, then what node-gyp downloads
  --dry-run      say what would be built and why, and stop

Environment:
  ISOPOLICY_BUILD=auto   the default: with CUDA where nvcc, an NVIDIA driver and cmake are found, else for the CPU
  ISOPOLICY_BUILD=cpu    for the CPU only, with node-gyp; needs a C++20 compiler, make and Python 3
  ISOPOLICY_BUILD=cuda   with CUDA, with cmake-js; needs nvcc (CUDA 12 or later), cmake and a C++20 compiler
  ISOPOLICY_CUDA_ARCHITECTURES    of the CUDA build, as CMake names them: 90a-real, or 80-real;86-real;90-virtual; default:
                         sm_80, sm_86, sm_89, sm_90a, and PTX for later ones
  CUDACXX, CUDA_HOME, CUDA_PATH   where nvcc is, if it is not in PATH
  ISOPOLICY_WERROR=1     treat compiler warnings as errors

The addon uses Node-API version 9: one build serves Node 20, 22, 24, 26 and later, whichever of them built it.`;

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const addonFile = path.join(root, 'build/Release/isopolicy.node');
const stampFile = path.join(root, 'build/.isopolicy-build');
const require = createRequire(import.meta.url);
const { env } = process;

const say = (line) => console.error(`isopolicy: ${line}`);
const fail = (line) => {
  say(line);
  process.exit(1);
};

/** The file that a command name would run: itself if it is a path, else the first of that name in PATH. */
function findProgram(name) {
  if (name.includes('/') || name.includes(path.sep)) return fs.existsSync(name) ? name : undefined;
  const names = process.platform === 'win32' ? [`${name}.exe`, `${name}.cmd`] : [name];
  for (const folder of (env.PATH ?? '').split(path.delimiter).filter(Boolean)) {
    for (const file of names.map((n) => path.join(folder, n))) {
      if (fs.statSync(file, { throwIfNoEntry: false })?.isFile()) return file;
    }
  }
  return undefined;
}

function resolveOrUndefined(request) {
  try {
    return require.resolve(request);
  } catch {
    return undefined;
  }
}

/**
 * nvcc as CMake takes it in CUDACXX. A CUDACXX that is set is passed on whole (it may be a wrapper, or hold flags) and
 * nothing else is tried.
 */
function findNvcc() {
  if (env.CUDACXX) return findProgram(env.CUDACXX) ?? (findProgram(env.CUDACXX.split(' ')[0]) && env.CUDACXX);
  for (const home of [env.CUDA_HOME, env.CUDA_PATH].filter(Boolean)) {
    const nvcc = findProgram(path.join(home, 'bin', process.platform === 'win32' ? 'nvcc.exe' : 'nvcc'));
    if (nvcc) return nvcc;
  }
  return findProgram('nvcc');
}

/** How an NVIDIA driver shows, or undefined. The libcuda.so that the toolkit brings for linking does not count. */
function findDriver() {
  if (fs.existsSync('/proc/driver/nvidia/version')) return '/proc/driver/nvidia/version';
  const ldconfig = findProgram('ldconfig') ?? findProgram('/sbin/ldconfig');
  const listed = ldconfig && spawnSync(ldconfig, ['-p'], { encoding: 'utf8' }).stdout;
  if (listed?.includes('libcuda.so.1')) return 'libcuda.so.1';
  return findProgram('nvidia-smi') && 'nvidia-smi';
}

/** Which build, and the reason in words. */
function choose(wanted) {
  if (wanted === 'cpu') return { kind: 'cpu', why: 'ISOPOLICY_BUILD=cpu' };
  const nvcc = findNvcc();
  const cmake = findProgram('cmake');
  const cmakeJs = resolveOrUndefined('cmake-js/bin/cmake-js');
  const missing = [];
  if (!nvcc) {
    const tried = env.CUDACXX ? `CUDACXX=${env.CUDACXX}` : 'CUDACXX, CUDA_HOME, CUDA_PATH, PATH';
    missing.push(`nvcc (looked in ${tried})`);
  }
  if (wanted === 'auto' && nvcc && !findDriver()) missing.push('an NVIDIA driver');
  if (!cmake) missing.push('cmake (3.19 or later)');
  if (!cmakeJs) missing.push('the npm package cmake-js');
  if (missing.length === 0) {
    const why = wanted === 'cuda' ? 'ISOPOLICY_BUILD=cuda' : `${nvcc} and an NVIDIA driver (${findDriver()})`;
    return { kind: 'cuda', why, nvcc, cmakeJs };
  }
  if (wanted === 'cuda') fail(`ISOPOLICY_BUILD=cuda, but missing: ${missing.join('; ')}`);
  return { kind: 'cpu', why: `no CUDA, missing: ${missing[0]}` };
}

/** Node's headers: what was asked for, those beside this node, those of the system; undefined: node-gyp downloads. */
function findNodeDir(asked) {
  if (asked) return asked;
  const candidates = [path.dirname(path.dirname(process.execPath)), '/usr', '/usr/local'];
  return candidates.find((dir) =>
    ['node_api.h', 'common.gypi'].every((f) => fs.existsSync(path.join(dir, 'include/node', f))),
  );
}

/** node-gyp as an argument list: npm's own where npm runs us, a local one, one in PATH, the one beside this node. */
function findNodeGyp() {
  const beside = path.join(path.dirname(path.dirname(process.execPath)), 'lib/node_modules/npm/node_modules');
  for (const script of [
    env.npm_config_node_gyp,
    resolveOrUndefined('node-gyp/bin/node-gyp.js'),
    path.join(beside, 'node-gyp/bin/node-gyp.js'),
  ]) {
    if (script && fs.existsSync(script)) return [process.execPath, script];
  }
  const inPath = findProgram('node-gyp');
  return inPath && [inPath];
}

/** Runs a build quietly: its output is shown if it fails, its warnings always. */
function run(command, args, environment) {
  const log = path.join(fs.mkdtempSync(path.join(os.tmpdir(), 'isopolicy-build-')), 'log');
  const fd = fs.openSync(log, 'w');
  const { status, error } = spawnSync(command, args, {
    cwd: root,
    stdio: ['ignore', fd, fd],
    env: environment,
  });
  fs.closeSync(fd);
  const output = fs.readFileSync(log, 'utf8');
  fs.rmSync(path.dirname(log), { recursive: true });
  if (status === 0) {
    for (const line of output.split('\n')) if (/\bwarning:/.test(line)) console.error(line);
    return true;
  }
  console.error(output.split('\n').slice(-200).join('\n'));
  if (error) say(`${command}: ${error.message}`);
  return false;
}

/** Whether build/ was made by the very same build, so that only what changed needs compiling. */
function sameAsBefore(stamp) {
  const same = fs.existsSync(stampFile) && fs.readFileSync(stampFile, 'utf8') === stamp;
  fs.rmSync(stampFile, { force: true });
  return same;
}

function stampBuild(stamp) {
  // `bindings` would load a forgotten debug build first.
  fs.rmSync(path.join(root, 'build/Debug'), { recursive: true, force: true });
  if (fs.existsSync(path.dirname(stampFile))) fs.writeFileSync(stampFile, stamp);
}

const jobs = () => env.JOBS ?? String(os.availableParallelism());

function buildCpu(nodeDir) {
  const nodeGyp = findNodeGyp();
  if (!nodeGyp)
    fail(
      'node-gyp was not found; run this through npm: "npm rebuild isopolicy", or "npm run build:native" in a checkout',
    );
  const stamp = `node-gyp ${nodeDir} ${process.version}`;
  const commands = sameAsBefore(stamp) ? ['configure', 'build'] : ['rebuild'];
  const [command, ...args] = nodeGyp;
  const options = ['--release', '--jobs', jobs(), ...(nodeDir ? [`--nodedir=${nodeDir}`] : [])];
  const ok = commands.every((name) => run(command, [...args, name, ...options], env));
  stampBuild(stamp); // after a failure too: make goes on where it stopped
  return ok && fs.existsSync(addonFile);
}

function buildCuda({ nvcc, cmakeJs }) {
  const architectures = env.ISOPOLICY_CUDA_ARCHITECTURES;
  const stamp = `cmake-js ${nvcc} ${env.ISOPOLICY_WERROR ?? ''} ${architectures ?? ''}`;
  const command = sameAsBefore(stamp) ? 'build' : 'rebuild';
  const options = ['--CDISOPOLICY_CUDA=ON', '--parallel', jobs()];
  if (architectures) options.push(`--CDCMAKE_CUDA_ARCHITECTURES=${architectures}`);
  const ok =
    run(process.execPath, [cmakeJs, command, ...options], { ...env, CUDACXX: nvcc }) &&
    fs.existsSync(addonFile);
  if (ok) stampBuild(stamp);
  return ok;
}

/** What to install, naming what is plainly not there. */
function compilerAdvice(nodeDir) {
  const missing = [];
  if (
    !(env.CXX
      ? findProgram(env.CXX.split(' ')[0])
      : (findProgram('g++') ?? findProgram('c++') ?? findProgram('clang++')))
  )
    missing.push('a C++ compiler');
  if (!findProgram('make') && !findProgram('gmake')) missing.push('make');
  if (!findProgram('python3') && !findProgram('python')) missing.push('Python 3');
  const found = missing.length > 0 ? ` Not found here: ${missing.join(', ')}.` : '';
  const headers = nodeDir
    ? ''
    : " Node's headers were not found on this machine: without a network, give them with npm_config_nodedir=DIR.";
  return (
    `the native build failed; see above.${found}${headers} It needs a C++20 compiler (g++ 11 or later), make and Python 3: ` +
    '"apt-get install g++ make python3" on Debian and Ubuntu, "dnf install gcc-c++ make python3" on Fedora, ' +
    '"xcode-select --install" on macOS.'
  );
}

function main() {
  let options;
  try {
    options = parseArgs({
      options: {
        help: { type: 'boolean', short: 'h' },
        'dry-run': { type: 'boolean' },
        nodedir: { type: 'string' },
      },
    }).values;
  } catch (error) {
    fail(`${error.message}; see --help`);
  }
  if (options.help) {
    console.log(help);
    return;
  }
  const wanted = env.ISOPOLICY_BUILD || 'auto';
  if (!['auto', 'cpu', 'cuda'].includes(wanted))
    fail(`[install] expected ISOPOLICY_BUILD to be one of auto, cpu, cuda, got ${JSON.stringify(wanted)}`);

  const plan = choose(wanted);
  const nodeDir = findNodeDir(options.nodedir ?? env.npm_config_nodedir);
  const build = plan.kind === 'cuda' ? 'with CUDA' : 'for the CPU';
  if (options['dry-run']) {
    console.log(`isopolicy: would build ${build} (${plan.why})`);
    return;
  }
  say(`building ${build} (${plan.why}); this takes a few minutes on a small machine`);
  const start = Date.now();
  let built = build;
  let ok = plan.kind === 'cuda' ? buildCuda(plan) : buildCpu(nodeDir);
  if (!ok && plan.kind === 'cuda') {
    if (wanted === 'cuda')
      fail(
        'the CUDA build failed; see above. It needs nvcc (CUDA 12 or later), cmake and a C++20 compiler that this nvcc takes; ISOPOLICY_BUILD=cpu leaves CUDA out',
      );
    say(
      `the CUDA build with ${plan.nvcc} failed (see above): building for the CPU instead; ISOPOLICY_BUILD=cuda makes this an error`,
    );
    built = 'for the CPU';
    ok = buildCpu(nodeDir);
  }
  if (!ok) fail(compilerAdvice(nodeDir));
  say(`built ${built} in ${((Date.now() - start) / 1000).toFixed(0)} s`);
}

main();
