import assert from 'node:assert/strict';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { makeWritableFolder } from '../../lib/io/folder.js';
import { TensorBoardWriter } from '../../lib/io/tensorboard.js';
import { prepareBase } from '../../lib/sanity/base.js';
import { resolveBaseOptions } from '../../lib/sanity/baseConfig.js';

describe('makeWritableFolder', () => {
  let folder: string;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'isopolicy-folder-'));
  });
  afterEach(() => rm(folder, { recursive: true }));

  it('makes the folder and those above it, and leaves nothing else', async () => {
    const path = join(folder, 'a', 'b');
    await makeWritableFolder('run', 'out', path);
    await makeWritableFolder('run', 'out', path);
    assert.deepEqual(await readdir(path), []);
  });

  it('is made by many at once', async () => {
    const path = join(folder, 'a', 'b', 'c', 'd');
    await Promise.all(Array.from({ length: 20 }, () => makeWritableFolder('run', 'out', path)));
    assert.deepEqual(await readdir(path), []);
  });

  it('refuses a file in the way', async () => {
    await writeFile(join(folder, 'file'), '');
    for (const path of [join(folder, 'file'), join(folder, 'file', 'a')]) {
      await assert.rejects(
        makeWritableFolder('run', 'out', path),
        /\[run\] expected out to be a folder, not \(in\) a file \(E/,
      );
    }
  });
});

describe('a folder that the system does not let be made', { skip: process.platform !== 'linux' }, () => {
  // In /proc mkdir answers ENOENT, on which Node's own recursive one turns for ever.
  const impossible = '/proc/isopolicy/a';

  it('ends the making of a base before the teaching', { timeout: 10_000 }, async () => {
    const config = resolveBaseOptions('test', { task: 'sort:2:4', hiddenSize: 32, numLayers: 1 });
    const report = () => assert.fail('taught');
    await assert.rejects(
      prepareBase(config, { directory: impossible, report }),
      /\[base\] expected base to be a folder that can be written \(ENOENT\)/,
    );
  });

  it('ends the opening of event files', { timeout: 10_000 }, () =>
    assert.rejects(TensorBoardWriter.open(impossible), { code: 'ENOENT' }),
  );
});
