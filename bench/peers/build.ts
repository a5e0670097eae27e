/** Compiles the C++ drivers that are missing or older than their source. */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { type PeerProgram, sourceFolder } from './list.js';

/** Below build/, which git leaves out and a build of the addon leaves alone. */
const outFolder = path.resolve(sourceFolder, '../../build/peers');

/**
 * The command line that starts the driver.
 *
 * @throws Error with the compiler's first complaint
 */
export function startCommand(program: PeerProgram): readonly string[] {
  if (!program.source) return program.command;
  const { file, link } = program.source;
  const source = path.join(sourceFolder, file);
  const binary = path.join(outFolder, path.basename(file, '.cc'));
  const newest = Math.max(
    ...[source, path.join(sourceFolder, 'driver.h')].map((f) => fs.statSync(f).mtimeMs),
  );
  const built = fs.statSync(binary, { throwIfNoEntry: false })?.mtimeMs ?? 0;
  if (built < newest) {
    fs.mkdirSync(outFolder, { recursive: true });
    const compiler = process.env.CXX ?? 'g++';
    const args = ['-O2', '-march=native', '-std=c++20', source, '-o', binary, ...link];
    const { status, stderr, error } = spawnSync(compiler, args, { encoding: 'utf8' });
    if (error || status !== 0) {
      const complaint = stderr?.split('\n').find((line) => line.includes('error')) ?? error?.message;
      throw new Error(`${compiler} cannot build ${file}: ${complaint ?? `status ${status}`}`);
    }
  }
  return [binary, ...program.command];
}
