/** Roundings in and behind the head of a model. */
import type { Logged } from './logged.js';

/** Log-probs rounded to bf16, as a log-softmax in bf16 returns them. */
export async function roundedToBf16(logged: readonly Logged[]): Promise<Logged[]> {
  const { cast, tensor } = await import('../../tensor/tensor.js');
  const values = logged.flatMap(({ logprobs, top }) => [
    ...logprobs,
    ...(top ?? []).flatMap((all) => all.map(([, logprob]) => logprob)),
  ]);
  using wide = tensor(values, [values.length]);
  using narrow = cast(wide, 'bf16');
  const rounded = await narrow.floats();
  let at = 0;
  return logged.map(({ logprobs, top }) => ({
    logprobs: logprobs.map(() => rounded[at++]!),
    top: top?.map((all) => all.map(([token]) => [token, rounded[at++]!] as const)),
  }));
}
