import assert from 'node:assert/strict';
import { readdir } from 'node:fs/promises';
import { afterEach, describe, it } from 'node:test';
import { readFully } from '../../lib/io/regularFile.js';
import { scratchFile } from '../../lib/io/scratchFile.js';
import { refuses } from '../data/fixtures.js';
import { temporaryFolder } from '../text/fixtures.js';

const NAMES = ['TMPDIR', 'TEMP', 'TMP'] as const;
const before = NAMES.map((name) => process.env[name]);

function useFolder(folder: string): void {
  for (const name of NAMES) process.env[name] = folder;
}

async function* pieces(count: number): AsyncGenerator<Buffer> {
  for (let i = 0; i < count; i++) yield Buffer.alloc(i, i);
}

describe('scratchFile', () => {
  afterEach(() => {
    for (const [i, name] of NAMES.entries()) {
      if (before[i] === undefined) delete process.env[name];
      else process.env[name] = before[i];
    }
  });

  it('holds what was written, and leaves nothing in the folder', async () => {
    const folder = await temporaryFolder();
    useFolder(folder);
    const opened = await scratchFile('test', 'pieces', pieces(200));
    try {
      assert.equal(opened.size, (199 * 200) / 2);
      const bytes = new Uint8Array(opened.size);
      await readFully('test', opened, bytes, 0);
      for (let i = 0, at = 0; i < 200; at += i++) {
        assert.ok(bytes.subarray(at, at + i).every((value) => value === i));
      }
      if (process.platform !== 'win32') assert.deepEqual(await readdir(folder), []);
    } finally {
      await opened.file.close();
    }
    assert.deepEqual(await readdir(folder), []);
  });

  it('leaves nothing where the source fails', async () => {
    const folder = await temporaryFolder();
    useFolder(folder);
    async function* failing() {
      yield Buffer.from('a');
      throw new Error('broken');
    }
    await assert.rejects(scratchFile('test', 'pieces', failing()), /broken/);
    assert.deepEqual(await readdir(folder), []);
  });

  it('says that there is no room, and where', async () => {
    useFolder('/nowhere at all');
    await assert.rejects(
      scratchFile('test', 'a.gz unpacked', pieces(2)),
      refuses(
        /^\[test\] expected room for a\.gz unpacked in \/nowhere at all, got "ENOENT after 0 bytes \(TMPDIR/,
      ),
    );
  });
});
