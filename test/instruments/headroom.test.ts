import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, describe, it } from 'node:test';
import { type HeadroomConfig, MARGIN_BITS, measureHeadroom } from '../../lib/instruments/headroom.js';
import { RunDirectory } from '../../lib/io/runDirectory.js';
import { memory } from '../../lib/runtime.js';
import { baseConfigOf } from '../../lib/sanity/baseConfig.js';
import { runSanity } from '../../lib/sanity/run.js';
import { tinyConfig } from '../sanity/tiny.js';

const root = mkdtempSync(path.join(tmpdir(), 'isopolicy-headroom-'));
after(() => rmSync(root, { recursive: true }));
const base = baseConfigOf(tinyConfig({ numLayers: 2 }));
let made = 0;

async function measure(overrides: Partial<HeadroomConfig> = {}) {
  const config: HeadroomConfig = {
    subject: { base },
    precision: 'fp16',
    lossScaler: 'verl',
    samples: 16,
    seed: 1,
    ...overrides,
  };
  const directory = await RunDirectory.create(path.join(root, `run-${made++}`), {
    command: 'headroom',
    config,
  });
  return (await measureHeadroom(config, { directory, base: path.join(root, 'base') }))!;
}

describe('measureHeadroom', () => {
  it('counts bits from the largest magnitudes, layer by layer', async () => {
    const { tensors } = memory();
    const { places, scale, precision, overflowed, timeline } = await measure();
    assert.equal(memory().tensors, tensors, 'tensors left');
    assert.deepEqual([scale, precision, overflowed, timeline], [65536, 'fp16', null, []]);
    // Nine points a layer, embedding and last norm outside.
    assert.equal(places.length, 2 + 2 * 9);
    for (const place of places) {
      assert.ok(place.forwardMax > 0 && place.backwardMax > 0, `${place.point} ${place.layer}`);
      assert.ok(Math.abs(place.forwardBits - Math.log2(65504 / place.forwardMax)) < 1e-12);
      assert.ok(Math.abs(place.backwardBits - Math.log2(65504 / place.backwardMax)) < 1e-12);
      assert.ok(place.underflow >= 0 && place.underflow < 0.5);
    }
  });

  it('has backward bits fall by one and underflow shrink with each doubling of the scale', async () => {
    const shares: number[] = [];
    const results = [];
    for (const log2 of [4, 10, 16]) {
      const result = await measure({ lossScaler: `static:${2 ** log2}` });
      results.push(result);
      shares.push(result.places.reduce((sum, place) => sum + place.underflow, 0));
      // What an fp32 pass predicts for this scale is what fp16 lost.
      const predicted = result.scales.find((point) => point.log2Scale === log2)!;
      const worst = Math.min(...result.places.map((place) => place.backwardBits));
      assert.ok(Math.abs(predicted.bits - worst) < 0.01, `${predicted.bits}, not ${worst}`);
    }
    assert.ok(shares[0]! > shares[1]! && shares[1]! >= shares[2]!, shares.join(', '));
    const [low, , high] = results;
    low!.places.forEach((place, i) => {
      assert.ok(Math.abs(place.backwardBits - high!.places[i]!.backwardBits - 12) < 0.05, place.point);
      assert.equal(place.forwardBits, high!.places[i]!.forwardBits);
    });
    for (const { scales } of results) assert.deepEqual(scales, low!.scales, 'no matter what the scale is');
    for (const [i, point] of low!.scales.entries()) {
      if (i > 0) assert.ok(point.underflow <= low!.scales[i - 1]!.underflow);
      assert.ok(point.underflow <= point.subnormal);
    }
  });

  it('suggests a scale that does not overflow, and names what does', async () => {
    const { suggestedScale, scales } = await measure();
    const there = scales.find(({ log2Scale }) => 2 ** log2Scale === suggestedScale)!;
    assert.ok(there.bits >= MARGIN_BITS && there.bits < MARGIN_BITS + 1);
    const fine = await measure({ lossScaler: `static:${suggestedScale}` });
    assert.equal(fine.overflowed, null);
    const beyond = await measure({ lossScaler: `static:${suggestedScale * 2 ** (MARGIN_BITS + 4)}` });
    assert.ok(beyond.overflowed !== null);
    assert.ok(beyond.places.some(({ backwardMax }) => backwardMax === Infinity));
  });

  it('has more room in formats with more exponent bits, and tells the timeline of a run', async () => {
    const config = tinyConfig({ steps: 3, trainingPrecision: 'bf16' });
    const run = await RunDirectory.create(path.join(root, 'sanity'), { command: 'sanity', config });
    await runSanity(config, { directory: run });
    const { places, timeline, step } = await measure({ subject: { run: run.path }, precision: 'bf16' });
    assert.equal(step, 3);
    assert.deepEqual(
      timeline.map(({ step: s }) => s),
      [0, 1, 2],
    );
    assert.ok(places.every(({ forwardBits, underflow }) => forwardBits > 100 && underflow === 0));
  });
});
