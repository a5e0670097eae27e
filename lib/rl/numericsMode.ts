/** Needs no addon, unlike the choices themselves. */
export const numericsModes = ['default', 'matched'] as const;

/** Both engines by their own habits, or both by one set of choices. */
export type NumericsMode = (typeof numericsModes)[number];
