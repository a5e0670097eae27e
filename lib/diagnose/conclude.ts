import { Breaks } from '../breaks.js';
import { CounterRandom } from '../random.js';
import { type CauseName, causes } from './causes.js';
import { type CountedTokens, countedTokens } from './countedTokens.js';
import { type Decision, decide, isMisaligned, testAll, testOne } from './decide.js';
import type { Diagnosis, Precheck, SignatureResult } from './diagnosis.js';
import { type ModelSize, nearestFloor, noiseFloor } from './noiseFloor.js';
import { drawResponses, type TokenSample } from './sample.js';
import { signatures as all } from './signatures/index.js';

/** Tokens of a draw: of more, every second, fourth, ... response is drawn from. */
const DRAWN_TOKENS = 40_000;
const SEED = 1;
const STREAM = 0x64696167;

export interface ConcludeOptions {
  /** Null: the nearest format. */
  readonly declared: string | null;
  readonly size: ModelSize;
  /** Draws of responses that the confidence is a share of. */
  readonly draws: number;
  readonly signal?: AbortSignal;
}

/** The part of a diagnosis that says what is wrong, and how sure that is. */
export type Conclusion = Pick<
  Diagnosis,
  'verdict' | 'cause' | 'causeText' | 'confidence' | 'action' | 'alternatives' | 'dtype' | 'signatures'
> & { readonly signatureTokens: number };

/** Looks for signatures and decides between causes, then again on draws of whole responses. */
export async function conclude(
  sample: TokenSample,
  prechecks: readonly Precheck[],
  { declared, size, draws, signal }: ConcludeOptions,
): Promise<Conclusion> {
  const breaks = new Breaks(signal);
  const tokens = countedTokens(sample);
  const floor = declared === null ? nearestFloor(tokens.logitNoise, size) : noiseFloor(declared, size);
  const signatures: SignatureResult[] = [];
  for (const signature of tokens.count === 0 ? [] : all) {
    await breaks.take();
    signatures.push(testOne(signature, tokens, floor));
  }
  const decision = decide(tokens, signatures, prechecks, floor);
  const { cause, verdict } = decision;
  const {
    text,
    action,
    alternatives = [],
  } = causes[cause] as (typeof causes)[CauseName] & {
    alternatives?: readonly string[];
  };
  return {
    verdict,
    cause,
    causeText: text,
    confidence: await confidenceOf(
      tokens,
      decision,
      (drawn) => decide(drawn, testAll(drawn, floor, signatures), prechecks, floor),
      draws,
      breaks,
    ),
    action,
    alternatives,
    dtype: { name: floor.dtype, declared: declared !== null },
    signatures,
    signatureTokens: tokens.count,
  };
}

/** How often draws of responses lead to the same cause; of n responses at most n / (n + 1). */
async function confidenceOf(
  { sample, count }: CountedTokens,
  { cause }: Decision,
  decideOn: (drawn: CountedTokens) => Decision,
  draws: number,
  breaks: Breaks,
): Promise<number> {
  const responses = sample.offsets.length - 1;
  // What does not align is no matter of chance.
  if (responses === 0 || isMisaligned(cause)) return 1;
  const stride = Math.max(1, Math.ceil(count / DRAWN_TOKENS));
  const from = Array.from({ length: Math.ceil(responses / stride) }, (_, i) => i * stride);
  let same = 0;
  for (let k = 0; k < draws; k++) {
    await breaks.take();
    const random = new CounterRandom(SEED, STREAM, k);
    // In order: some signatures look for where a fault begins.
    const drawn = Int32Array.from(from, () => from[random.integer(from.length)]!).sort();
    if (decideOn(countedTokens(drawResponses(sample, drawn))).cause === cause) same++;
  }
  // Draws tell nothing of what one more response would have shown.
  return (same / draws) * (responses / (responses + 1));
}
