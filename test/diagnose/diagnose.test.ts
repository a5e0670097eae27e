import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { gzipSync } from 'node:zlib';
import { type DiagnoseOptions, diagnose } from '../../lib/diagnose/diagnose.js';
import type { Diagnosis } from '../../lib/diagnose/diagnosis.js';
import type { Pair, Side } from '../../lib/diagnose/record.js';
import { CounterRandom } from '../../lib/random.js';
import { fileOf, refuses } from '../data/fixtures.js';
import { lines } from './fixtures.js';
import { synthetic, usualNoise, withSeries } from './synthetic.js';

const { pairs } = synthetic({
  responses: 40,
  length: (r) => 3 + (r % 12),
  noise: usualNoise('bf16'),
  top: 4,
});

/** Responses as rows of the plain format. */
function rowsOf(all: readonly Pair[], side: Side, more: (pair: Pair) => object = () => ({})): object[] {
  return all.map((pair) => ({
    id: pair.id,
    tokens: pair.tokens,
    logprobs: [...pair[side]],
    topLogprobs: pair.topLogprobs[side]!.map((top) =>
      top!.tokens.map((token, i) => [token, top!.logprobs[i]]),
    ),
    ...more(pair),
  }));
}

const rows = { rollout: rowsOf(pairs, 'rollout'), training: rowsOf(pairs, 'training') };

/** A diagnosis without where it came from. */
function found({ provenance: _, worst, prechecks, ...rest }: Diagnosis): object {
  return {
    ...rest,
    worst: worst.map(({ places: _, ...token }) => token),
    prechecks: prechecks.map(({ examples, ...precheck }) => ({ ...precheck, examples: examples.length })),
  };
}

const fast = { draws: 5 } as const;

describe('diagnose', () => {
  it('says the same of rows, of files, and of one file with both series', async () => {
    const of = await diagnose(rows.rollout, rows.training, fast);
    const both = pairs.map((pair, i) => {
      const { logprobs, topLogprobs, ...row } = rows.rollout[i] as Record<string, unknown>;
      const training = rows.training[i] as Record<string, unknown>;
      return {
        ...row,
        rolloutLogprobs: logprobs,
        trainingLogprobs: training.logprobs,
        rolloutTopLogprobs: topLogprobs,
        trainingTopLogprobs: training.topLogprobs,
        step: pair.step,
      };
    });
    const rollout = await fileOf('rollout.jsonl', lines(rows.rollout));
    const training = await fileOf('training.jsonl.gz', gzipSync(lines(rows.training)));
    for (const same of [
      await diagnose(rollout, training, fast),
      await diagnose(rows.rollout, training, fast),
      await diagnose(both, null, fast),
      await diagnose(await fileOf('both.json', JSON.stringify(both)), undefined, fast),
    ]) {
      assert.deepEqual(found(same), found(of));
    }
    const shuffled = new CounterRandom(1).shuffle([...rows.training]);
    assert.deepEqual(found(await diagnose(rollout, shuffled, fast)), found(of));
    assert.deepEqual([of.verdict, of.cause, of.dtype.name], ['NOISE FLOOR', 'rounding', 'bf16']);
    assert.equal(of.counts.comparedResponses, 40);
    assert.equal(of.counts.signatureTokens, of.counts.comparedTokens);
    assert.deepEqual(of.counts.responses, { rollout: 40, training: 40 });
    assert.deepEqual(of.prechecks, []);
    assert.equal(of.worst.length, 20);
    assert.match(of.worst[0]!.places.training, /^training:\d+$/);
  });

  it('is the same to the byte for the same input, and tells where it came from', async () => {
    const rollout = await fileOf('rollout.jsonl', lines(rows.rollout));
    const texts = await Promise.all(
      [1, 2].map(async () => JSON.stringify(await diagnose(rollout, rows.training, { command: 'again' }))),
    );
    assert.equal(texts[0], texts[1]);
    const { provenance } = JSON.parse(texts[0]!);
    assert.equal(provenance.command, 'again');
    assert.deepEqual(
      provenance.files.map(({ side, path, format, responses }: Record<string, unknown>) => [
        side,
        path,
        format,
        responses,
      ]),
      [
        ['rollout', rollout, 'plain', 40],
        ['training', 'training', 'plain', 40],
      ],
    );
    // The hash of rows is that of the file that holds them.
    const { provenance: ofRows } = await diagnose(rows.rollout, rows.training, fast);
    assert.equal(ofRows.files[0]!.sha256, provenance.files[0].sha256);
    assert.equal(ofRows.files[0]!.bytes, provenance.files[0].bytes);
    assert.equal(ofRows.command, 'diagnose()');
  });

  it('finds faults from the files to the cause', async () => {
    const shifted = withSeries(pairs, 'training', (own) => own.map((_, t) => own[t - 1] ?? -0.5));
    const scaled = withSeries(pairs, 'training', (own) => own.map((x) => x / 0.6));
    for (const [cause, training] of [
      ['shift', rowsOf(shifted, 'training')],
      ['scaled', rowsOf(scaled, 'training')],
      [
        'mask-shifted',
        rowsOf(pairs, 'training', ({ mask }) => ({ mask: [...mask].map((_, t) => Number(t > 1)) })),
      ],
      ['token-ids', rowsOf(pairs, 'training', ({ tokens }) => ({ tokens: tokens!.map((id) => id + 1) }))],
    ] as const) {
      const rollout = rowsOf(pairs, 'rollout', ({ mask }) =>
        cause === 'mask-shifted' ? { mask: [...mask].map((_, t) => Number(t > 0)) } : {},
      );
      const diagnosis = await diagnose(rollout, training, { dtype: 'bf16' });
      assert.deepEqual([diagnosis.verdict, diagnosis.cause], ['BROKEN', cause]);
      // What does not align is no matter of chance.
      const isOfNumbers = cause === 'shift' || cause === 'scaled';
      assert.equal(diagnosis.confidence, isOfNumbers ? 40 / 41 : 1);
      assert.deepEqual(diagnosis.dtype, { name: 'bf16', declared: true });
    }
  });

  it('has no numbers where nothing could be compared', async () => {
    const others = rowsOf(pairs, 'training', ({ tokens }) => ({ tokens: tokens!.map((id) => id + 1) }));
    const { effect, metrics, worst, signatures, points, counts } = await diagnose(rows.rollout, others, fast);
    assert.deepEqual([effect, metrics, worst, signatures], [null, null, [], []]);
    assert.deepEqual(points, { tokens: [], responses: [], byPosition: [], bySurprise: [] });
    assert.equal(counts.comparedResponses, 0);
  });

  it('counts what is not finite, whether it comes as a number, a text or nothing', async () => {
    for (const odd of [Number.NaN, 'NaN', null, '-Infinity', -Infinity]) {
      const training = rowsOf(pairs, 'training', (pair) =>
        pair.index < 3 ? { logprobs: [odd, ...pair.training.slice(1)] } : {},
      );
      const { cause, prechecks, counts } = await diagnose(rows.rollout, training, fast);
      assert.equal(cause, 'not-finite');
      assert.deepEqual(
        prechecks.map(({ kind, count }) => [kind, count]),
        [['not-finite', 3]],
      );
      assert.equal(counts.comparedTokens, pairs.reduce((sum, { mask }) => sum + mask.length, 0) - 3);
    }
  });

  it('gives ids a text, where the dumps have none', async () => {
    const asked: number[] = [];
    const tokenText = (id: number) => {
      asked.push(id);
      return `<${id}>`;
    };
    const { worst } = await diagnose(rows.rollout, rows.training, { ...fast, tokenText });
    assert.deepEqual(
      worst.map(({ text }) => text),
      worst.map(({ token }) => `<${token}>`),
    );
    assert.equal(asked.length, 20);
    const texts = rowsOf(pairs, 'rollout', ({ tokens }) => ({ text: tokens!.map((id) => `own ${id}`) }));
    const own = await diagnose(texts, rows.training, { ...fast, tokenText: () => assert.fail('not asked') });
    assert.ok(own.worst.every(({ text, token }) => text === `own ${token}`));
  });

  it('takes typed arrays, hashes them as what they hold, and leaves rows as they were', async () => {
    const typed = (all: readonly object[]) =>
      all.map((row) => {
        const { tokens, logprobs } = row as { tokens: number[]; logprobs: number[] };
        const mask = new Uint8Array(tokens.length).fill(1);
        return Object.freeze({
          ...row,
          mask,
          tokens: Int32Array.from(tokens),
          logprobs: Float64Array.from(logprobs),
        });
      });
    const arrays = (all: readonly object[]) =>
      all.map((row) => ({ ...row, mask: (row as { tokens: number[] }).tokens.map(() => 1) }));
    const [a, b] = await Promise.all(
      [typed, arrays].map((of) => diagnose(of(rows.rollout), of(rows.training), fast)),
    );
    assert.deepEqual(a, b);
  });

  it('lets timers have their turn, and ends at the time of a signal, though rows are in memory', async () => {
    const { pairs: many } = synthetic({ responses: 400, length: 100, noise: usualNoise('bf16') });
    const [rollout, training] = (['rollout', 'training'] as const).map((side) =>
      many.map(({ id, tokens, [side]: logprobs }) => ({ id, tokens, logprobs: [...logprobs] })),
    );
    let ticks = 0;
    const timer = setInterval(() => ticks++, 1);
    const start = performance.now();
    await diagnose(rollout!, training!);
    const took = performance.now() - start;
    clearInterval(timer);
    // A machine that is busy with other things makes all of it longer.
    assert.ok(ticks >= took / 400, `${ticks} turns in ${took} ms`);
    const signal = AbortSignal.timeout(1);
    await assert.rejects(diagnose(rollout!, training!, { signal, draws: 10_000 }), { name: 'TimeoutError' });
  });

  it('is not sure of a few tokens, and not alarmed', async () => {
    for (const [responses, length] of [
      [1, 1],
      [2, 3],
      [4, 5],
    ] as const) {
      const { pairs: few } = synthetic({ responses, length, noise: usualNoise('bf16'), seed: 7 });
      const plain = (side: Side) => few.map(({ id, [side]: logprobs }) => ({ id, logprobs: [...logprobs] }));
      const { verdict, confidence } = await diagnose(plain('rollout'), plain('training'));
      assert.equal(verdict, 'NOISE FLOOR');
      assert.ok(confidence <= responses / (responses + 1), `${confidence}`);
    }
  });

  it('does not call responses broken that both sides leave out', async () => {
    const masked = (side: Side) =>
      rowsOf(pairs, side, ({ index, tokens }) => (index === 5 ? { mask: tokens!.map(() => 0) } : {}));
    const one = await diagnose(masked('rollout'), masked('training'), fast);
    assert.deepEqual([one.verdict, one.cause], ['NOISE FLOOR', 'rounding']);
    assert.deepEqual(
      one.prechecks.map(({ kind, count, leftOut }) => [kind, count, leftOut]),
      [['nothing-counts', 1, true]],
    );
    const none = (side: Side) => rowsOf(pairs, side, ({ tokens }) => ({ mask: tokens!.map(() => 0) }));
    const all = await diagnose(none('rollout'), none('training'), fast);
    assert.deepEqual([all.verdict, all.cause], ['BROKEN', 'nothing-counts']);
    const nulls = rowsOf(pairs, 'training', ({ tokens }) => ({ logprobs: tokens!.map(() => null) }));
    const { verdict, cause } = await diagnose(rows.rollout, nulls, fast);
    assert.deepEqual([verdict, cause], ['BROKEN', 'not-finite']);
  });

  it('names ids of both sides where none is on both', async () => {
    const others = rowsOf(pairs, 'training', ({ index }) => ({ id: `prompt ${index}` }));
    const { verdict, cause, prechecks } = await diagnose(rows.rollout, others, fast);
    assert.deepEqual([verdict, cause], ['BROKEN', 'missing']);
    const { count, of, examples } = prechecks[0]!;
    assert.deepEqual([count, of, examples.length], [80, 80, 6]);
    assert.equal(examples[0], `rollout:1, id ${pairs[0]!.id}: not in training`);
    assert.equal(examples[3], 'training:1, id prompt 0: not in rollout');
  });

  it('reports every thousand responses', async () => {
    const told: number[] = [];
    const one = { tokens: [1], logprobs: [-1] };
    const many = new Array(2500).fill(one);
    await diagnose(many, many, { ...fast, report: ({ responses }) => told.push(responses) });
    assert.deepEqual(told, [1000, 2000]);
  });

  it('ends with the reason of the signal, before and while it reads', async () => {
    const reason = new Error('enough');
    const aborted = { ...fast, signal: AbortSignal.abort(reason) };
    await assert.rejects(diagnose(rows.rollout, rows.training, aborted), reason);
    await assert.rejects(
      diagnose(await fileOf('a.jsonl', lines(rows.rollout)), rows.training, aborted),
      reason,
    );
    const controller = new AbortController();
    const one = { tokens: [1], logprobs: [-1] };
    const many = new Array(2500).fill(one);
    const told: number[] = [];
    await assert.rejects(
      diagnose(many, many, {
        ...fast,
        signal: controller.signal,
        report: ({ responses }) => {
          told.push(responses);
          controller.abort(reason);
        },
      }),
      reason,
    );
    assert.deepEqual(told, [1000]);
  });

  it('refuses options that are none, and input that is none', async () => {
    const bad: readonly (readonly [object, RegExp])[] = [
      [{ dtype: 'bf61' }, /expected dtype to be fp16, bf16, fp32/],
      [{ dtype: 16 }, /expected dtype/],
      [{ numLayers: 0 }, /expected numLayers to be an integer of at least 1, got 0/],
      [{ hiddenSize: 1.5 }, /expected hiddenSize to be an integer of at least 1, got 1.5/],
      [{ format: 'verll' }, /expected format to be .*verl.*"verll" \(did you mean verl\?\)/],
      [{ draws: 0 }, /expected draws to be an integer/],
      [{ tokenText: 'x' }, /expected tokenText to be a function, got "x"/],
      [{ report: null }, /expected report to be a function, got null/],
      [{ command: 5 }, /expected command to be a text, got 5/],
      [{ signal: {} }, /expected signal to be an AbortSignal, got Object/],
    ];
    for (const [options, message] of bad) {
      await assert.rejects(
        diagnose(rows.rollout, rows.training, options as DiagnoseOptions),
        refuses(message),
      );
    }
    for (const [rollout, training, message] of [
      [undefined, null, /expected rollout to be the path of a file or an array of rows/],
      [rows.rollout, 7, /expected training to be the path/],
      [[], null, /rollout to hold responses, got "none"/],
      [rows.rollout, [1], /training:1 to be an object, got/],
      [rows.rollout, [{ ...rows.training[0], id: 1n }], /training:1 to hold what JSON can, got ".*BigInt"/],
      [rows.rollout, null, /both engines' log-probs on rollout:1, or a second file/],
      ['/nonexistent/rollout.jsonl', null, /\/nonexistent\/rollout\.jsonl/],
    ] as const) {
      await assert.rejects(diagnose(rollout as never, training as never), refuses(message));
    }
    await assert.rejects(
      diagnose(rows.rollout, rows.training, null as never),
      refuses(/expected options to be an object, got null/),
    );
  });
});
