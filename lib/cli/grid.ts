import { Command } from 'commander';
import { invalid } from '../errors.js';
import type { CommonOptions, GridConfig, GridOptions } from '../grid/config.js';
import type { GridSummary } from '../grid/summary.js';
import { version } from '../version.js';
import { type BaseFlags, baseOptions, baseOptionsOf } from './baseOptions.js';
import { exitCodes } from './exitCodes.js';
import { type ExperimentFlags, experimentOptions, runExperiment } from './experiment.js';
import { GridProgress } from './gridProgress.js';
import { gridReport } from './gridReport.js';
import { integerOption, listOption, pathOption } from './options.js';
import { type TrainingFlags, trainingOptions, trainingOptionsOf } from './trainingOptions.js';

interface Flags extends TrainingFlags, Omit<BaseFlags, 'baseSeed'>, ExperimentFlags {
  readonly algorithms?: readonly string[];
  readonly precisions?: readonly string[];
  readonly seeds?: readonly string[];
  readonly jobs?: number;
  readonly bases?: string;
  readonly tensorboard?: string;
}

/** What may stand beside --resume: it adds to the grid, or does not change results. */
const ALSO_BESIDE_RESUME = ['algorithms', 'precisions', 'seeds', 'steps', 'jobs', 'bases', 'tensorboard'];

/** `isopolicy grid`: figures 1, 3, 4 and 5 of arXiv 2510.26788. */
export function gridCommand(): Command {
  const command = new Command('grid')
    .summary('run algorithms against precisions, several seeds each')
    .description(
      'Run the sanity test for every algorithm in every pair of precisions with every seed, several runs at once. ' +
        'Runs that were stopped go on with --resume; algorithms, precisions, seeds and steps given beside it are added.',
    )
    .addOption(listOption('--algorithms <names>', 'comma-separated (default: pg-seq-is)'))
    .addOption(
      listOption(
        '--precisions <pairs>',
        'comma-separated training:rollout, or one precision for both (default: fp16,bf16)',
      ),
    )
    .addOption(listOption('--seeds <list>', 'comma-separated (default: 1,2,3)'))
    .addOption(integerOption('--jobs <n>', 'runs at once (default: half of the processors)', 1, 4096))
    .addOption(
      pathOption('--bases <dir>', 'a folder that keeps the bases, for several grids (default: in the grid)'),
    )
    .option('--stop-when-passed', 'end each run as soon as it has passed')
    .addOption(
      pathOption('--tensorboard <dir>', 'also write TensorBoard event files here, a folder for each run'),
    );
  experimentOptions(baseOptions(trainingOptions(command))).addHelpText(
    'after',
    `
The first Ctrl-C lets every run finish its step and save, the second stops at
once.

Exit codes: ${exitCodes.success} all runs done, ${exitCodes.failure} a run failed, ${exitCodes.usage} bad usage, ${
      exitCodes.interrupted
    } interrupted.

Examples:
  $ isopolicy grid --algorithms grpo,pg-seq-is --precisions fp16,bf16,bf16:fp32
  $ isopolicy grid --resume runs/my-grid --seeds 4,5 --jobs 4`,
  );
  return command.action((flags: Flags) => grid(flags, command));
}

async function grid(flags: Flags, command: Command): Promise<void> {
  const progress = new GridProgress();
  const options = gridOptions(flags);
  await runExperiment<GridOptions | GridConfig, GridConfig, GridSummary>(
    command,
    flags,
    {
      options,
      resolve: async (given) => {
        const { cellConfig, extendGrid, resolveGridOptions } = await import('../grid/config.js');
        const { configuredAlgorithm } = await import('../sanity/run.js');
        const config = 'cells' in given ? extendGrid(given, options) : resolveGridOptions(given);
        for (const cell of config.cells) await configuredAlgorithm(cellConfig(config, cell));
        return config;
      },
      folders: { '--bases': flags.bases, '--tensorboard': flags.tensorboard },
      name: (config) => `grid-${config.common.task ?? 'sort:16:10'}`,
      run: async (config, { directory, signal, progress: show }) => {
        const { runGrid } = await import('../grid/run.js');
        await directory.replaceConfig({ ...directory.config, config });
        return runGrid(config, {
          directory,
          version,
          signal,
          ...(flags.jobs !== undefined && { jobs: flags.jobs }),
          ...(flags.threads !== undefined && { threads: flags.threads }),
          ...(flags.bases !== undefined && { bases: flags.bases }),
          ...(flags.tensorboard !== undefined && { tensorboard: flags.tensorboard }),
          report: (event) => show(progress.line(event)),
        });
      },
      text: gridReport,
      exitCode: ({ interrupted, failed }) =>
        interrupted ? exitCodes.interrupted : failed > 0 ? exitCodes.failure : exitCodes.success,
    },
    ALSO_BESIDE_RESUME,
  );
}

function gridOptions(flags: Flags): GridOptions {
  const { algorithms, precisions, seeds } = flags;
  const common: CommonOptions = {
    ...(flags.resume === undefined && { stopWhenPassed: flags.stopWhenPassed ?? false }),
    ...trainingOptionsOf(flags),
    ...baseOptionsOf(flags),
  };
  return {
    ...(algorithms && { algorithms }),
    ...(precisions && { precisions }),
    ...(seeds && { seeds: seeds.map(seedOf) }),
    common,
  };
}

function seedOf(text: string): number {
  return /^\d+$/.test(text) ? Number(text) : invalid('cli', '--seeds to be whole numbers', text);
}
