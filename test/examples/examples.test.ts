import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { describe, it } from 'node:test';
import { isopolicy, temporaryFolder } from '../cli/command.js';

const folder = path.resolve(import.meta.dirname, '../../../examples');
const examples = fs.readdirSync(folder).filter((file) => file.endsWith('.mjs'));

/** What an example prints; it must end well and say nothing on stderr. */
function run(name: string, ...args: string[]): string {
  const { status, stdout, stderr } = spawnSync(process.execPath, [path.join(folder, name), ...args], {
    encoding: 'utf8',
  });
  assert.equal(stderr, '');
  assert.equal(status, 0);
  return stdout;
}

/** The summary of a sanity run in the folder of the examples. */
function sanity(args: readonly string[]): { status: number | null; json: Record<string, unknown> } {
  const out = path.join(temporaryFolder(), 'run');
  const { status, stdout, stderr } = isopolicy(['sanity', ...args, '--out', out, '--json'], {}, folder);
  assert.match(stdout, /^{/, stderr);
  return { status, json: JSON.parse(stdout) };
}

/** The numbers that the groups of a global pattern match, a row a match. */
function numbers(text: string, pattern: RegExp): number[][] {
  return Array.from(text.matchAll(pattern), ([, ...groups]) => groups.map(Number));
}

/** The cells of a row that console.table printed, without quotes. */
function cells(text: string, label: string): string[] {
  const row = text.split('\n').find((line) => line.startsWith(`│ ${label} `));
  assert.ok(row, `no row ${label} in\n${text}`);
  const inner = row.split('│').slice(1, -1);
  return inner.map((cell) => cell.trim().replace(/^'(.*)'$/, '$1'));
}

describe('examples', () => {
  it('are all listed in examples/README.md, each with its own command on top', () => {
    const readme = fs.readFileSync(path.join(folder, 'README.md'), 'utf8');
    assert.ok(examples.length >= 4);
    for (const name of examples) {
      assert.ok(readme.includes(`](${name})`), `${name} is not linked`);
      const source = fs.readFileSync(path.join(folder, name), 'utf8');
      assert.match(source, new RegExp(`^/\\*\\*\n[\\s\\S]*? \\* Run: node examples/${name}\n \\*/\n`));
    }
  });

  it('checkpoint: makes a model and data that train takes', () => {
    const made = path.join(temporaryFolder(), 'tiny');
    const output = run('checkpoint.mjs', made, '--accuracy', '0', '--experts', '2');
    const command = `npx isopolicy train ${path.join(made, 'train.yaml')}`;
    assert.ok(output.endsWith(`${command}\n`), output);
    const { status, stdout, stderr } = isopolicy([...command.split(' ').slice(2), '--dry-run', '--json']);
    assert.equal(status, 0, stderr);
    assert.equal(JSON.parse(stdout).fits, true);
  });

  it('kernel: most fp32 sums differ, few of the rounded ones, and those by more', () => {
    const output = run('kernel.mjs');
    const rows = numbers(output, /^(?:fp32|bf16): (\d+) of (\d+) results differ, by (\S+) at most$/gm);
    assert.equal(rows.length, 2, output);
    const [[sums, count, smallStep], [rounded, , largeStep]] = rows as [number[], number[]];
    assert.ok(sums! > count! / 2 && rounded! > 0 && rounded! < count! / 100, output);
    assert.ok(largeStep! > 100 * smallStep!, output);
  });

  it('mismatch: fp16 is closer than bf16, and matched numerics agree on every token', () => {
    const output = run('mismatch.mjs');
    const meanOf = (label: string) => Number(cells(output, label)[3]);
    assert.ok(meanOf('fp16') > 0 && meanOf('bf16') > 3 * meanOf('fp16'), output);
    for (const precision of ['bf16', 'fp16']) {
      assert.deepEqual(cells(output, `${precision} matched`).slice(2), [
        '0.0 %',
        '0.00e+0',
        '0.00e+0',
        '0.00e+0',
      ]);
    }
  });

  it('lora: merging is a mismatch of its own, and matched engines agree without it', () => {
    const output = run('lora.mjs');
    for (const precision of ['bf16', 'fp16']) {
      const [, merged, factored] = cells(output, `${precision} matched`);
      assert.ok(Number(merged) > 0, output);
      assert.equal(factored, '0.00e+0');
    }
  });

  it('my-algorithm: runs in the sanity test as its comment says', () => {
    const file = path.join(folder, 'my-algorithm.ts');
    assert.match(
      fs.readFileSync(file, 'utf8'),
      /^\/\*\*\n[\s\S]*? \* Run: npx isopolicy sanity --algorithm \.\/my-algorithm\.ts\n \*\/\n/,
    );
    const readme = fs.readFileSync(path.join(folder, 'README.md'), 'utf8');
    assert.ok(readme.includes('](my-algorithm.ts)'));
    const task = ['--task', 'sort:4:4', '--hidden-size', '64', '--layers', '2', '--base-accuracy', '0.3'];
    const set = ['--candidates', '100', '--samples-per-problem', '20'];
    const training = ['--steps', '40', '--learning-rate', '3e-4', '--updates-per-step', '2'];
    const { status, json } = sanity(['--algorithm', './my-algorithm.ts', ...task, ...set, ...training]);
    assert.ok(status === 0 || status === 3, 'done, whatever the verdict');
    assert.equal(path.basename(String(json.algorithm)), 'my-algorithm.ts');
    assert.ok(Number(json.peakAccuracy) > Number((json.set as { baseAccuracy: number }).baseAccuracy) + 0.1);
  });

  // Plain arithmetic, so the numbers are exact; worked out by hand from the rules in the scalers' comments.
  it('loss-scaling: the scalers part at the first overflow', () => {
    const output = run('loss-scaling.mjs');
    assert.deepEqual(cells(output, '2').slice(1), ['2', 'overflow', '65536', 'falls', '65536', '', '0']);
    assert.deepEqual(cells(output, '5').slice(1), ['5', 'overflow', '16384', 'falls', '32768', 'falls', '0']);
    assert.deepEqual(cells(output, '9').slice(1), ['9', 'finite', '8192', 'grows', '16384', 'grows', '1']);
    assert.match(output, /^final scale: torch 8192, deepspeed 65536$/m);
  });

  it('generate: less heat and fewer candidates are right more often', () => {
    const output = run('generate.mjs');
    const right = numbers(output, /^[^\n:]+: (\d+) of 100 right$/gm).map(([count]) => count!);
    assert.equal(right.length, 4, output);
    const [greedy, , hot, hotTopK] = right as [number, number, number, number];
    assert.ok(greedy > hotTopK && hotTopK > hot, output);
    // The prompt ends in `=`; sorted responses that were judged right are digits in order, then the end.
    const solved = Array.from(output.matchAll(/^ {2}right {2}(\d{5})=(\d{5})<eos>$/gm));
    assert.ok(solved.length > 0, output);
    for (const [, prompt, response] of solved) assert.equal([...prompt!].sort().join(''), response);
  });
});
