import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { type Correction, type CorrectionOptions, correct } from '../../../lib/rl/corrections/correct.js';
import { k3 } from '../../../lib/rl/ratios.js';
import { near, sequencesArbitrary, toBatch } from '../batches.js';

/** Responses of token ratios to / from; null is a masked token, poisoned. */
function corrected(responses: (number | null)[][], options: CorrectionOptions): Correction {
  const flat = responses.flat();
  const offsets = [0];
  for (const response of responses) offsets.push(offsets.at(-1)! + response.length);
  return correct(
    {
      offsets: Int32Array.from(offsets),
      mask: Uint8Array.from(flat, (r) => (r === null ? 0 : 1)),
      to: Float64Array.from(flat, (r) => (r === null ? Number.NaN : -3 + Math.log(r))),
      from: Float64Array.from(flat, (r) => (r === null ? Number.NaN : -3)),
    },
    options,
  );
}

function assertWeights({ weights }: Correction, expected: readonly number[]): void {
  assert.equal(weights!.length, expected.length);
  weights!.forEach((w, i) => {
    assert.ok(near(w, expected[i]!), `token ${i}: ${w}, not ${expected[i]}`);
  });
}

const three = [[2, null, 3], [0.5], [0.1, 4]];

describe('importance weights', () => {
  it('are the tokens’ ratios, or the product over the response', () => {
    assertWeights(corrected(three, { importance: { level: 'token' } }), [2, 0, 3, 0.5, 0.1, 4]);
    const { metrics, ...sequence } = corrected(three, { importance: { level: 'sequence' } });
    assertWeights({ ...sequence, metrics }, [6, 0, 6, 0.5, 0.4, 0.4]);
    assert.ok(near(metrics.weightMean!, 6.9 / 3));
    assert.ok(near(metrics.weightMax!, 6));
    assert.ok(near(metrics.ess!, (6.9 / 3) ** 2 / ((36 + 0.25 + 0.16) / 3)));
    assert.ok(near(metrics.seqLogRatioMean!, (Math.log(6) + Math.log(0.5) + Math.log(0.4)) / 3));
    assert.equal(metrics.keptShare, 1);
  });

  it('are truncated at C, and from below where there is a bound', () => {
    const token = corrected(three, { importance: { level: 'token', rule: 'truncate', high: 2.5 } });
    assertWeights(token, [2, 0, 2.5, 0.5, 0.1, 2.5]);
    assert.equal(token.metrics.truncatedShare, 2 / 5);
    assert.ok(near(token.metrics.weightMax!, 4), 'metrics are of the raw weights');
    const clamped = corrected(three, {
      importance: { level: 'token', rule: 'truncate', high: 2.5, low: 0.4 },
    });
    assertWeights(clamped, [2, 0, 2.5, 0.5, 0.4, 2.5]);
    const sequence = corrected(three, { importance: { level: 'sequence', rule: 'truncate', high: 3 } });
    assertWeights(sequence, [3, 0, 3, 0.5, 0.4, 0.4]);
  });

  it('are masked above C alone (MIS), or outside two bounds (IcePop), with the mask left as it is', () => {
    const mis = corrected(three, { importance: { level: 'sequence', rule: 'mask', high: 3 } });
    assertWeights(mis, [0, 0, 0, 0.5, 0.4, 0.4]);
    assert.equal(mis.metrics.maskedShare, 1 / 3);
    assert.deepEqual([...mis.kept], [1, 0, 1, 1, 1, 1]);
    assert.equal(mis.metrics.keptShare, 3 / 5);
    const icepop = corrected(three, { importance: { level: 'token', rule: 'mask', low: 0.49, high: 3.5 } });
    assertWeights(icepop, [2, 0, 3, 0.5, 0, 0]);
    // A weight of exactly C stays: the rule is w <= C.
    assertWeights(corrected([[1]], { importance: { level: 'token', rule: 'mask', high: 1 } }), [1]);
  });

  it('are divided by their mean after truncation', () => {
    const token = corrected(three, {
      importance: { level: 'token', rule: 'truncate', high: 2.5, batchNormalize: true },
    });
    const mean = (2 + 2.5 + 0.5 + 0.1 + 2.5) / 5;
    assertWeights(token, [2 / mean, 0, 2.5 / mean, 0.5 / mean, 0.1 / mean, 2.5 / mean]);
    assert.ok(near(token.metrics.batchNormFactor!, mean));
    const sequence = corrected(three, { importance: { level: 'sequence', batchNormalize: true } });
    assertWeights(sequence, [6 / 2.3, 0, 6 / 2.3, 0.5 / 2.3, 0.4 / 2.3, 0.4 / 2.3]);
    const none = corrected([[9]], {
      importance: { level: 'token', rule: 'mask', high: 2, batchNormalize: true },
    });
    assertWeights(none, [0]);
  });

  it('are of clamped logs where asked', () => {
    const far = [[Math.exp(30)], [Math.exp(-30)]];
    assertWeights(corrected(far, { importance: { level: 'token' }, logClamp: 20 }), [
      Math.exp(20),
      Math.exp(-20),
    ]);
    assertWeights(corrected(far, { importance: { level: 'token' } }), [Math.exp(30), Math.exp(-30)]);
  });
});

describe('rejection', () => {
  const kept = (
    responses: (number | null)[][],
    ...rejections: NonNullable<CorrectionOptions['rejections']>
  ) => [...corrected(responses, { rejections }).kept];

  it('bounds ratios of tokens, of responses, and their geometric mean', () => {
    assert.deepEqual(
      kept(three, { level: 'token', measure: 'ratio', high: 3.5, low: 0.2 }),
      [1, 0, 1, 1, 0, 0],
    );
    // Products 6, 0.5, 0.4.
    assert.deepEqual(kept(three, { level: 'sequence-sum', measure: 'ratio', high: 5 }), [0, 0, 0, 1, 1, 1]);
    assert.deepEqual(kept(three, { level: 'sequence-sum', measure: 'ratio', low: 0.45 }), [1, 0, 1, 1, 0, 0]);
    // Geometric means sqrt(6) = 2.449, 0.5, sqrt(0.4) = 0.632.
    assert.deepEqual(
      kept(three, { level: 'sequence-mean', measure: 'ratio', high: 2.44 }),
      [0, 0, 0, 1, 1, 1],
    );
    assert.deepEqual(
      kept(three, { level: 'sequence-mean', measure: 'ratio', high: 2.46 }),
      [1, 0, 1, 1, 1, 1],
    );
    assert.deepEqual(kept(three, { level: 'sequence-mean', measure: 'ratio', low: 0.6 }), [1, 0, 1, 0, 1, 1]);
    assert.deepEqual(kept(three, { level: 'sequence-max', measure: 'ratio', high: 3.5 }), [1, 0, 1, 1, 0, 0]);
  });

  it('bounds k2 and k3 from above', () => {
    const k2 = (r: number) => Math.log(r) ** 2 / 2;
    const bounds = { token: k2(2.5), sum: k2(2) + k2(3) + 1e-9, mean: (k2(0.1) + k2(4)) / 2 - 1e-9 };
    assert.deepEqual(kept(three, { level: 'token', measure: 'k2', high: bounds.token }), [1, 0, 0, 1, 0, 0]);
    assert.deepEqual(
      kept(three, { level: 'sequence-sum', measure: 'k2', high: bounds.sum }),
      [1, 0, 1, 1, 0, 0],
    );
    assert.deepEqual(
      kept(three, { level: 'sequence-mean', measure: 'k2', high: bounds.mean }),
      [1, 0, 1, 1, 0, 0],
    );
    // r - 1 - log r, not of 1 / r.
    const k3of = (r: number) => r - 1 - Math.log(r);
    assert.ok(near(k3of(2), k3(-Math.log(2))));
    assert.deepEqual(kept([[2], [0.5]], { level: 'token', measure: 'k3', high: 0.25 }), [0, 1]);
    assert.deepEqual(kept([[2], [0.5]], { level: 'sequence-max', measure: 'k3', high: 0.2 }), [0, 1]);
    assert.ok(k3of(0.5) < 0.2 && k3of(2) > 0.25);
  });

  it('has every rule reject, and counts what is gone', () => {
    const { kept: left, metrics } = corrected(three, {
      rejections: [
        { level: 'token', measure: 'ratio', high: 2.5 },
        { level: 'sequence-sum', measure: 'ratio', low: 0.45 },
      ],
    });
    assert.deepEqual([...left], [1, 0, 0, 1, 0, 0]);
    assert.ok(near(metrics.rejectedShare!, 3 / 5));
    assert.ok(near(metrics.rejectedSequences!, 1 / 3));
    assert.ok(near(metrics.keptShare!, 2 / 5));
  });

  it('does not change weights, nor do weights change it', () => {
    const { weights, kept: left } = corrected(three, {
      importance: { level: 'sequence', rule: 'truncate', high: 2 },
      rejections: [{ level: 'sequence-sum', measure: 'ratio', high: 5 }],
    });
    assert.deepEqual([...left], [0, 0, 0, 1, 1, 1]);
    assert.ok(near(weights![0]!, 2));
  });

  it('compares logs, so that nothing overflows', () => {
    const responses = [Array.from({ length: 40 }, () => Math.exp(30)), [1]];
    assert.equal(kept(responses, { level: 'sequence-sum', measure: 'ratio', high: 1e300 })[0], 0);
    assert.equal(kept(responses, { level: 'sequence-mean', measure: 'ratio', high: 1e14 })[0], 1);
  });
});

describe('veto', () => {
  it('leaves out a response with one token below the threshold', () => {
    const { kept, metrics } = corrected(
      [
        [1, 0.9e-4, 1],
        [1.1e-4, null],
        [1e-9, 5],
      ],
      { vetoBelow: 1e-4 },
    );
    assert.deepEqual([...kept], [0, 0, 0, 1, 0, 0, 0]);
    assert.ok(near(metrics.vetoedSequences!, 2 / 3));
  });
});

describe('correct', () => {
  it('never reads a masked position and leaves equal policies alone', () => {
    const options: CorrectionOptions = {
      importance: { level: 'sequence', rule: 'mask', high: 2, low: 0.5 },
      rejections: [
        { level: 'token', measure: 'k3', high: 0.1 },
        { level: 'sequence-mean', measure: 'ratio', low: 0.9, high: 1.1 },
        { level: 'sequence-max', measure: 'k2', high: 0.1 },
      ],
      vetoBelow: 0.5,
      logClamp: 20,
    };
    fc.assert(
      fc.property(sequencesArbitrary, (sequences) => {
        const { offsets, mask, logprobs, rolloutLogprobs } = toBatch(sequences);
        const made = correct({ offsets, mask, to: logprobs, from: rolloutLogprobs }, options);
        for (const value of made.weights!) assert.ok(Number.isFinite(value));
        made.kept.forEach((keep, t) => {
          assert.ok(keep <= mask[t]!);
        });
        const same = correct({ offsets, mask, to: logprobs, from: logprobs }, options);
        assert.deepEqual(same.kept, mask);
        assert.deepEqual([...same.weights!], [...mask]);
      }),
    );
  });

  it('is empty for an empty mask', () => {
    const { kept, weights, metrics } = corrected([[null]], {
      importance: { level: 'token' },
      vetoBelow: 0.1,
    });
    assert.deepEqual([[...kept], [...weights!], metrics], [[0], [0], {}]);
  });
});
