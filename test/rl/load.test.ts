import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, describe, it } from 'node:test';
import { InvalidArgumentError } from '../../lib/errors.js';
import { createAlgorithm } from '../../lib/rl/algorithms.js';
import { loadAlgorithm, resolveAlgorithmSpec } from '../../lib/rl/load.js';
import { toBatch, token } from './batches.js';

const folder = mkdtempSync(path.join(tmpdir(), 'isopolicy-algorithm-'));
after(() => rmSync(folder, { recursive: true }));

function file(name: string, text: string): string {
  const target = path.join(folder, name);
  mkdirSync(path.dirname(target), { recursive: true });
  writeFileSync(target, text);
  return target;
}

const batch = toBatch([{ tokens: [token(-1, -1, -2)], advantage: 3 }]);

describe('loadAlgorithm', () => {
  it('makes presets', async () => {
    const { gradient } = (await loadAlgorithm('pg-seq-tis', { aggregation: 'token-sum' })).loss(batch);
    assert.deepEqual(
      gradient,
      createAlgorithm('pg-seq-tis', { aggregation: 'token-sum' }).loss(batch).gradient,
    );
    await assert.rejects(loadAlgorithm('pg-seq-ti'), /did you mean pg-seq-tis\?/);
  });

  it('loads TypeScript with imports of its own and of isopolicy, from any folder', async () => {
    file(
      'lib/half.ts',
      `export interface Half { value: number }
       export const half: Half = { value: 0.5 };`,
    );
    const spec = file(
      'typed.ts',
      `import { type Algorithm, groupAdvantages } from 'isopolicy';
       import { half, type Half } from './lib/half.ts';
       const factor = (h: Half): number => h.value;
       export default {
         name: 'typed',
         needsOldLogprobs: false,
         advantages: (rewards, groupSize) => groupAdvantages(rewards, groupSize),
         loss: ({ logprobs }) => ({ loss: factor(half), gradient: logprobs.map(() => 1 as number), metrics: {} }),
       } satisfies Algorithm;`,
    );
    const algorithm = await loadAlgorithm(spec);
    assert.equal(algorithm.name, 'typed');
    assert.equal(algorithm.loss(batch).loss, 0.5);
    assert.deepEqual([...algorithm.advantages(Float64Array.of(1, 0), 2)], [0.5, -0.5]);
  });

  it('loads JavaScript, and gives a function the parameters', async () => {
    const spec = file(
      'made.mjs',
      `export default ({ constantLength }) => ({
         name: 'made', needsOldLogprobs: true, advantages: (r) => r,
         loss: () => ({ loss: constantLength, gradient: new Float64Array(1), metrics: {} }),
       });`,
    );
    const algorithm = await loadAlgorithm(spec, { constantLength: 7 });
    assert.equal(algorithm.loss(batch).loss, 7);
  });

  it('refuses parameters that an export without parameters would ignore; defaults are no such', async () => {
    const text = `export default { name: 'x', needsOldLogprobs: false, advantages() {}, loss() {} };`;
    const spec = file('plain.mjs', text);
    assert.equal((await loadAlgorithm(spec, {}, { constantLength: 7 })).name, 'x');
    await assert.rejects(
      loadAlgorithm(spec, { clipLow: 0.1 }, { constantLength: 7 }),
      /no parameters for .*plain\.mjs, whose default export is no function of them, got clipLow/,
    );
    const { gradient } = (
      await loadAlgorithm('reinforce', { aggregation: 'token-sum' }, { aggregation: 'token-mean' })
    ).loss(toBatch([{ tokens: [token(-1, -1, -1), token(-1, -1, -1)], advantage: 1 }]));
    assert.deepEqual([...gradient], [-1, -1], 'what was asked for stands above the defaults');
  });

  it('passes on what composeAlgorithm finds wrong', async () => {
    const spec = file(
      'composed.ts',
      `import { composeAlgorithm, type AlgorithmConfig } from 'isopolicy';
       export default (p: Partial<AlgorithmConfig>) => composeAlgorithm('mine', { loss: 'ppo-clip', ...p });`,
    );
    assert.equal((await loadAlgorithm(spec, { clipHigh: 0.3 })).name, 'mine');
    await assert.rejects(
      loadAlgorithm(spec, { clipHigh: -3 }),
      /^InvalidArgumentError: \[mine\] expected clipHigh/,
    );
  });

  it('says in a line what is wrong with a file', async () => {
    const shape = `name: 'x', needsOldLogprobs: false, advantages() {}`;
    for (const [name, text, message] of [
      ['syntax.ts', '\nexport default { a( };', /expected .*syntax\.ts to run, got syntax\.ts:2: /],
      ['syntax.mjs', '\n\nexport default { a( };', /to run, got syntax\.mjs:3: /],
      [
        'factory.mjs',
        'export default () => { throw new Error("no\\nway"); };',
        /the default export of .*factory\.mjs to return an algorithm, got no$/,
      ],
      ['promise.mjs', 'export default async () => 3;', /to be an algorithm, or a function that .*got 3/],
      ['throws.mjs', 'throw new Error("at once")', /to run, got at once$/],
      ['enum.ts', 'enum A { B }\nexport default {}', /enum\.ts to run, got .*enum/i],
      ['none.mjs', 'export const a = 1;', /to have a default export, got none/],
      ['number.mjs', 'export default 3;', /to be an algorithm, or a function that returns one, got 3/],
      ['part.mjs', `export default { ${shape} };`, /loss of .*part\.mjs to be a function, got undefined/],
      ['name.mjs', 'export default { name: 1 };', /name of .*name\.mjs to be a string, got 1/],
      [
        'prepare.mjs',
        `export default { ${shape}, loss() {}, prepare: 1 };`,
        /prepare of .* to be a function/,
      ],
      ['needs.mjs', `import 'nowhere-to-be-found'; export default {};`, /to run, got Cannot find package/],
    ] as const) {
      await assert.rejects(loadAlgorithm(file(name, text)), (error: Error) => {
        assert.ok(error instanceof InvalidArgumentError, `${name}: ${error}`);
        assert.match(error.message, message);
        assert.ok(!error.message.includes('\n'));
        return true;
      });
    }
    await assert.rejects(
      loadAlgorithm(path.join(folder, 'missing.ts')),
      /a file that can be read, got .*missing/,
    );
  });
});

describe('resolveAlgorithmSpec', () => {
  it('makes files absolute and names the nearest preset', () => {
    assert.equal(resolveAlgorithmSpec('x', './a/my.ts'), path.resolve('a/my.ts'));
    assert.equal(resolveAlgorithmSpec('x', 'oat:gspo'), 'oat:gspo');
    assert.throws(
      () => resolveAlgorithmSpec('x', 'gsop'),
      /one of reinforce, .*paper:, oat: or verl:.*\.ts.*, got "gsop" \(did you mean gspo\?\)$/,
    );
    assert.throws(() => resolveAlgorithmSpec('x', 3), /got 3/);
  });
});
