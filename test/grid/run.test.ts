/** Grids of tiny runs, each in a process of its own. */
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { cellConfig, type GridConfig, resolveGridOptions } from '../../lib/grid/config.js';
import { type GridEvent, runGrid } from '../../lib/grid/run.js';
import type { GridSummary } from '../../lib/grid/summary.js';
import { RunDirectory } from '../../lib/io/runDirectory.js';
import { runSanity } from '../../lib/sanity/run.js';
import { tinyConfig } from '../sanity/tiny.js';

const root = mkdtempSync(path.join(tmpdir(), 'isopolicy-grid-'));
after(() => rmSync(root, { recursive: true }));

const { algorithm, trainingPrecision, rolloutPrecision, seed, baseSeed, ...tiny } = tinyConfig({ steps: 4 });
const { lossScaler, ...common } = tiny;
const grid = resolveGridOptions({
  algorithms: ['grpo', 'pg-seq-is'],
  precisions: ['fp16', 'bf16:fp32'],
  seeds: [5],
  common: { ...common, stopWhenPassed: false },
});

let made = 0;
async function open(config: GridConfig): Promise<RunDirectory> {
  return RunDirectory.create(path.join(root, `grid-${made++}`), { command: 'grid', config });
}

function metricsOf(folder: string): Record<string, unknown>[] {
  const lines = readFileSync(path.join(folder, 'metrics.jsonl'), 'utf8').trim().split('\n');
  return lines.map((line) =>
    Object.fromEntries(Object.entries(JSON.parse(line)).filter(([key]) => !/^(time|memory)\//.test(key))),
  );
}

describe('runGrid', () => {
  const bases = path.join(root, 'shared');
  const events: GridEvent[] = [];
  let whole: RunDirectory;
  let summary: GridSummary;
  before(async () => {
    whole = await open(grid);
    const report = (event: GridEvent) => events.push(event);
    summary = await runGrid(grid, { directory: whole, version: 'test', jobs: 2, bases, report });
  });

  it('runs every cell to the bits of a run of its own, and sums them up', async () => {
    assert.deepEqual(
      summary.cells.map(({ status }) => status),
      ['finished', 'finished', 'finished', 'finished'],
    );
    assert.equal(summary.interrupted, false);
    assert.equal(summary.groups.length, 4);
    assert.equal(readdirSync(bases).length, 1);
    assert.equal(events.at(-1)!.done, 5, 'four runs and a base');
    const { oldPassShare, oldPassShareOfStep, fp32RolloutCost } = summary.costs;
    assert.ok(oldPassShareOfStep > 0 && oldPassShareOfStep < oldPassShare && oldPassShare < 1);
    assert.ok(fp32RolloutCost! > 0);
    assert.deepEqual(JSON.parse(readFileSync(path.join(whole.path, 'summary.json'), 'utf8')), summary);

    const cell = grid.cells[1]!;
    const alone = await RunDirectory.create(path.join(root, 'alone'), {});
    const { seconds, ...expected } = await runSanity(cellConfig(grid, cell), { directory: alone });
    const { seconds: inGrid, ...found } = summary.cells[1]!.summary!;
    assert.deepEqual(found, expected);
    assert.deepEqual(metricsOf(path.join(whole.path, summary.cells[1]!.directory)), metricsOf(alone.path));

    const records = metricsOf(alone.path);
    const meanOf = (name: string) =>
      records.reduce((sum, record) => sum + Number(record[name]), 0) / records.length;
    // All four steps are the start, and every run took them.
    assert.equal(summary.groups[1]!.startSpread.mean, meanOf('mismatch/seqLogRatioStd'));
    assert.equal(summary.groups[1]!.meanAccuracy.max, meanOf('train/reward'));
    assert.deepEqual(
      summary.thresholds.map(({ algorithm }) => algorithm),
      ['grpo', 'pg-seq-is'],
    );

    // Nothing is left to do.
    const again: GridEvent[] = [];
    const report = (event: GridEvent) => again.push(event);
    const repeated = await runGrid(grid, { directory: whole, version: 'test', bases, report });
    assert.deepEqual(again, []);
    assert.deepEqual(repeated, summary);
  });

  it('goes on with what was interrupted, and counts what is left', async () => {
    // In its own place for bases, by default.
    const directory = await open(grid);
    const controller = new AbortController();
    const options = { directory, version: 'test', jobs: 1 };
    const stopped = await runGrid(grid, {
      ...options,
      signal: controller.signal,
      report: ({ job, event }) => {
        if (job.startsWith('grpo-bf16') && event?.kind === 'step' && event.record.step === 1)
          controller.abort();
      },
    });
    assert.deepEqual(
      stopped.cells.map(({ status }) => status),
      ['finished', 'interrupted', 'missing', 'missing'],
    );
    assert.equal(stopped.interrupted, true);
    const resumed = await runGrid(grid, options);
    assert.equal(readdirSync(path.join(directory.path, 'bases')).length, 1);
    assert.ok(resumed.cells.every(({ status }) => status === 'finished'));
    for (const { directory: run } of resumed.cells) {
      assert.deepEqual(metricsOf(path.join(directory.path, run)), metricsOf(path.join(whole.path, run)), run);
    }
  });

  it('tells which run failed and why, and runs the others', async () => {
    const directory = await open(grid);
    const broken = path.join(directory.path, 'runs', 'grpo-fp16-fp16-seed5');
    const run = await RunDirectory.create(broken, {});
    writeFileSync(path.join(run.path, 'config.json'), '{"formatVersion":99}');
    const partial = await runGrid(grid, { directory, version: 'test', jobs: 2, bases });
    assert.deepEqual(
      partial.cells.map(({ status }) => status),
      ['failed', 'finished', 'finished', 'finished'],
    );
    assert.equal(partial.failed, 1);
    assert.match(partial.cells[0]!.failure!, /format version/);
    assert.equal(
      readFileSync(path.join(broken, 'config.json'), 'utf8'),
      '{"formatVersion":99}',
      'left alone',
    );
  });
});
