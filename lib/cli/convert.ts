import { Argument, Command } from 'commander';
import { InvalidArgumentError } from '../errors.js';
import type { Conversion, OverflowChoice } from '../models/convertCheckpoint.js';
import { floatDtypes, type NativeFloatDType } from '../tensor/dtype.js';
import { exitCodes } from './exitCodes.js';
import { count, formatBytes, formatNumber, formatTable, quoted, toJson, wrap } from './format.js';
import { interruptible } from './interruptible.js';
import { bytesOption, choiceOption, integerOption } from './options.js';
import { ProgressWriter } from './progress.js';

interface Flags {
  readonly dtype: NativeFloatDType;
  readonly clamp?: boolean;
  readonly allowOverflow?: boolean;
  readonly maxShardSize?: number;
  readonly threads?: number;
  readonly json?: boolean;
}

/** Rows of the table: a large model has hundreds of tensors, and most of them lose alike. */
const MAX_ROWS = 20;

/** `isopolicy convert`: a checkpoint in another dtype, and what is lost. */
export function convertCommand(): Command {
  return new Command('convert')
    .summary('convert a checkpoint to another dtype and tell what is lost')
    .description(
      'Round the weights of a model to another dtype, to nearest even, and tell what is lost: values that overflow, that ' +
        'become 0 or subnormal, and the rounding error. Takes any architecture, of any size. Without <out> nothing is ' +
        'written.',
    )
    .addArgument(new Argument('<dir>', 'the folder of a model in safetensors'))
    .addArgument(new Argument('[out]', 'a folder that is new or empty'))
    .addOption(
      choiceOption('--dtype <type>', 'what weights are stored in', floatDtypes).makeOptionMandatory(),
    )
    .option('--clamp', 'write the largest finite value where a value overflows')
    .option('--allow-overflow', 'write infinity where a value overflows')
    .addOption(bytesOption('--max-shard-size <size>', 'most bytes of a file: 5GB, 500MiB (default: 5GB)'))
    .addOption(integerOption('--threads <n>', 'native threads', 1, 256))
    .option('--json', 'print the report, with every tensor, as one JSON object')
    .addHelpText(
      'after',
      `
The tokenizer and other files come along, config.json with the new dtype.
Where a value overflows nothing is written, unless an option says what to write.

Exit codes: ${exitCodes.success} done, ${exitCodes.failure} failed, or a value overflows, ${exitCodes.usage} bad usage, ${
        exitCodes.interrupted
      } interrupted
(nothing is left).

Examples:
  $ isopolicy convert models/qwen models/qwen-fp16 --dtype fp16
  $ isopolicy convert models/qwen --dtype fp16`,
    )
    .action(convert);
}

async function convert(dir: string, out: string | undefined, flags: Flags): Promise<void> {
  const { dtype, clamp, allowOverflow, maxShardSize, threads, json } = flags;
  if (clamp && allowOverflow) {
    throw new InvalidArgumentError('[convert] expected either --clamp or --allow-overflow, got both');
  }
  const overflow: OverflowChoice = clamp ? 'clamp' : allowOverflow ? 'allow' : 'refuse';
  const { convertCheckpoint } = await import('../models/convertCheckpoint.js');
  const { setThreads } = await import('../runtime.js');
  if (threads !== undefined) setThreads(threads);
  const writer = new ProgressWriter();
  const interruption = interruptible(writer, 'stopping');
  let conversion: Conversion;
  try {
    let shown = performance.now();
    conversion = await convertCheckpoint(dir, out ?? null, {
      dtype,
      overflow,
      signal: interruption.signal,
      ...(maxShardSize !== undefined && { maxShardBytes: maxShardSize }),
      report: ({ done, total }) => {
        // Plain lines, where there is no terminal, are no more than one a second.
        if (done < total && performance.now() < shown + 1000) return;
        shown = performance.now();
        const text = `${formatBytes(done)} of ${formatBytes(total)} read`;
        writer.update({ phase: 'convert', parts: [{ text, importance: 1 }] });
      },
    });
  } catch (error) {
    if (!interruption.signal.aborted) throw error;
    writer.note('isopolicy: interrupted, nothing was written');
    process.exitCode = exitCodes.interrupted;
    return;
  } finally {
    writer.end();
    interruption.release();
  }
  const refused = overflow === 'refuse' && conversion.total.overflow > 0;
  process.exitCode = refused ? exitCodes.failure : exitCodes.success;
  process.stdout.write(
    `${json ? toJson({ ...conversion, refused }) : conversionReport(conversion, overflow)}\n`,
  );
}

/** Totals, the tensors that lose most, and what was written. */
export function conversionReport(conversion: Conversion, overflow: OverflowChoice): string {
  const { source, out, dtype, tensors, total, copied, leftOut } = conversion;
  const kinds = [...new Set(tensors.map(({ from }) => from))].sort().join(', ');
  const share = (n: number) =>
    n === 0 ? '0' : `${n} of ${total.elements} (${formatNumber((100 * n) / total.elements, 2)} %)`;
  const facts: [string, string][] = [
    ['from', `${source} (${kinds})`],
    ['to', `${dtype}${out === null ? '' : `, ${out}`}`],
    ['tensors', `${tensors.length}, ${total.elements} values`],
    ['overflow', `${share(total.overflow)}; largest |x| ${formatNumber(total.maxAbs, 4)}`],
    ['become 0', share(total.toZero)],
    ['subnormal', share(total.subnormal)],
    ['error', `${formatNumber(total.relativeError)} (||rounded - x|| / ||x||)`],
    ...(total.nonFinite > 0
      ? [['NaN, infinite', `${share(total.nonFinite)} in the source`] as [string, string]]
      : []),
  ];
  const losing = tensors
    .filter((t) => t.overflow + t.nonFinite + t.toZero + t.subnormal > 0)
    .sort(
      (a, b) =>
        b.overflow - a.overflow ||
        b.nonFinite - a.nonFinite ||
        b.toZero - a.toZero ||
        b.subnormal - a.subnormal,
    );
  const right = { align: 'right' } as const;
  const table =
    losing.length === 0
      ? []
      : [
          '',
          formatTable(
            [
              { heading: 'overflow', ...right },
              { heading: 'largest\n|x|', ...right },
              { heading: 'become 0', ...right },
              { heading: 'sub-\nnormal', ...right },
              { heading: 'error', ...right },
              { heading: 'tensor' },
            ],
            losing
              .slice(0, MAX_ROWS)
              .map((t) => [
                String(t.overflow),
                formatNumber(t.maxAbs),
                String(t.toZero),
                String(t.subnormal),
                formatNumber(t.relativeError),
                t.name,
              ]),
          ),
          ...(losing.length > MAX_ROWS
            ? [`and ${count(losing.length - MAX_ROWS, 'tensor')} more (--json lists all)`]
            : []),
        ];
  return [
    ...facts.map(([name, value]) => `${name.padEnd(14)}${value}`),
    ...table,
    '',
    ...wrap(outcome(conversion, overflow)),
    ...(copied.length > 0 ? wrap(`copied: ${copied.join(', ')}`) : []),
    ...(out !== null && leftOut.length > 0 ? wrap(`left out: ${leftOut.join(', ')}`) : []),
  ].join('\n');
}

function outcome({ out, dtype, total }: Conversion, overflow: OverflowChoice): string {
  if (total.overflow > 0 && overflow === 'refuse') {
    return (
      `OVERFLOW  nothing was written: ${count(total.overflow, 'value')} beyond ${dtype}; --clamp writes its largest value ` +
      'in their place, --allow-overflow infinity.'
    );
  }
  if (out === null) return 'Nothing was written: no <out> was given.';
  const put = overflow === 'clamp' ? 'the largest finite value' : 'infinity';
  return `written to ${quoted(out)}${total.overflow > 0 ? `, with ${put} where values overflow` : ''}`;
}
