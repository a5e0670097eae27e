/** Algorithms from their configurations, and by name. An algorithm is a plain object, so a user's own needs no registration. */
import { checkChoice, InvalidArgumentError } from '../errors.js';
import { groupAdvantages, resolveAdvantageOptions } from './advantages.js';
import {
  type Algorithm,
  batchTotals,
  checkBatch,
  isWhole,
  type MiniBatch,
  type PolicyBatch,
  type PolicyLoss,
  type Preparation,
} from './batch.js';
import { type AlgorithmConfig, checkAlgorithmConfig, isRecord, parameterNames } from './config.js';
import { type Correction, correct, corrects } from './corrections/correct.js';
import type { ImportanceOptions } from './corrections/importance.js';
import { losses } from './losses/index.js';
import { type PresetName, presetNames, presets } from './presets.js';

/**
 * The algorithm that a configuration describes: a loss, corrections for the gap between mu and the policy that is
 * trained, advantages and an aggregation.
 *
 * With `decoupled` corrections weights and rejection are of pi_old / mu (arXiv 2510.26788 and verl's rollout
 * correction); `reinforce`, and `bypass`, have them of pi / mu, taken anew at each update.
 *
 * Metrics are the loss's and the correction's (see {@link correct}).
 *
 * @throws InvalidArgumentError that lists everything that is wrong with the configuration
 */
export function composeAlgorithm(name: string, config: AlgorithmConfig): Algorithm {
  checkAlgorithmConfig(name, config);
  const entry = losses[config.loss];
  const { mode = 'decoupled', denominator = 'fixed' } = config;
  const advantageOptions = resolveAdvantageOptions(name, config);
  const correcting = corrects(config);
  // Of what the correction is taken: of pi_old, which is known before the update, or of pi, which each update changes.
  const ofOld = entry.needsOld && mode === 'decoupled';
  const dependsOnMiniBatch =
    correcting && (denominator === 'kept' || config.importance?.batchNormalize === true);
  const options = lossOptions(config);

  const corrected = (batch: MiniBatch | PolicyBatch): Correction =>
    correct(
      {
        offsets: batch.offsets,
        mask: batch.mask,
        to: (ofOld ? batch.oldLogprobs : batch.logprobs)!,
        from: batch.rolloutLogprobs,
      },
      config,
    );

  const prepare = (batch: MiniBatch): Preparation => {
    const { kept, weights, metrics } = corrected(batch);
    // A weight of 0 rejects, too.
    const mask =
      denominator === 'fixed'
        ? batch.mask
        : kept.map((keep, t) => (keep === 1 && weights?.[t] !== 0 ? 1 : 0));
    return { mask, kept, ...(weights && { weights }), totals: batchTotals(batch.offsets, mask), metrics };
  };

  const ready = (batch: PolicyBatch): PolicyBatch => {
    if (!correcting || batch.kept !== undefined) return batch;
    if (!dependsOnMiniBatch) {
      const { metrics, ...made } = corrected(batch);
      return { ...batch, ...made, preparedMetrics: metrics };
    }
    if (!isWhole(batch)) {
      throw new InvalidArgumentError(
        `[${name}] expected what prepare() made of the whole mini-batch, on which its weights or denominators depend, got a part of it`,
      );
    }
    const { metrics, ...made } = prepare(batch);
    return { ...batch, ...made, preparedMetrics: metrics };
  };

  const run = (batch: PolicyBatch): PolicyLoss => {
    const whole = entry.needsOld && !ofOld ? { ...batch, oldLogprobs: batch.rolloutLogprobs } : batch;
    // Before corrections read it.
    checkBatch(name, whole, entry.needsOld);
    const full = ready(whole);
    const { loss, gradient, metrics } = entry.run(full, options);
    return { loss, gradient, metrics: { ...metrics, ...full.preparedMetrics } };
  };

  return {
    name,
    needsOldLogprobs: ofOld,
    advantages: (rewards, groupSize) => groupAdvantages(rewards, groupSize, advantageOptions),
    ...(dependsOnMiniBatch && { prepare, prepareNeedsLogprobs: !ofOld }),
    loss: run,
    metrics: (batch) => run(batch).metrics,
  };
}

/** The options of the loss alone: what is undefined would stand in the way of a default. */
function lossOptions(config: AlgorithmConfig): object {
  const known = ['aggregation', 'constantLength', ...losses[config.loss].options];
  return Object.fromEntries(
    Object.entries(config).filter(([key, value]) => known.includes(key) && value !== undefined),
  );
}

/** Parameters that a preset can be given: those of its configuration but the loss. */
export type AlgorithmParameters = Partial<Omit<AlgorithmConfig, 'loss'>>;

/**
 * The algorithm of a preset, with some of its parameters changed; see {@link presets} for the names and where their
 * settings come from.
 *
 * @throws InvalidArgumentError on an unknown name or parameter (naming the nearest), and on values that are wrong or
 * contradict each other (listing all)
 */
export function createAlgorithm(name: PresetName, parameters: AlgorithmParameters = {}): Algorithm {
  return composeAlgorithm(name, presetConfig(name, parameters));
}

/** The configuration of a preset with some of its parameters changed, which are not checked here. */
export function presetConfig(name: PresetName, parameters: AlgorithmParameters = {}): AlgorithmConfig {
  checkChoice('createAlgorithm', 'name', name, presetNames);
  const { config } = presets[name];
  // The loss is the preset. Other names that it has not are told by composeAlgorithm, with all else that is wrong.
  if (Object.hasOwn(parameters, 'loss'))
    checkChoice(name, 'each parameter', 'loss', parameterNames(config.loss));
  const { importance } = parameters;
  // Part of the importance sampling is changed, not all of it.
  const merged =
    isRecord(importance) && 'importance' in config ? { ...config.importance, ...importance } : importance;
  return {
    ...config,
    ...parameters,
    ...(importance !== undefined && { importance: merged as ImportanceOptions }),
  };
}
