import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { describe, it } from 'node:test';
import type { Simulation, SimulationSummary } from '../../lib/instruments/simulate.js';
import { correctingPresets } from '../../lib/instruments/simulate.js';
import { figuresOfSimulation } from '../../lib/report/charts/simulate.js';
import type { Figure, ReportRun } from '../../lib/report/figure.js';
import { renderSvg } from '../../lib/report/render.js';

/** A simulation with an effective sample size and a signal for each of the steps 0, 10, 20... */
function simulation(algorithm: string, ess: readonly number[], signal: readonly number[]): Simulation {
  const steps = ess.map((value, i) => ({
    step: 10 * i,
    keptShare: 0.5,
    ess: value,
    weightMax: 1,
    droppedSequences: 0.25,
    signalShare: signal[i]!,
  }));
  const means = { keptShare: 0.5, ess: ess[0]!, droppedSequences: 0.25, signalShare: signal[0]! };
  return { algorithm: algorithm as Simulation['algorithm'], steps, ...means, frozenAtStep: null };
}

function figures(simulations: readonly Simulation[]): Figure[] {
  const summary: SimulationSummary = {
    run: 'runs/x',
    algorithm: 'pg-seq-is',
    precision: { training: 'bf16', rollout: 'bf16' },
    recordedSteps: [],
    simulations,
    interrupted: false,
  };
  const run: ReportRun = {
    directory: 'x',
    name: 'x',
    command: 'simulate',
    version: 'test',
    config: {},
    summary: summary as unknown as ReportRun['summary'],
    metrics: [],
    notes: [],
  };
  return figuresOfSimulation(run);
}

const rowsOf = ({ spec }: Figure) => (spec.data as { values: Record<string, unknown>[] }).values;

describe('figuresOfSimulation', () => {
  it('has a line for corrections that agree, steps as people count them, and a bar for each', async () => {
    const [ess, signal, kept, ...more] = figures([
      simulation('pg-seq-is', [0.5, 0.75], [1, 0.5]),
      simulation('paper:pg-seq-is', [0.5, 0.75], [1, 0.5]),
      simulation('pg-seq-mis', [0.5, 0.75], [0.03, Number.NaN]),
      simulation('verl:decoupled_geo_rs', [Number.NaN, Number.NaN], [0, 0]),
    ]);
    assert.deepEqual(more, []);
    assert.deepEqual(rowsOf(ess!), [
      {
        step: 1,
        share: 0.5,
        line: 'pg-seq-is and 2 more',
        corrections: 'pg-seq-is, paper:pg-seq-is, pg-seq-mis',
      },
      {
        step: 11,
        share: 0.75,
        line: 'pg-seq-is and 2 more',
        corrections: 'pg-seq-is, paper:pg-seq-is, pg-seq-mis',
      },
    ]);
    assert.deepEqual(
      rowsOf(signal!).map(({ step, share, line }) => [step, share, line]),
      [
        [1, 1, 'pg-seq-is and 1 more'],
        [11, 0.5, 'pg-seq-is and 1 more'],
        [1, 0.03, 'pg-seq-mis'],
        [1, 0, 'verl:decoupled_geo_rs'],
        [11, 0, 'verl:decoupled_geo_rs'],
      ],
    );
    assert.equal(rowsOf(kept!).length, 8);
    assert.match(await renderSvg(signal!.spec), />policy frozen: below 5 %<\/text>/);
    assert.doesNotMatch(await renderSvg(ess!.spec), /policy frozen/);
    const bars = await renderSvg(kept!.spec);
    assert.equal(bars.match(/aria-roledescription="bar"/g)?.length, 8);
    for (const word of ['tokens that teach', 'responses dropped', 'verl:decoupled_geo_rs'])
      assert.ok(bars.includes(`>${word}</text>`), word);
  });

  it('tells every preset from the others, more lines than there are colours', async () => {
    const all = figures(correctingPresets.map((name, i) => simulation(name, [i / 50, 0.5], [i / 50, 1])));
    const looks = new Set<string>();
    const svg = await renderSvg(all[0]!.spec);
    for (const [line] of svg.matchAll(
      /<path aria-label="[^"]*" role="graphics-symbol" aria-roledescription="line mark"[^>]*>/g,
    )) {
      looks.add(`${/stroke="([^"]*)"/.exec(line)![1]} ${/stroke-dasharray="([^"]*)"/.exec(line)?.[1]}`);
    }
    assert.ok(looks.size >= 32, `${looks.size} looks`);
    for (const name of correctingPresets) assert.ok(svg.includes(`>${name}</text>`), `${name} is cut`);
  });

  it('leaves out a chart that no correction has values for', async () => {
    const none = [Number.NaN];
    assert.deepEqual(
      figures([simulation('verl:decoupled_geo_rs', none, none)]).map(({ id }) => id),
      ['simulated-kept'],
    );
    const one = figures([simulation('pg-seq-is', [0.5], [0.5])]);
    assert.equal(one.length, 3);
    for (const { spec } of one) assert.match(await renderSvg(spec), /^<svg /);
  });

  it('has one column of names on a phone, so that none is cut off', () => {
    const [ess] = figures(['pg-seq-is', 'pg-seq-mis'].map((name, i) => simulation(name, [i / 2], [1])));
    // Vega looks for a window when it is loaded.
    const height = (width?: number): number => {
      const phone = `globalThis.window = { innerWidth: ${width}, addEventListener() {}, removeEventListener() {} };`;
      const program = `${width === undefined ? '' : phone}
        const { renderSvg } = await import(${JSON.stringify(new URL('../../lib/report/render.js', import.meta.url))});
        console.log(await renderSvg(${JSON.stringify(ess!.spec)}));`;
      const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', program], {
        encoding: 'utf8',
      });
      return Number(/^<svg [^>]*height="(\d+)"/.exec(stdout)?.[1] ?? assert.fail(stderr));
    };
    // A line more for the second name.
    assert.ok(height(390) > height(1280) + 10);
    assert.equal(height(), height(1280), 'a drawing is wide');
  });
});
