/** The memory that an op takes beyond its inputs and outputs, seen from outside: in a process of its own. */
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import { fileURLToPath } from 'node:url';
import { linearLogprob, linearLogprobBackward } from '../lib/ops/linearLogprob.js';
import { setThreads } from '../lib/runtime.js';
import { floatDtypes, type NativeFloatDType } from '../lib/tensor/dtype.js';
import { full, zeros } from '../lib/tensor/tensor.js';
import { idInput, normalInput } from './case.js';

/** Bytes of the forward and of the backward pass of linearLogprob. */
export interface LogprobScratch {
  readonly forward: number;
  readonly backward: number;
}

/** Runs the op in a fresh process, whose memory tells; null where the system (not Linux) does not say. */
export function logprobScratch(
  rows: number,
  vocabulary: number,
  hidden: number,
  dtype: NativeFloatDType,
  threads: number,
): LogprobScratch | null {
  if (!fs.existsSync('/proc/self/clear_refs')) return null;
  const args = [fileURLToPath(import.meta.url), rows, vocabulary, hidden, dtype, threads].map(String);
  return JSON.parse(execFileSync(process.execPath, args, { encoding: 'utf8' })) as LogprobScratch;
}

/** The most memory that was resident while `body` ran, beyond what was before. */
async function grown(body: () => Promise<unknown>): Promise<number> {
  const field = (name: string) =>
    Number(new RegExp(`${name}:\\s+(\\d+) kB`).exec(fs.readFileSync('/proc/self/status', 'utf8'))![1]) * 1024;
  fs.writeFileSync('/proc/self/clear_refs', '5'); // the high-water mark begins anew
  const before = field('VmRSS');
  await body();
  return Math.max(0, field('VmHWM') - before);
}

async function main(argv: readonly string[]): Promise<void> {
  const [rows, vocabulary, hiddenSize] = argv.slice(0, 3).map(Number) as [number, number, number];
  const dtype = floatDtypes.find((name) => name === argv[3])!;
  setThreads(Number(argv[4]));
  const hidden = normalInput([rows, hiddenSize], dtype, 1);
  const weight = normalInput([vocabulary, hiddenSize], dtype, 2, hiddenSize ** -0.5);
  const targets = idInput(rows, vocabulary, 1);
  const gradWeight = zeros([vocabulary, hiddenSize]);
  const dLogprobs = full([rows], 1 / rows);
  // The native threads and the reading of a result have their own memory, which is there from here on.
  const small = normalInput([8, hiddenSize], dtype, 3);
  await linearLogprob(small, weight.rows(0, 16), idInput(8, 16, 1)).logprobs.data();
  await Promise.all([hidden, weight, gradWeight, dLogprobs].map((t) => t.rows(0, 1).data()));

  let lse = dLogprobs;
  const forward = await grown(async () => {
    const out = linearLogprob(hidden, weight, targets);
    lse = out.lse;
    await out.logprobs.data();
  });
  const backward = await grown(() =>
    linearLogprobBackward(dLogprobs, hidden, weight, targets, lse, gradWeight).rows(0, 1).data(),
  );
  console.log(JSON.stringify({ forward, backward }));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main(process.argv.slice(2));
