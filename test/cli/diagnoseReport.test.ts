import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { stripVTControlCharacters } from 'node:util';
import fc from 'fast-check';
import { diagnosisMarkdown } from '../../lib/cli/diagnoseMarkdown.js';
import { diagnosisText } from '../../lib/cli/diagnoseReport.js';
import { displayWidth } from '../../lib/cli/terminalText.js';
import type { Diagnosis, WorstToken } from '../../lib/diagnose/diagnosis.js';
import { diagnosisOf, normalPairs, pairOf } from '../diagnose/support.js';

const usual = await diagnosisOf(normalPairs(40, (i) => 5 + (i % 30), 0.1));

const nasty = [
  '',
  ' ',
  '  two  spaces ',
  '\n\r\t\u0000\u001b[2J\u0007',
  '| a | `b` | <b>c</b> & &amp; \\| *d* _e_ [f](g) @you #1 ~~h~~ $i$',
  '漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字',
  '👩‍👩‍👧‍👦🏳️‍🌈🙂🙂🙂🙂🙂🙂🙂🙂🙂🙂',
  `e${'\u0301'.repeat(200)}`,
  '\u202eright to left\u202c \u2028 \u00a0 \ufeff \ud800',
  'x'.repeat(5000),
  'NaN',
];

/** The usual diagnosis with other people's text wherever there is room for any. */
function diagnosisWith(text: string, number = 1): Diagnosis {
  const token: WorstToken = {
    id: text,
    position: 1234,
    length: 5678,
    token: 151643 * number,
    text,
    logMu: -0.5 * number,
    logPi: -17.25 * number,
    places: { rollout: `${text}:12`, training: `${text}:13` },
  };
  return {
    ...usual,
    causeText: `cause ${text}`,
    action: `do ${text}`,
    prechecks: usual.prechecks.map((precheck) => ({ ...precheck, text, examples: [text, text] })),
    signatures: usual.signatures.map((signature) => ({ ...signature, evidence: `seen ${text}` })),
    worst: [token, { ...token, token: null, text: null }],
    provenance: {
      ...usual.provenance,
      command: `isopolicy diagnose ${text}`,
      files: usual.provenance.files.map((file) => ({ ...file, path: text })),
    },
  };
}

const linesOf = (diagnosis: Diagnosis) => diagnosisText(diagnosis).split('\n');

function assertFits(diagnosis: Diagnosis): void {
  for (const line of linesOf(diagnosis)) {
    assert.ok(displayWidth(line) <= 80, `${displayWidth(line)} columns: ${line}`);
    assert.doesNotMatch(line, /\p{C}/u);
    assert.equal(line, line.trimEnd());
  }
}

describe('a diagnosis as text', () => {
  it('has everything, in the order in which it is read', () => {
    const text = diagnosisText(usual);
    const places = [
      /^SUSPICIOUS {2}most likely cause: the engines use different temperatures/,
      /\(confidence 97 %\)/,
      /^Do: Divide the training logits/m,
      /can't tell it from: scaled\./,
      /^Prechecks:$/m,
      /^- missing: 2 of 42 responses, left out: in the rollout file/m,
      /^ {2}- rollout\.jsonl:65: sample-64$/m,
      /^Signatures found:$/m,
      /^- temperature: log-probs of one side are at another temperature \(explains 94 %\)$/m,
      /^- uncertainty: what uncertainty leaves behind$/m,
      /^- floor: symmetric noise no larger than rounding predicts \(not found\)$/m,
      /^- not found: zero-fill, .*position$/ms,
      /^Effect on learning:$/m,
      /^KL\[mu\|\|pi\], k3 /m,
      /^r, 0\.1 % /m,
      /^L, 95 % /m,
      /^Token-TIS /m,
      /^No correction would freeze|^POLICY FROZEN/m,
      /^Worst tokens/m,
      /^sample-\d+ +\d+ +\d+ +-?[\d.e-]+ +-?[\d.e-]+ +-?[\d.]+ {2}" word\d+"$/m,
      /^Provenance:$/m,
      /^ {4}sha256 [0-9a-f]{64}$/m,
      /^- isopolicy 1\.2\.3 on Node 22\.23\.3$/m,
      /^- isopolicy diagnose rollout\.jsonl\.gz/m,
    ].map((pattern) => text.search(pattern));
    assert.ok(!places.includes(-1), String(places));
    assert.deepEqual(
      places,
      [...places].sort((a, b) => a - b),
    );
    assert.equal(text.match(/^sample-\d+ .*"$/gm)?.length, 20);
    assertFits(usual);
  });

  it('has no line beyond 80 columns and no control character, whatever ids, texts and paths are', () => {
    for (const text of nasty) for (const number of [1, 1e-9, 1e25]) assertFits(diagnosisWith(text, number));
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 120 }), (text) => assertFits(diagnosisWith(text))),
      { numRuns: 60 },
    );
  });

  it('says what there is nothing of', async () => {
    const same = await diagnosisOf([pairOf(0, [-1], [-1])], { prechecks: [] });
    const nothing: Diagnosis = {
      ...same,
      verdict: 'BROKEN',
      alternatives: [],
      effect: null,
      signatures: same.signatures.map((signature) => ({ ...signature, found: false })),
    };
    const text = diagnosisText(nothing);
    for (const sentence of [
      'Prechecks: both sides align.',
      'Signatures: none found.',
      'Effect on learning: nothing could be compared.',
      'Worst tokens: none, no two log-probs differ.',
    ]) {
      assert.ok(text.includes(`\n${sentence}\n`), sentence);
    }
    assert.doesNotMatch(text, /can't tell it from/);
    assertFits(nothing);
    assert.match(diagnosisText(same), /No correction would freeze the policy, at responses of 1 token\./);
  });

  it('has colour in the verdict and the warning where it is asked for, and the same words', async () => {
    const frozen = await diagnosisOf(
      normalPairs(30, () => 400, 0.8),
      { verdict: 'BROKEN' },
    );
    const plain = diagnosisText(frozen);
    const colored = diagnosisText(frozen, { color: true });
    assert.ok(colored.startsWith('\x1b[31mBROKEN\x1b[39m  '));
    assert.ok(colored.includes('\n\x1b[31mPOLICY FROZEN: with Seq-TIS, Seq-MIS, geometric less than 5 %'));
    assert.equal(stripVTControlCharacters(colored), plain);
    assert.ok(diagnosisText(usual, { color: true }).startsWith('\x1b[33mSUSPICIOUS\x1b[39m'));
    const floor = diagnosisText({ ...usual, verdict: 'NOISE FLOOR' }, { color: true });
    assert.ok(floor.startsWith('\x1b[32mNOISE FLOOR\x1b[39m'));
  });

  it('shows more of long texts where there is more room', () => {
    const wide = diagnosisText(diagnosisWith('x'.repeat(5000)), { width: 200 });
    assert.ok(wide.split('\n').some((line) => line.length > 150));
    assert.ok(wide.split('\n').every((line) => line.length <= 200));
  });
});

/** What a reader of the page sees of escaped text. */
function decoded(text: string): string {
  return text.replaceAll(/<\/?code>/g, '').replaceAll(/&#(\d+);/g, (_, code) => String.fromCharCode(code));
}

describe('a diagnosis as Markdown', () => {
  it('has the parts of the text, and tables with as many cells in every row', () => {
    for (const diagnosis of [usual, ...nasty.map((text) => diagnosisWith(text))]) {
      const markdown = diagnosisMarkdown(diagnosis);
      const titles = [...markdown.matchAll(/^#+ (.*)$/gm)].map(([, title]) => title!);
      assert.match(markdown, /^\*\*Most likely cause:\*\* .*\(confidence 97 %\)$/m);
      assert.deepEqual(titles, [
        'SUSPICIOUS',
        'Prechecks',
        'Signatures',
        'Effect on learning',
        'Worst tokens',
        'Provenance',
      ]);
      for (const part of markdown.split('\n\n').filter((text) => text.startsWith('| '))) {
        const counts = part
          .trimEnd()
          .split('\n')
          .map((line) => line.split('|').length);
        assert.equal(new Set(counts).size, 1, part);
      }
    }
  });

  it('shows texts as they are and never as markup', () => {
    for (const text of nasty) {
      const markdown = diagnosisMarkdown(diagnosisWith(text));
      const row = markdown.split('\n').find((line) => line.includes('1234 of 5678')) ?? assert.fail(text);
      const cells = row.split(' | ');
      // Every sign that Markdown or HTML knows is an entity, but those that we put there.
      assert.doesNotMatch(markdown.replaceAll(/<\/?code>|&#\d+;|^\|.*\|$/gm, ''), /[<>`@$~\\]/);
      assert.doesNotMatch(row.replaceAll(/<\/?code>|&#\d+;/g, ''), /[<>`@$~\\*_[\]]/);
      if (!/[\p{C}\p{Z}]/u.test(text.replaceAll(' ', ''))) {
        assert.equal(JSON.parse(decoded(cells[3]!)), text);
      }
    }
    const spoken = diagnosisMarkdown(diagnosisWith('a|b`c'));
    assert.ok(spoken.includes('<code>"a&#124;b&#96;c"</code>'));
  });
});
