import type { CounterRandom } from '../../random.js';
import type { Fault, PlainRecord, PlainTop } from './fault.js';

/** Ids of merged tokens: a pair has the same one wherever it stands, beyond those of the vocabulary. */
function mergedId(vocabSize: number, first: number, second: number): number {
  return vocabSize * (1 + first) + second;
}

/**
 * The text of a response was cut into tokens again before the training engine saw it: some pairs of neighbours are one
 * token there, with the sum of their log-probs.
 */
export const retokenised: Fault = {
  name: 'retokenised',
  title: 'the training file has other tokens of the same text',
  strength: 'share of the pairs of tokens that are one token to the training engine',
  strengths: { weak: 0.01, ordinary: 0.05, strong: 0.2 },
  allows: (share) => share > 0 && share <= 1,
  allowed: 'above 0 and at most 1',
  runs: 'any run',
  apply(step, share) {
    const { vocabSize } = step.subject.model.config;
    const random = step.random(step.step);
    let touched = 0;
    const training = step.training.map((record) => {
      const merged = merge(record, vocabSize, share, random);
      touched += 2 * (record.tokens.length - merged.tokens.length);
      return merged;
    });
    return { rollout: step.rollout, training, touched };
  },
};

function merge(record: PlainRecord, vocabSize: number, share: number, random: CounterRandom): PlainRecord {
  const { tokens, text, mask, logprobs, topLogprobs } = record;
  const tops: (PlainTop | null)[] = [];
  const out = {
    tokens: [] as number[],
    text: [] as string[],
    mask: [] as number[],
    logprobs: [] as number[],
  };
  for (let i = 0; i < tokens.length; i++) {
    const [first, second] = [tokens[i]!, tokens[i + 1]];
    // What a tokenizer makes of a pair depends on what is around it, too.
    const isMerged = second !== undefined && random.uniform() < share;
    const end = isMerged ? i + 2 : i + 1;
    out.tokens.push(isMerged ? mergedId(vocabSize, first, second) : first);
    out.text.push(text.slice(i, end).join(''));
    out.mask.push(mask[i]!);
    out.logprobs.push(logprobs.slice(i, end).reduce((sum: number, logprob) => sum + logprob!, 0));
    tops.push(isMerged ? null : (topLogprobs?.[i] ?? null));
    if (isMerged) i++;
  }
  return { ...record, ...out, ...(topLogprobs && { topLogprobs: tops }) };
}
