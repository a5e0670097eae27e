/** `npm run bench`: the kernels beside the machine's measured peaks. */
import path from 'node:path';
import { DeviceError, InvalidArgumentError } from '../lib/errors.js';
import { atomicWriteFile } from '../lib/io/atomicWrite.js';
import { setDevice } from '../lib/runtime.js';
import { type BenchOptions, helpText, parseBenchArguments } from './arguments.js';
import { runBench } from './run.js';
import { runScaling } from './scaling/run.js';
import { outcomeLines, outcomes } from './summary.js';

async function main(argv: readonly string[]): Promise<number> {
  let options: BenchOptions;
  try {
    options = parseBenchArguments(argv);
  } catch (error) {
    if (!(error instanceof InvalidArgumentError)) throw error;
    console.error(`${error.message}\nnpm run bench -- --help lists the options.`);
    return 2;
  }
  if (options.help) {
    console.log(helpText);
    return 0;
  }
  try {
    setDevice(options.device);
  } catch (error) {
    if (!(error instanceof DeviceError)) throw error;
    console.error(error.message);
    return 1;
  }
  const command = ['npm run bench', ...(argv.length > 0 ? ['--', ...argv] : [])].join(' ');
  const print = (line: string) => console.log(line);
  const document = options.scaling
    ? { ...(await runScaling(options, command, print)), failures: [] }
    : await runMeasured(options, command, print);
  if (options.out !== null) {
    await atomicWriteFile(path.resolve(options.out), `${JSON.stringify(document, null, 1)}\n`);
    console.error(`written: ${options.out}`);
  }
  return document.failures.length > 0 ? 1 : 0;
}

/** On a GPU with what the rows say of the targets. */
async function runMeasured(options: BenchOptions, command: string, print: (line: string) => void) {
  const document = await runBench(options, command, print);
  if (options.device === 'cuda' && options.shapes !== 'tiny') {
    print('');
    for (const outcome of outcomes(document)) for (const line of outcomeLines(outcome)) print(line);
  }
  return document;
}

process.exitCode = await main(process.argv.slice(2));
