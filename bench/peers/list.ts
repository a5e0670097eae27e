/** The libraries that we are held against: how each is found, run and set up for its best. */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Device } from '../../lib/device.js';
import type { VectorLevel } from '../../lib/runtime.js';

const cpuPeers = ['onednn', 'openblas', 'blis', 'libxsmm', 'ggml', 'pytorch', 'onnxruntime'] as const;
const cudaPeers = ['torch-cuda'] as const;
export const peerNames = [...cpuPeers, ...cudaPeers] as const;
export type PeerName = (typeof peerNames)[number];

/** Those that compute on that device. */
export function peersOf(device: Device): readonly PeerName[] {
  return device === 'cuda' ? cudaPeers : cpuPeers;
}

/** How a driver (see driver.h) is started. */
export interface PeerProgram {
  readonly name: PeerName;
  /** A C++ source of this folder to be compiled first, with what it links; null for a script. */
  readonly source: { readonly file: string; readonly link: readonly string[] } | null;
  /** The program, where it is no compiled one, and its arguments. */
  readonly command: readonly string[];
  readonly env: Readonly<Record<string, string>>;
}

export interface MissingPeer {
  readonly name: PeerName;
  /** What was looked for, and how it would be installed. */
  readonly missing: string;
}

export interface PeerSettings {
  readonly threads: number;
  /** Where the peers from npm are; see {@link peersFolder}. */
  readonly folder: string;
  /** The most vector code that peers may use; null leaves the choice to each. */
  readonly level: VectorLevel | null;
}

/** What detection asks of the machine; tests give another. */
export interface Machine {
  exists(file: string): boolean;
  /** Whether this Python has PyTorch, for `cuda` one that sees a GPU. */
  hasTorch(python: string, device: Device): boolean;
  readonly env: Readonly<Record<string, string | undefined>>;
}

export const thisMachine: Machine = {
  exists: (file) => fs.existsSync(file),
  hasTorch: (python, device) => {
    const program = device === 'cuda' ? 'import torch; assert torch.cuda.is_available()' : 'import torch';
    return spawnSync(python, ['-c', program], { stdio: 'ignore' }).status === 0;
  },
  env: process.env,
};

/** The sources lie beside this file's TypeScript, not beside what it was compiled to. */
export const sourceFolder = path.resolve(
  path.dirname(fileURLToPath(import.meta.url)),
  '../../../bench/peers',
);

/** The folder with the peers from npm: what was given, ISOPOLICY_PEERS_DIR, or one of the user's cache. */
export function peersFolder(given: string | null, env: Machine['env'] = process.env): string {
  return path.resolve(
    given ??
      env.ISOPOLICY_PEERS_DIR ??
      path.join(env.XDG_CACHE_HOME ?? path.join(os.homedir(), '.cache'), 'isopolicy-peers'),
  );
}

const libraries = ['/usr/lib/x86_64-linux-gnu', '/usr/lib64', '/usr/lib', '/usr/local/lib'];
const includes = ['/usr/include', '/usr/local/include'];

/** Where a peer is and how it is started, or what is missing. */
export function findPeer(
  name: PeerName,
  settings: PeerSettings,
  machine: Machine = thisMachine,
): PeerProgram | MissingPeer {
  const { folder } = settings;
  const env = tuned(name, settings, machine);
  const first = (folders: readonly string[], ...files: string[]) =>
    files.flatMap((file) => folders.map((f) => path.join(f, file))).find((file) => machine.exists(file));
  const missing = (what: string, how: string): MissingPeer => ({ name, missing: `no ${what}: ${how}` });
  const compiled = (file: string, link: string[], ...command: string[]): PeerProgram => ({
    name,
    source: { file, link },
    command,
    env,
  });

  switch (name) {
    case 'onednn':
      return first(includes, 'oneapi/dnnl/dnnl.hpp')
        ? compiled('onednn.cc', ['-ldnnl'])
        : missing('oneapi/dnnl/dnnl.hpp', 'apt-get install libdnnl-dev');
    case 'openblas': {
      const file = first(libraries, 'openblas-pthread/libopenblas.so.0', 'libopenblas.so.0');
      return file
        ? compiled('cblas.cc', ['-ldl'], file)
        : missing('libopenblas.so.0', 'apt-get install libopenblas0-pthread');
    }
    case 'blis': {
      const file = first(libraries, 'blis-openmp/libblis.so.4', 'libblis.so.4');
      return file
        ? compiled('cblas.cc', ['-ldl'], file)
        : missing('libblis.so.4', 'apt-get install libblis4-openmp');
    }
    case 'libxsmm':
      return first(includes, 'libxsmm.h')
        ? compiled('libxsmm.cc', ['-fopenmp', '-lxsmm', '-lxsmmnoblas', '-lpthread', '-ldl'])
        : missing('libxsmm.h', 'apt-get install libxsmm-dev');
    case 'ggml': {
      const bins = path.join(folder, 'node_modules/@node-llama-cpp/linux-x64/bins/linux-x64');
      const ceiling = settings.level && settings.level !== 'amx' ? [settings.level] : [];
      return machine.exists(path.join(bins, 'libggml-base.so'))
        ? compiled('ggml.cc', ['-ldl'], bins, ...ceiling)
        : missing(`@node-llama-cpp/linux-x64 in ${folder}`, 'bench/peers/setup.sh');
    }
    case 'pytorch': {
      const python = pythonWithTorch(machine, 'cpu');
      return python
        ? { name, source: null, command: [python, path.join(sourceFolder, 'pytorch.py')], env }
        : missing('Python that imports torch', 'apt-get install python3-torch, or ISOPOLICY_PEERS_PYTHON');
    }
    case 'torch-cuda': {
      const python = pythonWithTorch(machine, 'cuda');
      return python
        ? { name, source: null, command: [python, path.join(sourceFolder, 'torch_cuda.py')], env: {} }
        : missing('PyTorch with CUDA', 'pip install torch, or ISOPOLICY_PEERS_PYTHON');
    }
    case 'onnxruntime':
      return machine.exists(path.join(folder, 'node_modules/onnxruntime-node/package.json'))
        ? {
            name,
            source: null,
            command: [process.execPath, path.join(sourceFolder, 'onnxruntime.cjs'), folder],
            env,
          }
        : missing(`onnxruntime-node in ${folder}`, 'bench/peers/setup.sh');
  }
}

function pythonWithTorch(machine: Machine, device: Device): string | undefined {
  const candidates = [machine.env.ISOPOLICY_PEERS_PYTHON, '/usr/bin/python3', 'python3'];
  return candidates.find((candidate) => candidate && machine.hasTorch(candidate, device));
}

/**
 * Each library's own knobs at their best, found by trying: memory on huge pages, as our tensors are, which gains most
 * peers up to a tenth and costs ONNX Runtime half; for PyTorch memory that is kept between calls, AVX-512 code, and
 * an OpenBLAS that shares its OpenMP threads.
 */
function tuned(name: PeerName, { threads, level }: PeerSettings, machine: Machine): Record<string, string> {
  const count = String(threads);
  const env = {
    OMP_NUM_THREADS: count,
    OPENBLAS_NUM_THREADS: count,
    BLIS_NUM_THREADS: count,
    ...(level && pinned(level)),
  };
  if (name === 'onnxruntime') return env;
  const hugePages = 'glibc.malloc.hugetlb=1';
  if (name !== 'pytorch') return { ...env, GLIBC_TUNABLES: hugePages };
  const openmpBlas = path.join(libraries[0]!, 'openblas-openmp');
  const kept = 2 ** 32;
  return {
    ...env,
    GLIBC_TUNABLES: `${hugePages}:glibc.malloc.mmap_threshold=${kept}:glibc.malloc.trim_threshold=${kept}`,
    ATEN_CPU_CAPABILITY: level === 'avx2' ? 'avx2' : 'avx512',
    ...(machine.exists(openmpBlas) && { LD_LIBRARY_PATH: openmpBlas }),
  };
}

/** Keeps a peer off instructions above a level. ONNX Runtime has no such knob; ggml is chosen by its file. */
function pinned(level: VectorLevel): Record<string, string> {
  if (level === 'amx') return {};
  const oneDnn = {
    portable: 'SSE41',
    avx2: 'AVX2',
    avx512: 'AVX512_CORE_VNNI',
    avx512bf16: 'AVX512_CORE_BF16',
  }[level];
  const xsmm = { portable: 'wsm', avx2: 'hsw', avx512: 'clx', avx512bf16: 'cpx' }[level];
  const openblas = { portable: 'Nehalem', avx2: 'Haswell', avx512: 'SkylakeX', avx512bf16: 'Cooperlake' }[
    level
  ];
  const blis = { portable: 'generic', avx2: 'haswell', avx512: 'skx', avx512bf16: 'skx' }[level];
  return {
    ONEDNN_MAX_CPU_ISA: oneDnn,
    DNNL_MAX_CPU_ISA: oneDnn,
    LIBXSMM_TARGET: xsmm,
    OPENBLAS_CORETYPE: openblas,
    BLIS_ARCH_TYPE: blis,
  };
}
