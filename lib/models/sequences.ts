import { checkInteger, invalid } from '../errors.js';

/** A prompt and a response to it, as token ids. */
export interface TokenSequence {
  readonly prompt: ArrayLike<number>;
  readonly response: ArrayLike<number>;
}

/** Sequences of one pass, packed without padding. */
export interface PackedSequences {
  /** int32 [tokens]: every token but each sequence's last, which nothing is predicted from. */
  readonly ids: Int32Array;
  /** int32 [tokens]: the position within its sequence. */
  readonly positions: Int32Array;
  /** int32 [sequences + 1]: where each sequence begins among the tokens. */
  readonly cuSeqlens: Int32Array;
  /** int32 [response tokens]: the row whose hidden state predicts each response token. */
  readonly rows: Int32Array;
  /** int32 [response tokens]: the response tokens. */
  readonly targets: Int32Array;
}

/** Tokens of a sequence that go through the model. */
export function passTokens({ prompt, response }: TokenSequence): number {
  return prompt.length + response.length - 1;
}

/** Tokens of sequences that go through the model together. */
export function packedTokens(sequences: readonly TokenSequence[]): number {
  return sequences.reduce((sum, sequence) => sum + passTokens(sequence), 0);
}

export function packSequences(sequences: readonly TokenSequence[]): PackedSequences {
  const tokens = packedTokens(sequences);
  const targetCount = sequences.reduce((sum, s) => sum + s.response.length, 0);
  const packed = {
    ids: new Int32Array(tokens),
    positions: new Int32Array(tokens),
    cuSeqlens: new Int32Array(sequences.length + 1),
    rows: new Int32Array(targetCount),
    targets: new Int32Array(targetCount),
  };
  let token = 0;
  let target = 0;
  sequences.forEach((sequence, s) => {
    const { prompt, response } = sequence;
    const begin = token;
    for (let i = 0; i < passTokens(sequence); i++, token++) {
      packed.ids[token] = i < prompt.length ? prompt[i]! : response[i - prompt.length]!;
      packed.positions[token] = i;
    }
    for (let i = 0; i < response.length; i++, target++) {
      packed.rows[target] = begin + prompt.length - 1 + i;
      packed.targets[target] = response[i]!;
    }
    packed.cuSeqlens[s + 1] = token;
  });
  return packed;
}

/**
 * Cuts sequences into runs of at most `maxTokens` tokens, in order; a longer sequence is a run of its own.
 * Returns the first index of each run, and the end.
 */
export function splitByTokens(sequences: readonly TokenSequence[], maxTokens: number): number[] {
  const bounds = [0];
  let tokens = 0;
  sequences.forEach((sequence, i) => {
    const count = passTokens(sequence);
    if (tokens > 0 && tokens + count > maxTokens) {
      bounds.push(i);
      tokens = 0;
    }
    tokens += count;
  });
  if (sequences.length > 0) bounds.push(sequences.length);
  return bounds;
}

/** Log-probs of the response tokens of some sequences; sequence s owns [offsets[s], offsets[s + 1]). */
export interface Scores {
  readonly offsets: Int32Array;
  /** Natural logarithm of each response token's probability. */
  readonly logprobs: Float64Array;
  /** Entropy in nats of the distribution that each token was drawn from. */
  readonly entropy: Float64Array;
}

/** A loss of scored sequences, and its gradient. */
export interface TokenLoss {
  /** The scalar to be minimised; losses of micro-batches add up to the mini-batch's. */
  loss: number;
  /** [tokens] d loss / d log pi, 0 at masked positions. */
  gradient: Float64Array;
  /** Flat numbers about this batch; empty when the batch has no counted token. */
  metrics: Record<string, number>;
}

/** The scores of consecutive runs of sequences as one. */
export function concatenateScores(parts: readonly Scores[]): Scores {
  const offsets = [0];
  for (const part of parts) {
    const base = offsets.at(-1)!;
    for (const offset of part.offsets.subarray(1)) offsets.push(base + offset);
  }
  const joined = (key: 'logprobs' | 'entropy') => {
    const all = new Float64Array(offsets.at(-1)!);
    let at = 0;
    for (const part of parts) {
      all.set(part[key], at);
      at += part[key].length;
    }
    return all;
  };
  return { offsets: Int32Array.from(offsets), logprobs: joined('logprobs'), entropy: joined('entropy') };
}

/** Scores from per-token values in the order of the sequences' responses. */
export function scoresOf(
  sequences: readonly TokenSequence[],
  logprobs: ArrayLike<number>,
  entropy: ArrayLike<number>,
): Scores {
  const offsets = new Int32Array(sequences.length + 1);
  sequences.forEach(({ response }, s) => {
    offsets[s + 1] = offsets[s]! + response.length;
  });
  return { offsets, logprobs: new Float64Array(logprobs), entropy: new Float64Array(entropy) };
}

/** Values [response tokens, width] of packed sequences, apart for each sequence. */
export function splitRows(
  sequences: readonly TokenSequence[],
  values: Float32Array,
  width: number,
): Float32Array[] {
  let at = 0;
  return sequences.map(({ response }) => {
    at += response.length * width;
    return values.slice(at - response.length * width, at);
  });
}

/** Checks that every token is an id within the vocabulary; names the first that is not. */
export function checkTokens(where: string, name: string, tokens: ArrayLike<number>, vocabSize: number): void {
  for (let i = 0; i < tokens.length; i++) {
    const token = tokens[i]!;
    // Most calls check thousands of good tokens: the name is made for a bad one alone.
    if (Number.isInteger(token) && token >= 0 && token < vocabSize) continue;
    checkInteger(where, `${name}[${i}]`, token, 0, vocabSize - 1);
  }
}

/**
 * Checks sequences before anything is queued: tokens within the vocabulary, neither part empty, no longer than the
 * context.
 *
 * @throws InvalidArgumentError naming the sequence and the token at fault
 */
export function checkSequences(
  where: string,
  sequences: readonly TokenSequence[],
  limits: { vocabSize: number; maxLength: number },
): void {
  if (sequences.length === 0) invalid(where, 'at least one sequence', 'none');
  sequences.forEach(({ prompt, response }, s) => {
    for (const [name, tokens] of Object.entries({ prompt, response })) {
      if (tokens.length === 0) invalid(where, `sequences[${s}].${name} of at least one token`, 'none');
      checkTokens(where, `sequences[${s}].${name}`, tokens, limits.vocabSize);
    }
    const length = prompt.length + response.length;
    if (length > limits.maxLength) {
      invalid(where, `sequences[${s}] within the context of ${limits.maxLength} tokens`, `${length} tokens`);
    }
  });
}
