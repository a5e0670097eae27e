/**
 * Every sample of a dump gives the records that our own format gives of the same numbers, and is known by its looks
 * alone.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { detectFormat, type FormatName, formatNames, formatOf } from '../../lib/diagnose/formats/index.js';
import type { DumpRecord, Series, Side } from '../../lib/diagnose/record.js';

const folder = join(import.meta.dirname, '../../../test/fixtures/diagnose');

type Row = Record<string, unknown>;

function rowsOf(file: string): Row[] {
  const lines = readFileSync(join(folder, file), 'utf8').trimEnd().split('\n');
  return lines.map((line) => JSON.parse(line) as Row);
}

function recordsOf(file: string, name: FormatName): DumpRecord[] {
  return rowsOf(file).flatMap((row, i) => formatOf(name).records(row, { file, line: i + 1 }));
}

type Field = 'id' | 'tokenTexts' | 'text' | 'promptTokens' | 'step' | 'settings' | 'top' | 'batch';

interface Sample {
  readonly file: string;
  readonly format: FormatName;
  readonly sides: Side | 'both';
  /** What it carries beside tokens, log-probs and mask. */
  readonly carries: readonly Field[];
  /** The versions of the weights in this format; null where it carries none. */
  readonly versions: readonly (string | readonly string[])[] | null;
}

const perToken = ['12', '12', ['12', '12', '12', '12', '12', '13', '13'], '13'];
const spans = ['12', '12', '12-13', '13'];

const samples: readonly Sample[] = [
  {
    file: 'plain.jsonl',
    format: 'plain',
    sides: 'both',
    carries: ['id', 'text', 'promptTokens', 'step', 'settings', 'top'],
    versions: perToken,
  },
  {
    file: 'plain-rollout.jsonl',
    format: 'plain',
    sides: 'rollout',
    carries: ['id', 'text', 'promptTokens', 'step', 'settings', 'top'],
    versions: perToken,
  },
  {
    file: 'plain-training.jsonl',
    format: 'plain',
    sides: 'training',
    carries: ['id', 'promptTokens', 'step'],
    versions: null,
  },
  {
    file: 'verl.jsonl',
    format: 'verl',
    sides: 'both',
    carries: ['id', 'text', 'promptTokens', 'step', 'settings'],
    versions: spans,
  },
  { file: 'trl.jsonl', format: 'trl', sides: 'both', carries: ['promptTokens', 'step'], versions: null },
  {
    file: 'trl-server.jsonl',
    format: 'trl',
    sides: 'rollout',
    carries: ['promptTokens', 'top'],
    versions: null,
  },
  {
    file: 'trl-async.jsonl',
    format: 'trl',
    sides: 'rollout',
    carries: ['promptTokens'],
    versions: ['12', '12', '12', '13'],
  },
  {
    file: 'vllm.jsonl',
    format: 'vllm',
    sides: 'rollout',
    carries: ['id', 'tokenTexts', 'text', 'promptTokens', 'step', 'settings', 'top'],
    versions: null,
  },
  {
    file: 'vllm-rollout.jsonl',
    format: 'vllm',
    sides: 'rollout',
    carries: ['id', 'tokenTexts', 'text', 'promptTokens', 'step', 'settings', 'top'],
    versions: null,
  },
  {
    file: 'vllm-training.jsonl',
    format: 'vllm',
    sides: 'training',
    carries: ['id', 'tokenTexts', 'promptTokens'],
    versions: null,
  },
  {
    file: 'sglang.jsonl',
    format: 'sglang',
    sides: 'rollout',
    carries: ['id', 'tokenTexts', 'text', 'promptTokens', 'step', 'settings', 'top'],
    versions: perToken,
  },
  {
    file: 'prime-rl.jsonl',
    format: 'prime-rl',
    sides: 'both',
    carries: ['promptTokens', 'step', 'batch'],
    versions: null,
  },
  {
    file: 'prime-rl-samples.jsonl',
    format: 'prime-rl',
    sides: 'rollout',
    carries: ['promptTokens'],
    versions: null,
  },
  {
    file: 'prime-rl-traces.jsonl',
    format: 'prime-rl',
    sides: 'both',
    carries: ['id', 'promptTokens', 'step'],
    versions: ['12-13', '12-13', '12-13', '12-13'],
  },
  {
    file: 'slime.jsonl',
    format: 'slime',
    sides: 'rollout',
    carries: ['id', 'text', 'promptTokens', 'settings'],
    versions: ['12', '12', '12, 13', '13'],
  },
  {
    file: 'slime-training.jsonl',
    format: 'slime',
    sides: 'both',
    carries: ['id', 'promptTokens', 'step'],
    versions: null,
  },
];

/** The numbers themselves, as the generator wrote them; read without an adapter. */
const common = rowsOf('plain.jsonl') as unknown as readonly {
  readonly id: number;
  readonly tokens: number[];
  readonly text: string;
  readonly mask: number[];
  readonly promptTokens: number[];
  readonly rolloutLogprobs: number[];
  readonly trainingLogprobs: number[];
  readonly rolloutTopLogprobs: [number, number][][];
}[];

const settings = { temperature: 0.7, topP: 0.95, topK: 50 };
const unknown = { temperature: null, topP: null, topK: null };

/** Log-probs where the mask lets them count; of the others formats have 0 or nothing. */
function counted(logprobs: Float64Array, mask: readonly number[]): number[] {
  assert.equal(logprobs.length, mask.length);
  return [...logprobs].filter((_, t) => mask[t] === 1);
}

function checkSeries(series: Series, side: Side, i: number): void {
  const { mask, rolloutLogprobs, trainingLogprobs } = common[i]!;
  const expected = side === 'rollout' ? rolloutLogprobs : trainingLogprobs;
  assert.deepEqual(counted(series.logprobs, mask), counted(Float64Array.from(expected), mask));
}

function checkTop(series: Series, i: number, record: DumpRecord): void {
  const { rolloutTopLogprobs, mask, tokens } = common[i]!;
  assert.equal(series.topLogprobs?.length, tokens.length);
  // Where the dump has texts in place of ids the text of each id is known from the responses.
  const texts = new Map(
    recordsOf('sglang.jsonl', 'sglang').flatMap(({ tokens, tokenTexts }) =>
      tokens!.map((token, t) => [tokenTexts![t]!, token] as const),
    ),
  );
  for (const [t, entries] of rolloutTopLogprobs.entries()) {
    if (mask[t] === 0) continue;
    const { tokens: found, logprobs } = series.topLogprobs![t]!;
    const sorted = (pairs: (readonly [number | string, number])[]) => pairs.sort(([, a], [, b]) => b - a);
    const pairs = sorted(found.map((token, j) => [token, logprobs[j]!] as const));
    assert.deepEqual(
      pairs.map(([, logprob]) => logprob),
      sorted([...entries]).map(([, logprob]) => logprob),
    );
    for (const [j, [token]] of pairs.entries()) {
      const id = typeof token === 'string' ? texts.get(token) : token;
      if (id !== undefined) assert.equal(id, entries[j]![0], `${record.place.file} ${i} ${t} ${j}`);
    }
  }
}

describe('samples of dumps', () => {
  for (const { file, format, sides, carries, versions } of samples) {
    it(`${file} has the common numbers`, () => {
      const records = recordsOf(file, format);
      assert.equal(records.length, common.length);
      const order =
        file === 'plain-training.jsonl' ? [2, 0, 3, 1] : file === 'verl.jsonl' ? [0, 2, 1, 3] : [0, 1, 2, 3];
      for (const [place, i] of order.entries()) {
        const record = records[place]!;
        const expected = common[i]!;
        const has = (field: Field) => carries.includes(field);
        assert.deepEqual(record.tokens, expected.tokens);
        // An engine's answer has no mask.
        const isAnswer = format === 'vllm' || format === 'sglang' || file === 'trl-server.jsonl';
        if (isAnswer) assert.equal(record.mask, null);
        else assert.deepEqual([...(record.mask ?? expected.mask.map(() => 1))], expected.mask);
        if (sides === 'both') {
          assert.equal(record.own, null);
          checkSeries(record.both!.rollout, 'rollout', i);
          checkSeries(record.both!.training, 'training', i);
        } else {
          assert.equal(record.both, null);
          checkSeries(record.own!, sides, i);
        }
        const series = record.own ?? record.both!.rollout;
        if (has('top')) checkTop(series, i, record);
        else assert.equal(series.topLogprobs, undefined);
        if (has('id')) assert.equal(record.id, String(expected.id));
        else assert.equal(record.id, file === 'prime-rl.jsonl' ? `step 3 rank 0 #${i}` : null);
        // One line of vllm.jsonl has ids in place of texts.
        if (has('tokenTexts') && record.tokenTexts !== null)
          assert.equal(record.tokenTexts.join(''), expected.text);
        else if (!(file === 'vllm.jsonl' && i === 1)) assert.equal(record.tokenTexts, null);
        assert.equal(record.text, has('text') ? expected.text : null);
        assert.deepEqual(record.promptTokens, has('promptTokens') ? expected.promptTokens : null);
        assert.equal(record.step, has('step') ? 3 : null);
        assert.equal(record.batch, has('batch') ? `step 3 rank 0 micro-step ${i >> 1}` : null);
        const temperature = file === 'prime-rl-samples.jsonl' ? 0.7 : null;
        assert.deepEqual(record.settings, has('settings') ? settings : { ...unknown, temperature });
        assert.deepEqual(record.weightsVersion, versions?.[i] ?? null);
      }
    });
  }

  it('are all tried here', () => {
    const files = readdirSync(folder).filter((name) => name.endsWith('.jsonl'));
    assert.deepEqual(files.sort(), samples.map(({ file }) => file).sort());
  });

  it('are what their script writes', () => {
    const copy = mkdtempSync(join(tmpdir(), 'isopolicy-samples-'));
    try {
      cpSync(join(folder, 'make.mjs'), join(copy, 'make.mjs'));
      execFileSync(process.execPath, [join(copy, 'make.mjs')]);
      for (const { file } of samples) {
        assert.deepEqual(readFileSync(join(copy, file)), readFileSync(join(folder, file)), file);
      }
    } finally {
      rmSync(copy, { recursive: true });
    }
  });
});

describe('detection', () => {
  it('knows every row by exactly one format', () => {
    for (const { file, format } of samples) {
      for (const [i, row] of rowsOf(file).entries()) {
        const found = formatNames.filter((name) => formatOf(name).detects(row));
        assert.deepEqual(found, [format], `${file}:${i + 1}`);
        assert.equal(detectFormat(row)?.name, format);
      }
    }
  });

  it('knows no other rows', () => {
    for (const row of [
      {},
      { a: 1 },
      { input: 'a', output: 'b', score: 1, step: 3 },
      { prompt: 'a', completion: 'b' },
      { tokens: [1] },
      { log_probs: [-1] },
    ]) {
      assert.equal(detectFormat(row), undefined);
    }
  });

  it('looks at names, so that a bad value is told by the adapter', () => {
    for (const value of ['abc', null, 5, []])
      assert.equal(detectFormat({ id: 1, logprobs: value })?.name, 'plain');
    assert.equal(detectFormat({ responses: 'abc', rollout_log_probs: 'abc' })?.name, 'verl');
    assert.equal(detectFormat({ choices: 'abc' })?.name, 'vllm');
  });

  it('refuses an unknown name and says which is near', () => {
    assert.throws(() => formatOf('vlm' as FormatName), {
      message:
        '[diagnose] expected format to be one of plain, verl, trl, vllm, sglang, prime-rl, slime, got "vlm" (did you mean vllm?)',
    });
  });

  it('has a title for each', () => {
    for (const name of formatNames) {
      assert.equal(formatOf(name).name, name);
      assert.ok(formatOf(name).title.length > 0);
    }
  });
});
