#!/usr/bin/env node
/**
 * The `isopolicy` command: results on stdout, logs and progress on stderr.
 *
 * Commands import the engines only when they run, so that help and version need no addon.
 */
import { describe, print, runCommandLine } from './commandLine.js';
import { exitCodes } from './exitCodes.js';

process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit();
  print(describe(error));
  process.exit(process.exitCode || exitCodes.failure);
});
// Progress that nobody reads doesn't end the work.
process.stderr.on('error', () => {});

await runCommandLine();
