/** Settings in their order, each once: one that is named twice would be measured once and count twice. */
export function distinct<T>(settings: readonly T[]): T[] {
  return [...new Map(settings.map((setting) => [JSON.stringify(setting), setting])).values()];
}
