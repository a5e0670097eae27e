import assert from 'node:assert/strict';
import { appendFileSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, describe, it } from 'node:test';
import { PointLog } from '../../lib/io/pointLog.js';
import type { Environment } from '../../lib/rl/environment.js';
import { memory } from '../../lib/runtime.js';
import { type FilterSettings, filterProblems } from '../../lib/sanity/filter.js';
import { tinyModel } from './tiny.js';

const root = mkdtempSync(path.join(tmpdir(), 'isopolicy-filter-'));
after(() => rmSync(root, { recursive: true }));

/** Problem i is solved by its first i samples; the others get half a point, or nothing. */
function scripted(problems: number): { environment: Environment; asked: number[] } {
  const asked = new Array<number>(problems).fill(0);
  return {
    asked,
    environment: {
      prompts: Array.from({ length: problems }, (_, i) => Int32Array.of(i & 3, (i >> 2) & 3, 0)),
      responseLength: 1,
      stopTokens: [],
      rewards: (responses) =>
        responses.map(({ prompt }) => {
          const sample = asked[prompt]!++;
          return sample < prompt ? 1 : sample % 2 === 0 ? 0.5 : 0;
        }),
    },
  };
}

const settings: FilterSettings = {
  samplesPerProblem: 10,
  solvedAtLeast: 0.2,
  solvedAtMost: 0.8,
  seed: 1,
  precision: 'fp32',
  problemsAtOnce: 4,
};

const expected = {
  indices: [2, 3, 4, 5, 6, 7, 8],
  solved: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
  tried: 11,
  accuracy: 0.5,
};

describe('filterProblems', () => {
  it('counts responses with reward 1 and keeps 20 % to 80 %', async () => {
    using model = tinyModel();
    const { environment, asked } = scripted(11);
    const told: unknown[] = [];
    const result = await filterProblems(model, environment, { ...settings, report: (p) => told.push(p) });
    assert.deepEqual(result, expected);
    assert.deepEqual(asked, new Array(11).fill(10));
    assert.deepEqual(told, [
      { tried: 4, kept: 2 },
      { tried: 8, kept: 6 },
      { tried: 11, kept: 7 },
    ]);
  });

  it('keeps what lies between other bounds', async () => {
    using model = tinyModel();
    const filter = async (solvedAtLeast: number, solvedAtMost: number) =>
      (await filterProblems(model, scripted(11).environment, { ...settings, solvedAtLeast, solvedAtMost }))
        .indices;
    assert.deepEqual(await filter(0, 0), [0]);
    assert.deepEqual(await filter(0.35, 0.55), [4, 5]);
    assert.equal((await filter(0, 1)).length, 11);
  });

  it('goes on from its log to the same result, and asks nothing twice', async () => {
    using model = tinyModel();
    const { tensors } = memory();
    const file = path.join(root, 'filter.jsonl');
    const { environment, asked } = scripted(11);
    const controller = new AbortController();
    const stopped = await filterProblems(model, environment, {
      ...settings,
      log: await PointLog.open(file),
      signal: controller.signal,
      report: () => controller.abort(),
    });
    assert.deepEqual(stopped, { indices: [2, 3], solved: [0, 1, 2, 3], tried: 4, accuracy: 0.15 });
    assert.deepEqual(asked.slice(3, 5), [10, 0]);
    // As a kill in the middle of a line leaves it.
    appendFileSync(file, '{"key":"4-8","value":[9,');
    const log = await PointLog.open<readonly number[]>(file);
    assert.deepEqual(await filterProblems(model, environment, { ...settings, log }), expected);
    assert.deepEqual(asked, new Array(11).fill(10));
    const text = readFileSync(file, 'utf8');
    assert.equal(text.trim().split('\n').length, 3);

    const again = await PointLog.open<readonly number[]>(file);
    assert.deepEqual(await filterProblems(model, environment, { ...settings, log: again }), expected);
    assert.deepEqual(asked, new Array(11).fill(10), 'nothing is sampled');
    assert.equal(readFileSync(file, 'utf8'), text);
    assert.equal(memory().tensors, tensors);
  });
});
