import assert from 'node:assert/strict';
import { join } from 'node:path';
import { openSafetensors } from '../../lib/io/safetensors.js';
import type { TokenLoss, TokenSequence } from '../../lib/models/sequences.js';

/** What test/fixtures/models/generate.py found for a model or an adapter. */
export interface Reference {
  readonly sequence: TokenSequence;
  readonly logprobs: Float64Array;
  /** The same by PyTorch in fp32 throughout. */
  readonly logprobs32: Float32Array;
  /** [tokens, vocabSize] log-probs of every token, of the logits. */
  readonly distributions: Float64Array;
  /** Of the mean negative log-prob, by weight; of some models. */
  readonly gradients: ReadonlyMap<string, Float32Array>;
  /** The experts of each token in each mixture; undefined for a dense model. */
  readonly routes: Uint16Array | undefined;
  /** Log-probs with an adapter's products added to the weights; empty for a model without one. */
  readonly merged: Float64Array;
}

export async function readReference(dir: string): Promise<Reference> {
  await using file = await openSafetensors(join(dir, 'reference.safetensors'));
  const tokens = Array.from(new BigInt64Array(await file.read('tokens')), Number);
  const logits = new Float32Array(await file.read('logits'));
  const [rows, width] = file.tensors.get('logits')!.shape as [number, number];
  assert.equal(rows, tokens.length - 1);
  const distributions = Float64Array.from(logits);
  for (let begin = 0; begin < logits.length; begin += width) {
    const row = distributions.subarray(begin, begin + width);
    const largest = row.reduce((a, b) => Math.max(a, b));
    const lse = largest + Math.log(row.reduce((sum, x) => sum + Math.exp(x - largest), 0));
    row.forEach((x, i) => {
      row[i] = x - lse;
    });
  }
  const gradients = new Map<string, Float32Array>();
  for (const key of file.tensors.keys()) {
    const [kind, ...rest] = key.split('.');
    if (kind === 'gradient') gradients.set(rest.join('.'), new Float32Array(await file.read(key)));
  }
  return {
    sequence: { prompt: tokens.slice(0, 1), response: tokens.slice(1) },
    logprobs: new Float64Array(await file.read('logprobs')),
    logprobs32: new Float32Array(await file.read('logprobs32')),
    distributions,
    gradients,
    routes: file.tensors.has('routes')
      ? Uint16Array.from(new BigInt64Array(await file.read('routes')), Number)
      : undefined,
    merged: new Float64Array(file.tensors.has('merged') ? await file.read('merged') : []),
  };
}

/** -log pi of each token over their number, as the generator has it. */
export function meanLoss({ logprobs }: { logprobs: Float64Array }): TokenLoss {
  const count = logprobs.length;
  const loss = -logprobs.reduce((sum, x) => sum + x, 0) / count;
  return { loss, gradient: new Float64Array(count).fill(-1 / count), metrics: {} };
}
