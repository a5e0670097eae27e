/** Changes of the records of a run. */
import { InvalidArgumentError } from '../../errors.js';
import type { PlainRecord, PlainTop, RunSetting } from './fault.js';

/** What a record has at one position. */
export interface TokenLog {
  readonly logprob: number | null;
  readonly top: PlainTop | null;
}

/** Where there is nothing. */
export const missing: TokenLog = { logprob: null, top: null };

/** What a record has at a position. */
export function logAt({ logprobs, topLogprobs }: PlainRecord, i: number): TokenLog {
  return { logprob: logprobs[i]!, top: topLogprobs?.[i] ?? null };
}

/** A record with other log-probs, of which there may be more or fewer. */
export function withLogs(record: PlainRecord, logs: readonly TokenLog[]): PlainRecord {
  return {
    ...record,
    logprobs: logs.map(({ logprob }) => logprob),
    ...(record.topLogprobs && { topLogprobs: logs.map(({ top }) => top) }),
  };
}

export function tokensOf(records: readonly PlainRecord[]): number {
  return records.reduce((sum, { tokens }) => sum + tokens.length, 0);
}

/** @throws InvalidArgumentError where the engines make choices of their own, among which the fault's would be lost */
export function expectMatched(name: string, { config }: RunSetting): void {
  if (config.numerics === 'matched') return;
  throw new InvalidArgumentError(
    `[inject] expected numerics matched for ${name}, which is the only difference between the engines then, got ${config.numerics}`,
  );
}
