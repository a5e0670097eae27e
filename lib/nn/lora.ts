import type { Parameter } from '../autograd/parameter.js';
import { checkChoice, checkInteger, checkNumber, invalid } from '../errors.js';

/** The projections that an adapter can be of, by their names in Hugging Face models. */
export const loraTargets = [
  'q_proj',
  'k_proj',
  'v_proj',
  'o_proj',
  'gate_proj',
  'up_proj',
  'down_proj',
] as const;
export type LoraTarget = (typeof loraTargets)[number];

/** What an adapter is (Hu et al. 2021, arXiv 2106.09685); the names are those of the PEFT library, in camelCase. */
export interface LoraConfig {
  /** Rows of A and columns of B. */
  readonly rank: number;
  /** The product of B and A is scaled by alpha / rank. */
  readonly alpha: number;
  /** Default: all that the model has. */
  readonly targets?: readonly LoraTarget[];
  /** Scale by alpha / sqrt(rank) instead (Kalajdzievski 2023, arXiv 2312.03732); default false. */
  readonly useRslora?: boolean;
  /** Of the adapter's input in training; default 0, and nothing else can be trained here. */
  readonly dropout?: number;
}

export type ResolvedLoraConfig = Required<LoraConfig>;

/**
 * Fills in defaults and checks every field.
 *
 * @throws InvalidArgumentError naming the field, what was expected and what was found
 */
export function resolveLoraConfig(where: string, config: LoraConfig): ResolvedLoraConfig {
  for (const name of Object.keys(config)) checkChoice(where, 'each field', name, fields);
  const { targets = loraTargets, useRslora = false, dropout = 0 } = config;
  if (!Array.isArray(targets) || targets.length === 0) invalid(where, 'targets to be one or more', targets);
  for (const target of targets) checkChoice(where, 'each of targets', target, loraTargets);
  if (typeof useRslora !== 'boolean') invalid(where, 'useRslora to be a boolean', useRslora);
  return {
    rank: checkInteger(where, 'rank', config.rank, 1),
    alpha: checkNumber(where, 'alpha', config.alpha, 0),
    targets: loraTargets.filter((target) => targets.includes(target)),
    useRslora,
    dropout: checkNumber(where, 'dropout', dropout, 0, 1),
  };
}

const fields: readonly string[] = ['rank', 'alpha', 'targets', 'useRslora', 'dropout'];

/** What an adapter adds to one projection: y = x W^T + scaling (x A^T) B^T. */
export interface LoraBranch {
  /** Of the projection, such as `model.layers.0.self_attn.q_proj`. */
  readonly name: string;
  /** The parameter whose rows W is: Q, K and V are the row blocks of one, gate and up of another. */
  readonly base: Parameter;
  /** The first row of W in it. */
  readonly row: number;
  /** [rank, inputs]. */
  readonly a: Parameter;
  /** [outputs, rank]. */
  readonly b: Parameter;
}

/** A low-rank adapter: what is trained in place of a model's weights. */
export class LoraAdapter implements Disposable {
  readonly config: ResolvedLoraConfig;
  /** What the product of B and A is multiplied by. */
  readonly scaling: number;
  readonly branches: readonly LoraBranch[];
  /** A and B of every branch in turn. */
  readonly parameters: readonly Parameter[];
  readonly #byBase: ReadonlyMap<Parameter, LoraBranch[]>;

  /** @internal use addLora or loadAdapter */
  constructor(config: ResolvedLoraConfig, branches: readonly LoraBranch[]) {
    const { rank, alpha, useRslora } = config;
    this.config = config;
    this.scaling = alpha / (useRslora ? Math.sqrt(rank) : rank);
    this.branches = branches;
    this.parameters = branches.flatMap(({ a, b }) => [a, b]);
    this.#byBase = new Map(
      branches.map(({ base }) => [base, branches.filter((branch) => branch.base === base)]),
    );
  }

  /** The branches of the projections that are rows of `base`. */
  of(base: Parameter): readonly LoraBranch[] {
    return this.#byBase.get(base) ?? [];
  }

  get parameterCount(): number {
    return this.parameters.reduce((sum, { size }) => sum + size, 0);
  }

  /** Gives the parameters' memory back. */
  dispose(): void {
    for (const parameter of this.parameters) parameter.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
