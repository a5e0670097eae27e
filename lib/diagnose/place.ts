import type { Place } from './record.js';

/** What all errors about dumps are said to come from. */
export const DIAGNOSE = 'diagnose';

/** For messages: `rollout.jsonl:12`. */
export function placeText({ file, line }: Place): string {
  return `${file}:${line}`;
}
