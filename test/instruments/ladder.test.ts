import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, describe, it } from 'node:test';
import { climbLadder, type LadderConfig, ladderKnobs } from '../../lib/instruments/ladder.js';
import { RunDirectory } from '../../lib/io/runDirectory.js';
import { memory } from '../../lib/runtime.js';
import { baseConfigOf } from '../../lib/sanity/baseConfig.js';
import { tinyConfig } from '../sanity/tiny.js';

const root = mkdtempSync(path.join(tmpdir(), 'isopolicy-ladder-'));
after(() => rmSync(root, { recursive: true }));

const base = baseConfigOf(tinyConfig({ numLayers: 2 }));
const config: LadderConfig = { subject: { base }, precisions: ['bf16', 'fp32'], samples: 24, seed: 1 };

const names = ladderKnobs({ experts: false, adapter: false });

describe('climbLadder', () => {
  it('switches the knobs of experts and of adapters only where the model has them', () => {
    const more = (parts: { experts: boolean; adapter: boolean }) => {
      const all = ladderKnobs(parts);
      assert.deepEqual(
        all.filter((knob) => names.includes(knob)),
        names,
      );
      return all.filter((knob) => !names.includes(knob)).sort();
    };
    assert.deepEqual(more({ experts: true, adapter: false }), ['combineRoundings']);
    assert.deepEqual(more({ experts: false, adapter: true }), ['loraScaleFirst']);
    assert.deepEqual(more({ experts: true, adapter: true }), ['combineRoundings', 'loraScaleFirst']);
  });

  it('scores more tokens than one pass takes', async () => {
    const many: LadderConfig = { ...config, subject: { base: { ...base, numLayers: 1 } }, samples: 1600 };
    const directory = await RunDirectory.create(path.join(root, 'many'), { command: 'ladder', config: many });
    const controller = new AbortController();
    const { interrupted } = await climbLadder(many, {
      directory,
      signal: controller.signal,
      report: ({ done }) => done === 2 && controller.abort(),
    });
    assert.equal(interrupted, true, 'stopped after two rungs, which were measured');
  });

  it('goes from all to exactly nothing and back, and resumes to the same numbers', async () => {
    const kept = path.join(root, 'base');
    const whole = await RunDirectory.create(path.join(root, 'whole'), { command: 'ladder', config });
    const { tensors } = memory();
    const summary = await climbLadder(config, { directory: whole, base: kept });
    assert.equal(memory().tensors, tensors, 'tensors left');
    assert.equal(summary.numLayers, 2);
    const [bf16, fp32] = summary.results;
    for (const result of [bf16!, fp32!]) {
      const { apart, equal, alone, without, down, up, layers, layersUp, knobByLayer } = result;
      assert.deepEqual(equal, { meanAbsLogRatio: 0, klMuPiK3: 0, seqLogRatioStd: 0 });
      assert.ok(apart.meanAbsLogRatio > 0);
      for (const list of [alone, without, down, up]) {
        assert.deepEqual(
          list.map(({ knob }) => knob),
          [...names],
        );
      }
      const measure = ({ meanAbsLogRatio, klMuPiK3, seqLogRatioStd }: typeof apart) => ({
        meanAbsLogRatio,
        klMuPiK3,
        seqLogRatioStd,
      });
      assert.deepEqual(measure(down.at(-1)!), equal, 'all made equal: an exact 0');
      assert.deepEqual(measure(up.at(-1)!), apart, 'all made apart: as by habit');
      assert.deepEqual(measure(layersUp.at(-1)!), apart);
      assert.deepEqual(
        layers.map(({ layer }) => layer),
        [0, 1, 2],
      );
      assert.deepEqual(
        knobByLayer.map((row) => row.layers.length),
        names.map(() => 3),
      );
    }
    const alone = (result: typeof bf16, knob: string) =>
      result!.alone.find((rung) => rung.knob === knob)!.meanAbsLogRatio;
    for (const knob of ['rmsNormRoundings', 'ropeRoundings', 'swigluRoundings', 'logits16']) {
      assert.ok(alone(bf16, knob) > 0, knob);
      assert.equal(alone(fp32, knob), 0, `${knob} has nothing to round in fp32`);
    }
    assert.ok(bf16!.apart.meanAbsLogRatio > 100 * fp32!.apart.meanAbsLogRatio);

    const directory = await RunDirectory.create(path.join(root, 'stopped'), { command: 'ladder', config });
    const controller = new AbortController();
    const stopped = await climbLadder(config, {
      directory,
      base: kept,
      signal: controller.signal,
      report: ({ done }) => done === 9 && controller.abort(),
    });
    assert.equal(stopped.interrupted, true);
    const measured: number[] = [];
    const resumed = await climbLadder(config, { directory, report: ({ done }) => measured.push(done) });
    assert.deepEqual(resumed, summary);
  });
});
