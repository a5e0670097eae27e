/** The part of a Hugging Face `config.json` that is about mixtures of experts, read and written. */
import { attempt, checkBoolean, checkInteger, invalid } from '../errors.js';
import type { DecoderConfig, ResolvedDecoderConfig } from './config.js';

type JsonObject = Readonly<Record<string, unknown>>;
type MixtureFields = Partial<Record<keyof DecoderConfig, unknown>>;

/** Experts of all layers are listed one by one: a number that no model has would take all memory. */
const MOST_EXPERTS = 2 ** 18;

/**
 * Of Mixtral every block is a mixture, whose experts are as wide as a dense block would be.
 *
 * @param numLayers undefined where it is bad, which is told already
 */
export function readMixtral(
  source: JsonObject,
  where: string,
  errors: unknown[],
  numLayers: number | undefined,
): MixtureFields {
  return { ...readExperts(source, where, errors, numLayers), normalizeRouterWeights: true };
}

export function composeMixtral({ numExperts, numExpertsPerToken }: ResolvedDecoderConfig): JsonObject {
  return { num_local_experts: numExperts, num_experts_per_tok: numExpertsPerToken, sliding_window: null };
}

/**
 * Of Qwen3-MoE every `decoder_sparse_step`-th block is a mixture, but for those of `mlp_only_layers`.
 *
 * @param numLayers as for {@link readMixtral}
 */
export function readQwen3Moe(
  source: JsonObject,
  where: string,
  errors: unknown[],
  numLayers: number | undefined,
): MixtureFields {
  const size = 'moe_intermediate_size';
  return {
    ...readExperts(source, where, errors, numLayers),
    moeIntermediateSize: attempt(errors, () => checkInteger(where, size, source[size], 1)),
    normalizeRouterWeights: attempt(errors, () =>
      checkBoolean(where, 'norm_topk_prob', source.norm_topk_prob ?? false),
    ),
    denseLayers: attempt(errors, () => numLayers && readDenseLayers(source, where, numLayers)),
  };
}

export function composeQwen3Moe(decoder: ResolvedDecoderConfig): JsonObject {
  return {
    num_experts: decoder.numExperts,
    num_experts_per_tok: decoder.numExpertsPerToken,
    moe_intermediate_size: decoder.moeIntermediateSize,
    norm_topk_prob: decoder.normalizeRouterWeights,
    decoder_sparse_step: 1,
    mlp_only_layers: decoder.denseLayers,
  };
}

function readExperts(
  source: JsonObject,
  where: string,
  errors: unknown[],
  numLayers: number | undefined,
): MixtureFields {
  const numExperts = attempt(errors, () => readNumExperts(source, where, numLayers ?? 1));
  const perToken = 'num_experts_per_tok';
  return {
    numExperts,
    numExpertsPerToken: attempt(errors, () => checkInteger(where, perToken, source[perToken], 1, numExperts)),
  };
}

/** Under either of the names that transformers has had for it, whichever the architecture. */
function readNumExperts(source: JsonObject, where: string, numLayers: number): number {
  const named = ['num_experts', 'num_local_experts'].filter((name) => (source[name] ?? null) !== null);
  const counts = (named.length > 0 ? named : ['num_experts']).map((name) =>
    checkInteger(where, name, source[name], 1, Math.min(65536, Math.floor(MOST_EXPERTS / numLayers))),
  );
  const [first, second = first] = counts;
  if (second !== first) invalid(where, `num_local_experts to be num_experts = ${first}`, second);
  return first!;
}

function readDenseLayers(source: JsonObject, where: string, numLayers: number): number[] {
  const step = checkInteger(where, 'decoder_sparse_step', source.decoder_sparse_step ?? 1, 1);
  const listed = source.mlp_only_layers ?? [];
  if (!Array.isArray(listed)) invalid(where, 'mlp_only_layers to be an array', listed);
  const only = new Set(listed.map((layer, i) => checkInteger(where, `mlp_only_layers[${i}]`, layer, 0)));
  const dense = Array.from({ length: numLayers }, (_, layer) => layer).filter(
    (layer) => only.has(layer) || (layer + 1) % step !== 0,
  );
  if (dense.length === numLayers) {
    invalid(where, 'decoder_sparse_step and mlp_only_layers to leave a layer with experts', 'none');
  }
  return dense;
}
