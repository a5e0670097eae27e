import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { describe, it } from 'node:test';
import { Worker } from 'node:worker_threads';

const library = new URL('../../lib/', import.meta.url).href;
const prelude = `
const { Tensor, tensor, zeros, full, empty, randomNormal, cast } = await import('${library}tensor/tensor.js');
const { memory, record, trimMemory } = await import('${library}runtime.js');
// Minutes of work, in commands of a few milliseconds each.
const busy = () => { for (let i = 0; i < 20000; i++) randomNormal([1 << 18], { seed: i }).dispose(); };
`;

/** For a process that ends in the middle of things: what V8 itself does not free then is no finding of LeakSanitizer. */
const abrupt = { env: { ASAN_OPTIONS: `${process.env.ASAN_OPTIONS ?? ''}:detect_leaks=0` } };

/** Runs a module in a process of its own; one that does not end by itself fails. */
function run(script: string, options: { flags?: string[]; env?: Record<string, string> } = {}) {
  const child = spawnSync(
    process.execPath,
    [...(options.flags ?? []), '--input-type=module', '-e', prelude + script],
    { encoding: 'utf8', timeout: 60_000, env: { ...process.env, ...options.env } },
  );
  assert.equal(child.signal, null, `killed by ${child.signal}: ${child.stderr}`);
  return child;
}

function runWell(script: string, options: Parameters<typeof run>[1] = {}): string {
  const child = run(script, options);
  assert.equal(child.status, 0, child.stderr);
  assert.equal(child.stderr, '');
  return child.stdout;
}

describe('memory', () => {
  it('goes back to the system on request, queued work or not', () => {
    const output = runWell(`
      const [a, b] = [full([1 << 16], 2), full([1 << 16], 3)];
      for (let i = 0; i < 50; i++) { const c = cast(a, 'bf16'); cast(c, 'fp32', b); c.dispose(); }
      const before = memory().cachedBytes;
      trimMemory();
      const after = memory().cachedBytes;
      const again = cast(b, 'fp16');
      console.log(before > 0, after, (await again.data()).every((x) => x === 2), memory().tensors);`);
    assert.equal(output, 'true 0 true 3\n');
  });

  it('keeps what live tensors hold, while their neighbours go back and are handed out anew', () => {
    const output = runWell(`
      let seed = 1;
      const random = (n) => (seed = (seed * 48271) % 2147483647) % n;
      const live = new Map();
      let next = 0, wrong = 0;
      const drop = async (tensor) => {
        const value = live.get(tensor);
        live.delete(tensor);
        if (!(await tensor.data()).every((x) => x === value)) wrong++;
        tensor.dispose();
      };
      for (let round = 0; round < 12; round++) {
        for (let i = 0; i < 60; i++) {
          // Some bytes to 40 MiB, evenly by their logarithm.
          const tensor = full([1 + Math.floor(Math.exp(random(1000) / 1000 * Math.log(1e5 * (i === 0 ? 100 : 1))))], ++next);
          live.set(tensor, next);
        }
        for (const tensor of [...live.keys()]) if (random(3) > 0) await drop(tensor);
        if (round % 3 < 2) trimMemory();
      }
      for (const tensor of [...live.keys()]) await drop(tensor);
      trimMemory();
      console.log(wrong, live.size, memory().bytes, memory().cachedBytes);`);
    assert.equal(output, '0 0 0 0\n');
  });

  it('of tensors that lie between live ones goes back to the system, too', () => {
    const output = runWell(`
      const tensors = Array.from({ length: 192 }, (_, i) => full([1 << 18], i));
      await tensors[191].data();
      const mebibytes = () => process.memoryUsage.rss() / 2 ** 20;
      const most = mebibytes();
      const kept = tensors.filter((tensor, i) => i % 32 === 16 || tensor.dispose());
      trimMemory();
      const values = await Promise.all(kept.map(async (tensor) => (await tensor.data())[12345]));
      console.log(most - mebibytes() > 120, values.join());`);
    assert.equal(output, 'true 16,48,80,112,144,176\n');
  });

  it('that cannot be had is an error that says how much was asked for, and the process lives', () => {
    const { stdout, status } = run(`
      let message;
      try { empty([2 ** 20, 2 ** 20, 64]); } catch (error) { message = error.code + ' ' + error.message; }
      console.log(message, (await tensor([5]).data())[0]);`);
    assert.equal(status, 0);
    assert.match(stdout, /^ERR_DEVICE \[memory\] out of memory: asked for .* 5\n$/);
  });
});

describe('a process', () => {
  it('exits with the code it asks for, work in flight or not', () => {
    const child = run(`busy(); process.stdout.write('queued'); process.exit(3);`, abrupt);
    assert.deepEqual([child.status, child.stdout, child.stderr], [3, 'queued', '']);
  });

  it('exits with 3 from a callback while reads are pending', () => {
    const child = run(`busy(); zeros([4]).data(); setTimeout(() => process.exit(3), 20);`, abrupt);
    assert.deepEqual([child.status, child.stderr], [3, '']);
  });

  it('exits with 1 on an uncaught exception', () => {
    const child = run(`busy(); throw new Error('not caught');`, abrupt);
    assert.equal(child.status, 1);
    assert.match(child.stderr, /Error: not caught/);
  });

  it('exits with 1 on a rejected read that nobody handles, and says where', () => {
    const child = run(`
const { embedding } = await import('${library}ops/embedding.js');
const lookUp = () => embedding(zeros([11, 2]), tensor([57], [1], 'int32'));
lookUp().data();`);
    assert.equal(child.status, 1);
    assert.match(
      child.stderr,
      /DeviceError: \[embedding\] id 57 at position 0 is outside the vocabulary of 11/,
    );
    assert.match(child.stderr, /at lookUp/);
  });

  it('ends by itself with work that nobody waits for', () => {
    assert.equal(runWell(`busy(); console.log('end');`), 'end\n');
  });

  it('stays until reads are settled', () => {
    assert.equal(runWell(`full([2], 7).data().then((v) => console.log(v.join()));`), '7,7\n');
  });
});

describe('a worker', () => {
  it('has tensors and memory of its own', async () => {
    const worker = new Worker(
      `${prelude}
const { parentPort } = await import('node:worker_threads');
const t = tensor([1, 2, 3]);
parentPort.postMessage({ tensors: memory().tensors, values: [...(await cast(t, 'bf16').data())] });`,
      { eval: true, execArgv: ['--input-type=module'] },
    );
    const message = await new Promise((resolve, reject) => {
      worker.once('message', resolve);
      worker.once('error', reject);
    });
    assert.deepEqual(message, { tensors: 1, values: [1, 2, 3] });
    await worker.terminate();
  });

  it('can be terminated with work and reads in flight, again and again', () => {
    const worker = `${prelude}
const { parentPort } = await import('node:worker_threads');
const t = zeros([1000]);
if (Math.random() < 0.5) busy();
for (let i = 0; i < 50; i++) (async () => { for (;;) await t.data(); })();
parentPort.postMessage('ready');`;
    const out = runWell(
      `
const { Worker } = await import('node:worker_threads');
for (let i = 0; i < 12; i += 2) {
  const workers = [0, 1].map(() => new Worker(${JSON.stringify(worker)}, { eval: true, execArgv: ['--input-type=module'] }));
  await Promise.all(workers.map((w) => new Promise((resolve, reject) => { w.once('message', resolve); w.once('error', reject); })));
  await new Promise((resolve) => setTimeout(resolve, i));
  await Promise.all(workers.map((w) => w.terminate()));
}
console.log((await full([2], 5).data()).join());`,
      abrupt,
    );
    assert.equal(out, '5,5\n');
  });
});

describe('the safety net', () => {
  it('frees tensors and recordings that were dropped without dispose()', () => {
    const out = runWell(
      `
const make = () => {
  for (let i = 0; i < 500; i++) { zeros([1000]); full([10], i, 'bf16').reshape(2, 5); }
  record(() => zeros([5000]));
};
make();
const most = memory();
for (let i = 0; i < 100 && memory().bytes > 0; i++) {
  globalThis.gc();
  await new Promise((resolve) => setTimeout(resolve, 5));
}
console.log(JSON.stringify([most.tensors, memory().tensors, memory().bytes]));`,
      { flags: ['--expose-gc'] },
    );
    assert.deepEqual(JSON.parse(out), [1501, 0, 0]);
  });

  it('leaves a tensor alone that was disposed of, or that a scope let out', () => {
    const out = runWell(
      `
const { tidy } = await import('${library}tensor/scope.js');
const kept = tidy(() => { zeros([3]); return full([3], 4); });
zeros([3]).dispose();
for (let i = 0; i < 20; i++) { globalThis.gc(); await new Promise((resolve) => setTimeout(resolve, 2)); }
console.log(memory().tensors, (await kept.data()).join());`,
      { flags: ['--expose-gc'] },
    );
    assert.equal(out, '1 4,4,4\n');
  });
});

describe('ISOPOLICY_POISON=1', () => {
  it('makes new memory NaN, fresh or used before', () => {
    const out = runWell(
      `
const found = [];
for (const dtype of ['fp32', 'fp16', 'bf16']) {
  for (let i = 0; i < 2; i++) {
    const t = empty([37], dtype);
    found.push((await t.data()).every(Number.isNaN));
    t.upload(new Float32Array(37).fill(1));
    found.push((await t.data()).every((v) => v === 1));
    t.dispose();
  }
}
found.push((await empty([5], 'int32').data()).every((v) => v === -1));
console.log(found.length, found.every(Boolean));`,
      { env: { ISOPOLICY_POISON: '1' } },
    );
    assert.equal(out, '13 true\n');
  });
});
