/** What a mismatch can come from: in words, what to do about it, and what can't be told from it. */
export interface Cause {
  /** Completes "most likely cause: ...". */
  readonly text: string;
  /** One sentence. */
  readonly action: string;
  /** What leaves the same traces in two files of log-probs. */
  readonly alternatives?: readonly string[];
}

const rescore = 'mend the bookkeeping and make the two files again before you look at anything else.';

export const causes = {
  'bit-identical': {
    text: 'none: both engines agree to the bit',
    action: 'Nothing to do: no correction is needed, and any later difference is a fault.',
    alternatives: ['one series that is a copy of the other (as verl makes in bypass mode)'],
  },
  'reduction-order': {
    text: 'the same roundings with sums in another order (split-K, kernels chosen by size)',
    action:
      'Harmless for learning; for equality to the bit use batch-invariant kernels with a fixed order of sums.',
    alternatives: ['batch variance that touches every response'],
  },
  rounding: {
    text: 'rounding: two engines that compute in the same format by different kernels',
    action:
      'Nothing is wrong; compute in fp16 in place of bf16 for eight times less, or correct with importance sampling if the effect below asks for it.',
    alternatives: ['faults smaller than the noise'],
  },
  shift: {
    text: 'the series are shifted against each other by whole tokens',
    action: `Align log-prob t with token t on both sides (logits[t - 1] predict token t): ${rescore}`,
  },
  scaled: {
    text: 'log-probs divided by a temperature after the softmax',
    action: 'Divide the logits by the temperature before the softmax, not the log-probs after it.',
  },
  temperature: {
    text: 'the engines use different temperatures',
    action:
      'Score with the temperature of the sampling (divide the training logits by it), or have the rollout engine return processed log-probs.',
    alternatives: ['logits scaled by any other constant'],
  },
  'kept-mass': {
    text: 'rollout log-probs are renormalised over what top-p or top-k kept',
    action: 'Sample with topP = 1 and no topK, or apply the same filter to the training logits.',
    alternatives: ['min-p and other filters'],
  },
  'stale-weights': {
    text: 'one engine has older weights from some step on',
    action:
      'Check that the weights arrive before the next rollout (version counters on both sides), or correct for the lag as off-policy.',
    alternatives: ['any other change at that step'],
  },
  'zero-fill': {
    text: 'missing log-probs were filled with 0.0',
    action: 'Mask what is missing, or fill it with NaN, so that it cannot count as a certain token.',
  },
  'prompt-counted': {
    text: 'tokens of the prompt are counted as response',
    action: 'Let the mask begin at the first token of the response, on both sides.',
  },
  'mask-shifted': {
    text: 'the masks are shifted against each other',
    action: `Shift the mask together with the labels: ${rescore}`,
  },
  mask: {
    text: 'the two sides count different tokens',
    action: `Use one mask for both sides: ${rescore}`,
  },
  retokenised: {
    text: 'the text was tokenised again and has other tokens',
    action:
      'Train on the token ids that the rollout engine returned; never decode and encode again in between.',
  },
  'token-ids': {
    text: 'the two sides hold different tokens',
    action: `Check that ids and order of samples are kept on the way: ${rescore}`,
  },
  length: {
    text: 'the two sides have different numbers of tokens',
    action: `Find where tokens are cut off or added (end-of-sequence, padding, truncation): ${rescore}`,
  },
  'nothing-counts': {
    text: 'no token counts: masks of zeros, or responses without tokens',
    action: 'Check how masks and responses are made.',
  },
  'not-finite': {
    text: 'log-probs that are null, NaN or infinite',
    action: 'Find the tokens below: logits that overflow, or a token that a filter or mask had ruled out.',
  },
  'above-zero': {
    text: 'log-probs above 0, which no probability has',
    action: 'Check what was dumped: logits or unnormalised scores are no log-probs.',
  },
  missing: {
    text: 'samples that only one side has',
    action: 'Find out why samples are lost, or why their ids differ: what is left may not be representative.',
  },
  settings: {
    text: 'the sides say that they used different sampling settings',
    action: 'Use the same temperature, topP and topK on both sides.',
  },
  'weights-version': {
    text: 'the sides say that they had different weights',
    action: 'Score with the weights that sampled, or correct for the lag as off-policy.',
  },
  '16-bit-logits': {
    text: 'logits or log-probs were rounded to 16 bits before the softmax',
    action:
      'Compute the head and the log-softmax in fp32 (cast hidden states and head weights before the product).',
    alternatives: ['a head in 16 bits and logits rounded to 16 bits leave the same lattice'],
  },
  'batch-variance': {
    text: 'the numbers depend on what else was in the batch',
    action: 'Use batch-invariant kernels, or score in batches of one size.',
  },
  'chunk-borders': {
    text: 'tokens at the borders of chunks are further apart than the others',
    action:
      'Compare the chunk sizes of both engines (prefill, attention splits, cache pages), and what they carry over from one to the next.',
  },
  outliers: {
    text: 'a few tokens are far apart: experts chosen otherwise, or damaged values',
    action:
      'Of a mixture of experts: replay the rollout’s routes in training (R3); else look at the worst tokens below for what they share.',
    alternatives: ['masking of single tokens'],
  },
  'not-the-sampler': {
    text: 'the log-probs are not those of the distribution that was sampled',
    action:
      'Have the rollout engine return processed log-probs: after temperature, penalties and filters, over the whole vocabulary.',
  },
  'different-weights': {
    text: 'more than rounding: the engines hold different weights (damaged, stale, quantised), or one has fewer bits than declared',
    action:
      'Compare the weights of both engines tensor by tensor, their versions, and both dtypes (of the KV cache, too); declare the true one with --dtype.',
    alternatives: [
      'stale weights in all of the file',
      'one engine in a coarser format',
      'a kernel that is wrong',
    ],
  },
  position: {
    text: 'the mismatch grows along the response',
    action:
      'Compare the precision of the KV cache, positions (RoPE scaling) and attention windows of both engines.',
    alternatives: ['an effect of what stands later in responses'],
  },
} as const satisfies Record<string, Cause>;

export type CauseName = keyof typeof causes;
