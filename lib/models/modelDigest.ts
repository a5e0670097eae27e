import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { extname, join } from 'node:path';

/** Config, tokenizer, templates and weights. */
const MODEL_FILES = ['.json', '.jinja', '.safetensors'];
/** Of a training checkpoint, which is a model's folder, too. */
const STATE_FILES = ['optimizer.safetensors', 'training.json', 'trainer.json', 'score.json'];

/** A digest of a model's folder: the names and bytes of all files that bear on what the model says. */
export async function digestModel(dir: string): Promise<string> {
  const hash = createHash('sha256');
  const names = (await readdir(dir)).filter(
    (name) => MODEL_FILES.includes(extname(name)) && !STATE_FILES.includes(name),
  );
  for (const name of names.sort()) {
    hash.update(`${name}\n`);
    for await (const chunk of createReadStream(join(dir, name), { highWaterMark: 1 << 20 })) {
      hash.update(chunk as Buffer);
    }
  }
  return digestText(hash.digest('hex'));
}

/** How digests are written. */
export function digestText(hex: string): string {
  return `sha256-${hex.slice(0, 32)}`;
}
