/** A model folder, problems and a verifier for training runs of a second. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';
import type { TrainOptions } from '../../lib/train/config.js';
import { writeCheckpointFolder } from '../support/checkpoint.js';

export interface Tiny {
  /** Of all, removed after the tests of the file. */
  readonly root: string;
  readonly options: TrainOptions;
}

const roots: string[] = [];
after(() => {
  for (const root of roots) rmSync(root, { recursive: true, force: true });
});

/** An untrained model: what it is rewarded for is how long its responses are, which it can learn. */
export async function tinyTraining(): Promise<Tiny> {
  const root = mkdtempSync(join(tmpdir(), 'isopolicy-train-'));
  roots.push(root);
  const model = await writeCheckpointFolder(join(root, 'model'));
  const rows = (count: number, first: number) =>
    Array.from({ length: count }, (_, i) => {
      const [a, b] = [first + i, (7 * i) % 10];
      return `${JSON.stringify({ problem: `${a}+${b}=`, answer: String(a + b) })}\n`;
    }).join('');
  const paths = {
    train: join(root, 'train.jsonl'),
    test: join(root, 'test.jsonl'),
    judge: join(root, 'judge.mjs'),
  };
  writeFileSync(paths.train, rows(10, 3));
  writeFileSync(paths.test, rows(3, 20));
  writeFileSync(paths.judge, 'export default (response) => response.length % 2 === 0;\n');
  return {
    root,
    options: {
      model,
      data: paths.train,
      template: 'plain',
      verifier: paths.judge,
      responseLength: 32,
      steps: 6,
      batch: { promptsPerStep: 4, groupSize: 4, updatesPerStep: 2, microBatchTokens: 128 },
      optimizer: { learningRate: 1e-2, schedule: 'linear', warmupSteps: 1 },
      evaluation: { data: paths.test, every: 2, samples: 3, temperature: 0.8, topP: 0.9 },
      checkpoint: { every: 3 },
      rollout: { maxBatch: 8 },
    },
  };
}
