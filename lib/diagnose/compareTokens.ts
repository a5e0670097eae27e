/** Whether two records are of the same tokens, and if not, what they are instead. */
import type { PrecheckKind } from './diagnosis.js';
import type { OwnRecord } from './pairs.js';

export interface TokenDifference {
  readonly kind: PrecheckKind & ('token-ids' | 'retokenised' | 'prompt-counted' | 'length');
  /** What was found, for an example. */
  readonly found: string;
}

/** Ids of tokens, or their texts. */
type Tokens = readonly (number | string)[];

/** Undefined where ids, or else texts, or else at least the numbers of tokens are the same. */
export function compareTokens(rollout: OwnRecord, training: OwnRecord): TokenDifference | undefined {
  const [a, b] = shared(rollout, training);
  const lengths = { rollout: rollout.own.logprobs.length, training: training.own.logprobs.length };
  const position = a === null || b === null ? -1 : firstDifference(a, b);
  if (lengths.rollout === lengths.training) {
    if (position < 0) return comparePrompts(rollout, training);
    const found = `position ${position}, ${tokenText(a![position]!)} and ${tokenText(b![position]!)}`;
    return { kind: haveSameText(rollout, training) ? 'retokenised' : 'token-ids', found };
  }
  const counts = `${lengths.rollout} tokens in rollout, ${lengths.training} in training`;
  const before = promptCounted(rollout, training, a, b);
  if (before !== undefined) return { kind: 'prompt-counted', found: `${counts}: ${before}` };
  if (a === null || b === null) return { kind: 'length', found: counts };
  const shorter = Math.min(a.length, b.length);
  const isCut = position === shorter;
  const same = isCut ? `the first ${shorter} are the same` : `position ${position} is the first that differs`;
  const isRetokenised = !isCut && haveSameText(rollout, training);
  return { kind: isRetokenised ? 'retokenised' : 'length', found: `${counts}; ${same}` };
}

/** What both have of their tokens: ids before texts. */
function shared(rollout: OwnRecord, training: OwnRecord): [Tokens | null, Tokens | null] {
  if (rollout.tokens !== null && training.tokens !== null) return [rollout.tokens, training.tokens];
  return rollout.tokenTexts !== null && training.tokenTexts !== null
    ? [rollout.tokenTexts, training.tokenTexts]
    : [null, null];
}

/** The same response after another prompt is another one. */
function comparePrompts(rollout: OwnRecord, training: OwnRecord): TokenDifference | undefined {
  const [a, b] = [rollout.promptTokens, training.promptTokens];
  if (a === null || b === null || firstDifference(a, b) < 0 || isPadded(a, b) || isPadded(b, a))
    return undefined;
  const position = firstDifference(a, b);
  const found = [a, b].map((prompt) => (position < prompt.length ? `${prompt[position]}` : 'its end'));
  return { kind: 'token-ids', found: `position ${position} of the prompt, ${found.join(' and ')}` };
}

/** Whether `long` is `short` behind at least two of one token: a single one may be of a text's beginning. */
function isPadded(long: readonly number[], short: readonly number[]): boolean {
  const extra = long.length - short.length;
  return extra >= 2 && endsWith(long, short) && long.every((id, i) => i >= extra || id === long[0]);
}

/** What stands before the response on the longer side; undefined where that isn't a response with its prompt. */
function promptCounted(
  rollout: OwnRecord,
  training: OwnRecord,
  a: Tokens | null,
  b: Tokens | null,
): string | undefined {
  const extra = Math.abs(rollout.own.logprobs.length - training.own.logprobs.length);
  const isRollout = rollout.own.logprobs.length > training.own.logprobs.length;
  const side = isRollout ? 'rollout' : 'training';
  const prompt = rollout.promptTokens ?? training.promptTokens;
  if (a === null || b === null) {
    // The numbers alone are left to go by.
    return prompt?.length === extra ? `${side} has as many more as the prompt has tokens` : undefined;
  }
  const [long, short] = isRollout ? [a, b] : [b, a];
  if (short.length === 0 || !endsWith(long, short)) return undefined;
  const before = long.slice(0, extra);
  // A prompt can be cut at its beginning.
  if (prompt !== null && endsWith(prompt, before)) return `the first ${extra} of ${side} are the prompt's`;
  // The last token alone is that of any response, and a response of one token, repeated, both begins and ends with a part of it.
  const isClear = short.length >= 2 && firstDifference(long, short) < short.length;
  return isClear ? `the last ${short.length} of ${side} are the other side's` : undefined;
}

function haveSameText(rollout: OwnRecord, training: OwnRecord): boolean {
  const [a, b] = [textOf(rollout), textOf(training)];
  return a !== null && a !== '' && a === b;
}

function textOf({ text, tokenTexts }: OwnRecord): string | null {
  return text ?? tokenTexts?.join('') ?? null;
}

/** The first position at which two lists differ, the end of the shorter one included; -1 where they are equal. */
function firstDifference(a: Tokens, b: Tokens): number {
  if (a === b) return -1;
  const shorter = Math.min(a.length, b.length);
  for (let i = 0; i < shorter; i++) if (a[i] !== b[i]) return i;
  return a.length === b.length ? -1 : shorter;
}

function endsWith(long: Tokens, short: Tokens): boolean {
  const extra = long.length - short.length;
  return extra >= 0 && short.every((token, i) => token === long[extra + i]);
}

function tokenText(token: number | string): string {
  return typeof token === 'number' ? String(token) : JSON.stringify(token);
}
