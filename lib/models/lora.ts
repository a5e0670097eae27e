import { type Initialization, Parameter } from '../autograd/parameter.js';
import { checkInteger, invalid } from '../errors.js';
import {
  LoraAdapter,
  type LoraBranch,
  type LoraConfig,
  type LoraTarget,
  loraTargets,
  type ResolvedLoraConfig,
  resolveLoraConfig,
} from '../nn/lora.js';
import { scale } from '../ops/elementwise.js';
import { gemm } from '../ops/gemm.js';
import { tidy } from '../tensor/scope.js';
import { copy, type Tensor } from '../tensor/tensor.js';
import type { ResolvedDecoderConfig } from './config.js';
import type { Decoder } from './decoder.js';
import { type PublishedTensor, publishedTensors } from './huggingFaceTensors.js';

/**
 * Gives a model a low-rank adapter (Hu et al. 2021, arXiv 2106.09685), which is trained in its place:
 *
 *     y = x W^T + scaling (x A^T) B^T,   A [rank, inputs], B [outputs, rank]
 *
 * The model's own parameters are frozen. As in the PEFT library A begins uniform within 1 / sqrt(inputs), a pure function of
 * the seed, and B as zeros, so that the model computes at first what it did. Engines see the adapter if they are made
 * afterwards. The model owns it.
 *
 * @param options.seed of A; null leaves A and B undefined, for a loader that writes them all
 * @throws InvalidArgumentError on a bad config, a target that the model does not have or that is an expert of a mixture, or
 *   for a model with an adapter
 */
export function addLora(model: Decoder, config: LoraConfig, options: { seed: number | null }): LoraAdapter {
  const where = 'addLora';
  const { targets = modelTargets(model.config) } = config;
  const resolved = resolveLoraConfig(where, { ...config, targets });
  if (model.lora)
    invalid(where, 'a model without an adapter (mergeLora makes it one)', 'one with an adapter');
  const seed = options.seed === null ? null : checkInteger(where, 'seed', options.seed, 0, 2 ** 32 - 1);
  const places = loraPlaces(where, model.config, resolved);
  const adapter = new LoraAdapter(resolved, makeBranches(model, places, resolved.rank, seed));
  model.adopt(adapter);
  return adapter;
}

/** The projections that all layers of a model have one of, to be adapted unless a caller says otherwise. */
export function modelTargets(config: ResolvedDecoderConfig): LoraTarget[] {
  const names = publishedTensors(config).map(({ name }) => name);
  return loraTargets.filter((target) => {
    const places = names.filter((name) => name.endsWith(`.${target}.weight`));
    return places.length === config.numLayers && places.every((name) => PLACE.test(name));
  });
}

/** Of a projection that a layer has one of: not of an expert. */
const PLACE = /^(model\.layers\.\d+\.(?:self_attn|mlp)\.[a-z]+_proj)\.weight$/;

function loraPlaces(
  where: string,
  config: ResolvedDecoderConfig,
  { targets }: ResolvedLoraConfig,
): PublishedTensor[] {
  const possible = modelTargets(config);
  const other = targets.find((target) => !possible.includes(target));
  if (other)
    invalid(where, `targets among ${possible.join(', ')} (experts of a mixture cannot be adapted)`, other);
  return publishedTensors(config).filter(({ name }) =>
    targets.some((target) => name.endsWith(`.${target}.weight`)),
  );
}

/** A and B of each projection in turn, as they are called in an adapter of such a model. */
export function loraTensors(
  where: string,
  config: ResolvedDecoderConfig,
  lora: LoraConfig,
): { readonly name: string; readonly shape: readonly [number, number] }[] {
  const resolved = resolveLoraConfig(where, { targets: modelTargets(config), ...lora });
  return loraPlaces(where, config, resolved).flatMap(({ name, shape: [outputs = 0, inputs = 0] }) => {
    const [, module = ''] = PLACE.exec(name)!;
    return [
      { name: loraName(module, 'A'), shape: [resolved.rank, inputs] },
      { name: loraName(module, 'B'), shape: [outputs, resolved.rank] },
    ] as const;
  });
}

function loraName(module: string, kind: 'A' | 'B'): string {
  return `${module}.lora_${kind}.weight`;
}

function makeBranches(
  model: Decoder,
  places: readonly PublishedTensor[],
  rank: number,
  seed: number | null,
): LoraBranch[] {
  const bases = new Map(model.parameters.map((parameter) => [parameter.name, parameter]));
  return places.map(({ name, shape: [outputs = 0, inputs = 0], parameter, row }, i) => {
    const [, module = ''] = PLACE.exec(name)!;
    const make = (kind: 'A' | 'B', shape: readonly number[], begin: Initialization) => {
      const initialization: Initialization = seed === null ? { kind: 'none' } : begin;
      return new Parameter(loraName(module, kind), shape, initialization, seed ?? 0, i);
    };
    return {
      name: module,
      base: bases.get(parameter)!,
      row,
      a: make('A', [rank, inputs], { kind: 'uniform', bound: 1 / Math.sqrt(inputs) }),
      b: make('B', [outputs, rank], { kind: 'constant', value: 0 }),
    };
  });
}

/**
 * Bakes a model's adapter into its weights, W += scaling B A in fp32, and takes the adapter away: the model is a plain one
 * again, to be trained whole or saved. A rollout engine with `lora: 'merged'` computes with the same bits. Engines that
 * were made before it have to be made anew.
 *
 * @throws InvalidArgumentError for a model without an adapter
 */
export function mergeLora(model: Decoder): void {
  const { lora } = model;
  if (!lora) invalid('mergeLora', 'a model with an adapter', 'one without');
  for (const base of new Set(lora.branches.map(({ base }) => base))) addProducts(lora, base, base.master);
  model.adopt(null);
  lora.dispose();
}

/**
 * Takes a model's adapter away as if it had never been there. Engines that were made before it have to be made anew.
 *
 * @throws InvalidArgumentError for a model without an adapter
 */
export function removeLora(model: Decoder): void {
  const { lora } = model;
  if (!lora) invalid('removeLora', 'a model with an adapter', 'one without');
  model.adopt(null);
  lora.dispose();
}

/**
 * The weights of a model as its adapter changes them, fp32, by parameter: each made anew when it is called for, for its
 * caller to dispose of. Only parameters that the adapter changes are there.
 */
export function mergedMasters(lora: LoraAdapter): Map<Parameter, () => Tensor> {
  const changed = (base: Parameter) => () => {
    const merged = copy(base.master);
    addProducts(lora, base, merged);
    return merged;
  };
  return new Map(lora.branches.map(({ base }) => [base, changed(base)]));
}

/** Adds scaling B A of every branch to its rows of `target`, a chain of fp32 multiply-adds an element. */
function addProducts(lora: LoraAdapter, base: Parameter, target: Tensor): void {
  for (const { a, b, row } of lora.of(base)) {
    tidy(() => {
      const out = target.rows(row, row + b.shape[0]!);
      gemm(scale(b.master, lora.scaling), a.master, { out, accumulate: true });
    });
  }
}
