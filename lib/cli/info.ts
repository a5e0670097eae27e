import os from 'node:os';
import { Argument, Command } from 'commander';
import type { KnobDescription } from '../native.js';
import type { AddonInfo, MemoryUse } from '../runtime.js';
import { version } from '../version.js';
import { count, formatBytes, formatTable, toJson } from './format.js';

interface Info extends AddonInfo {
  readonly version: string;
  readonly node: string;
  readonly platform: string;
  readonly cpu: { readonly model: string; readonly cores: number };
  /** Bytes of the machine. */
  readonly machineMemory: { readonly total: number; readonly free: number };
  /** What the addon holds. */
  readonly memory: MemoryUse;
  readonly knobs: readonly KnobDescription[];
}

/** `isopolicy info`: the machine, the build and the numeric choices of the engines; or what a path holds. */
export function infoCommand(): Command {
  return new Command('info')
    .summary('tell the version, the machine and the numeric choices, or what a folder holds')
    .description(
      'Tell the version, the machine, how the addon was built, and the numeric choices of the engines. With a path: what ' +
        'a model, an adapter, a run, a file of tensors or a data set is, and what keeps a model from being loaded. Weights are ' +
        'not read.',
    )
    .addArgument(new Argument('[path]', 'a folder (model, adapter, run), a .safetensors file, or a data set'))
    .option('--json', 'print one JSON object')
    .addHelpText(
      'after',
      `
Examples:
  $ isopolicy info
  $ isopolicy info models/qwen`,
    )
    .action(async (path: string | undefined, { json }: { json?: boolean }) => {
      if (path !== undefined) {
        const { inspectPath } = await import('./folderInfo.js');
        const { folderReport } = await import('./folderReport.js');
        const found = await inspectPath(path);
        process.stdout.write(`${json ? toJson(found) : folderReport(found)}\n`);
        return;
      }
      const { info, memory } = await import('../runtime.js');
      const { knobs } = await import('../numerics.js');
      const all: Info = {
        version,
        node: process.version,
        platform: `${process.platform} ${process.arch}`,
        cpu: { model: os.cpus()[0]?.model.trim() ?? 'unknown', cores: os.availableParallelism() },
        machineMemory: { total: os.totalmem(), free: os.freemem() },
        memory: memory(),
        ...info(),
        knobs,
      };
      process.stdout.write(`${json ? toJson(all) : infoText(all)}\n`);
    });
}

/** Which kernels a GPU's 16-bit matrix products take (native/cuda/shared/gemm.cuh chooses). */
function productPath(computeCapability: string): string {
  return computeCapability === '9.0' ? 'wgmma and TMA' : 'mma.sync';
}

function cudaText({ cudaCompiled, cudaDriver, cudaRuntime }: Info): string {
  if (!cudaCompiled) return 'not compiled in';
  const driver = cudaDriver === '' ? 'no driver' : `driver for CUDA up to ${cudaDriver}`;
  return `compiled in, ${cudaRuntime} (${driver})`;
}

function infoText(info: Info): string {
  const { machineMemory, memory, cudaDevices } = info;
  const devices = cudaDevices.map(
    ({ name, computeCapability, multiprocessors, totalBytes }) =>
      `${name} (compute capability ${computeCapability}, ${multiprocessors} multiprocessors, ` +
      `${formatBytes(totalBytes)}; 16-bit products by ${productPath(computeCapability)})`,
  );
  const facts: [string, string][] = [
    ['isopolicy', info.version],
    ['Node', `${info.node} on ${info.platform}`],
    ['CPU', `${info.cpu.model}, ${count(info.cpu.cores, 'core')}`],
    ['threads', String(info.threads)],
    ['vector level', `${info.vectorLevel} (the processor has ${info.supportedVectorLevel})`],
    ['device', info.device],
    ['CUDA', cudaText(info)],
    ...devices.map((device): [string, string] => ['CUDA device', device]),
    ...(info.cudaProblem === '' ? [] : [['CUDA problem', info.cudaProblem] as [string, string]]),
    ['memory', `${formatBytes(machineMemory.total)}, ${formatBytes(machineMemory.free)} free`],
    [
      'in use',
      `${memory.tensors} tensors, ${formatBytes(memory.bytes)} (peak ${formatBytes(memory.peakBytes)})`,
    ],
  ];
  const right = { align: 'right' } as const;
  const knobTable = formatTable(
    [
      { heading: 'choice' },
      { heading: 'rollout', ...right },
      { heading: 'training', ...right },
      { heading: 'matched', ...right },
      { heading: 'meaning' },
    ],
    info.knobs.map((knob) => [
      knob.name,
      String(knob.rollout),
      String(knob.training),
      String(knob.matched),
      knob.meaning,
    ]),
  );
  return [
    ...facts.map(([name, value]) => `${name.padEnd(14)}${value}`),
    '',
    'Numeric choices of the engines, and their presets:',
    knobTable,
  ].join('\n');
}
