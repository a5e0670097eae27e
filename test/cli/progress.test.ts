import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import fc from 'fast-check';
import { fitLine, ProgressWriter } from '../../lib/cli/progress.js';
import { SanityProgress } from '../../lib/cli/sanityProgress.js';
import type { StepRecord } from '../../lib/rl/record.js';
import type { SanityEvent } from '../../lib/sanity/run.js';

/** A terminal of its own making: carriage return, line feed, erase to the end of the line, and wrapping. */
class Terminal {
  readonly isTTY = true;
  columns: number;
  readonly lines: string[] = [''];
  wrapped = 0;
  writes = 0;
  #column = 0;

  constructor(columns: number) {
    this.columns = columns;
  }

  write(text: string): void {
    this.writes++;
    for (let i = 0; i < text.length; i++) {
      if (text.startsWith('\x1b[K', i)) {
        this.#edit((line) => line.slice(0, this.#column));
        i += 2;
      } else if (text[i] === '\r') {
        this.#column = 0;
      } else if (text[i] === '\n') {
        this.#newLine();
      } else {
        assert.ok(text[i]! >= ' ', 'no other control character');
        if (this.#column === this.columns) {
          this.#newLine();
          this.wrapped++;
        }
        this.#edit((line) => line.slice(0, this.#column) + text[i] + line.slice(this.#column + 1));
        this.#column++;
      }
    }
  }

  #newLine(): void {
    this.lines.push('');
    this.#column = 0;
  }

  #edit(change: (line: string) => string): void {
    this.lines.push(change(this.lines.pop()!));
  }
}

/** What a run that isn't on a terminal has. */
class Pipe {
  text = '';
  write(text: string): void {
    this.text += text;
  }
}

function stepEvent(step: number, steps = 160): SanityEvent {
  const record: StepRecord = {
    step,
    'train/reward_window': 0.8421,
    'mismatch/klMuPiK3': 1.23e-6,
    'scaler/scale': 65536,
    'time/tokens_per_s': 8412,
    'time/step_s': 0.2,
    'time/total_s': 10 + 0.25 * step,
  };
  return { kind: 'step', record, steps };
}

const events: readonly SanityEvent[] = [
  { kind: 'teach', step: 10, loss: 2.304, accuracy: 0.0078 },
  { kind: 'teach', step: 20, loss: 1.1, accuracy: 0.25 },
  { kind: 'select', tried: 50, kept: 12, candidates: 400 },
  { kind: 'resume', step: 36 },
  stepEvent(36),
  stepEvent(37),
  { kind: 'effect', setting: { precision: 'bf16', numerics: 'default' } },
  { kind: 'effect', setting: { precision: 'fp16', numerics: 'matched' } },
];

test('lines of every event in full', () => {
  const progress = new SanityProgress();
  assert.deepEqual(
    events.map((event) => fitLine(progress.line(event).parts)),
    [
      'teaching  step 10  loss 2.30  accuracy 0.008',
      'teaching  step 20  loss 1.10  accuracy 0.250',
      'selecting problems  50/400 tried  12 kept',
      'resuming after step 36',
      // 123 steps of 0.2 s, the pace of the only step; then 122 of 0.25 s, the pace from one to the next.
      'step 37/160  reward 0.842  KL 1.2e-6  scale 65536  8.4k tok/s  at most 0:25 left',
      'step 38/160  reward 0.842  KL 1.2e-6  scale 65536  8.4k tok/s  at most 0:31 left',
      'measuring the mismatch in bf16, default numerics',
      'measuring the mismatch in fp16, matched numerics',
    ],
  );
});

test('the time left follows the last ten steps', () => {
  const progress = new SanityProgress();
  let total = 0;
  let line = '';
  for (let step = 0; step < 30; step++) {
    total += step < 19 ? 60 : 1;
    const event = stepEvent(step, 40) as Extract<SanityEvent, { kind: 'step' }>;
    line = fitLine(progress.line({ ...event, record: { ...event.record, 'time/total_s': total } }).parts);
  }
  assert.match(line, /at most 0:10 left$/);
});

test('a narrow line is shortened, then loses the least important parts, then is cut', () => {
  const { parts } = new SanityProgress().line(stepEvent(36));
  const at = (width: number) => fitLine(parts, width);
  assert.equal(at(200), at(80));
  assert.equal(at(79), 'step 37/160  reward 0.842  KL 1.2e-6  scale 65536  8.4k tok/s  at most 0:25');
  assert.equal(at(74), '37/160  reward 0.842  KL 1.2e-6  scale 65536  8.4k tok/s  at most 0:25');
  assert.equal(at(69), '37/160  reward 0.842  KL 1.2e-6  scale 65536  at most 0:25');
  assert.equal(at(40), '37/160  reward 0.842  at most 0:25');
  assert.equal(at(26), '37/160  reward 0.842');
  assert.equal(at(15), '37/160');
  assert.equal(at(4), '37/1');
  assert.equal(at(0), '');
});

test('a line is never wider than asked, and parts keep their order', () => {
  const part = fc.record({
    text: fc.stringMatching(/^[a-z]{1,12}$/),
    importance: fc.integer({ min: 0, max: 3 }),
  });
  fc.assert(
    fc.property(
      fc.array(part, { minLength: 1, maxLength: 8 }),
      fc.integer({ min: 0, max: 120 }),
      (parts, width) => {
        const line = fitLine(parts, width);
        assert.ok(line.length <= width);
        const texts = parts.map(({ text }) => text);
        const kept = line.split('  ');
        if (kept.length > 1) {
          let at = -1;
          for (const text of kept) {
            at = texts.indexOf(text, at + 1);
            assert.ok(at >= 0, `${line} of ${texts.join(' ')}`);
          }
        }
      },
    ),
  );
});

for (const columns of [40, 80, 200]) {
  test(`on a terminal of ${columns} columns, a phase has one line, which never wraps`, () => {
    const terminal = new Terminal(columns);
    const writer = new ProgressWriter(terminal);
    const progress = new SanityProgress();
    for (const event of events) writer.update(progress.line(event));
    writer.end();
    terminal.write('verdict\n');
    assert.equal(terminal.wrapped, 0);
    const full = columns > 80;
    assert.deepEqual(terminal.lines, [
      columns === 40 ? 'teaching  step 20  accuracy 0.250' : 'teaching  step 20  loss 1.10  accuracy 0.250',
      columns === 40 ? 'selecting  50/400  12 kept' : 'selecting problems  50/400 tried  12 kept',
      'resuming after step 36',
      columns === 40
        ? '38/160  reward 0.842  at most 0:31'
        : `step 38/160  reward 0.842  KL 1.2e-6  scale 65536  8.4k tok/s  at most 0:31${full ? ' left' : ''}`,
      columns === 40 ? 'measuring fp16, matched' : 'measuring the mismatch in fp16, matched numerics',
      'verdict',
      '',
    ]);
  });
}

test('a terminal that becomes narrower gets narrower lines', () => {
  const terminal = new Terminal(120);
  const writer = new ProgressWriter(terminal);
  const progress = new SanityProgress();
  writer.update(progress.line(stepEvent(36)));
  terminal.columns = 30;
  writer.update(progress.line(stepEvent(37)));
  writer.end();
  assert.equal(terminal.lines[0], '38/160  reward 0.842');
});

test('many updates are few drawings, and the last one is drawn', async () => {
  const terminal = new Terminal(80);
  const writer = new ProgressWriter(terminal);
  const progress = new SanityProgress();
  for (let step = 0; step < 1000; step++) writer.update(progress.line(stepEvent(step, 1000)));
  assert.ok(terminal.writes < 100, `${terminal.writes} drawings`);
  while (!terminal.lines[0]!.startsWith('step 1000/1000')) await sleep(10);
  writer.end();
  assert.equal(terminal.lines.length, 2);
});

test('a note stands above the live line', () => {
  const terminal = new Terminal(40);
  const writer = new ProgressWriter(terminal);
  const progress = new SanityProgress();
  writer.note('before');
  writer.update(progress.line(stepEvent(36)));
  writer.note('finishing this step');
  writer.end();
  writer.end();
  assert.deepEqual(terminal.lines, [
    'before',
    'finishing this step',
    '37/160  reward 0.842  at most 0:25',
    '',
  ]);
});

test('elsewhere every event is a plain line', () => {
  const pipe = new Pipe();
  const writer = new ProgressWriter(pipe);
  const progress = new SanityProgress();
  for (const event of events) writer.update(progress.line(event));
  writer.note('a note');
  writer.end();
  const again = new SanityProgress();
  const expected = [...events.map((event) => fitLine(again.line(event).parts)), 'a note'];
  assert.equal(pipe.text, `${expected.join('\n')}\n`);
});

test('elsewhere lines of what is asked about too often come now and then', async () => {
  const pipe = new Pipe();
  const writer = new ProgressWriter(pipe, { logEveryMs: 50 });
  const line = (i: number) => ({ phase: 'count', parts: [{ text: String(i), importance: 1 }] });
  for (let i = 0; i < 1000; i++) writer.update(line(i));
  await sleep(60);
  writer.update(line(1000));
  writer.end();
  const lines = pipe.text.trimEnd().split('\n');
  assert.equal(lines[0], '0');
  assert.equal(lines.at(-1), '1000');
  assert.ok(lines.length < 20, `${lines.length} lines`);
});
