import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { describe, it } from 'node:test';
import { MathVerifier, mathVerifierVersion } from '../../../lib/tasks/math/verifier.js';

const R = String.raw;
/** A product that the Compute Engine would work at for minutes. */
const ENDLESS = R`\sum_{k=1}^{10^{12}} k`;

describe('MathVerifier', () => {
  it('judges responses by their boxes', async () => {
    const verifier = new MathVerifier();
    const judged: readonly (readonly [string, string, boolean, string])[] = [
      [R`Thus $\boxed{42}$.`, '42', true, 'same text'],
      [R`Thus $\boxed{\dfrac{1}{2}}$.`, '0.5', true, 'same form'],
      [R`Thus \boxed{(x-1)(x+1)}`, 'x^2-1', true, 'same value'],
      [R`Thus \boxed{41}`, '42', false, 'different'],
      [R`Thus \boxed{}`, '42', false, 'no answer'],
      ['Thus 42', '42', false, 'no answer'],
      [R`Thus \boxed{42`, '42', false, 'no answer'],
      ['', '42', false, 'no answer'],
      [R`\boxed{9^{9^{9}}}`, '9', false, 'different'],
      [R`\boxed{10^{10^{10}}}`, '10', false, 'different'],
      [R`\boxed{${'('.repeat(1e6)}}`, '10', false, 'different'],
      [`${'junk '.repeat(4e5)}\\boxed{10}`, '10', true, 'same text'],
      [R`\boxed{42}`, R`We find $x = \boxed{42}$.`, true, 'same text'],
    ];
    for (const [response, gold, correct, how] of judged) {
      const verdict = await verifier.verify(response, gold);
      assert.deepEqual([verdict.correct, verdict.how], [correct, how], response.slice(0, 80));
    }
    assert.equal((await verifier.verify(R`Thus $\boxed{ 41 }$.`, '42')).extracted, '41');
    assert.equal((await verifier.verify('Thus', '42')).extracted, null);
    await verifier.close();
  });

  it('takes the answer out of a whole solution, in a box or behind ####', async () => {
    const verifier = new MathVerifier();
    const solution = 'Half of 36 is 36/2 = <<36/2=18>>18.\n#### 18';
    for (const [gold, expected] of [
      [solution, true],
      [`${solution}\n`, true],
      [R`so \boxed{18}`, true],
      ['#### 17', false],
      ['#### 18\nand more', false],
    ] as const) {
      assert.equal((await verifier.verify(R`\boxed{18}`, gold)).correct, expected, gold);
    }
    await verifier.close();
  });

  it('takes any of several gold answers', async () => {
    const verifier = new MathVerifier();
    assert.equal((await verifier.verify(R`\boxed{3}`, ['2', '3'])).correct, true);
    assert.equal((await verifier.verify(R`\boxed{4}`, ['2', '3'])).correct, false);
  });

  it('compares forms alone when strict', async () => {
    const verifier = new MathVerifier({ mode: 'strict' });
    assert.equal((await verifier.verify(R`\boxed{x^2-1}`, '(x-1)(x+1)')).how, 'different');
    assert.equal((await verifier.verify(R`\boxed{(x+1)(x-1)}`, '(x-1)(x+1)')).how, 'same form');
    assert.equal((await verifier.verify(R`\boxed{\sum_{k=1}^{10} k}`, '55')).how, 'different');
  });

  it('takes stated and plain answers where it may', async () => {
    const stated = new MathVerifier({ place: 'stated' });
    assert.equal((await stated.verify('The answer is 42.', '42')).correct, true);
    assert.equal((await stated.verify('42', '42')).correct, false);
    assert.equal((await new MathVerifier({ place: 'plain' }).verify('42', '42')).correct, true);
  });

  it('asks the Compute Engine about sums, products and extremes', async () => {
    const verifier = new MathVerifier({ threads: 1, timeLimit: 60_000 });
    const asked: readonly (readonly [string, string, boolean])[] = [
      [R`\sum_{k=1}^{10} k`, '55', true],
      [R`\sum_{k=1}^{10} k`, '54', false],
      [R`\sum\limits_{k=1}^{3} k^2`, '14', true],
      [R`\sum_{k=1}^{10} \frac{1}{k}`, R`\frac{7381}{2520}`, true],
      [R`\prod_{k=1}^{5} k`, '120', true],
      [R`\max(3, 7)`, '7', true],
      [R`\sum_{k=1}^{4} \sqrt{k}`, R`3+\sqrt2+\sqrt3`, true],
      [R`\sum_{k=1}^{4} \sqrt{k}`, R`3+\sqrt2+\sqrt3+10^{-30}`, false],
      [R`\sum_{k=1}^{3} 2^{2000k}`, R`\sum_{k=1}^{3} 2^{2000k}+1`, false],
      [R`\sum_{k=1}^{n} k`, R`\frac{n(n+1)}{2}`, true],
      [R`\sum_{k=1}^{n} k`, R`\frac{n(n+2)}{2}`, false],
      // The engine would not heed the condition.
      [R`\sum_{k=1,k\ne 2}^{3} k`, '6', false],
      [R`\begin{cases}1\\2\end{cases}`, '1', false],
      [R`\frac{d}{dx} \max(x, 0)`, 'x', false],
      ['1.2.3', '0.36', false],
    ];
    for (const [answer, gold, correct] of asked) {
      const verdict = await verifier.verify(`\\boxed{${answer}}`, gold);
      assert.deepEqual(
        [verdict.correct, verdict.how],
        [correct, correct ? 'compute engine' : 'different'],
        answer,
      );
    }
    await verifier.close();
  });

  it('gives up at the time limit, lets the event loop run meanwhile, and goes on', async () => {
    const verifier = new MathVerifier({ threads: 2, timeLimit: 300 });
    let turns = 0;
    const timer = setInterval(() => turns++, 1);
    const asked = [1, 2, 3].map((gold) => verifier.verify(`\\boxed{${ENDLESS}}`, `${gold}`));
    const verdicts = await Promise.all(asked).finally(() => clearInterval(timer));
    assert.deepEqual(
      verdicts.map(({ correct, how }) => [correct, how]),
      [1, 2, 3].map(() => [false, 'time limit']),
    );
    assert.ok(turns > 10);
    assert.equal((await verifier.verify(R`\boxed{42}`, '42')).correct, true);
    await verifier.close();
  });

  it('gives the same verdicts one by one and all at once', async () => {
    const problems = Array.from({ length: 24 }, (_, i) => {
      const sum = R`\boxed{\sum_{k=1}^{${i + 1}} k}`;
      return [
        i % 3 === 0 ? sum : R`\boxed{${i}}`,
        i % 2 === 0 ? `${((i + 1) * (i + 2)) / 2}` : `${i}`,
      ] as const;
    });
    const verifier = new MathVerifier({ threads: 3, timeLimit: 60_000 });
    const together = await Promise.all(problems.map(([response, gold]) => verifier.verify(response, gold)));
    const alone = [];
    for (const [response, gold] of [...problems].reverse())
      alone.unshift(await verifier.verify(response, gold));
    assert.deepEqual(together, alone);
    assert.ok(together.some(({ how }) => how === 'compute engine'));
    await verifier.close();
  });

  it('ends threads and rejects what waits for them when closed', async () => {
    const verifier = new MathVerifier({ threads: 1, timeLimit: 60_000 });
    const waiting = [1, 2].map((gold) => verifier.verify(`\\boxed{${ENDLESS}}`, `${gold}`));
    const settled = Promise.allSettled(waiting);
    await new Promise((resolve) => setTimeout(resolve, 50));
    await verifier.close();
    await verifier.close();
    for (const result of await settled) {
      assert.equal(result.status, 'rejected');
      assert.match(String(result.reason), /\[MathVerifier\] expected to stay open/);
    }
    await assert.rejects(verifier.verify(`\\boxed{${ENDLESS}}`, '1'), /expected to stay open/);
    assert.equal((await verifier.verify(R`\boxed{42}`, '42')).correct, true);
  });

  it('keeps no process alive', () => {
    const { href } = new URL('../../../lib/tasks/math/verifier.js', import.meta.url);
    const program = `
      import { MathVerifier } from ${JSON.stringify(href)};
      const { how } = await new MathVerifier({ timeLimit: 60000 }).verify('\\\\boxed{\\\\max(1, 2)}', '2');
      console.log(how);
    `;
    const { stdout, status } = spawnSync(process.execPath, ['--input-type=module', '-e', program], {
      encoding: 'utf8',
      timeout: 120_000,
    });
    assert.equal(stdout, 'compute engine\n');
    assert.equal(status, 0);
  });

  it('says what is wrong with its arguments', async () => {
    const make = (options: object) => () => new MathVerifier(options);
    assert.throws(
      make({ mode: 'symbolc' }),
      /\[MathVerifier\] expected mode to be one of .* \(did you mean symbolic\?\)/,
    );
    assert.throws(make({ place: 'box' }), /expected place to be one of boxed, stated, plain/);
    assert.throws(
      make({ threads: 0 }),
      /expected threads to be an integer of at least 1 and at most 64, got 0/,
    );
    assert.throws(
      make({ timeLimit: 0 }),
      /expected timeLimit to be a finite number between 1 and 600000, got 0/,
    );
    const verifier = new MathVerifier();
    for (const gold of ['', ' ', R`\boxed{}`, 7 as unknown as string, ['1', '']]) {
      await assert.rejects(verifier.verify('x', gold), /\[MathVerifier\] expected gold to be an answer/);
    }
    await assert.rejects(verifier.verify('x', []), /expected gold to have an answer/);
    await assert.rejects(
      verifier.verify(5 as unknown as string, '5'),
      /expected response to be a string, got 5/,
    );
  });

  it('has a version that names the Compute Engine', () => {
    assert.match(mathVerifierVersion, /^isopolicy-math-\d+\/compute-engine-0\.27$/);
  });
});
