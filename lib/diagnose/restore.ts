import type { Diagnosis } from './diagnosis.js';

/**
 * A diagnosis as a run directory has it, whose reader takes every string "NaN" or "Infinity" for a number: an id or a text
 * that reads so is text again.
 */
export function restoredDiagnosis(summary: unknown): Diagnosis {
  const diagnosis = summary as Diagnosis;
  return {
    ...diagnosis,
    worst: diagnosis.worst.map((token) => ({
      ...token,
      id: String(token.id),
      text: token.text === null ? null : String(token.text),
    })),
  };
}
