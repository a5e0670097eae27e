import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { type Match, pairs } from '../../lib/diagnose/pairs.js';
import { provenanceOf } from '../../lib/diagnose/provenance.js';
import { openDump } from '../../lib/diagnose/readDump.js';
import { fileOf, refuses } from '../data/fixtures.js';
import { collectAll, lines, matchesOf, response } from './fixtures.js';

/** What of a match does not tell the order of training's file. */
function seen(match: Match): unknown {
  if ('missing' in match) return [match.missing, match.id];
  const { index, rollout, training } = match;
  assert.equal(rollout.id, training.id);
  return [index, rollout.id, rollout.place.line, [...rollout.own.logprobs], [...training.own.logprobs]];
}

const rolloutOf = (ids: readonly string[]) => ids.map((id) => response(id, [-1, -id.length]));
const trainingOf = (ids: readonly string[]) => ids.map((id) => response(id, [-1.5, -id.length]));
/** The indices of 0, 1, ... in an order by random keys. */
const order = (keys: readonly number[]) => keys.map((_, i) => i).sort((a, b) => keys[a]! - keys[b]! || a - b);

describe('pairs', () => {
  it('are the same in whatever order training has them, packed or not', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.uniqueArray(fc.string({ minLength: 1 }), { minLength: 1, maxLength: 30 }),
        fc.infiniteStream(fc.double({ min: 0, max: 1, noNaN: true })),
        fc.constantFrom('', 'rollout', 'training', 'both'),
        fc.boolean(),
        async (ids, stream, packed, asArray) => {
          const keys = ids.map(() => stream.next().value!);
          const write = asArray ? (rows: object[]) => JSON.stringify(rows, null, 1) : lines;
          const rollout = write(rolloutOf(ids));
          const ordered = await matchesOf(rollout, write(trainingOf(ids)));
          const shuffled = await matchesOf(
            rollout,
            write(trainingOf(order(keys).map((i) => ids[i]!))),
            packed as '',
          );
          assert.equal(ordered.length, ids.length);
          assert.deepEqual(shuffled.map(seen), ordered.map(seen));
        },
      ),
      { numRuns: 60, seed: 2 },
    );
  });

  it('tell each response that one side lacks, once', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.uniqueArray(fc.tuple(fc.nat(1000), fc.nat(2), fc.nat(100)), {
          minLength: 1,
          selector: ([id]) => id,
        }),
        fc.constantFrom('', 'rollout', 'training', 'both'),
        async (all, packed) => {
          const inRollout = all.filter(([, where]) => where !== 1).map(([id]) => `${id}`);
          const places = order(all.map(([, , key]) => key)).map((i) => all[i]!);
          const inTraining = places.filter(([, where]) => where !== 2).map(([id]) => `${id}`);
          fc.pre(inRollout.length > 0 && inTraining.length > 0);
          const matches = await matchesOf(
            lines(rolloutOf(inRollout)),
            lines(trainingOf(inTraining)),
            packed as '',
          );
          const found = matches.flatMap((match) => ('missing' in match ? [] : [match.rollout.id]));
          assert.deepEqual(
            found,
            inRollout.filter((id) => inTraining.includes(id)),
          );
          const lacking = (side: string) =>
            matches.flatMap((match) => ('missing' in match && match.missing === side ? [match] : []));
          assert.deepEqual(
            lacking('training').map(({ id }) => id),
            inRollout.filter((id) => !inTraining.includes(id)),
          );
          const alone = inTraining.filter((id) => !inRollout.includes(id));
          assert.deepEqual(
            lacking('rollout').map(({ id, place }) => [id, place.line]),
            alone.map((id, i) => [i < 3 ? id : null, inTraining.indexOf(id) + 1]),
          );
        },
      ),
      { numRuns: 100, seed: 3 },
    );
  });

  it('may lie several in a row of the file, in other rows on the other side', async () => {
    const trl = (ids: readonly string[], logprob: number) => ({
      id: ids,
      completion_ids: ids.map(() => [5, 6]),
      completion_mask: ids.map(() => [1, 1]),
      sampling_per_token_logps: ids.map((id) => [logprob, -Number(id)]),
    });
    const rollout = lines([trl(['1', '2', '3'], -1), trl(['4', '5', '6'], -1)]);
    const same = lines([trl(['1', '2', '3'], -2), trl(['4', '5', '6'], -2)]);
    const other = lines([trl(['6', '2'], -2), trl(['5', '1', '4'], -2), trl(['3'], -2)]);
    const ordered = await matchesOf(rollout, same);
    assert.deepEqual(
      ordered.map((match) => !('missing' in match) && [match.rollout.id, ...match.training.own.logprobs]),
      ['1', '2', '3', '4', '5', '6'].map((id) => [id, -2, -Number(id)]),
    );
    for (const packed of ['', 'both'] as const) {
      assert.deepEqual((await matchesOf(rollout, other, packed)).map(seen), ordered.map(seen));
    }
    const twice = lines([trl(['1', '2'], -2), trl(['3', '1'], -2)]);
    await assert.rejects(
      matchesOf(rollout, twice),
      refuses(/got "id 1 on .*training\.jsonl:1 and .*training\.jsonl:2"$/),
    );
  });

  it('go by place where no response has an id, and say what is left over', async () => {
    const rows = [-1, -2, -3].map((logprob) => response(undefined, [logprob]));
    const two = lines(rows.slice(0, 2));
    const same = await matchesOf(lines(rows), lines(rows));
    assert.deepEqual(
      same.map((match) => 'missing' in match || match.training.place.line),
      [1, 2, 3],
    );
    const short = await matchesOf(lines(rows), two);
    assert.deepEqual(short.slice(0, 2).map(seen), same.slice(0, 2).map(seen));
    for (const [match, side] of [
      [short[2]!, 'training'],
      [(await matchesOf(two, lines(rows)))[2]!, 'rollout'],
    ] as const) {
      assert.ok('missing' in match && match.missing === side && match.place.line === 3);
    }
  });

  it('are of one file where that has both series', async () => {
    const row = { id: 1, tokens: [5, 6], rolloutLogprobs: [-1, -2], trainingLogprobs: [-1.25, -2.25] };
    const [match] = await matchesOf(lines([row]), null);
    assert.ok(match && !('missing' in match));
    assert.deepEqual([...match.rollout.own.logprobs], [-1, -2]);
    assert.deepEqual([...match.training.own.logprobs], [-1.25, -2.25]);
  });

  it('know the files that they came from', async () => {
    const text = lines(rolloutOf(['a', 'b']));
    const rollout = await openDump(await fileOf('rollout.jsonl', text));
    const training = await openDump(
      await fileOf('training.jsonl', gzipSync(lines(trainingOf(['b', 'a', 'c'])))),
    );
    await collectAll(pairs(rollout, training));
    const { files, node } = provenanceOf(rollout, training, '1.2.3', 'isopolicy diagnose');
    assert.equal(node, process.version);
    assert.deepEqual(
      files.map(({ side, bytes, format, compressed, responses }) => [
        side,
        bytes > 0,
        format,
        compressed,
        responses,
      ]),
      [
        ['rollout', true, 'plain', false, 2],
        ['training', true, 'plain', true, 3],
      ],
    );
    assert.equal(files[0]!.bytes, Buffer.byteLength(text));
  });

  const ab = lines(rolloutOf(['a', 'b']));
  const both = lines([{ id: 1, rolloutLogprobs: [-1], trainingLogprobs: [-1] }]);
  const none = lines([response(undefined, [-1])]);
  const bad: [what: string, rollout: string, training: string | null, message: RegExp][] = [
    [
      'an id twice in both',
      lines(rolloutOf(['a', 'b', 'a'])),
      lines(trainingOf(['a', 'b', 'a'])),
      /each id once in .*training\.jsonl(\.gz)?, got "id a on .*training\.jsonl(\.gz)?:1 and .*training\.jsonl(\.gz)?:3"$/,
    ],
    [
      'an id twice in rollout',
      lines(rolloutOf(['a', 'b', 'a'])),
      lines(trainingOf(['a', 'b', 'c'])),
      /each id once in .*rollout\.jsonl.*, got "id a on .*rollout\.jsonl(\.gz)?:1 and .*rollout\.jsonl(\.gz)?:3"$/,
    ],
    [
      'an id twice in rollout that training lacks',
      lines(rolloutOf(['a', 'x', 'b', 'x'])),
      ab,
      /got "id x on .*rollout\.jsonl(\.gz)?:2 and .*rollout\.jsonl(\.gz)?:4"$/,
    ],
    [
      'an id twice in training',
      ab,
      lines(trainingOf(['b', 'c', 'c', 'a'])),
      /got "id c on .*training\.jsonl(\.gz)?:2 and .*training\.jsonl(\.gz)?:3"$/,
    ],
    [
      'an id twice in the one file',
      lines([
        { id: 1, rolloutLogprobs: [-1], trainingLogprobs: [-1] },
        { id: '1', rolloutLogprobs: [-1], trainingLogprobs: [-1] },
      ]),
      null,
      /got "id 1 on .*rollout\.jsonl(\.gz)?:1 and .*rollout\.jsonl(\.gz)?:2"$/,
    ],
    [
      'ids in rollout alone',
      ab,
      none,
      /ids in both files, or in neither \(.*rollout.* has them\), got "none in .*training/,
    ],
    [
      'ids in training alone',
      none,
      ab,
      /ids in both files, or in neither \(.*training.* has them\), got "none in .*rollout/,
    ],
    [
      'ids from the second line on',
      `${none}${ab}`,
      ab,
      /ids in both files|an id on .*rollout\.jsonl(\.gz)?:1, as .*:2 has one/,
    ],
    [
      'an id that is missing',
      `${ab}${none}`,
      lines(rolloutOf(['a', 'b', 'c'])),
      /an id on .*rollout\.jsonl(\.gz)?:3, as .*rollout\.jsonl(\.gz)?:1 has one/,
    ],
    [
      'one series and no second file',
      ab,
      null,
      /both engines' log-probs on .*rollout\.jsonl(\.gz)?:1, or a second file/,
    ],
    [
      'both series and a second file',
      both,
      ab,
      /one engine's log-probs on .*rollout\.jsonl(\.gz)?:1, beside a second file, got "both/,
    ],
    [
      'both series in the second file',
      ab,
      both,
      /one engine's log-probs on .*training\.jsonl(\.gz)?:1, beside a second file/,
    ],
    ['no responses in training', ab, '\n', /training\.jsonl(\.gz)? to hold responses, got "none"/],
    [
      'a training file that is cut short',
      ab,
      lines(trainingOf(['b', 'a'])).slice(0, -4),
      /training\.jsonl(\.gz)?:2 to be JSON.*cut short/,
    ],
  ];
  for (const [what, rollout, training, message] of bad) {
    it(`refuse ${what}, packed or not`, async () => {
      for (const packed of ['', 'both'] as const) {
        await assert.rejects(
          matchesOf(rollout, training, packed),
          refuses(/^\[diagnose\] expected /, message),
        );
      }
    });
  }

  it('end at a signal, in either way of reading', async () => {
    const ids = Array.from({ length: 3000 }, (_, i) => `${i}`);
    for (const training of [ids, ids.toReversed()]) {
      const a = await openDump(await fileOf('rollout.jsonl', lines(rolloutOf(ids))));
      const b = await openDump(await fileOf('training.jsonl', gzipSync(lines(trainingOf(training)))));
      const stop = new AbortController();
      let count = 0;
      const all = async () => {
        for await (const _ of pairs(a, b, { signal: stop.signal }))
          if (++count === 10) stop.abort(new Error('stopped'));
      };
      await assert.rejects(all(), /^Error: stopped$/);
      assert.ok(count < ids.length, `${count}`);
    }
  });
});
