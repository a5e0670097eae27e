/** What an adapter of a dump's format is. */
import type { DumpRecord, Place } from '../record.js';

export const formatNames = ['plain', 'verl', 'trl', 'vllm', 'sglang', 'prime-rl', 'slime'] as const;
export type FormatName = (typeof formatNames)[number];

export interface Format {
  readonly name: FormatName;
  /** In a few words, for lists and messages. */
  readonly title: string;
  /**
   * Whether a row looks like it; of the names of its fields alone, so that a bad value is told by {@link records}.
   */
  detects(row: Readonly<Record<string, unknown>>): boolean;
  /**
   * The responses of a row, in order: one, or several where it holds a batch or several choices.
   *
   * @throws InvalidArgumentError naming file, line and field
   */
  records(row: Readonly<Record<string, unknown>>, place: Place): DumpRecord[];
}

/** A record of what an adapter found; what it didn't is null. */
export function recordOf(place: Place, found: Partial<DumpRecord>): DumpRecord {
  return { ...NOTHING, place, ...found };
}

const NOTHING: Omit<DumpRecord, 'place'> = {
  id: null,
  tokens: null,
  tokenTexts: null,
  text: null,
  own: null,
  both: null,
  mask: null,
  promptTokens: null,
  step: null,
  batch: null,
  settings: { temperature: null, topP: null, topK: null },
  weightsVersion: null,
};
