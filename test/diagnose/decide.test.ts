import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type CauseName, causes } from '../../lib/diagnose/causes.js';
import { conclude } from '../../lib/diagnose/conclude.js';
import { type CountedTokens, countedTokens } from '../../lib/diagnose/countedTokens.js';
import { type Decision, decide, testAll } from '../../lib/diagnose/decide.js';
import {
  type Precheck,
  type PrecheckKind,
  precheckKinds,
  type SignatureName,
  type SignatureResult,
  signatureNames,
} from '../../lib/diagnose/diagnosis.js';
import { nearestFloor, noiseFloor } from '../../lib/diagnose/noiseFloor.js';
import { drawResponses, sampleOf } from '../../lib/diagnose/sample.js';
import { synthetic, usualNoise, withSeries } from './synthetic.js';

const size = { numLayers: null, hiddenSize: null };
const floor = noiseFloor('bf16', size);
const some = countedTokens(synthetic({ responses: 20, noise: 0.02 }).sample);

/** Tokens with so much noise of the logits. */
const tokensWith = (logitNoise: number): CountedTokens => ({
  ...some,
  logitNoise,
  meanAbs: logitNoise * some.meanOpenness,
});
/** Within the floor, but more than bookkeeping may do. */
const usual = tokensWith(1.5 * floor.usual);

/** Results of which these are found, with the share that each explains. */
function results(
  found: Partial<Record<SignatureName, number | null>> = {},
  values: Partial<Record<SignatureName, Record<string, number>>> = {},
): SignatureResult[] {
  return signatureNames.map((name) => ({
    name,
    title: name,
    found: name in found,
    explained: found[name] ?? 0,
    evidence: name,
    // Zeros anywhere, as far as nothing else is said.
    values: values[name] ?? (name === 'zero-fill' ? { zeros: 10, leading: 3 } : {}),
  }));
}

const check = (kind: PrecheckKind, count = 1): Precheck => ({
  kind,
  count,
  text: kind,
  of: 10,
  unit: 'responses',
  leftOut: false,
  examples: [],
});

const says = ({ verdict, cause }: Decision) => `${verdict}: ${cause}`;

describe('decide', () => {
  it('puts what does not align before everything else', () => {
    const aligned: PrecheckKind[] = [
      'missing',
      'nothing-counts',
      'not-finite',
      'exact-zero',
      'above-zero',
      'settings',
      'weights-version',
    ];
    for (const kind of precheckKinds) {
      const decision = decide(usual, results({ 'zero-fill': 1, shift: 1 }), [check(kind)], floor);
      if (aligned.includes(kind)) assert.equal(decision.cause, 'zero-fill', kind);
      else assert.equal(says(decision), `BROKEN: ${kind}`);
    }
  });

  it('names the one that most responses have', () => {
    const checks = [check('length', 2), check('mask', 5), check('token-ids', 3), check('missing', 9)];
    assert.equal(says(decide(usual, results(), checks, floor)), 'BROKEN: mask');
    assert.equal(decide(usual, results(), [check('mask', 0)], floor).cause, 'rounding');
  });

  it('takes signatures by rank, and within a rank what explains most', () => {
    const cause = (found: Partial<Record<SignatureName, number>>) =>
      decide(usual, results(found), [], floor).cause;
    const ranks: readonly (readonly [SignatureName, CauseName])[][] = [
      [['scaled', 'scaled']],
      [
        ['shift', 'shift'],
        ['temperature', 'temperature'],
        ['kept-mass', 'kept-mass'],
        ['zero-fill', 'zero-fill'],
        ['prompt-counted', 'prompt-counted'],
      ],
      [['weight-update', 'stale-weights']],
      [
        ['boundaries', 'batch-variance'],
        ['outliers', 'outliers'],
      ],
      [['lattice', '16-bit-logits']],
    ];
    ranks.forEach((rank, r) => {
      for (const [name, expected] of rank) {
        assert.equal(cause({ [name]: 0.3 }), expected);
        for (const [later] of ranks.slice(r + 1).flat())
          assert.equal(cause({ [name]: 0.1, [later]: 1 }), expected);
        for (const [other, otherCause] of rank) {
          if (other !== name) assert.equal(cause({ [name]: 0.4, [other]: 0.6 }), otherCause);
        }
      }
    });
    // Those that describe a mismatch are no causes of it.
    assert.equal(cause({ floor: 1, uncertainty: 1 }), 'rounding');
  });

  it('puts any fault before what cannot be, and that before differing settings', () => {
    const all = (['not-finite', 'above-zero', 'weights-version', 'settings', 'missing'] as const).map(
      (kind) => check(kind),
    );
    assert.equal(says(decide(usual, results({ shift: 1 }), all, floor)), 'BROKEN: shift');
    // Probabilities in place of their logs are no matter of another distribution.
    for (const kind of ['not-finite', 'above-zero'] as const) {
      assert.equal(decide(usual, results({ shift: 1 }), [check(kind, 5)], floor).cause, 'shift');
      assert.equal(decide(usual, results({ shift: 1 }), [check(kind, 6)], floor).cause, kind);
    }
    const expected = [
      'BROKEN: not-finite',
      'BROKEN: above-zero',
      'SUSPICIOUS: weights-version',
      'SUSPICIOUS: settings',
      'SUSPICIOUS: missing',
      'NOISE FLOOR: rounding',
    ];
    for (const [i, text] of expected.entries()) {
      assert.equal(says(decide(usual, results(), all.slice(i), floor)), text);
    }
  });

  it('takes zeros at the start of responses for tokens of the prompt', () => {
    for (const [leading, cause] of [
      [100, 'prompt-counted'],
      [90, 'prompt-counted'],
      [89, 'zero-fill'],
      [0, 'zero-fill'],
    ] as const) {
      const found = results({ 'zero-fill': 1 }, { 'zero-fill': { zeros: 100, leading } });
      assert.equal(decide(usual, found, [], floor).cause, cause);
    }
  });

  it('calls log-probs whose ratios have no mean of 1 those of another distribution', () => {
    const found = results({ identity: 0.5 });
    assert.equal(says(decide(usual, found, [check('settings')], floor)), 'BROKEN: not-the-sampler');
    assert.equal(says(decide(usual, results({ identity: 0.5, shift: 0.5 }), [], floor)), 'SUSPICIOUS: shift');
    assert.equal(decide(tokensWith(0), found, [], floor).cause, 'bit-identical');
  });

  it('has limits: noise up to the floor, some beyond it, far beyond it', () => {
    const verdict = (noise: number) => says(decide(tokensWith(noise), results(), [], floor));
    assert.equal(verdict(floor.high), 'NOISE FLOOR: rounding');
    assert.equal(verdict(floor.high * 1.001), 'SUSPICIOUS: different-weights');
    assert.equal(verdict(3 * floor.high), 'SUSPICIOUS: different-weights');
    assert.equal(verdict(3.001 * floor.high), 'BROKEN: different-weights');
    assert.equal(verdict(floor.low / 1e6), 'NOISE FLOOR: rounding');
    assert.equal(verdict(0), 'NOISE FLOOR: bit-identical');
    assert.equal(
      says(decide(tokensWith(floor.high / 2), results({ position: null }), [], floor)),
      'SUSPICIOUS: position',
    );
  });

  it('calls a fault broken by what it does alone: bookkeeping beyond the usual noise, others beyond the floor', () => {
    const verdict = (name: SignatureName, noise: number, explained: number) =>
      decide(tokensWith(noise), results({ [name]: explained }), [], floor).verdict;
    assert.equal(verdict('temperature', 2 * floor.usual, 0.51), 'BROKEN');
    assert.equal(verdict('temperature', 2 * floor.usual, 0.49), 'SUSPICIOUS');
    assert.equal(verdict('weight-update', 2 * floor.high, 0.51), 'BROKEN');
    assert.equal(verdict('weight-update', 2 * floor.high, 0.49), 'SUSPICIOUS');
  });

  it('lets 16-bit logits pass that are within the floor and no coarser than the format', () => {
    const of = (bits: number, noise: number) =>
      says(
        decide(
          tokensWith(noise),
          results({ lattice: 0.5 }, { lattice: { trainingMantissaBits: bits, trainingStep: 0.1 } }),
          [],
          floor,
        ),
      );
    assert.equal(of(7, floor.usual), 'NOISE FLOOR: 16-bit-logits');
    assert.equal(of(10, floor.usual), 'NOISE FLOOR: 16-bit-logits');
    assert.equal(of(6, floor.usual), 'SUSPICIOUS: 16-bit-logits');
    assert.equal(of(7, 3 * floor.high), 'BROKEN: 16-bit-logits');
  });

  it('has nothing to say of no tokens but why there are none', () => {
    const none = countedTokens(sampleOf([]));
    const of = (...kinds: PrecheckKind[]) =>
      says(
        decide(
          none,
          [],
          kinds.map((kind) => check(kind)),
          floor,
        ),
      );
    assert.equal(of('missing', 'nothing-counts'), 'BROKEN: nothing-counts');
    assert.equal(of('nothing-counts', 'not-finite'), 'BROKEN: not-finite');
    assert.equal(says(decide(none, [], [check('missing')], floor)), 'BROKEN: missing');
    assert.equal(says(decide(none, [], [check('mask')], floor)), 'BROKEN: mask');
  });

  it('has words and an action for every cause', () => {
    for (const [name, { text, action }] of Object.entries(causes)) {
      assert.match(text, /^\S.*[^.]$/, name);
      assert.match(action, /^[A-Z].*\.$/, name);
    }
  });
});

describe('testAll', () => {
  it('takes steady results from before', () => {
    const { sample } = synthetic({ responses: 20, top: 5, noise: 0.02 });
    const whole = testAll(countedTokens(sample), floor);
    const drawn = countedTokens(drawResponses(sample, Int32Array.of(1, 1, 2, 5)));
    const again = testAll(drawn, floor, whole);
    assert.deepEqual(
      again.map(({ name }) => name),
      signatureNames,
    );
    for (const [i, result] of again.entries()) {
      assert.equal(result === whole[i], result.name === 'lattice', result.name);
    }
  });
});

describe('conclude', () => {
  const options = { declared: null, size, draws: 20 };

  it('holds noise against the nearest format where none is declared', async () => {
    for (const dtype of ['bf16', 'fp16', 'fp32']) {
      assert.equal(nearestFloor(noiseFloor(dtype, size).usual * 1.2, size).dtype, dtype);
      const { sample } = synthetic({ responses: 40, noise: usualNoise(dtype) });
      const found = await conclude(sample, [], options);
      assert.deepEqual(found.dtype, { name: dtype, declared: false });
      assert.equal(found.verdict, 'NOISE FLOOR');
    }
    // 8 bits have to be declared: unrelated series come near to their noise.
    const coarse = synthetic({ responses: 40, noise: usualNoise('e4m3') }).sample;
    assert.equal((await conclude(coarse, [], { ...options, declared: 'e4m3' })).verdict, 'NOISE FLOOR');
    assert.equal((await conclude(coarse, [], options)).verdict, 'BROKEN');
    const { sample } = synthetic({ responses: 40, noise: usualNoise('bf16') });
    const declared = await conclude(sample, [], { ...options, declared: 'fp32' });
    assert.deepEqual(declared.dtype, { name: 'fp32', declared: true });
    assert.equal(says(declared as Decision), 'BROKEN: different-weights');
  });

  it('is sure of a fault that all responses have, and less of one that few have', async () => {
    const { pairs } = synthetic({ responses: 60, noise: 0.01 });
    const all = withSeries(pairs, 'training', (own) => own.map((_, t) => own[t - 1] ?? -0.5));
    const sure = await conclude(sampleOf(all), [], options);
    // Of n responses no more than n / (n + 1).
    assert.deepEqual([sure.cause, sure.confidence], ['shift', 60 / 61]);
    const single = await conclude(sampleOf(all.slice(0, 1)), [], options);
    assert.equal(single.confidence, 0.5);
    // One response with a zero: of 60 drawn ones, with a probability of 1 - 1/e it is among them.
    let zeros = 0;
    const one = withSeries(pairs, 'training', (own, { index }) =>
      own.map((x) => (index === 30 && x < -0.3 && zeros++ === 0 ? 0 : x)),
    );
    assert.ok(zeros > 0);
    const unsure = await conclude(sampleOf(one), [], { ...options, draws: 400 });
    assert.ok(Math.abs(unsure.confidence - (1 - 1 / Math.E)) < 0.12, `${unsure.confidence}`);
  });

  it('is sure of what does not align, with nothing to draw', async () => {
    const nothing = await conclude(sampleOf([]), [check('length')], options);
    assert.deepEqual([nothing.cause, nothing.confidence, nothing.signatures], ['length', 1, []]);
    assert.equal(nothing.signatureTokens, 0);
  });

  it('gives the same for the same sample, and ends when asked to', async () => {
    const { sample } = synthetic({ responses: 60, noise: 0.01, top: 3 });
    assert.deepEqual(await conclude(sample, [], options), await conclude(sample, [], options));
    const reason = new Error('enough');
    await assert.rejects(conclude(sample, [], { ...options, signal: AbortSignal.abort(reason) }), reason);
  });
});
