import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { InvalidArgumentError } from '../../lib/errors.js';
import { CounterRandom } from '../../lib/random.js';
import { createTask, taskForms } from '../../lib/tasks/index.js';

const SPECS = ['sort:16:10', 'interleave:32:8', 'add:4:3'];

describe('createTask', () => {
  it('makes the task that its name says', () => {
    for (const spec of SPECS) assert.equal(createTask(spec).name, spec);
    assert.equal(createTask('sort:016:10').name, 'sort:16:10');
    assert.deepEqual(taskForms, ['sort:LENGTH:SYMBOLS', 'interleave:LENGTH:SYMBOLS', 'add:DIGITS:NUMBERS']);
  });

  it('refuses what it cannot make, saying why', () => {
    const cases: [spec: string, message: RegExp][] = [
      ['', /sort, interleave, add/],
      ['chess:3:4', /one of sort, interleave, add, got "chess"/],
      ['srt:16:10', /did you mean sort/],
      ['toString:1:2', /one of sort/],
      ['sort', /sort:LENGTH:SYMBOLS.*got "sort"/],
      ['sort:16', /sort:LENGTH:SYMBOLS/],
      ['sort:16:10:2', /sort:LENGTH:SYMBOLS/],
      ['sort:16:ten', /sort:LENGTH:SYMBOLS/],
      ['sort:-1:10', /sort:LENGTH:SYMBOLS/],
      ['sort:1e3:10', /sort:LENGTH:SYMBOLS/],
      ['sort:16: 10', /sort:LENGTH:SYMBOLS/],
      ['sort:0:10', /LENGTH/],
      ['sort:4097:10', /LENGTH.*4096/],
      ['sort:16:1', /SYMBOLS/],
      ['sort:16:65', /SYMBOLS.*64/],
      ['interleave:7:4', /LENGTH to be even/],
      ['interleave:0:4', /LENGTH/],
      ['interleave:8:65', /SYMBOLS/],
      ['add:0:2', /DIGITS/],
      ['add:65:2', /DIGITS/],
      ['add:4:1', /NUMBERS/],
      ['add:4', /add:DIGITS:NUMBERS/],
    ];
    for (const [spec, message] of cases) {
      assert.throws(
        () => createTask(spec),
        (error) => error instanceof InvalidArgumentError && message.test(error.message),
        `${spec} against ${message}`,
      );
    }
    assert.throws(() => createTask(7 as never), InvalidArgumentError);
  });
});

describe('every task', () => {
  for (const spec of SPECS) {
    it(`${spec} is a pure function of seed and index`, () => {
      const task = createTask(spec);
      const again = createTask(spec);
      const seen = new Set<string>();
      for (let index = 0; index < 50; index++) {
        const prompt = task.problem(3, index);
        assert.equal(prompt.length, task.promptLength);
        seen.add(prompt.join());
        const answer = task.solution(prompt, new CounterRandom(1, index));
        assert.equal(answer.length, task.responseLength);
        assert.deepEqual(again.solution(prompt, new CounterRandom(1, index)), answer);
        assert.equal(task.stopToken, task.vocabSize - 1);
        assert.equal(answer.indexOf(task.vocabSize - 1), answer.length - 1, 'one end, at the end');
      }
      assert.equal(seen.size, 50, 'problems differ by index');
      for (let index = 49; index >= 0; index--) seen.delete(again.problem(3, index).join());
      assert.equal(seen.size, 0, 'and are the same in any order');
      assert.notDeepEqual(task.problem(4, 0), task.problem(3, 0), 'problems differ by seed');
    });
  }

  it('keeps the problems it has always drawn', () => {
    const texts = SPECS.map((spec) => {
      const task = createTask(spec);
      return task.format(task.problem(1, 2));
    });
    assert.deepEqual(texts, ['2449198366638437=', 'caafhhcbcecdgcfhFHAAGECGEHDFCGGH=', '2449+1983+6663=']);
  });
});
