import { checkInteger } from '../errors.js';
import { callFallible, type Tensor } from '../tensor/tensor.js';

/**
 * The router of a mixture-of-experts layer (Shazeer et al. 2017, arXiv 1701.06538; as Mixtral, arXiv 2401.04088, and
 * Qwen3, arXiv 2505.09388, have it). With p the softmax of a token's logits over all experts, in fp32, the token goes to
 * the k experts of the largest logits, of equals those with the lower ids, in the order of their logits. The weight of
 * expert e is p_e, or, with `normalize`, p_e over the sum of the k: `norm_topk_prob` of a Hugging Face configuration,
 * which for Mixtral is always true.
 *
 * A token's result depends on its logits alone.
 *
 * @param logits [tokens, E], any float dtype; -infinity is a probability of 0
 * @param k from 1 to E
 * @param strict whether a token without weights is an error; else its weights are NaN, for whoever reads what comes of them
 * @returns ids int32 [tokens, k] and weights fp32 [tokens, k]
 * @throws InvalidArgumentError for wrong shapes or types, or a k outside its range
 * @throws DeviceError at the next read, where a token's logits hold NaN, infinity or nothing finite and `strict`; it names
 *   the token
 */
export function route(
  logits: Tensor,
  k: number,
  normalize: boolean,
  strict = true,
): { readonly ids: Tensor; readonly weights: Tensor } {
  checkInteger('route', 'k', k, 1);
  const [ids, weights] = callFallible('route', [logits.handle, k, Number(normalize), Number(strict)]);
  return { ids: ids!, weights: weights! };
}

/**
 * The weights of {@link route} for experts that are given: those that another pass chose, replayed so that both passes
 * use the same experts ("routing replay": of decisions recorded by the training engine or by the rollout engine). For the
 * ids that `route` gives the bits are those of `route`. Normalised weights are added up in the order of the slots.
 *
 * @param logits [tokens, E], any float dtype
 * @param ids int32 [tokens, k], each from 0 to E - 1
 * @param strict as for `route`
 * @returns fp32 [tokens, k]
 * @throws InvalidArgumentError for wrong shapes or types
 * @throws DeviceError at the next read, for an id that is no expert's, and as `route`, also where with `normalize` none of
 *   the given experts has a finite logit
 */
export function routerWeights(logits: Tensor, ids: Tensor, normalize: boolean, strict = true): Tensor {
  const values = [logits.handle, ids.handle, Number(normalize), Number(strict)];
  return callFallible('routerWeights', values)[0]!;
}

/**
 * The gradient of {@link routerWeights}, and of {@link route} with the choice held fixed. With w the weights, g their
 * gradients and c = sum over the slots of g w:
 *
 *     dLogits_e = p_e (sum of g over the slots of e - c)
 *     normalised: sum of w (g - c) over the slots of e, 0 for experts that are not among them
 *
 * in fp32, rounded once.
 *
 * @param dWeights fp32 [tokens, k]
 * @returns [tokens, E] in the dtype of the logits
 */
export function routerWeightsBackward(
  dWeights: Tensor,
  logits: Tensor,
  ids: Tensor,
  normalize: boolean,
): Tensor {
  const values = [dWeights.handle, logits.handle, ids.handle, Number(normalize)];
  return callFallible('routerWeightsBackward', values)[0]!;
}

/**
 * What {@link loadBalance} needs of a layer's router, over the tokens of one pass; sums of several passes add up.
 *
 * @param logits [tokens, E], any float dtype
 * @param ids int32 [tokens, k]
 * @returns `counts`, int32 [E]: how often each expert was chosen; `probabilities`, fp32 [E]: the sum of its softmax
 *   probability over the tokens, the same at any number of threads
 * @throws InvalidArgumentError for wrong shapes or types; a DeviceError from the next read for an id that is no expert's
 */
export function routerLoad(
  logits: Tensor,
  ids: Tensor,
): { readonly counts: Tensor; readonly probabilities: Tensor } {
  const [counts, probabilities] = callFallible('routerLoad', [logits.handle, ids.handle]);
  return { counts: counts!, probabilities: probabilities! };
}
