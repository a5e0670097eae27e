/** What becomes of problems whose prompts are longer than `maxPromptLength`: an error, or they are left out. */
export type OverlongPrompts = 'error' | 'drop';
export const overlongPromptModes: readonly OverlongPrompts[] = ['error', 'drop'];
