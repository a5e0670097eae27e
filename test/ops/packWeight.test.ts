import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { linear } from '../../lib/ops/linear.js';
import { PackedWeight, packedSize } from '../../lib/ops/packWeight.js';
import { info, setThreads, setVectorLevel } from '../../lib/runtime.js';
import { floatDtypes } from '../../lib/tensor/dtype.js';
import { tidy } from '../../lib/tensor/scope.js';
import { readTensors, zeros } from '../../lib/tensor/tensor.js';
import { assertSameBits } from '../support/compare.js';
import { onEmulator } from '../support/cuda.js';
import { onDevice } from '../support/dtypes.js';
import { normalTensor } from '../support/gemmReference.js';
import { vectorLevels } from '../support/levels.js';
import { ownTensors } from '../support/owned.js';

const own = ownTensors();
const { vectorLevel } = info();

// rows, N, K, splitK: one row, odd tails of panels and steps, several tiles of rows, several blocks of k, chunks.
const shapes: readonly [number, number, number, number][] = [
  [1, 1, 1, 0],
  [2, 0, 5, 0],
  [1, 33, 65, 0],
  [4, 100, 1100, 512],
  [15, 31, 257, 0],
  [33, 64, 300, 64],
  [70, 130, 530, 0],
];

describe('PackedWeight', () => {
  for (const level of vectorLevels()) {
    for (const dtype of floatDtypes) {
      it(`gives linear the bits of the plain weight, ${dtype} at ${level}`, async () => {
        setVectorLevel(level);
        for (const [rows, n, k, splitK] of shapes) {
          for (const family of ['rollout', 'training'] as const) {
            for (const count of [1, 3]) {
              setThreads(count);
              const results = tidy(() => {
                const x = normalTensor([rows, k], dtype, 1);
                const weight = normalTensor([n, k], dtype, 2);
                const biases = [normalTensor([n], dtype, 3)];
                const packed = new PackedWeight(normalTensor([n, k], dtype, 4));
                packed.update(weight);
                const options = { biases, family, splitK };
                return [linear(x, [weight], options), linear(x, [packed], options)];
              });
              const [plain, packed] = await readTensors(results);
              for (const t of results) t.dispose();
              assertSameBits(
                packed!,
                plain!,
                `[${rows}, ${k}] x [${k}, ${n}], splitK ${splitK}, ${family}, ${count}`,
              );
            }
          }
        }
      });
    }
  }

  it('takes as many elements as packedSize says', () => {
    for (const level of vectorLevels()) {
      setVectorLevel(level);
      for (const dtype of onDevice(...floatDtypes, 'e8m4')) {
        for (const shape of [
          [1, 1],
          [33, 65],
          [100, 96],
          [3, 17, 31],
        ]) {
          using packed = tidy(() => new PackedWeight(zeros(shape, dtype)).tensor);
          assert.equal(
            packed.size,
            packedSize(shape, dtype, level, packed.device),
            `[${shape}] ${dtype} at ${level}`,
          );
        }
      }
    }
  });

  it('gives a few rows the bits of the plain weight where it exceeds the caches and outputs go past them', async () => {
    setVectorLevel(vectorLevel);
    const [rows, n, k] = onEmulator() ? [20, 208, 210] : [20, 2080, 2100]; // caches are the CPU's
    for (const dtype of floatDtypes) {
      const results = tidy(() => {
        const x = normalTensor([rows, k], dtype, 1);
        const weight = normalTensor([n, k], dtype, 2);
        const packed = new PackedWeight(weight);
        return (['rollout', 'training'] as const).flatMap((family) =>
          [weight, packed].map((w) => linear(x, [w], { family })),
        );
      });
      const [plain, packed, plainTraining, packedTraining] = await readTensors(results);
      for (const t of results) t.dispose();
      assertSameBits(packed!, plain!, `${dtype}, rollout`);
      assertSameBits(packedTraining!, plainTraining!, `${dtype}, training`);
    }
  });

  it('refuses what does not fit', () => {
    const weight = own(zeros([8, 40], 'bf16'));
    const packed = new PackedWeight(weight);
    own(packed.tensor);
    const x = own(zeros([2, 40], 'bf16'));
    assert.throws(
      () => new PackedWeight(own(zeros([8], 'bf16'))),
      /\[packWeight\] expected weight of 2 dimensions \[N, K\]/,
    );
    assert.throws(
      () => packed.update(own(zeros([40, 8], 'bf16'))),
      /\[PackedWeight\] expected weight of shape \[8, 40\]/,
    );
    assert.throws(() => linear(own(zeros([2, 41], 'bf16')), [packed]), /\[linear\] expected weights\[0\]/);
    assert.throws(() => linear(own(zeros([2, 40], 'fp16')), [packed]), /\[linear\] expected weights\[0\]/);
    setVectorLevel('portable');
    if (vectorLevel !== 'portable') {
      assert.throws(() => linear(x, [packed]), /packed at the vector level in use, portable, got /);
      assert.throws(() => packed.update(weight), /\[PackedWeight\] expected vector level/);
    }
  });
});
