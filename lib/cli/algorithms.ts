import { Command } from 'commander';
import { presetNames, presets } from '../rl/presets.js';
import { formatTable, toJson } from './format.js';

/** `isopolicy algorithms`: the presets, what each is, and with --json their exact settings. */
export function algorithmsCommand(): Command {
  return new Command('algorithms')
    .summary('list the algorithms and their settings')
    .description(
      'List the presets of --algorithm. A bare name has the settings of the paper authors\u2019 scripts, paper: those of the ' +
        'text, oat: the scripts under their own names, verl: its rollout-correction presets.',
    )
    .option('--json', 'print every setting as one JSON object')
    .action(({ json }: { json?: boolean }) => {
      const text = json
        ? toJson(presets)
        : formatTable(
            [{ heading: 'algorithm' }, { heading: 'what it is' }],
            presetNames.map((name) => [name, presets[name].about]),
          );
      process.stdout.write(`${text}\n`);
    });
}
