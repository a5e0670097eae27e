/** One tiny run of every command that a report shows, made once. */
import path from 'node:path';
import { resolveGridOptions } from '../../lib/grid/config.js';
import { runGrid } from '../../lib/grid/run.js';
import { turnDial } from '../../lib/instruments/dial.js';
import { measureHeadroom } from '../../lib/instruments/headroom.js';
import { climbLadder } from '../../lib/instruments/ladder.js';
import { profileMismatch } from '../../lib/instruments/profile.js';
import { resolveSimulateOptions, simulateCorrections } from '../../lib/instruments/simulate.js';
import { RunDirectory } from '../../lib/io/runDirectory.js';
import { baseConfigOf } from '../../lib/sanity/baseConfig.js';
import { runSanity } from '../../lib/sanity/run.js';
import { diagnosisOf, normalPairs } from '../diagnose/support.js';
import { tinyConfig } from '../sanity/tiny.js';

/** Makes the runs in folders named for their commands. */
export async function makeRuns(root: string): Promise<void> {
  const open = (command: string, config: object) =>
    RunDirectory.create(path.join(root, command), { command, version: 'test', config });
  const sanity = tinyConfig({ steps: 12 });
  await runSanity(sanity, { directory: await open('sanity', sanity), base: path.join(root, 'base') });

  const { algorithm, trainingPrecision, rolloutPrecision, seed, baseSeed, lossScaler, ...common } = sanity;
  const grid = resolveGridOptions({
    algorithms: ['grpo', 'pg-seq-is'],
    precisions: ['fp16', 'e8m4'],
    seeds: [5],
    common: { ...common, steps: 11, stopWhenPassed: false },
  });
  await runGrid(grid, { directory: await open('grid', grid), version: 'test', jobs: 2 });

  const base = baseConfigOf(sanity);
  const pairs = (['bf16', 'fp16'] as const).map((p) => ({ training: p, rollout: p }));
  const mismatch = { subjects: [{ base }], pairs, samples: 32, seed: 1 };
  await profileMismatch(mismatch, { directory: await open('mismatch', mismatch) });

  const ladder = { subject: { base }, precisions: ['bf16' as const], samples: 16, seed: 1 };
  await climbLadder(ladder, { directory: await open('ladder', ladder) });

  const dial = {
    bases: [base],
    formats: ['e8m7', 'e8m5', 'bf16'] as const,
    samples: 16,
    seed: 1,
    fitFrom: 5,
    spreads: [1],
  };
  await turnDial(dial, { directory: await open('dial', dial), base: () => path.join(root, 'base') });

  const run = path.join(root, 'sanity');
  const headroom = { subject: { run }, precision: 'fp16', lossScaler: 'verl', samples: 16, seed: 1 } as const;
  await measureHeadroom(headroom, { directory: await open('headroom', headroom) });

  const diagnose = await open('diagnose', {});
  await diagnose.writeSummary(await diagnosisOf(normalPairs(40, (i) => 5 + (i % 30), 0.1)));

  const simulate = await resolveSimulateOptions({ run });
  await simulateCorrections(simulate, { directory: await open('simulate', simulate) });
}

export const runNames = [
  'sanity',
  'grid',
  'mismatch',
  'ladder',
  'dial',
  'headroom',
  'simulate',
  'diagnose',
] as const;
