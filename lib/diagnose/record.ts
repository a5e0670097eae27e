/** What a dump of log-probs holds, before and after its two sides are put side by side. */

export const sides = ['rollout', 'training'] as const;

/** The engine that sampled (mu), or the one that learns (pi). */
export type Side = (typeof sides)[number];

/** Where something was read, for messages: `rollout.jsonl:12`. */
export interface Place {
  readonly file: string;
  /** From 1; of a JSON array the number of the element. */
  readonly line: number;
}

/** The most likely tokens at one position with their log-probs, in any order; by id or, in dumps without ids, by text. */
export interface TopLogprobs {
  readonly tokens: readonly (number | string)[];
  readonly logprobs: readonly number[];
}

/** The settings with which a side was sampled or scored; null where the dump doesn't say. */
export interface SamplingSettings {
  readonly temperature: number | null;
  readonly topP: number | null;
  readonly topK: number | null;
}

/** Log-probs of one response by one engine. */
export interface Series {
  /** [tokens] in nats; NaN where the dump has null. */
  readonly logprobs: Float64Array;
  /** [tokens] null at a position without; undefined where the dump has none. */
  readonly topLogprobs?: readonly (TopLogprobs | null)[];
}

/** One response as a file has it: by one engine (`own`), or by both. */
export interface DumpRecord {
  /** Null where the dump has none: then a response is known by its place. */
  readonly id: string | null;
  readonly place: Place;
  /** Ids of the tokens, as many as log-probs; null where the dump has none. */
  readonly tokens: readonly number[] | null;
  /** The text of each token; null where the dump has none. */
  readonly tokenTexts: readonly string[] | null;
  /** The text of the response; null where the dump has none. */
  readonly text: string | null;
  /** Of a file with one engine's log-probs. */
  readonly own: Series | null;
  /** Of a file with both engines' log-probs. */
  readonly both: Readonly<Record<Side, Series>> | null;
  /** [tokens] 1 = counts; null where the dump has none. */
  readonly mask: Uint8Array | null;
  /** Ids of the prompt; null where the dump has none. */
  readonly promptTokens: readonly number[] | null;
  readonly step: number | null;
  /** Scored or sampled together with others that have the same. */
  readonly batch: string | null;
  readonly settings: SamplingSettings;
  /** Of the whole response, or of each token. */
  readonly weightsVersion: string | readonly string[] | null;
}

/** One response under both engines, token by token. */
export interface Pair {
  readonly id: string;
  /** Its number in the order of the rollout file, from 0. */
  readonly index: number;
  readonly places: Readonly<Record<Side, Place>>;
  readonly tokens: readonly number[] | null;
  readonly tokenTexts: readonly string[] | null;
  /** [tokens] log mu. */
  readonly rollout: Float64Array;
  /** [tokens] log pi. */
  readonly training: Float64Array;
  /** [tokens] 1 = counts. */
  readonly mask: Uint8Array;
  readonly topLogprobs: Readonly<Record<Side, readonly (TopLogprobs | null)[] | null>>;
  readonly step: number | null;
  readonly batch: string | null;
  /** Tokens before the response; null where neither dump says. */
  readonly promptLength: number | null;
  readonly settings: Readonly<Record<Side, SamplingSettings>>;
  readonly weightsVersions: Readonly<Record<Side, string | readonly string[] | null>>;
}
