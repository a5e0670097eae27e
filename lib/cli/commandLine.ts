/** The whole of a command line: its commands, and what their errors are to the caller. */
import { Command, CommanderError } from 'commander';
import { InvalidArgumentError } from '../errors.js';
import { version } from '../version.js';
import { exitCodes } from './exitCodes.js';

/** What makes each command. A command is imported alone: to load them all takes longer than to run most. */
const makers: Readonly<Record<string, () => Promise<Command>>> = {
  sanity: async () => (await import('./sanity.js')).sanityCommand(),
  train: async () => (await import('./train.js')).trainCommand(),
  grid: async () => (await import('./grid.js')).gridCommand(),
  diagnose: async () => (await import('./diagnose.js')).diagnoseCommand(),
  mismatch: async () => (await import('./mismatch.js')).mismatchCommand(),
  ladder: async () => (await import('./ladder.js')).ladderCommand(),
  dial: async () => (await import('./dial.js')).dialCommand(),
  headroom: async () => (await import('./headroom.js')).headroomCommand(),
  report: async () => (await import('./report.js')).reportCommand(),
  simulate: async () => (await import('./simulate.js')).simulateCommand(),
  inject: async () => (await import('./inject.js')).injectCommand(),
  algorithms: async () => (await import('./algorithms.js')).algorithmsCommand(),
  generate: async () => (await import('./generate.js')).generateCommand(),
  convert: async () => (await import('./convert.js')).convertCommand(),
  info: async () => (await import('./info.js')).infoCommand(),
};

/** The program with the command of that name, or with all commands where there is none: their list, or what is nearest. */
async function makeProgram(name: string | undefined): Promise<Command> {
  const program = new Command('isopolicy')
    .description(
      'Measures, explains and removes the training-inference mismatch in reinforcement learning of language models.',
    )
    .version(version, '-V, --version', 'print the version')
    .helpOption('-h, --help', 'print help; also after a command')
    .helpCommand('help [command]', 'print help of a command')
    // All commands have options: without the word the column of descriptions is wide enough.
    .configureHelp({
      subcommandTerm: (command) => `${command.name()} ${command.usage()}`.replace(' [options]', ''),
    })
    .addHelpText(
      'after',
      `
Exit codes:
  ${exitCodes.success}    done; sanity: passed
  ${exitCodes.failure}    failed
  ${exitCodes.usage}    bad usage, or a bad value
  ${exitCodes.notPassed}    sanity: not passed
  ${exitCodes.doesNotFit}    train --dry-run: does not fit into memory
  ${exitCodes.interrupted}  interrupted; what was done is saved
  diagnose: 0 noise floor, 1 suspicious, 2 broken

Results go to stdout, progress to stderr.
With ISOPOLICY_DEBUG=1 errors come with their stacks.

Example:
  $ isopolicy sanity --precision fp16 --seed 1`,
    );

  const made = name !== undefined && Object.hasOwn(makers, name) ? [makers[name]!] : Object.values(makers);
  for (const command of await Promise.all(made.map((make) => make()))) {
    // Inherits what is set above; a command added as an object otherwise doesn't.
    program.addCommand(command.copyInheritedSettings(program));
  }
  for (const command of [program, ...program.commands]) {
    command.exitOverride().configureOutput({ outputError: () => {} });
  }
  return program;
}

/**
 * Runs what process.argv asks for, and sets the exit code.
 *
 * It can be called again: nothing of a command line is left for the next.
 */
export async function runCommandLine(): Promise<void> {
  try {
    const program = await makeProgram(process.argv[2]);
    if (process.argv.length <= 2) {
      process.stderr.write(program.helpInformation());
      process.exitCode = exitCodes.usage;
    } else {
      await program.parseAsync();
    }
  } catch (error) {
    process.exitCode = report(error);
  }
}

/** Writes an error to stderr and returns the exit code that it stands for. */
function report(error: unknown): number {
  if (error instanceof CommanderError) {
    if (error.exitCode === 0) return exitCodes.success;
    // "(Did you mean ...?)" is on a line of its own.
    print(error.message.replace(/^error: /, '').replaceAll('\n', ' '));
    return exitCodes.usage;
  }
  if (process.env.ISOPOLICY_DEBUG === '1' && error instanceof Error && error.stack) {
    print(error.stack);
  } else {
    print(describe(error));
  }
  if (error instanceof InvalidArgumentError) return exitCodes.usage;
  // A command can have said before what a failure is to end with.
  return Number(process.exitCode ?? exitCodes.failure);
}

/** An error in one line. */
export function describe(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  if (error instanceof InvalidArgumentError) return error.message;
  const label = (error as NodeJS.ErrnoException).code ?? error.name;
  return error.message.startsWith(label) ? error.message : `${label}: ${error.message}`;
}

/** Writes a line to stderr, by the name of the command. */
export function print(message: string): void {
  process.stderr.write(`isopolicy: ${message}\n`);
}
