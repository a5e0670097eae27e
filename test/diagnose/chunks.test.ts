import assert from 'node:assert/strict';
import { test } from 'node:test';
import { countedTokens } from '../../lib/diagnose/countedTokens.js';
import { noiseFloor } from '../../lib/diagnose/noiseFloor.js';
import { sampleOf } from '../../lib/diagnose/sample.js';
import { chunks } from '../../lib/diagnose/signatures/chunks.js';
import { CounterRandom } from '../../lib/random.js';
import { pairOf } from './support.js';

const context = { floor: noiseFloor('bf16') };

/** Responses of open choices with noise of the given size at each place. */
function pairs(sizeAt: (place: number, s: number) => number, promptLength: (s: number) => number | null) {
  return Array.from({ length: 24 }, (_, s) => {
    const random = new CounterRandom(11, 1, s);
    const rollout = Float64Array.from({ length: 300 }, () => -0.2 - 2 * random.uniform());
    const training = rollout.map((log, t) => log + sizeAt(t, s) * (random.uniform() - 0.5));
    return pairOf(s, rollout, training, { promptLength: promptLength(s) });
  });
}

const findingOf = (...args: Parameters<typeof pairs>) =>
  chunks.test(countedTokens(sampleOf(pairs(...args))), context);

test('noise at multiples of 64 from the start of the response is found, and how many times', () => {
  const found = findingOf(
    (t) => (t > 0 && t % 64 === 0 ? 0.5 : 0.05),
    () => null,
  );
  assert.ok(found.found, found.evidence);
  assert.equal(found.values.chunk, 64);
  assert.ok(Math.abs(Math.log(found.values.ratio! / 10)) < 0.4, found.evidence);
  assert.match(found.evidence, /multiples of 64 from the start of the response/);
});

test('from the start of the prompt, where prompts have other lengths', () => {
  const found = findingOf(
    (t, s) => ((t + 10 + s) % 32 === 0 ? 0.5 : 0.05),
    (s) => 10 + s,
  );
  assert.ok(found.found, found.evidence);
  assert.equal(found.values.chunk, 32);
  assert.equal(found.values.fromPrompt, 1);
});

test('noise that is everywhere alike has no borders, and neither has none', () => {
  for (const size of [0.5, 0.001]) {
    const found = findingOf(
      () => size,
      (s) => 7 * s,
    );
    assert.ok(!found.found, found.evidence);
  }
  const equal = findingOf(
    () => 0,
    () => null,
  );
  assert.ok(!equal.found, equal.evidence);
  assert.doesNotMatch(equal.evidence, /NaN/);
});

test('borders that alone differ, all else equal to the bit', () => {
  const found = findingOf(
    (t) => (t > 0 && t % 16 === 0 ? 0.01 : 0),
    () => null,
  );
  assert.ok(found.found, found.evidence);
  assert.equal(found.values.chunk, 16);
});
