/** What the exit code of a command says. */
export const exitCodes = {
  success: 0,
  failure: 1,
  /** Bad usage, or a bad value. */
  usage: 2,
  /** A sanity run that did not pass. */
  notPassed: 3,
  /** A training run that would not fit into memory. */
  doesNotFit: 4,
  /** Ended by SIGINT or SIGTERM, with what was done saved. */
  interrupted: 130,
} as const;
