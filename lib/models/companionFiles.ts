/** The small files beside a model's weights that text in, text out needs, and that its licence asks for. */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { atomicWriteFile } from '../io/atomicWrite.js';
import { openRegularFile, readFully } from '../io/regularFile.js';

const COMPANION =
  /^((tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab|chat_template|generation_config)\.json|(vocab|merges)\.txt|(tokenizer|spiece)\.model|chat_template\.jinja|(LICENSE|LICENCE|NOTICE)(\.(txt|md))?)$/;

/** By name; a model that is trained keeps them in memory, since its folder may be gone when a checkpoint is saved. */
export type CompanionFiles = ReadonlyMap<string, Uint8Array>;

/**
 * Reads the files of a model's folder that every copy of the model needs beside config and weights: tokenizer, chat
 * template, generation_config.json, licence.
 *
 * @throws InvalidArgumentError naming a file that cannot be read or is a Git LFS pointer
 */
export async function readCompanionFiles(dir: string): Promise<CompanionFiles> {
  const files = new Map<string, Uint8Array>();
  for (const name of (await readdir(dir)).sort()) {
    if (!COMPANION.test(name)) continue;
    const opened = await openRegularFile('companionFiles', join(dir, name));
    try {
      const bytes = new Uint8Array(opened.size);
      await readFully('companionFiles', opened, bytes, 0);
      files.set(name, bytes);
    } finally {
      await opened.file.close();
    }
  }
  return files;
}

/** Writes them into another folder. */
export async function writeCompanionFiles(dir: string, files: CompanionFiles): Promise<void> {
  for (const [name, bytes] of files) await atomicWriteFile(join(dir, name), bytes);
}
