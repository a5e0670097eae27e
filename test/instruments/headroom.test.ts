import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, describe, it } from 'node:test';
import { headroomReport } from '../../lib/cli/headroom.js';
import {
  type HeadroomConfig,
  MARGIN_BITS,
  measureHeadroom,
  presentScaler,
} from '../../lib/instruments/headroom.js';
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
      // The gradient of the logits, which is no activation's, is a little larger here.
      assert.ok(predicted.bits < worst && predicted.bits > worst - 0.5, `${predicted.bits}, not ${worst}`);
      assert.match(
        headroomReport(result, 'there').replaceAll('\n', ' '),
        new RegExp(`backward the logits with ${predicted.bits.toPrecision(3)} bits`),
      );
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
    // Named is where the backward pass, which begins with the logits, left the format.
    const far = await measure({ lossScaler: 'static:1e12' });
    assert.equal(far.overflowed, 'the gradient of the logits');
    assert.match(beyond.overflowed!, /^the gradient of (the logits|\w+( of layer [01])?)$/);
  });

  it('tells what underflows at any scale, power of two or not', async () => {
    const at = async (scale: number) => (await measure({ lossScaler: `static:${scale}` })).present;
    const { scales, present } = await measure({ lossScaler: 'static:16' });
    assert.deepEqual(present, scales[4]);
    const points = [await at(16), await at(24), await at(32)];
    assert.ok(points[0]!.subnormal > points[1]!.subnormal && points[1]!.subnormal > points[2]!.subnormal);
    assert.ok(Math.abs(points[0]!.bits - points[1]!.bits - Math.log2(1.5)) < 1e-12);
    assert.match(
      headroomReport(await measure({ lossScaler: 'static:24' }), 'there'),
      /gradients [\d.]+ % underflow/,
    );
  });

  it('says so where no response has an advantage', async () => {
    const untaught = { ...base, teachSteps: 1, baseAccuracy: 0, solvedAtLeast: 0 };
    const config: HeadroomConfig = {
      ...{ subject: { base: untaught }, precision: 'fp16', lossScaler: 'verl', samples: 8, seed: 1 },
    };
    const directory = await RunDirectory.create(path.join(root, 'none'), { command: 'headroom', config });
    const summary = (await measureHeadroom(config, { directory, base: path.join(root, 'untaught') }))!;
    assert.ok(Number.isNaN(summary.suggestedScale));
    const text = headroomReport(summary, 'there').replaceAll('\n', ' ');
    assert.match(text, /No response has an advantage: there is no gradient to measure\./);
    assert.doesNotMatch(text, /Suggested|NaN/);
  });

  it('takes the scale that a run of its precision has come to', async () => {
    const config = tinyConfig({
      steps: 2,
      trainingPrecision: 'fp16',
      lossScaler: 'torch',
      overflow: 'retry',
    });
    const run = await RunDirectory.create(path.join(root, 'scaled'), { command: 'sanity', config });
    await runSanity(config, { directory: run });
    const subject = { run: run.path };
    assert.equal(await presentScaler(subject, 'fp16'), 'static:65536');
    // As if an overflow had halved it; what was logged beyond the newest checkpoint does not count.
    const lines = readFileSync(path.join(run.path, 'metrics.jsonl'), 'utf8').trim().split('\n');
    const halved = JSON.stringify({ ...JSON.parse(lines[1]!), 'scaler/scale': 32768 });
    const later = JSON.stringify({ ...JSON.parse(lines[1]!), step: 2, 'scaler/scale': 1 });
    writeFileSync(path.join(run.path, 'metrics.jsonl'), `${[lines[0], halved, later].join('\n')}\n`);
    assert.equal(await presentScaler(subject, 'fp16'), 'static:32768');
    assert.equal(await presentScaler(subject, 'bf16'), 'none');
    assert.equal(await presentScaler({ base }, 'fp16'), 'verl');
  });

  it('has more room in formats with more exponent bits, and tells the timeline of a run', async () => {
    const config = tinyConfig({ steps: 3, trainingPrecision: 'bf16' });
    const run = await RunDirectory.create(path.join(root, 'sanity'), { command: 'sanity', config });
    await runSanity(config, { directory: run });
    const { places, timeline, step, suggestedScale } = await measure({
      ...{ subject: { run: run.path }, precision: 'bf16' },
    });
    assert.equal(suggestedScale, 2 ** 127, 'a scale that fp32 has');
    assert.equal(step, 3);
    assert.deepEqual(
      timeline.map(({ step: s }) => s),
      [0, 1, 2],
    );
    assert.ok(places.every(({ forwardBits, underflow }) => forwardBits > 100 && underflow === 0));
  });
});
