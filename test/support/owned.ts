import assert from 'node:assert/strict';
import { afterEach, beforeEach } from 'node:test';
import { info, memory, setThreads, setVectorLevel } from '../../lib/runtime.js';
import type { Tensor } from '../../lib/tensor/tensor.js';

/**
 * For a test file, once at its top: what goes through the returned function is disposed of after each test, which must
 * leave no other tensor behind; threads and vector level are set back.
 */
export function ownTensors(): <T extends Tensor>(t: T) => T {
  const initial = info();
  let made: Tensor[] = [];
  let before = 0;
  beforeEach(() => {
    before = memory().tensors;
  });
  afterEach(() => {
    for (const t of made) t.dispose();
    made = [];
    setThreads(initial.threads);
    setVectorLevel(initial.vectorLevel);
    assert.equal(memory().tensors, before);
  });
  return (t) => {
    made.push(t);
    return t;
  };
}
