/** Compiled files whose source is gone: tsc leaves them behind, and the test runner would go on running them. */
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');

/** Paths below `folder` (relative to the root, `/` between), sorted; none where the folder does not exist. */
export function listFiles(folder) {
  const at = path.join(root, folder);
  if (!fs.existsSync(at)) return [];
  return fs
    .readdirSync(at, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => path.relative(root, path.join(entry.parentPath, entry.name)).split(path.sep).join('/'))
    .sort();
}

/** What tsc keeps of its last run, to compile no more than what changed. */
const buildInfo = 'dist/tsconfig.tsbuildinfo';

/** Deletes what tsc compiled from sources that no longer exist; returns the JavaScript files among it. */
export function removeStale() {
  const stale = listFiles('dist').filter((file) => {
    if (file === buildInfo) return false;
    const source = file.replace(/^dist\//, '').replace(/(\.d\.ts|\.js)(\.map)?$/, '.ts');
    return !fs.existsSync(path.join(root, source));
  });
  for (const file of stale) fs.rmSync(path.join(root, file));
  // Else a source that comes back as it was would count as compiled.
  if (stale.length > 0) fs.rmSync(path.join(root, buildInfo), { force: true });
  return stale.filter((file) => file.endsWith('.js'));
}
