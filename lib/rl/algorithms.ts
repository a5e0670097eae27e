/** The built-in algorithms by name. An algorithm is a plain object, so a user's own needs no registration. */
import { checkChoice } from '../errors.js';
import { type AdvantageOptions, groupAdvantages, resolveAdvantageOptions } from './advantages.js';
import type { Algorithm } from './batch.js';
import { type GrpoOptions, grpoLoss, resolveGrpo } from './grpo.js';
import { type PgSeqIsOptions, pgSeqIsLoss, resolvePgSeqIs } from './pgSeqIs.js';

/** Parameters of each algorithm; every one is optional. */
export interface AlgorithmParameters {
  'pg-seq-is': PgSeqIsOptions & AdvantageOptions;
  'dr-grpo': Pick<GrpoOptions, 'clipLow' | 'clipHigh' | 'constantLength'> &
    Pick<AdvantageOptions, 'baseline'>;
  grpo: GrpoOptions & Pick<AdvantageOptions, 'baseline' | 'epsilon'>;
}

export type AlgorithmName = keyof AlgorithmParameters;

const factories: { [N in AlgorithmName]: (parameters: AlgorithmParameters[N]) => Algorithm } = {
  'pg-seq-is': pgSeqIs,
  'dr-grpo': drGrpo,
  grpo,
};

export const algorithmNames = Object.keys(factories) as readonly AlgorithmName[];

/**
 * PG-Seq-IS (arXiv 2510.26788, eq. 5), the unbiased policy gradient; see {@link pgSeqIsLoss}.
 *
 * Defaults are those of the authors' scripts: aggregation 'seq-mean-token-sum-norm' with constantLength 8192,
 * baseline 'mean' without std, no log clamp.
 */
export function pgSeqIs(parameters: AlgorithmParameters['pg-seq-is'] = {}): Algorithm {
  const where = 'pg-seq-is';
  checkNames(where, parameters, [
    'aggregation',
    'constantLength',
    'logClamp',
    'baseline',
    'normalizeStd',
    'epsilon',
  ]);
  const options = resolvePgSeqIs(where, parameters);
  const advantageOptions = resolveAdvantageOptions(where, parameters);
  return {
    name: where,
    needsOldLogprobs: false,
    advantages: (rewards, groupSize) => groupAdvantages(rewards, groupSize, advantageOptions),
    loss: (batch) => pgSeqIsLoss(batch, options),
  };
}

/**
 * Dr.GRPO (arXiv 2503.20783): GRPO without std and with a constant length norm. It is what the authors'
 * scripts run under the name GRPO; see {@link grpoLoss}.
 *
 * Defaults are those of the scripts: clipLow = clipHigh = 0.2, constantLength 8192, baseline 'mean'.
 */
export function drGrpo(parameters: AlgorithmParameters['dr-grpo'] = {}): Algorithm {
  const where = 'dr-grpo';
  checkNames(where, parameters, ['clipLow', 'clipHigh', 'constantLength', 'baseline']);
  const options = resolveGrpo(where, { ...parameters, aggregation: 'seq-mean-token-sum-norm' });
  return fromGrpo(where, options, resolveAdvantageOptions(where, { ...parameters, normalizeStd: false }));
}

/**
 * GRPO (arXiv 2402.03300): advantages over the group's std, and the mean over each sequence's tokens; see
 * {@link grpoLoss}.
 *
 * Defaults: clipLow = clipHigh = 0.2 (authors' scripts), aggregation 'seq-mean-token-mean', baseline 'mean',
 * epsilon 1e-8.
 */
export function grpo(parameters: AlgorithmParameters['grpo'] = {}): Algorithm {
  const where = 'grpo';
  checkNames(where, parameters, [
    'clipLow',
    'clipHigh',
    'aggregation',
    'constantLength',
    'baseline',
    'epsilon',
  ]);
  const { aggregation = 'seq-mean-token-mean' } = parameters;
  const options = resolveGrpo(where, { ...parameters, aggregation });
  return fromGrpo(where, options, resolveAdvantageOptions(where, { ...parameters, normalizeStd: true }));
}

/**
 * The algorithm of that name.
 *
 * @throws InvalidArgumentError on an unknown name (listing the known ones and the nearest), an unknown or a
 * bad parameter
 */
export function createAlgorithm<N extends AlgorithmName>(
  name: N,
  parameters: AlgorithmParameters[N] = {},
): Algorithm {
  checkChoice('createAlgorithm', 'name', name, algorithmNames);
  return factories[name](parameters);
}

function fromGrpo(name: string, options: GrpoOptions, advantageOptions: AdvantageOptions): Algorithm {
  return {
    name,
    needsOldLogprobs: true,
    advantages: (rewards, groupSize) => groupAdvantages(rewards, groupSize, advantageOptions),
    loss: (batch) => grpoLoss(batch, options),
  };
}

/** A misspelt parameter would otherwise be a default in silence. */
function checkNames(where: string, parameters: object, known: readonly string[]): void {
  for (const name of Object.keys(parameters)) checkChoice(where, 'each parameter', name, known);
}
