import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { pathToFileURL } from 'node:url';

const runtime = path.resolve(import.meta.dirname, '../../lib/runtime.js');
const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'isopolicy-loader-'));
after(() => fs.rmSync(folder, { recursive: true }));

/** Imports the package in a fresh process with that addon; prints the error, or what `info` says. */
function load(addon: string): Record<string, unknown> {
  const script = `
    try {
      const { info } = await import(${JSON.stringify(pathToFileURL(runtime).href)});
      console.log(JSON.stringify(info()));
    } catch (error) {
      console.log(JSON.stringify({ name: error.name, code: error.code, message: error.message, cause: !!error.cause }));
    }`;
  const { stdout, stderr, status } = spawnSync(process.execPath, ['--input-type=module', '-e', script], {
    encoding: 'utf8',
    env: { ...process.env, ISOPOLICY_ADDON: addon },
  });
  assert.equal(status, 0, stderr);
  return JSON.parse(stdout);
}

function assertSaysWhatToDo(error: Record<string, unknown>, reason: RegExp): void {
  assert.equal(error.name, 'InternalError');
  assert.equal(error.code, 'ERR_INTERNAL');
  assert.equal(error.cause, true);
  const message = String(error.message);
  assert.match(message, /^the native addon could not be loaded: /);
  assert.match(message.split('\n')[0]!, reason, 'the first line says why');
  assert.match(message, /npm rebuild isopolicy/);
  assert.match(message, /npm run build:native/);
  assert.match(message, /C\+\+20 compiler, make and Python 3/);
  assert.match(message, /npm install-scripts approve isopolicy/);
}

test('a missing addon says what to run', () => {
  assertSaysWhatToDo(load(path.join(folder, 'missing.node')), /missing\.node: .*No such file/);
});

test('a file that is no addon says what to run', () => {
  const file = path.join(folder, 'garbage.node');
  fs.writeFileSync(file, 'not a shared library, but long enough to hold the header of one: '.repeat(10));
  assertSaysWhatToDo(load(file), /garbage\.node: /);
});

test('a truncated addon says what to run', () => {
  const file = path.join(folder, 'short.node');
  fs.writeFileSync(file, '\x7fELF');
  assertSaysWhatToDo(load(file), /short\.node: /);
});

test('without the variable, or with a good addon, info describes the build', () => {
  const info = load(process.env.ISOPOLICY_ADDON ?? '');
  assert.equal(info.name, undefined, String(info.message));
  assert.ok(Array.isArray(info.cudaDevices));
  if (info.cudaCompiled === false) {
    assert.equal(info.cudaProblem, 'built without CUDA');
    assert.equal(info.cudaDevices.length, 0);
  } else if (info.cudaDevices.length === 0) {
    assert.match(String(info.cudaProblem), /^no usable GPU: .+/);
  } else {
    assert.equal(info.cudaProblem, '');
  }
});
