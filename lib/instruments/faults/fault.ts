/** What a fault is: something that goes wrong in a real run, and what its dumps then hold. */
import type { ResolvedDecoderConfig } from '../../models/config.js';
import type { RunConfig } from './runConfig.js';
import type { RunStep } from './runStep.js';

export const levels = ['weak', 'ordinary', 'strong'] as const;
export type Level = (typeof levels)[number];

/** The most likely tokens at a position, most likely first. */
export type PlainTop = readonly (readonly [token: number, logprob: number])[];

/** One response by one engine, as a line of a plain dump has it; null is a log-prob that is not there. */
export interface PlainRecord {
  readonly id: string;
  readonly step: number;
  /** Responses that an engine took together have the same. */
  readonly batch: string;
  /** Updates behind the weights, as the dump claims. */
  readonly weightsVersion: string;
  readonly temperature: number;
  readonly topP: number;
  readonly promptTokens: readonly number[];
  readonly tokens: readonly number[];
  /** Of each token. */
  readonly text: readonly string[];
  readonly mask: readonly number[];
  /** Nats. */
  readonly logprobs: readonly (number | null)[];
  readonly topLogprobs?: readonly (PlainTop | null)[];
}

/** The responses of a step by both engines, in the same order, with a fault or without. */
export interface Dump {
  readonly rollout: readonly PlainRecord[];
  readonly training: readonly PlainRecord[];
  /** Tokens of the responses whose log-prob, id or mask the fault has to do with. */
  readonly touched: number;
}

/** What a fault is checked against. */
export interface RunSetting {
  /** Null before the model is known. */
  readonly model: ResolvedDecoderConfig | null;
  readonly config: RunConfig;
}

/** Help lists faults, so that their files import what needs the addon only in `apply`. */
export interface Fault {
  readonly name: string;
  /** What goes wrong, in a line. */
  readonly title: string;
  /** What the strength is a number of. */
  readonly strength: string;
  readonly strengths: Readonly<Record<Level, number>>;
  /** Whether a number is a strength that it has. */
  readonly allows: (strength: number) => boolean;
  /** The strengths that there are, in words. */
  readonly allowed: string;
  /** The runs that it is defined on, in words. */
  readonly runs: string;
  /** @throws InvalidArgumentError where it is not defined on such a run */
  readonly check?: (setting: RunSetting, strength: number) => void;
  /** The versions of the weights, in updates, that it wants again after they are gone. */
  readonly versions?: (config: RunConfig, strength: number) => readonly number[];
  /**
   * The dumps of a step with the fault. The model has the weights of the step, before and after; random numbers are drawn
   * from the seed of the run by streams of the fault's own.
   */
  readonly apply: (step: RunStep, strength: number) => Dump | Promise<Dump>;
}
