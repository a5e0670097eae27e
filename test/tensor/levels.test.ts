import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { it } from 'node:test';
import { vectorLevels } from '../support/levels.js';

const runtime = new URL('../../lib/runtime.js', import.meta.url).href;

function levelWith(environment: string): { stdout: string; stderr: string; status: number | null } {
  const script = `console.log((await import('${runtime}')).info().vectorLevel)`;
  return spawnSync(process.execPath, ['--input-type=module', '-e', script], {
    encoding: 'utf8',
    env: { ...process.env, ISOPOLICY_VECTOR_LEVEL: environment },
  });
}

it('ISOPOLICY_VECTOR_LEVEL forces each level that the processor has', () => {
  for (const level of vectorLevels()) assert.equal(levelWith(level).stdout, `${level}\n`);
  assert.equal(levelWith('').stdout, `${vectorLevels().at(-1)}\n`);
});

it('a level that does not exist is refused when the addon is loaded', () => {
  const { status, stderr } = levelWith('avx1024');
  assert.equal(status, 1);
  assert.match(
    stderr,
    /\[vectorLevel\] expected one of portable, avx2, avx512, avx512bf16, amx, got "avx1024"/,
  );
});
