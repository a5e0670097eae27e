import { Argument, Command } from 'commander';
import { checkChoice } from '../errors.js';
import type { SimulationSummary } from '../instruments/simulate.js';
import { atomicWriteFile } from '../io/atomicWrite.js';
import { type PresetName, presetNames } from '../rl/presets.js';
import { formatNumber, formatShare, formatTable, toJson, wrap } from './format.js';
import { listOption, pathOption } from './options.js';
import { ProgressWriter } from './progress.js';

interface Flags {
  readonly algorithms?: readonly string[];
  readonly out?: string;
  readonly json?: boolean;
}

/** `isopolicy simulate`: corrections tried on a recorded run. */
export function simulateCommand(): Command {
  return new Command('simulate')
    .summary('try every correction on the recorded log-probs of a run')
    .description(
      'From one recorded run: what each correction would have kept, its effective sample size, and whether it would have ' +
        'frozen the policy, without spending a run.',
    )
    .addArgument(new Argument('<run>', 'the folder of a sanity run'))
    .addOption(
      listOption('--algorithms <names>', 'comma-separated presets (default: all that correct something)'),
    )
    .addOption(pathOption('--out <file>', 'also write the result, step by step, to this JSON file'))
    .option('--json', 'print the result as one JSON object')
    .addHelpText(
      'after',
      '\nExample:\n  $ isopolicy simulate runs/my-run --algorithms grpo-seq-mis,grpo-token-tis',
    )
    .action(simulate);
}

async function simulate(run: string, flags: Flags): Promise<void> {
  const names = flags.algorithms?.map((name) =>
    checkChoice('simulate', 'each algorithm', name as PresetName, presetNames),
  );
  const { simulateCorrections } = await import('../instruments/simulate.js');
  const writer = new ProgressWriter();
  try {
    const summary = await simulateCorrections(run, names, ({ done, steps }) =>
      writer.update({
        phase: 'simulate',
        parts: [{ text: `${done}/${steps} recorded steps`, importance: 1 }],
      }),
    );
    writer.end();
    if (flags.out !== undefined) await atomicWriteFile(flags.out, `${toJson(summary)}\n`);
    process.stdout.write(`${flags.json ? toJson(summary) : simulationReport(summary)}\n`);
  } finally {
    writer.end();
  }
}

/** A row an algorithm, those that freeze the policy named below. */
export function simulationReport({
  run,
  algorithm,
  precision,
  recordedSteps,
  simulations,
}: SimulationSummary): string {
  const right = { align: 'right' } as const;
  const table = formatTable(
    [
      { heading: 'correction' },
      { heading: 'tokens\nthat teach', ...right },
      { heading: 'responses\ndropped', ...right },
      { heading: 'signal\nleft', ...right },
      { heading: 'ESS', ...right },
    ],
    simulations.map((s) => [
      s.algorithm,
      formatShare(s.keptShare),
      formatShare(s.droppedSequences),
      formatShare(s.signalShare),
      Number.isNaN(s.ess) ? '-' : formatNumber(s.ess),
    ]),
  );
  const frozen = simulations.filter(({ frozenAtStep }) => frozenAtStep !== null);
  const warning =
    frozen.length === 0
      ? ['No correction would have frozen the policy.']
      : wrap(
          `POLICY FROZEN: ${frozen
            .map((s) => `${s.algorithm} from step ${s.frozenAtStep! + 1} on`)
            .join(', ')}: less than 5 % of the signal is left.`,
        );
  return [
    `${run}: ${algorithm}, ${precision.training} training, ${precision.rollout} rollout, ${recordedSteps.length} recorded steps`,
    '',
    table,
    '',
    ...warning,
    ...wrap(
      'The samples are those of the recorded run; a run under another correction would soon have sampled others.',
    ),
  ].join('\n');
}
