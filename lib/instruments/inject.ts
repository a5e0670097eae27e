import type { FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { invalid } from '../errors.js';
import { atomicWrite } from '../io/atomicWrite.js';
import type { RunDirectory } from '../io/runDirectory.js';
import { resolveDecoderConfig } from '../models/config.js';
import type { NumericsMode } from '../rl/numericsMode.js';
import { decoderConfig } from '../sanity/baseConfig.js';
import { openSubject, type SubjectSource } from '../sanity/openSubject.js';
import { startText } from '../sanity/subject.js';
import type { FloatDType } from '../tensor/dtype.js';
import { type Fault, type Level, levels, type PlainRecord } from './faults/fault.js';
import { faultOf } from './faults/index.js';
import { runSteps } from './faults/run.js';
import { type RunConfig, type RunOptions, resolveRunOptions } from './faults/runConfig.js';

export interface InjectOptions extends RunOptions {
  /** A name among `faults`; `none` is the run without one. */
  readonly fault: string;
  /** A level, or a number that the fault allows; default `ordinary`. */
  readonly strength?: Level | number;
}

export interface InjectConfig extends RunConfig {
  readonly subject: SubjectSource;
  readonly fault: string;
  readonly strength: number;
}

export interface InjectSummary {
  readonly fault: string;
  readonly title: string;
  readonly strength: number;
  /** What the strength is a number of. */
  readonly strengthOf: string;
  /** What the strength is called, where it has a name. */
  readonly level: Level | null;
  readonly precision: FloatDType;
  readonly numerics: NumericsMode;
  /** A task's spec, or a model and its data set. */
  readonly task: string;
  readonly steps: number;
  readonly samples: number;
  readonly seed: number;
  /** Of the rollout dump. */
  readonly tokens: number;
  /** Tokens that the fault has to do with. */
  readonly touched: number;
  /** The files in the run's folder. */
  readonly files: readonly string[];
  readonly interrupted: boolean;
}

export interface InjectRunOptions {
  readonly directory: RunDirectory;
  /** A folder that keeps the base. */
  readonly base?: string;
  readonly signal?: AbortSignal;
  /** Told what is about to be done; the step is null while the model is made or loaded. */
  readonly report?: (progress: { step: number | null; steps: number; what: string }) => void;
}

const FILES = ['rollout.jsonl', 'training.jsonl'] as const;

/**
 * Fills in the defaults and checks everything, of a model that is not taught here all but whether the fault is defined on
 * it.
 *
 * @throws InvalidArgumentError naming the option, or the fault that is nearest, or why it is not defined on such a run
 */
export function resolveInjectOptions(
  options: InjectOptions & { readonly subject: SubjectSource },
): InjectConfig {
  const where = 'inject';
  const { subject } = options;
  const fault = faultOf(where, options.fault);
  const strength = strengthOf(fault, options.strength ?? 'ordinary');
  const config = resolveRunOptions(where, options);
  const model = 'base' in subject ? resolveDecoderConfig(decoderConfig(subject.base)) : null;
  fault.check?.({ model, config }, strength);
  return { subject, fault: fault.name, strength, ...config };
}

function strengthOf(fault: Fault, strength: unknown): number {
  if (levels.includes(strength as Level)) return fault.strengths[strength as Level];
  if (typeof strength !== 'number' || !fault.allows(strength)) {
    const numbers = `a number for ${fault.name} (${fault.strength}: ${fault.allowed})`;
    invalid('inject', `strength to be one of ${levels.join(', ')}, or ${numbers}`, strength);
  }
  return strength;
}

/**
 * A real run of both engines with one fault, as two plain dumps in the run's folder: rollout.jsonl and training.jsonl. A
 * function of the configuration, to the byte.
 *
 * @throws InvalidArgumentError where the fault is not defined on such a run
 */
export async function injectFault(
  config: InjectConfig,
  { directory, base, signal, report }: InjectRunOptions,
): Promise<InjectSummary> {
  const { steps } = config;
  const fault = faultOf('inject', config.fault);
  await using subject = await openSubject(config.subject, {
    ...(base !== undefined && { directory: base }),
    ...(signal && { signal }),
    report: (event) => report?.({ step: null, steps, what: startText(event) }),
  });
  let tokens = 0;
  let touched = 0;
  let interrupted = subject === null;
  if (subject !== null) {
    fault.check?.({ model: subject.model.config, config }, config.strength);
    const versions = fault.versions?.(config, config.strength) ?? [];
    const all = runSteps(subject, config, {
      versions,
      signal,
      report: ({ step, what }) => report?.({ step, steps, what }),
    });
    try {
      await writeTogether(directory, async (files) => {
        for await (const step of all) {
          const dump = await fault.apply(step, config.strength);
          await files.rollout.writeFile(linesOf(dump.rollout));
          await files.training.writeFile(linesOf(dump.training));
          tokens += dump.rollout.reduce((sum, record) => sum + record.tokens.length, 0);
          touched += dump.touched;
        }
      });
    } catch (error) {
      if (!signal?.aborted || error !== signal.reason) throw error;
      interrupted = true;
    }
  }
  const level = levels.find((name) => fault.name !== 'none' && fault.strengths[name] === config.strength);
  const summary: InjectSummary = {
    fault: fault.name,
    title: fault.title,
    strength: config.strength,
    strengthOf: fault.strength,
    level: level ?? null,
    precision: config.precision,
    numerics: config.numerics,
    task: subject?.task ?? '',
    steps,
    samples: config.samples,
    seed: config.seed,
    tokens,
    touched,
    files: interrupted ? [] : FILES,
    interrupted,
  };
  await directory.writeSummary(summary);
  return summary;
}

/** Writes both files, which appear together once they are whole. */
async function writeTogether(
  { path }: RunDirectory,
  body: (files: { rollout: FileHandle; training: FileHandle }) => Promise<void>,
): Promise<void> {
  const [rolloutPath, trainingPath] = FILES.map((name) => join(path, name)) as [string, string];
  await atomicWrite(rolloutPath, (rollout) =>
    atomicWrite(trainingPath, (training) => body({ rollout, training })),
  );
}

/** Records as lines of JSON. */
export function linesOf(records: readonly PlainRecord[]): string {
  return records.map((record) => `${JSON.stringify(record)}\n`).join('');
}
