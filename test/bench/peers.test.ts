import assert from 'node:assert/strict';
import path from 'node:path';
import { describe, test } from 'node:test';
import type { BenchCase } from '../../bench/case.js';
import { bestPeerOf, byQuestion } from '../../bench/peers/compare.js';
import { Driver, parseAnswer, parseSamples, prepareLine } from '../../bench/peers/driver.js';
import { findPeer, type Machine, type PeerProgram, peerNames, peersFolder } from '../../bench/peers/list.js';

const settings = { threads: 2, folder: '/peers', level: null };
const machine = (...files: string[]): Machine => ({
  exists: (file) => files.includes(file),
  hasTorch: (python, device) => files.includes(`${python} with torch${device === 'cuda' ? ' and CUDA' : ''}`),
  env: {},
});

function present(found: ReturnType<typeof findPeer>): PeerProgram {
  if ('missing' in found) assert.fail(found.missing);
  return found;
}

describe('where peers are', () => {
  test('an empty machine has none; each says what was looked for and how it would come', () => {
    for (const name of peerNames) {
      const found = findPeer(name, settings, machine());
      assert.ok('missing' in found, name);
      assert.equal(found.name, name);
      assert.match(found.missing, /^no .+: (apt-get install |pip install |bench\/peers\/setup\.sh)/);
    }
  });

  test('headers, libraries and packages', () => {
    const onednn = present(findPeer('onednn', settings, machine('/usr/include/oneapi/dnnl/dnnl.hpp')));
    assert.deepEqual(onednn.source, { file: 'onednn.cc', link: ['-ldnnl'] });
    const files = ['/usr/lib64/libopenblas.so.0', '/usr/lib64/openblas-pthread/libopenblas.so.0'];
    assert.deepEqual(present(findPeer('openblas', settings, machine(...files))).command, [files[1]]);
    assert.deepEqual(present(findPeer('openblas', settings, machine(files[0]!))).command, [files[0]]);
    const bins = '/peers/node_modules/@node-llama-cpp/linux-x64/bins/linux-x64';
    const ggml = machine(`${bins}/libggml-base.so`);
    assert.deepEqual(present(findPeer('ggml', settings, ggml)).command, [bins]);
    assert.deepEqual(present(findPeer('ggml', { ...settings, level: 'avx512bf16' }, ggml)).command, [
      bins,
      'avx512bf16',
    ]);
    assert.deepEqual(present(findPeer('ggml', { ...settings, level: 'amx' }, ggml)).command, [bins]);
    const pytorch = present(findPeer('pytorch', settings, machine('python3 with torch')));
    assert.equal(pytorch.command[0], 'python3');
    assert.equal(path.basename(pytorch.command[1]!), 'pytorch.py');
    const torchCuda = present(
      findPeer('torch-cuda', settings, machine('/usr/bin/python3 with torch and CUDA')),
    );
    assert.equal(torchCuda.command[0], '/usr/bin/python3');
    assert.equal(path.basename(torchCuda.command[1]!), 'torch_cuda.py');
    const onCpuAlone = findPeer('torch-cuda', settings, machine('python3 with torch'));
    assert.ok('missing' in onCpuAlone && onCpuAlone.missing.startsWith('no PyTorch with CUDA: '));
  });

  test('threads and settings of each', () => {
    const libraries = ['/usr/include/oneapi/dnnl/dnnl.hpp', '/usr/lib/x86_64-linux-gnu/openblas-openmp'];
    const here = machine(
      ...libraries,
      'python3 with torch',
      '/peers/node_modules/onnxruntime-node/package.json',
    );
    const onednn = present(findPeer('onednn', settings, here)).env;
    assert.deepEqual(onednn, {
      OMP_NUM_THREADS: '2',
      OPENBLAS_NUM_THREADS: '2',
      BLIS_NUM_THREADS: '2',
      GLIBC_TUNABLES: 'glibc.malloc.hugetlb=1',
    });
    const { env } = present(findPeer('pytorch', settings, here));
    assert.equal(env.ATEN_CPU_CAPABILITY, 'avx512');
    assert.equal(env.LD_LIBRARY_PATH, libraries[1]);
    assert.equal(present(findPeer('onnxruntime', settings, here)).env.GLIBC_TUNABLES, undefined);
    const pinned = present(findPeer('onednn', { ...settings, level: 'avx512bf16' }, here)).env;
    assert.equal(pinned.ONEDNN_MAX_CPU_ISA, 'AVX512_CORE_BF16');
    assert.equal(pinned.LIBXSMM_TARGET, 'cpx');
    assert.deepEqual(present(findPeer('onednn', { ...settings, level: 'amx' }, here)).env, onednn);
  });

  test('the folder: as given, by the environment, in the cache', () => {
    assert.equal(peersFolder('/a', { ISOPOLICY_PEERS_DIR: '/b' }), '/a');
    assert.equal(peersFolder(null, { ISOPOLICY_PEERS_DIR: '/b' }), '/b');
    assert.equal(peersFolder(null, { XDG_CACHE_HOME: '/c' }), '/c/isopolicy-peers');
    assert.match(peersFolder(null, {}), /\.cache\/isopolicy-peers$/);
  });
});

test('lines to a driver and from it', () => {
  assert.equal(prepareLine({ op: 'gemm', dims: [1, 2, 3] }, 'bf16', 4), 'prepare gemm bf16 4 1 2 3');
  assert.deepEqual(parseAnswer('ready brg:avx512'), { word: 'ready', rest: 'brg:avx512' });
  assert.deepEqual(parseAnswer('dropped'), { word: 'dropped', rest: '' });
  assert.deepEqual(parseAnswer(undefined), { word: 'none', rest: 'the driver ended' });
  assert.deepEqual(parseSamples('1.5 2e-3'), [1.5, 0.002]);
  for (const bad of ['', '1 x', '0', '1 -2']) assert.throws(() => parseSamples(bad), /milliseconds/);
});

test('the best peer is the one with the least median; refusals do not count', () => {
  const figure = (name: 'ggml' | 'blis', medianMs: number) => ({
    name,
    medianMs,
    p90Ms: 0,
    minMs: 0,
    samples: 1,
  });
  const refusal = { name: 'onednn', reason: 'no such op' } as const;
  assert.deepEqual(bestPeerOf([figure('ggml', 3), refusal, figure('blis', 2)], 1, 100), {
    name: 'blis',
    rate: 50,
    ratio: 2,
  });
  assert.equal(bestPeerOf([refusal], 1, 100), null);
  assert.equal(bestPeerOf([], 1, 100), null);
});

test('cases that ask the same are measured together', () => {
  const make = (op: string, family: BenchCase['family'], peer?: BenchCase['peer']): BenchCase => ({
    group: 'gemm',
    op,
    family,
    dtype: 'bf16',
    shape: '1x2x3',
    unit: 'GFLOP/s',
    flops: 1,
    bytes: 1,
    inputBytes: 1,
    ...(peer && { peer }),
    prepare: () => assert.fail('not to be run'),
  });
  const cases = [
    make('gemm', 'rollout', { op: 'gemm', dims: [1, 2, 3] }),
    make('sample', 'rollout'),
    make('gemm', 'training', { op: 'gemm', dims: [1, 2, 3] }),
    make('gemm', 'training', { op: 'gemm', dims: [1, 2, 4] }),
    make('sample', 'training'),
  ];
  const names = byQuestion(cases).map((group) => group.map((c) => `${c.op} ${c.family}`));
  assert.deepEqual(names, [
    ['gemm rollout', 'gemm training'],
    ['sample rollout'],
    ['gemm training'],
    ['sample training'],
  ]);
});

describe('a driver is a process', () => {
  const driver = (script: string) =>
    new Driver({ name: 'blis', source: null, command: [process.execPath, '-e', script], env: {} });

  test('it is asked, and asked again after it ended', async () => {
    const child = driver(`
      console.log('hello 1.0');
      require('readline').createInterface({ input: process.stdin }).on('line', (line) => {
        const [verb, op] = line.split(' ');
        if (op === 'crash') process.exit(3);
        if (verb === 'prepare') console.log(op === 'gemm' ? 'ready fast' : 'none no such op');
        else console.log(verb === 'time' ? 'samples 1 2' : 'dropped');
      });`);
    try {
      assert.equal(await child.prepare({ op: 'gemm', dims: [1] }, 'bf16', 1), null);
      assert.deepEqual([child.version, child.note], ['1.0', 'fast']);
      assert.deepEqual(await child.measure(5), [1, 2]);
      await child.drop();
      assert.equal(await child.prepare({ op: 'other', dims: [] }, 'bf16', 1), 'no such op');
      assert.equal(await child.prepare({ op: 'crash', dims: [] }, 'bf16', 1), 'the driver ended');
      assert.equal(await child.prepare({ op: 'gemm', dims: [1] }, 'bf16', 1), null);
    } finally {
      child.close();
    }
  });

  test('one that does not start says so', async () => {
    const child = driver('process.exit(1)');
    await assert.rejects(child.prepare({ op: 'gemm', dims: [1] }, 'bf16', 1), /blis does not start: .*ended/);
    child.close();
    const absent = new Driver({ name: 'blis', source: null, command: ['/no/such/program'], env: {} });
    await assert.rejects(absent.prepare({ op: 'gemm', dims: [1] }, 'bf16', 1), /blis does not start/);
  });
});
