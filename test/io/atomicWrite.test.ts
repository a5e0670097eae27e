import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { atomicWrite, atomicWriteFile, syncFolder } from '../../lib/io/atomicWrite.js';

describe('atomicWriteFile', () => {
  let folder: string;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'isopolicy-atomic-'));
  });
  afterEach(() => rm(folder, { recursive: true }));

  it('writes text and bytes, and replaces what was there', async () => {
    const path = join(folder, 'file');
    await atomicWriteFile(path, 'größer, and longer than what follows');
    assert.equal(await readFile(path, 'utf8'), 'größer, and longer than what follows');
    // A view in the middle of its buffer: only the view's bytes may be written.
    const bytes = new Uint8Array([9, 9, 0, 255, 10, 9]).subarray(2, 5);
    await atomicWriteFile(path, bytes);
    assert.deepEqual([...(await readFile(path))], [0, 255, 10]);
    assert.deepEqual(await readdir(folder), ['file']);
  });

  it('keeps the old file and removes the temporary one when writing fails', async () => {
    const path = join(folder, 'file');
    await writeFile(path, 'old');
    const failure = new Error('no more');
    let during: string[] = [];
    await assert.rejects(
      atomicWrite(path, async (file) => {
        await file.writeFile('half of the new');
        during = await readdir(folder);
        assert.equal(await readFile(path, 'utf8'), 'old', 'not visible before it is whole');
        throw failure;
      }),
      failure,
    );
    assert.equal(during.length, 2, 'written beside its place');
    assert.equal(await readFile(path, 'utf8'), 'old');
    assert.deepEqual(await readdir(folder), ['file']);
  });

  it('removes the temporary file when it cannot take the place', async () => {
    const path = join(folder, 'taken');
    await mkdir(path);
    await assert.rejects(atomicWriteFile(path, 'text'), { code: 'EISDIR' });
    assert.deepEqual(await readdir(folder), ['taken']);
  });

  it('refuses a device or a pipe, also behind a link, and leaves it', async (t) => {
    const path = join(folder, 'pipe');
    if (spawnSync('mkfifo', [path]).status !== 0) return t.skip('no mkfifo here');
    const link = join(folder, 'link');
    await symlink(path, link);
    for (const target of [path, link]) {
      await assert.rejects(
        atomicWriteFile(target, 'text'),
        /\[write\] expected a file, not a device or a pipe/,
      );
    }
    assert.ok((await stat(path)).isFIFO());
    assert.deepEqual((await readdir(folder)).sort(), ['link', 'pipe']);
  });

  it('reports a missing folder, and leaves nothing', async () => {
    await assert.rejects(atomicWriteFile(join(folder, 'missing', 'file'), 'text'), { code: 'ENOENT' });
    assert.deepEqual(await readdir(folder), []);
    await assert.rejects(syncFolder(join(folder, 'missing')), { code: 'ENOENT' });
  });

  it('admits a name of the greatest length', async () => {
    const name = 'n'.repeat(255);
    await atomicWriteFile(join(folder, name), 'text');
    assert.deepEqual(await readdir(folder), [name]);
  });

  it('replaces a symbolic link and leaves its target alone', async () => {
    await writeFile(join(folder, 'target'), 'target');
    await symlink('target', join(folder, 'link'));
    await atomicWriteFile(join(folder, 'link'), 'new');
    assert.equal(await readFile(join(folder, 'target'), 'utf8'), 'target');
    assert.equal(await readFile(join(folder, 'link'), 'utf8'), 'new');
  });

  it('leaves one whole file when several write at once', async () => {
    const path = join(folder, 'file');
    const texts = Array.from({ length: 8 }, (_, i) => String(i).repeat(100_000));
    await Promise.all(texts.map((text) => atomicWriteFile(path, text)));
    assert.ok(texts.includes(await readFile(path, 'utf8')));
    assert.deepEqual(await readdir(folder), ['file']);
  });
});
