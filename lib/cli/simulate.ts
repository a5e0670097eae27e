import { Argument, Command } from 'commander';
import { InvalidArgumentError } from '../errors.js';
import type { SimulateConfig, SimulateOptions, SimulationSummary } from '../instruments/simulate.js';
import type { AlgorithmParameters } from '../rl/algorithms.js';
import { exitCodes } from './exitCodes.js';
import { directoryOptions, type ExperimentFlags, runExperiment } from './experiment.js';
import { count, formatNumber, formatShare, formatTable, quoted, wrap } from './format.js';
import { listOption, parameterOption } from './options.js';

interface Flags extends ExperimentFlags {
  readonly algorithms?: readonly string[];
  readonly set?: AlgorithmParameters;
}

/** `isopolicy simulate`: corrections tried on a recorded run. */
export function simulateCommand(): Command {
  const command = new Command('simulate')
    .summary('try every correction on the recorded log-probs of a run')
    .description(
      'From one recorded run: what each correction would have kept, its effective sample size, and whether it would have ' +
        'frozen the policy, without spending a run.',
    )
    .addArgument(new Argument('[run]', 'the folder of a sanity run'))
    .addOption(
      listOption('--algorithms <names>', 'comma-separated presets (default: all that correct something)'),
    )
    .addOption(
      parameterOption('--set <name=value>', 'a parameter of each algorithm, as JSON; may be repeated'),
    );
  directoryOptions(command).addHelpText(
    'after',
    `
Example:
  $ isopolicy simulate runs/my-run --algorithms grpo-seq-mis,grpo-token-tis
  $ isopolicy simulate runs/my-run --algorithms dr-grpo --set vetoBelow=1e-4`,
  );
  return command.action((run: string | undefined, flags: Flags) => simulate(run, flags, command));
}

async function simulate(run: string | undefined, flags: Flags, command: Command): Promise<void> {
  if (run === undefined && flags.resume === undefined) {
    throw new InvalidArgumentError('[simulate] expected <run>, the folder of a sanity run, got none');
  }
  if (run !== undefined && flags.resume !== undefined) {
    throw new InvalidArgumentError(
      `[simulate] expected no <run> beside --resume, which goes on with the run as it was configured, got ${JSON.stringify(run)}`,
    );
  }
  const options: SimulateOptions = {
    // With --resume, those of the folder are taken instead.
    run: run ?? '',
    ...(flags.algorithms && { algorithms: flags.algorithms }),
    ...(flags.set && { algorithmParameters: flags.set }),
  };
  await runExperiment<SimulateOptions, SimulateConfig, SimulationSummary>(command, flags, {
    options,
    native: false,
    resolve: async (given) => (await import('../instruments/simulate.js')).resolveSimulateOptions(given),
    name: () => 'simulate',
    run: async (config, { directory, signal, progress }) => {
      const { simulateCorrections } = await import('../instruments/simulate.js');
      return simulateCorrections(config, {
        directory,
        signal,
        report: ({ done, steps }) =>
          progress({
            phase: 'simulate',
            parts: [{ text: `${done}/${steps} recorded steps`, importance: 1 }],
          }),
      });
    },
    text: (summary, _config, path) => simulationReport(summary, path),
    exitCode: ({ interrupted }) => (interrupted ? exitCodes.interrupted : exitCodes.success),
  });
}

/** A row an algorithm, those that freeze the policy named below. */
export function simulationReport(summary: SimulationSummary, directory: string): string {
  if (summary.interrupted)
    return `INTERRUPTED  resume with: isopolicy simulate --resume ${quoted(directory)}`;
  const { run, algorithm, precision, recordedSteps, simulations } = summary;
  const right = { align: 'right' } as const;
  const table = formatTable(
    [
      { heading: 'correction' },
      { heading: 'tokens\nthat teach', ...right },
      { heading: 'responses\ndropped', ...right },
      { heading: 'signal\nleft', ...right },
      { heading: 'ESS of\nweights', ...right },
      { heading: 'ESS\nleft', ...right },
    ],
    simulations.map((s) => [
      s.algorithm,
      formatShare(s.keptShare),
      formatShare(s.droppedSequences),
      Number.isNaN(s.signalShare) ? '-' : formatShare(s.signalShare),
      ...[s.ess, s.essLeft ?? Number.NaN].map((ess) => (Number.isNaN(ess) ? '-' : formatNumber(ess))),
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
    ...wrap(
      `${algorithm}, ${precision.training} training, ${precision.rollout} rollout, ${count(recordedSteps.length, 'recorded step')}`,
    ),
    `recorded run: ${run}`,
    '',
    table,
    '',
    ...wrap(
      'Shares, means over the recorded steps. Tokens that teach: kept, with a weight above 0, in a group with an advantage. ' +
        'Signal left: what is left of the sum of |advantage| over tokens without any correction. ESS: effective sample size of ' +
        'the weights before any bound; 1 where all are equal.',
    ),
    '',
    ...warning,
    ...wrap(
      'The samples are those of the recorded run; a run under another correction would soon have sampled others.',
    ),
    '',
    `run directory: ${directory}`,
  ].join('\n');
}
