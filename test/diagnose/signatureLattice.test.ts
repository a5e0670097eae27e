/** The signature of numbers of 16-bit formats. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { CounterRandom } from '../../lib/random.js';
import { findings, rounded, synthetic, withSeries } from './synthetic.js';

describe('lattice', () => {
  const at = (side: 'rollout' | 'training', mantissa: number) => {
    const octaves: number[] = [];
    const { pairs } = synthetic({
      responses: 30,
      length: 10,
      noise: 0.001,
      sure: 0.3,
      top: 5,
      engines: {
        [side]: (z: Float64Array) => {
          // As large as logits of language models are, and near 0, where fp16 can't be taken for bf16.
          const logits = z.map((x) => rounded(x + (mantissa === 7 ? 9.3 : 0), mantissa));
          octaves.push(Math.floor(Math.log2(Math.max(...logits))));
          return logits;
        },
      },
    });
    return { pairs, octave: octaves.sort((a, b) => a - b)[octaves.length >> 1]! };
  };

  it('finds logits that were rounded to bf16 or fp16, on which side, and in which steps', () => {
    for (const [dtype, mantissa] of [
      ['bf16', 7],
      ['fp16', 10],
    ] as const) {
      for (const side of ['rollout', 'training'] as const) {
        const { pairs, octave } = at(side, mantissa);
        const { lattice } = findings(pairs, 'fp32');
        assert.ok(lattice.found, `${dtype} ${side}: ${lattice.evidence}`);
        assert.equal(lattice.values[`${side}MantissaBits`], mantissa);
        assert.equal(lattice.values[`${side}Stored`], 0);
        const step = lattice.values[`${side}Step`]!;
        // A coarser one fits some positions by chance.
        assert.ok([1, 2].includes(step / 2 ** (octave - mantissa)), `${step}, octave ${octave}`);
        const other = side === 'rollout' ? 'training' : 'rollout';
        assert.equal(lattice.values[`${other}MantissaBits`], undefined);
        assert.ok(
          lattice.evidence.includes(
            `${side}: at 100 % of the positions all candidates are ${dtype} logits less a constant, in steps of 2^${Math.log2(step)}`,
          ),
          lattice.evidence,
        );
        assert.ok(lattice.evidence.includes(`${other}: none`));
      }
    }
  });

  it('finds them in log-probs that are kept in fp32', () => {
    const { pairs } = at('training', 7);
    const single = pairs.map((pair) => ({
      ...pair,
      training: pair.training.map(Math.fround),
      topLogprobs: {
        ...pair.topLogprobs,
        training: pair.topLogprobs.training!.map((top) => ({
          ...top!,
          logprobs: top!.logprobs.map(Math.fround),
        })),
      },
    }));
    assert.equal(findings(single).lattice.values.trainingMantissaBits, 7);
  });

  it('calls fp16 logits of 16 to 64 fp16, whose step bf16 logits of 2 to 8 have', () => {
    const { pairs } = synthetic({
      responses: 40,
      length: 10,
      noise: 0.001,
      top: 5,
      engines: { training: (z) => z.map((x) => rounded(x + 24, 10)) },
    });
    assert.equal(findings(pairs).lattice.values.trainingMantissaBits, 10);
  });

  it('shows in the odds of chosen tokens where two compete, without lists', () => {
    for (const [dtype, mantissa] of [
      ['bf16', 7],
      ['fp16', 10],
    ] as const) {
      const { pairs } = synthetic({
        responses: 200,
        vocabulary: 2,
        noise: 0.002,
        sure: 0.3,
        // Logits of 16 to 32 have one step.
        engines: { training: (z) => z.map((x) => rounded(24 + x / 2, mantissa)) },
      });
      const { lattice } = findings(pairs);
      assert.ok(lattice.found);
      assert.equal(lattice.values.trainingMantissaBits, mantissa);
      assert.equal(lattice.values.trainingStep, 2 ** (4 - mantissa));
      assert.match(
        lattice.evidence,
        new RegExp(`training: the odds .* multiples of 2\\^${4 - mantissa} .*${dtype} logits$`),
      );
    }
  });

  it('has the step of most where logits lie in several octaves', () => {
    for (const [least, octaves, step] of [
      [4, 4, 4],
      [8, 3, 3],
      [16, 2, 3],
      [4, 2, 5],
    ] as const) {
      const { pairs } = synthetic({
        responses: 400,
        vocabulary: 2,
        noise: 0.001,
        sure: 0.3,
        engines: {
          training: (z, { response, position }) => {
            const size = least * 2 ** ((octaves * ((7 * response + 3 * position) % 40)) / 40);
            return z.map((x) => rounded(size + x, 7));
          },
        },
      });
      const { lattice } = findings(pairs);
      assert.ok(lattice.found);
      assert.equal(lattice.values.trainingMantissaBits, 7);
      assert.equal(lattice.values.trainingStep, 2 ** -step, lattice.evidence);
      assert.equal(lattice.values.rolloutMantissaBits, undefined);
    }
  });

  it('is not what a policy of few probabilities has: all alike, or one of several', () => {
    for (const scale of [0, 0.001, 0.01, 0.03, 0.1]) {
      for (const vocabulary of [2, 7, 40]) {
        const engine = (z: Float64Array) => z.map((x) => scale * x);
        const { pairs } = synthetic({
          responses: 100,
          vocabulary,
          sure: 0,
          engines: { rollout: engine, training: engine },
        });
        assert.equal(
          findings(pairs).lattice.evidence,
          'rollout: none; training: none',
          `${scale}, ${vocabulary}`,
        );
      }
    }
    // Uniform over so many tokens at one position and the next.
    for (const numbers of [
      [2, 3],
      [2, 3, 5],
      [10, 2, 36],
      [3, 4, 5, 6, 7, 8, 9, 10],
    ]) {
      for (const width of [0.001, 0.02, 0.1]) {
        const random = new CounterRandom(1);
        const pairs = synthetic({ responses: 300, length: 20 }).pairs.map((pair) => {
          const series = pair.rollout.map(
            (_, t) => -Math.log(numbers[t % numbers.length]!) - width * random.uniform(),
          );
          return { ...pair, rollout: series, training: series.map((x) => x - 1e-3 * random.uniform()) };
        });
        assert.equal(findings(pairs).lattice.found, false, `${numbers}, ${width}`);
      }
    }
  });

  it('takes 16-bit logits of a rollout in that format for what they are: usual', () => {
    const { lattice } = findings(at('rollout', 7).pairs, 'bf16');
    assert.equal(lattice.found, false);
    assert.equal(lattice.values.rolloutMantissaBits, 7);
  });

  it('finds log-probs that were stored in 16 bits', () => {
    for (const [dtype, mantissa] of [
      ['bf16', 7],
      ['fp16', 10],
    ] as const) {
      const { pairs } = synthetic({ responses: 30, length: 10, sure: 0 });
      const stored = withSeries(pairs, 'training', (own) => own.map((x) => rounded(x, mantissa)));
      const { lattice } = findings(stored, 'fp32');
      assert.ok(lattice.found);
      assert.equal(lattice.values.trainingStored, 1);
      assert.equal(lattice.values.trainingMantissaBits, mantissa);
      assert.ok(lattice.evidence.includes(`training: 100 % of the log-probs are ${dtype} numbers`));
      assert.ok(lattice.explained! > 0.1, String(lattice.explained));
    }
  });

  it('finds none in fp32 and fp64, whatever the size of the logits', () => {
    for (const scale of [0.1, 1, 4]) {
      for (let seed = 1; seed <= 3; seed++) {
        const { pairs } = synthetic({
          seed,
          responses: 30,
          length: 10,
          noise: 0.001,
          top: 5,
          engines: {
            rollout: (z) => z.map((x) => scale * x + 9.3),
            training: (z) => z.map((x) => scale * x),
          },
        });
        for (const round of [(x: number) => x, Math.fround]) {
          const stored = pairs.map((pair) => ({
            ...pair,
            rollout: pair.rollout.map(round),
            training: pair.training.map(round),
            topLogprobs: {
              rollout: pair.topLogprobs.rollout!.map((top) => ({
                ...top!,
                logprobs: top!.logprobs.map(round),
              })),
              training: pair.topLogprobs.training!.map((top) => ({
                ...top!,
                logprobs: top!.logprobs.map(round),
              })),
            },
          }));
          const { lattice } = findings(stored);
          assert.equal(lattice.evidence, 'rollout: none; training: none');
          assert.deepEqual([lattice.found, lattice.explained, lattice.values], [false, 0, {}]);
        }
      }
    }
  });
});
