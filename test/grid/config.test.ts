import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { InvalidArgumentError } from '../../lib/errors.js';
import { cellName } from '../../lib/grid/cell.js';
import {
  baseName,
  cellConfig,
  extendGrid,
  gridBases,
  parsePrecisionPair,
  resolveGridOptions,
} from '../../lib/grid/config.js';

const refused = (run: () => unknown, message: RegExp) =>
  assert.throws(run, (error: Error) => error instanceof InvalidArgumentError && message.test(error.message));

describe('resolveGridOptions', () => {
  it('makes every combination once, in order', () => {
    const { cells } = resolveGridOptions({
      algorithms: ['grpo', 'pg-seq-is', 'grpo'],
      precisions: ['fp16', 'bf16:fp32', 'fp16:fp16'],
      seeds: [2, 1, 2],
    });
    assert.deepEqual(cells.map(cellName), [
      'grpo-fp16-fp16-seed2',
      'grpo-fp16-fp16-seed1',
      'grpo-bf16-fp32-seed2',
      'grpo-bf16-fp32-seed1',
      'pg-seq-is-fp16-fp16-seed2',
      'pg-seq-is-fp16-fp16-seed1',
      'pg-seq-is-bf16-fp32-seed2',
      'pg-seq-is-bf16-fp32-seed1',
    ]);
  });

  it('gives each cell its configuration and shares bases', () => {
    const grid = resolveGridOptions({
      algorithms: ['grpo', 'pg-seq-is'],
      precisions: ['bf16:fp32'],
      seeds: [3, 4],
      common: { steps: 7, task: 'sort:4:4' },
    });
    const config = cellConfig(grid, grid.cells[1]!);
    assert.deepEqual(
      [config.algorithm, config.trainingPrecision, config.rolloutPrecision, config.seed, config.baseSeed],
      ['grpo', 'bf16', 'fp32', 4, 4],
    );
    assert.equal(config.steps, 7);
    assert.deepEqual(
      [...gridBases(grid).values()].map(({ baseSeed }) => baseSeed),
      [3, 4],
    );
    const fixed = resolveGridOptions({ seeds: [3, 4], common: { baseSeed: 9 } });
    assert.deepEqual(
      [...gridBases(fixed).values()].map(({ baseSeed }) => baseSeed),
      [9],
    );
  });

  it('names different bases differently', () => {
    const base = cellConfig(resolveGridOptions({}), resolveGridOptions({}).cells[0]!);
    const others = [
      { task: 'sort:4:4' },
      { baseSeed: 8 },
      { hiddenSize: 96 },
      { numLayers: 2 },
      { numExperts: 8 },
      { baseAccuracy: 0.2 },
      { teachSteps: 9 },
      { candidates: 9 },
      { samplesPerProblem: 9 },
      { solvedAtLeast: 0 },
      { solvedAtMost: 1 },
    ];
    const names = [base, ...others.map((other) => ({ ...base, ...other }))].map(baseName);
    assert.equal(new Set(names).size, names.length);
    for (const name of names) assert.match(name, /^[\w.-]+$/);
  });

  it('refuses what is unknown, with the nearest', () => {
    refused(() => resolveGridOptions({ algorithms: ['grop'] }), /"grop" \(did you mean grpo\?\)/);
    refused(() => resolveGridOptions({ precisions: ['bf16:fp61'] }), /"fp61" \(did you mean fp16\?\)/);
    refused(() => parsePrecisionPair('grid', 'a:b:c'), /training:rollout, got "a:b:c"/);
    refused(() => resolveGridOptions({ seeds: [] }), /at least one of seeds/);
    refused(() => resolveGridOptions({ seeds: [-1] }), /each seed to be an integer/);
    refused(() => resolveGridOptions({ common: { hiddenSize: 33 } }), /hiddenSize/);
  });
});

describe('extendGrid', () => {
  const grid = resolveGridOptions({
    algorithms: ['grpo'],
    precisions: ['fp16'],
    seeds: [1],
    common: { schedule: 'constant', steps: 10 },
  });

  it('adds cells and steps and keeps those there are', () => {
    const more = extendGrid(grid, { seeds: [1, 2], precisions: ['bf16'], common: { steps: 20 } });
    assert.deepEqual(more.cells.map(cellName), [
      'grpo-fp16-fp16-seed1',
      'grpo-bf16-bf16-seed1',
      'grpo-bf16-bf16-seed2',
    ]);
    assert.equal(more.common.steps, 20);
    assert.deepEqual(extendGrid(grid, {}), grid);
    assert.deepEqual(extendGrid(grid, { common: {} }), grid);
  });

  it('refuses what would change runs that have begun', () => {
    refused(() => extendGrid(grid, { common: { learningRate: 1 } }), /no learningRate beside --resume/);
    refused(() => extendGrid(grid, { common: { steps: 5 } }), /at least the grid's 10/);
    const falling = resolveGridOptions({ common: { steps: 10 } });
    refused(() => extendGrid(falling, { common: { steps: 11 } }), /schedule constant for more steps/);
  });
});
