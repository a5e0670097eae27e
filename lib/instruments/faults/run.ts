import { CounterRandom } from '../../random.js';
import { engineNumerics } from '../../rl/engineChoices.js';
import type { Environment } from '../../rl/environment.js';
import { loadAlgorithm } from '../../rl/load.js';
import { Trainer } from '../../rl/trainer.js';
import { RolloutEngine } from '../../rollout/engine.js';
import { sourceDefaults, taskDefaults } from '../../sanity/config.js';
import type { Subject } from '../../sanity/subject.js';
import { TrainingEngine } from '../../training/engine.js';
import { type RunConfig, UPDATES_PER_STEP } from './runConfig.js';
import { RunStep, type Snapshot } from './runStep.js';

/** Responses of one update: as many as one of the sanity test has. */
const PROMPTS_PER_UPDATE = 8;
const GROUP_SIZE = 8;
/** Draw names beyond those of any update. */
const DUMPED_PROMPTS = 2 ** 30;
const COIN_STREAM = 0x636f696e;

export interface RunStepsOptions {
  /** Versions of the weights, in updates, that faults want again. */
  readonly versions?: Iterable<number>;
  readonly signal?: AbortSignal | undefined;
  /** Told what is about to be done. */
  readonly report?: ((progress: { step: number; what: string }) => void) | undefined;
}

/**
 * A short run of both engines without faults: at each step responses are sampled and scored on equal weights, and between
 * steps the policy learns on-policy by the sanity test's policy gradient (`pg-seq-is`), so that the versions of the weights
 * differ as those of a real run do. Where nothing judges responses their reward is the toss of a coin.
 *
 * A step is good until the next one is asked for; any number of faults can be made of it. The model is left with the last
 * weights.
 *
 * @throws the signal's reason, where it is aborted
 */
export async function* runSteps(
  subject: Subject,
  config: RunConfig,
  { versions = [], signal, report }: RunStepsOptions = {},
): AsyncGenerator<RunStep> {
  const { model } = subject;
  const { precision, seed, steps, samples } = config;
  const numerics = engineNumerics(config.numerics);
  const { learningRate } = subject.baseSeed === undefined ? sourceDefaults : taskDefaults;
  using training = new TrainingEngine(model, {
    precision,
    numerics: numerics.training,
    schedule: { kind: 'constant', learningRate },
  });
  using rollout = new RolloutEngine(model, { precision, numerics: numerics.rollout });
  const environment = subject.judged ? subject.environment : coinEnvironment(subject.environment, seed);
  const constantLength = environment.responseLength;
  const trainer = new Trainer(rollout, training, environment, {
    algorithm: await loadAlgorithm('pg-seq-is', {}, { constantLength }),
    promptsPerStep: PROMPTS_PER_UPDATE,
    groupSize: GROUP_SIZE,
    updatesPerStep: 1,
    seed,
  });
  const wanted = new Set(versions);
  const snapshots = new Map<number, Snapshot>();
  let version = 0;
  for (let step = 0; step < steps; step++) {
    for (; version < step * UPDATES_PER_STEP; version++) {
      signal?.throwIfAborted();
      report?.({ step, what: `update ${version}` });
      if (wanted.has(version)) snapshots.set(version, await snapshotOf(subject));
      await trainer.step(version);
    }
    signal?.throwIfAborted();
    report?.({ step, what: 'sampling' });
    if (wanted.has(version)) snapshots.set(version, await snapshotOf(subject));
    rollout.syncWeights();
    const begin = Math.floor((step * samples) / steps);
    const end = Math.floor(((step + 1) * samples) / steps);
    const draws = Array.from({ length: end - begin }, (_, i) => ({
      prompt: (begin + i) % environment.prompts.length,
      promptId: DUMPED_PROMPTS + begin + i,
      sampleId: 0,
    }));
    yield await RunStep.of({ subject, config, step, version, draws, training, snapshots }, rollout);
  }
}

async function snapshotOf({ model }: Subject): Promise<Snapshot> {
  const masters = new Map();
  for (const parameter of model.trainable) masters.set(parameter, await parameter.master.floats());
  return masters;
}

/** Rewards of 0 or 1 by chance. */
function coinEnvironment(environment: Environment, seed: number): Environment {
  const { prompts, responseLength, stopTokens, endOf } = environment;
  const random = new CounterRandom(seed, COIN_STREAM);
  return {
    prompts,
    responseLength,
    stopTokens,
    endOf,
    rewards: (responses) => responses.map(() => random.integer(2)),
  };
}
