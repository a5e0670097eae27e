import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { appendFile, mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { InvalidArgumentError } from '../../lib/errors.js';
import { RUN_FORMAT_VERSION, RunDirectory, readMetrics } from '../../lib/io/runDirectory.js';

function refuses(...messages: RegExp[]): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof InvalidArgumentError, String(error));
    for (const message of messages) assert.match(error.message, message);
    return true;
  };
}

/** A checkpoint of two files, one in a folder of its own, that name their step. */
function save(run: RunDirectory, step: number, text = `state ${step}`): Promise<void> {
  return run.saveCheckpoint(step, async (dir) => {
    await writeFile(join(dir, 'model'), text);
    await mkdir(join(dir, 'optimizer'));
    await writeFile(join(dir, 'optimizer', 'moments'), text);
  });
}

let folder: string;
let dir: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'isopolicy-run-'));
  dir = join(folder, 'runs', 'first');
});
afterEach(() => rm(folder, { recursive: true }));

describe('RunDirectory.create and open', () => {
  it('writes the configuration and finds it again', async () => {
    const config = { task: 'sort:16:10', optimizer: { lr: 1e-4, betas: [0.9, 0.95] }, seed: 1, name: null };
    const run = await RunDirectory.create(dir, config);
    assert.deepEqual(run.config, config);
    assert.deepEqual(JSON.parse(await readFile(join(dir, 'config.json'), 'utf8')), {
      formatVersion: RUN_FORMAT_VERSION,
      ...config,
    });
    assert.deepEqual(await readdir(dir), ['config.json'], 'no probe is left');
    const opened = await RunDirectory.open(dir);
    assert.deepEqual(opened.config, config);
    assert.equal(opened.path, dir);
  });

  it('takes a folder that holds other things, but none that holds a run', async () => {
    await mkdir(dir, { recursive: true });
    await writeFile(join(dir, 'notes.txt'), 'mine');
    await RunDirectory.create(dir, { seed: 1 });
    const before = await readFile(join(dir, 'config.json'), 'utf8');
    await assert.rejects(
      RunDirectory.create(dir, { seed: 2 }),
      refuses(/\bout\b/, /without a run.*config\.json/),
    );
    assert.equal(await readFile(join(dir, 'config.json'), 'utf8'), before);
    await rename(join(dir, 'config.json'), join(dir, 'metrics.jsonl'));
    await assert.rejects(RunDirectory.create(dir, {}), refuses(/\bout\b/, /metrics\.jsonl/));
  });

  it('refuses a file, a path under a file, and a place that cannot be written', async () => {
    const file = join(folder, 'file');
    await writeFile(file, 'text');
    await assert.rejects(RunDirectory.create(file, {}), refuses(/\bout\b.*file.*EEXIST/, /got ".*file"/));
    await assert.rejects(RunDirectory.create(join(file, 'run'), {}), refuses(/\bout\b.*file.*ENOTDIR/));
    assert.equal(await readFile(file, 'utf8'), 'text');
    await assert.rejects(RunDirectory.create('', {}), refuses(/\bout\b/));
    if (process.platform === 'linux') {
      // The kernel admits no new entries here, not even root's.
      await assert.rejects(RunDirectory.create('/proc/isopolicy', {}), refuses(/\bout\b.*can be written \(/));
      await assert.rejects(RunDirectory.create('/proc/self', {}), refuses(/\bout\b.*can be written \(/));
    }
  });

  it('refuses a configuration that JSON would change', async () => {
    await assert.rejects(RunDirectory.create(dir, { lr: Number.NaN }), refuses(/lr.*finite.*NaN/));
    await assert.rejects(
      RunDirectory.create(dir, { a: { b: Number.POSITIVE_INFINITY } }),
      refuses(/\bb\b.*finite/),
    );
    await assert.rejects(RunDirectory.create(dir, { formatVersion: 3 }), refuses(/formatVersion/));
    await assert.rejects(readdir(dir), { code: 'ENOENT' }, 'nothing was made');
  });

  it('opens nothing but a run of its own format version', async () => {
    await assert.rejects(
      RunDirectory.open(dir),
      refuses(/the folder of a run.*config\.json.*ENOENT/, /got ".*first"/),
    );
    await mkdir(dir, { recursive: true });
    const path = join(dir, 'config.json');
    const cases: [text: string, message: RegExp][] = [
      ['{"formatVersion":1,', /valid JSON/],
      ['', /valid JSON/],
      ['[]', /object/],
      ['null', /object/],
      ['{}', /format version 1 .*undefined/],
      ['{"formatVersion":2}', /format version 1 .*2/],
      ['{"formatVersion":"1"}', /format version 1/],
    ];
    for (const [text, message] of cases) {
      await writeFile(path, text);
      // Opened by --resume, --run and report too: no option is named.
      await assert.rejects(RunDirectory.open(dir), refuses(/^\[run\] expected (?!out\b)/, message));
    }
  });
});

describe('metrics, samples and summary', () => {
  it('are a line each, in the order of the calls', async () => {
    const run = await RunDirectory.create(dir, {});
    const record = { step: 0, 'rl/reward': 0.5 };
    const first = run.appendMetrics(record);
    record['rl/reward'] = 9;
    const others = Array.from({ length: 50 }, (_, i) => run.appendMetrics({ step: i + 1, 'rl/reward': i }));
    await Promise.all([first, ...others]);
    const lines = (await readFile(join(dir, 'metrics.jsonl'), 'utf8')).split('\n');
    assert.equal(lines.length, 52);
    assert.equal(lines[0], '{"step":0,"rl/reward":0.5}');
    assert.equal(lines[50], '{"step":50,"rl/reward":49}');
    assert.equal(lines[51], '');

    await run.appendSample({ step: 3, prompt: '1=\n', scores: [1, Number.NaN] });
    assert.equal(
      await readFile(join(dir, 'samples.jsonl'), 'utf8'),
      '{"step":3,"prompt":"1=\\n","scores":[1,"NaN"]}\n',
    );
    await run.writeSummary({ verdict: 'pass', best: Number.NEGATIVE_INFINITY });
    await run.writeSummary({ verdict: 'fail', best: 0.25 });
    assert.deepEqual(JSON.parse(await readFile(join(dir, 'summary.json'), 'utf8')), {
      verdict: 'fail',
      best: 0.25,
    });
  });

  it('keep NaN and the infinities', async () => {
    const run = await RunDirectory.create(dir, {});
    const record = {
      step: 1,
      'a/nan': Number.NaN,
      'a/up': Number.POSITIVE_INFINITY,
      'a/down': Number.NEGATIVE_INFINITY,
      'a/text': 'bf16',
      'a/b/c': true,
      'a/none': null,
      'a/small': 5e-324,
    };
    await run.appendMetrics(record);
    assert.match(
      await readFile(join(dir, 'metrics.jsonl'), 'utf8'),
      /"a\/nan":"NaN","a\/up":"Infinity","a\/down":"-Infinity"/,
    );
    assert.deepEqual(await readMetrics(dir), [record]);
  });

  it('refuse records of another form, and go on', async () => {
    const run = await RunDirectory.create(dir, {});
    const bad: [record: object, message: RegExp][] = [
      [{ 'a/b': 1 }, /step/],
      [{ step: -1 }, /step/],
      [{ step: 0.5 }, /step/],
      [{ step: 0, reward: 1 }, /group\/name, got "reward"/],
      [{ step: 0, 'a/': 1 }, /group\/name/],
      [{ step: 0, 'a/b': { c: 1 } }, /a\/b to be a number/],
      [{ step: 0, 'a/b': undefined }, /a\/b to be a number/],
    ];
    for (const [record, message] of bad)
      await assert.rejects(run.appendMetrics(record as never), refuses(message));
    await assert.rejects(run.appendSample({ text: 'x' } as never), refuses(/step/));
    await run.appendMetrics({ step: 0, 'a/b': 1 });
    assert.deepEqual(await readMetrics(dir), [{ step: 0, 'a/b': 1 }]);
  });

  it('report a failed append to its caller and do not lose the next', async () => {
    const run = await RunDirectory.create(dir, {});
    await mkdir(join(dir, 'metrics.jsonl'));
    const failed = run.appendMetrics({ step: 0 });
    const sample = run.appendSample({ step: 0 });
    await assert.rejects(failed, { code: 'EISDIR' });
    await sample;
    assert.equal(await readFile(join(dir, 'samples.jsonl'), 'utf8'), '{"step":0}\n');
  });
});

describe('readMetrics', () => {
  it('has nothing for a run without metrics, and refuses a folder without a run', async () => {
    await assert.rejects(readMetrics(dir), refuses(/dir to be the folder of a run/));
    await RunDirectory.create(dir, {});
    assert.deepEqual(await readMetrics(dir), []);
  });

  it('leaves out a torn last line, at every place it can tear', async () => {
    const run = await RunDirectory.create(dir, {});
    await run.appendMetrics({ step: 0, 'a/b': 1 });
    const path = join(dir, 'metrics.jsonl');
    const whole = await readFile(path);
    const last = Buffer.from('{"step":1,"a/b":"größer"}\n');
    for (let length = 0; length <= last.length; length++) {
      await writeFile(path, Buffer.concat([whole, last.subarray(0, length)]));
      const steps = (await readMetrics(dir)).map(({ step }) => step);
      // Only the line feed may be missing from a line that counts.
      assert.deepEqual(steps, length >= last.length - 1 ? [0, 1] : [0], `torn after ${length} bytes`);
    }
    await writeFile(path, Buffer.concat([whole, Buffer.alloc(20)]));
    assert.equal((await readMetrics(dir)).length, 1, 'zeros of a lost page');
  });

  it('refuses damage elsewhere and names the line', async () => {
    await RunDirectory.create(dir, {});
    const path = join(dir, 'metrics.jsonl');
    for (const damage of ['{"step":1', '[1]', '', '{"a/b":1}']) {
      await writeFile(path, `{"step":0}\n${damage}\n{"step":2}\n`);
      await assert.rejects(readMetrics(dir), refuses(/line 2 of .*metrics\.jsonl/));
    }
  });

  it('reads lines longer than a chunk, with other separators of lines in them', async () => {
    const run = await RunDirectory.create(dir, {});
    const text = `a\u2028b\u2029c\r${'ü'.repeat(200_001)}`;
    for (let step = 0; step < 3; step++) await run.appendMetrics({ step, 'a/text': text });
    assert.deepEqual(
      await readMetrics(dir),
      [0, 1, 2].map((step) => ({ step, 'a/text': text })),
    );
  });
});

describe('truncateMetrics', () => {
  it('leaves each step once after a resume', async () => {
    const run = await RunDirectory.create(dir, {});
    for (let step = 0; step < 6; step++) {
      await run.appendMetrics({ step, 'a/b': Number.NaN });
      await run.appendSample({ step, text: `\u2028${step}` });
      await run.appendSample({ step, text: 'again' });
    }
    await appendFile(join(dir, 'metrics.jsonl'), '{"step":6,"a/');
    await appendFile(join(dir, 'samples.jsonl'), '{"st');
    await writeFile(join(dir, '.tmp-1-killed'), 'half');

    const resumed = await RunDirectory.open(dir);
    await resumed.truncateMetrics(4);
    for (let step = 4; step < 8; step++) await resumed.appendMetrics({ step, 'a/b': 0 });
    assert.deepEqual(
      (await readMetrics(dir)).map((record) => [record.step, record['a/b']]),
      [
        [0, Number.NaN],
        [1, Number.NaN],
        [2, Number.NaN],
        [3, Number.NaN],
        [4, 0],
        [5, 0],
        [6, 0],
        [7, 0],
      ],
    );
    const samples = (await readFile(join(dir, 'samples.jsonl'), 'utf8')).trimEnd().split('\n');
    assert.deepEqual(
      samples.map((line) => JSON.parse(line).step),
      [0, 0, 1, 1, 2, 2, 3, 3],
    );
    assert.deepEqual((await readdir(dir)).sort(), ['config.json', 'metrics.jsonl', 'samples.jsonl']);
  });

  it('keeps whole lines to the byte and adds a lost line feed', async () => {
    const run = await RunDirectory.create(dir, {});
    const path = join(dir, 'metrics.jsonl');
    await writeFile(path, '{"step": 0, "a/b": 1.50}\n{"step":1}');
    await run.truncateMetrics(5);
    assert.equal(await readFile(path, 'utf8'), '{"step": 0, "a/b": 1.50}\n{"step":1}\n');
    await run.truncateMetrics(0);
    assert.equal(await readFile(path, 'utf8'), '');
  });

  it('is content where there is nothing, and leaves a damaged log as it is', async () => {
    const run = await RunDirectory.create(dir, {});
    await run.truncateMetrics(3);
    assert.deepEqual(await readdir(dir), ['config.json']);
    const damaged = '{"step":0}\n?\n{"step":1}\n';
    await writeFile(join(dir, 'metrics.jsonl'), damaged);
    await assert.rejects(run.truncateMetrics(1), refuses(/line 2/));
    assert.equal(await readFile(join(dir, 'metrics.jsonl'), 'utf8'), damaged);
    await assert.rejects(run.truncateMetrics(-1), refuses(/step/));
  });
});

describe('checkpoints', () => {
  it('keep the last two', async () => {
    const run = await RunDirectory.create(dir, {});
    assert.equal(await run.latestCheckpoint(), undefined);
    for (const step of [0, 10, 200, 1_234_567]) {
      await save(run, step);
      assert.deepEqual(await run.latestCheckpoint(), { step, path: run.checkpointPath(step) });
    }
    assert.deepEqual((await readdir(join(dir, 'checkpoint'))).sort(), ['step-000200', 'step-1234567']);
    assert.equal(run.checkpointPath(200), join(dir, 'checkpoint', 'step-000200'));
    const file = join(run.checkpointPath(200), 'optimizer', 'moments');
    assert.equal(await readFile(file, 'utf8'), 'state 200');
  });

  it('are not seen before they are whole, and not at all when saving fails', async () => {
    const run = await RunDirectory.create(dir, {});
    await save(run, 1);
    const failure = new Error('disk full');
    await assert.rejects(
      run.saveCheckpoint(2, async (temporary) => {
        await writeFile(join(temporary, 'model'), 'half');
        assert.equal((await run.latestCheckpoint())?.step, 1);
        throw failure;
      }),
      failure,
    );
    assert.deepEqual(await readdir(join(dir, 'checkpoint')), ['step-000001']);
    assert.equal((await run.latestCheckpoint())?.step, 1);
  });

  it('ignore and clear the leftovers of a killed save', async () => {
    const run = await RunDirectory.create(dir, {});
    await save(run, 3);
    const checkpoints = join(dir, 'checkpoint');
    for (const name of ['.tmp-4', '.tmp-old-000001', 'step-', 'step-12', 'step-000009x', 'other']) {
      await mkdir(join(checkpoints, name));
      await writeFile(join(checkpoints, name, 'model'), 'half');
    }
    await writeFile(join(checkpoints, 'step-000099'), 'a file');
    assert.equal((await run.latestCheckpoint())?.step, 3);
    await save(run, 4);
    assert.deepEqual(await readdir(run.checkpointPath(4)), ['model', 'optimizer']);
    const names = await readdir(checkpoints);
    assert.deepEqual(
      names.filter((name) => name.startsWith('.tmp-')),
      [],
    );
    assert.ok(names.includes('other'), 'what is not its own stays');
  });

  it('can be saved again at the same step, with one in place at every moment', async () => {
    const run = await RunDirectory.create(dir, {});
    const checkpoints = join(dir, 'checkpoint');
    await save(run, 5, 'first');
    await save(run, 5, 'second');
    assert.equal(await readFile(join(run.checkpointPath(5), 'model'), 'utf8'), 'second');
    assert.deepEqual(await readdir(checkpoints), ['step-000005']);

    // Killed between the two renames: the old one is all there is, under its other name.
    await rename(run.checkpointPath(5), join(checkpoints, 'replaced-000005'));
    assert.deepEqual(await run.latestCheckpoint(), { step: 5, path: join(checkpoints, 'replaced-000005') });
    await save(run, 5, 'third');
    assert.deepEqual(await readdir(checkpoints), ['step-000005']);

    // Killed after both: the new one counts, and the old one goes with the next save.
    await mkdir(join(checkpoints, 'replaced-000005'));
    assert.deepEqual(await run.latestCheckpoint(), { step: 5, path: run.checkpointPath(5) });
    await save(run, 5, 'fourth');
    assert.deepEqual(await readdir(checkpoints), ['step-000005']);
    assert.equal(await readFile(join(run.checkpointPath(5), 'model'), 'utf8'), 'fourth');
  });

  it('refuse a step before the newest', async () => {
    const run = await RunDirectory.create(dir, {});
    await save(run, 8);
    await assert.rejects(save(run, 7), refuses(/step to be at least 8/));
    await assert.rejects(save(run, -1), refuses(/step/));
    await assert.rejects(save(run, 8.5), refuses(/step/));
    assert.deepEqual(await readdir(join(dir, 'checkpoint')), ['step-000008']);
  });

  it('the last and the best are kept, of equal scores the newer; a step saved again is one', async () => {
    const run = await RunDirectory.create(dir, {});
    const kept = async (step: number, score?: number) => {
      const write = (temporary: string) => writeFile(join(temporary, 'model'), String(step));
      await run.saveCheckpoint(step, write, { keepLast: 2, keepBest: 2, score });
      return (await readdir(join(dir, 'checkpoint')))
        .map((name) => Number(name.slice(5)))
        .sort((a, b) => a - b);
    };
    assert.equal(await run.bestCheckpoint(), undefined);
    assert.deepEqual(await kept(1, 0.5), [1]);
    assert.deepEqual(await kept(2, 0.9), [1, 2]);
    assert.deepEqual(await kept(3), [1, 2, 3]);
    assert.deepEqual(await kept(4, 0.5), [2, 3, 4]);
    assert.deepEqual(await kept(5, 0.1), [2, 4, 5]);
    assert.deepEqual(await kept(6), [2, 4, 5, 6]);
    assert.deepEqual(await kept(7), [2, 4, 6, 7]);
    assert.deepEqual(await run.bestCheckpoint(), { step: 2, path: run.checkpointPath(2), score: 0.9 });
    assert.deepEqual(await kept(8, 0.9), [2, 7, 8]);
    assert.deepEqual(await run.bestCheckpoint(), { step: 8, path: run.checkpointPath(8), score: 0.9 });
    assert.deepEqual(await kept(8, -1), [2, 7, 8]);
    assert.deepEqual(await kept(9), [2, 8, 9]);
    await assert.rejects(kept(10, Number.NaN), refuses(/score to be a finite number/));
  });

  it('survive SIGKILL at any moment: the newest is whole, the log can be cut to it', async () => {
    const module = new URL('../../lib/io/runDirectory.js', import.meta.url).href;
    // Each file of a checkpoint is 64 KiB of its step's number; every stage of a save is announced on stdout.
    const program = `
      import { writeFileSync, writeSync } from 'node:fs';
      import { RunDirectory } from ${JSON.stringify(module)};
      const run = await RunDirectory.open(${JSON.stringify(dir)});
      const latest = await run.latestCheckpoint();
      let step = latest?.step ?? 0;
      await run.truncateMetrics(step);
      for (;;) {
        await run.appendMetrics({ step, 'a/b': step });
        step++;
        await run.saveCheckpoint(step, async (dir) => {
          for (const name of ['a', 'b', 'c']) {
            writeSync(1, '.');
            writeFileSync(dir + '/' + name, Buffer.alloc(65536, step));
          }
          writeSync(1, '.');
        });
        writeSync(1, '!' + step + ';');
      }`;
    await RunDirectory.create(dir, {});
    let reached = 0;
    for (let round = 0; round < 10; round++) {
      const child = spawn(process.execPath, ['--input-type=module', '-e', program]);
      let output = '';
      let errors = '';
      child.stderr.on('data', (chunk) => (errors += chunk));
      child.stdout.on('data', (chunk) => {
        output += chunk;
        // A different stage of the save each round.
        if (output.length >= 4 + round) child.kill('SIGKILL');
      });
      await new Promise((resolve) => child.on('close', resolve));
      assert.equal(errors, '');
      const done = [...output.matchAll(/!(\d+);/g)].map((match) => Number(match[1]));

      const run = await RunDirectory.open(dir);
      const latest = await run.latestCheckpoint();
      const step = latest?.step ?? 0;
      assert.ok(step >= reached && step >= (done.at(-1) ?? 0), `round ${round}: ${step} after ${output}`);
      if (latest !== undefined) {
        assert.deepEqual((await readdir(latest.path)).sort(), ['a', 'b', 'c']);
        for (const name of ['a', 'b', 'c']) {
          assert.deepEqual(await readFile(join(latest.path, name)), Buffer.alloc(65536, step));
        }
      }
      await run.truncateMetrics(step);
      assert.deepEqual(
        (await readMetrics(dir)).map((record) => record.step),
        Array.from({ length: step }, (_, i) => i),
      );
      reached = step;
    }
    assert.ok(reached >= 5, `saves were reached: ${reached}`);
  });
});
