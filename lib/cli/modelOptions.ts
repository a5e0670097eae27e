/** The options of a checkpoint and a data set, which commands on real models share. */
import type { Command } from 'commander';
import { promptTemplates } from '../data/promptTemplates.js';
import { type ModelSourceOptions, modelSourceKeys } from '../rl/modelSource.js';
import { overlongPromptModes } from '../rl/overlongPrompts.js';
import type { ProblemSet } from '../rl/problemSet.js';
import { resolveVerifierSpec, verifierNames } from '../rl/verifier.js';
import { count } from './format.js';
import { checkedOption, choiceOption, integerOption, pathOption } from './options.js';

export type ModelFlags = Partial<ModelSourceOptions>;

/** Adds --model and --data with all that they take. */
export function modelOptions(command: Command): Command {
  return command
    .addOption(pathOption('--model <dir>', 'a checkpoint in the layout of Hugging Face'))
    .addOption(
      pathOption('--data <path>', 'its problems: a JSONL, Parquet or Arrow file, or a folder of them'),
    )
    .option('--split <name>', 'part of a folder of data, such as train')
    .option('--prompt-column <name>', 'default: problem, question or prompt')
    .option('--answer-column <name>', 'default: answer or reward_model.ground_truth')
    .option('--id-column <name>', 'default: problems are called by their place')
    .addOption(integerOption('--count <n>', 'take as many problems, drawn by --data-seed (default: all)', 1))
    .addOption(integerOption('--data-seed <n>', 'seed of that draw (default: 0)', 0))
    .addOption(choiceOption('--template <name>', 'prompt template', [...promptTemplates.keys()], 'chat-math'))
    .addOption(
      checkedOption(
        '--verifier <name|file>',
        `${verifierNames.join(', ')}, or a .ts or .js file (default: math)`,
        (text) => resolveVerifierSpec('cli', text),
      ),
    )
    .addOption(integerOption('--max-prompt-length <n>', 'most tokens of a prompt (default: 1024)', 1))
    .addOption(
      choiceOption(
        '--overlong-prompts <mode>',
        'what becomes of problems with longer prompts',
        overlongPromptModes,
        'error',
      ),
    )
    .addOption(integerOption('--response-length <n>', 'most new tokens of a response (default: 1024)', 1));
}

/** Says on stderr how many problems are not there because their prompts are too long, if any. */
export function noteLeftOut({ leftOut, problems }: ProblemSet, data: string | undefined): void {
  if (leftOut === 0) return;
  const all = problems.length + leftOut;
  process.stderr.write(
    `isopolicy: left out ${leftOut} of ${count(all, 'problem')} in ${data}, whose prompts are too long\n`,
  );
}

/** The options of a source among flags, those that were given. */
export function modelOptionsOf(flags: ModelFlags): ModelFlags {
  return Object.fromEntries(
    modelSourceKeys.filter((key) => flags[key] !== undefined).map((key) => [key, flags[key]]),
  );
}
