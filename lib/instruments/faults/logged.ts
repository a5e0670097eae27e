/** Log-probs of responses with the most likely tokens at each position. */
import { passTokens, type TokenSequence } from '../../models/sequences.js';
import type { PlainTop } from './fault.js';

/** What an engine says of a response. */
export interface Logged {
  /** [tokens] nats. */
  readonly logprobs: readonly number[];
  /** [tokens]; undefined where none were asked for. */
  readonly top: readonly PlainTop[] | undefined;
}

/** A stretch of a response: what is before it counts as prompt, which changes no bit. */
export interface Piece {
  /** The number of its sequence. */
  readonly index: number;
  readonly sequence: TokenSequence;
  /** Tokens of it that go through the model. */
  readonly tokens: number;
}

/** Numbers of whole distributions that are read at a time: 128 MB. */
const AT_ONCE = 2 ** 25;

export interface LogOptions {
  readonly vocabSize: number;
  /** Most likely tokens a position. */
  readonly top: number;
  /** Most numbers that are read at a time. */
  readonly numbers?: number;
}

/**
 * Log-probs and the `top` most likely tokens (of equals the lower ids), from whole distributions: a token has the same
 * bits in both.
 *
 * @param distributions of the pieces' responses, [tokens, vocabSize] each
 */
export async function logDistributions(
  sequences: readonly TokenSequence[],
  { vocabSize, top, numbers = AT_ONCE }: LogOptions,
  distributions: (pieces: readonly Piece[]) => Promise<readonly Float32Array[]>,
): Promise<Logged[]> {
  const atOnce = Math.max(1, Math.floor(numbers / vocabSize));
  const logprobs: number[][] = sequences.map(() => []);
  const tops: PlainTop[][] = sequences.map(() => []);
  for (const pieces of inParts(piecesOf(sequences, atOnce), atOnce)) {
    for (const [p, values] of (await distributions(pieces)).entries()) {
      const { index, sequence } = pieces[p]!;
      for (let i = 0; i < sequence.response.length; i++) {
        const row = values.subarray(i * vocabSize, (i + 1) * vocabSize);
        logprobs[index]!.push(row[sequence.response[i]!]!);
        if (top > 0) tops[index]!.push(mostLikely(row, top));
      }
    }
  }
  return sequences.map((_, s) => ({ logprobs: logprobs[s]!, top: top > 0 ? tops[s]! : undefined }));
}

function piecesOf(sequences: readonly TokenSequence[], atOnce: number): Piece[] {
  return sequences.flatMap(({ prompt, response }, index) => {
    const own = Array.from(response);
    const pieces: Piece[] = [];
    for (let begin = 0; begin < response.length; begin += atOnce) {
      const sequence = {
        prompt: [...Array.from(prompt), ...own.slice(0, begin)],
        response: own.slice(begin, begin + atOnce),
      };
      pieces.push({ index, sequence, tokens: passTokens(sequence) });
    }
    return pieces;
  });
}

function inParts(pieces: readonly Piece[], atOnce: number): Piece[][] {
  const parts: Piece[][] = [];
  let room = 0;
  for (const piece of pieces) {
    const { length } = piece.sequence.response;
    if (parts.length === 0 || length > room) {
      parts.push([]);
      room = atOnce;
    }
    parts.at(-1)!.push(piece);
    room -= length;
  }
  return parts;
}

/** The `count` greatest, in falling order, of equals the first; what is impossible is left out. */
export function mostLikely(row: ArrayLike<number>, count: number): PlainTop {
  const best: (readonly [number, number])[] = [];
  for (let token = 0; token < row.length; token++) {
    const logprob = row[token]!;
    if (logprob === -Infinity || (best.length === count && !(logprob > best[count - 1]![1]))) continue;
    let at = best.length;
    while (at > 0 && logprob > best[at - 1]![1]) at--;
    best.splice(at, 0, [token, logprob]);
    if (best.length > count) best.pop();
  }
  return best;
}
