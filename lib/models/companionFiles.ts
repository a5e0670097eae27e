/** The small files beside a model's weights that every copy of it needs, and that its licence asks for. */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { atomicWriteFile } from '../io/atomicWrite.js';
import { openRegularFile, readFully } from '../io/regularFile.js';

const COMPANION = new RegExp(
  `^(${[
    '(tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab|chat_template|generation_config)\\.json',
    '(vocab|merges)\\.txt',
    '.+\\.(tiktoken|model)',
    'chat_template\\.jinja',
    // Of models that have parts besides a decoder, or code of their own.
    '(preprocessor|processor|image_processor|video_preprocessor)_config\\.json',
    '.+\\.py',
    '(LICENSE|LICENCE|NOTICE|USE_POLICY|README)(\\.(txt|md))?',
  ].join('|')})$`,
);

/** By name; a model that is trained keeps them in memory, since its folder may be gone when a checkpoint is saved. */
export type CompanionFiles = ReadonlyMap<string, Uint8Array>;

/** Whether a file of a model's folder comes along with the model, beside config.json and weights. */
export function isCompanionFile(name: string): boolean {
  return COMPANION.test(name);
}

/**
 * Reads the files of a model's folder that every copy of the model needs beside config and weights: tokenizer, chat
 * template, generation_config.json, licence.
 *
 * @throws InvalidArgumentError naming a file that cannot be read or is a Git LFS pointer
 */
export async function readCompanionFiles(dir: string): Promise<CompanionFiles> {
  const files = new Map<string, Uint8Array>();
  for (const name of (await readdir(dir)).sort()) {
    if (!isCompanionFile(name)) continue;
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
