import { Breaks } from '../breaks.js';
import { checkInteger, invalid } from '../errors.js';
import { isObject } from '../io/jsonFile.js';
import { MismatchAccumulator } from '../mismatch/metrics.js';
import { checkFloatDtype } from '../tensor/dtype.js';
import { version } from '../version.js';
import { conclude } from './conclude.js';
import type { Diagnosis } from './diagnosis.js';
import { EffectAccumulator } from './effect.js';
import { type FormatName, formatNames } from './formats/index.js';
import { type AnyDump, pairs } from './pairs.js';
import { DIAGNOSE } from './place.js';
import { PointCollector } from './points.js';
import { Prechecks } from './precheck.js';
import { provenanceOf } from './provenance.js';
import { openDump } from './readDump.js';
import type { Pair } from './record.js';
import { RowsDump } from './rowsDump.js';
import { SampleCollector } from './sample.js';
import { WorstTokens } from './worst.js';

/** A file of log-probs, or its rows: objects in the shape of one of {@link formatNames}, with arrays or typed arrays. */
export type DumpSource = string | readonly object[];

export interface DiagnoseOptions {
  /**
   * The format in which both engines are meant to compute; its rounding is what noise is held against. Default: the one whose
   * usual noise is nearest to what is found, which can then hardly be too large.
   */
  readonly dtype?: string;
  /** Layers and width of the model, for the floor; default not known. */
  readonly numLayers?: number;
  readonly hiddenSize?: number;
  /** What the dumps are written in; default: found out from the first row of each. */
  readonly format?: FormatName;
  /** How often responses are drawn again to see whether the same cause comes first; default 100. */
  readonly draws?: number;
  /** The text of a token of which the dumps have the id alone. */
  readonly tokenText?: (id: number) => string;
  /** Noted in the provenance; default `diagnose()`. */
  readonly command?: string;
  readonly signal?: AbortSignal;
  /** Told now and then how many responses have been read. */
  readonly report?: (progress: { readonly responses: number }) => void;
}

/** Responses between two reports. */
const REPORT_EVERY = 1000;

/**
 * What is wrong between two dumps of log-probs of the same responses, how bad it is for a policy gradient, and what to do: see
 * docs/diagnose.md. Dumps are read as a stream: memory stays bounded, whatever their size. The same dumps give the same
 * diagnosis, to the last digit.
 *
 * @param rollout log mu: of the engine that sampled
 * @param training log pi: of the engine that learns; null where `rollout` has both
 * @throws InvalidArgumentError on a bad option, or naming file and line where a dump can't be read; the signal's reason, once it
 *   is aborted
 */
export async function diagnose(
  rollout: DumpSource,
  training: DumpSource | null = null,
  options: DiagnoseOptions = {},
): Promise<Diagnosis> {
  const { dtype, numLayers, hiddenSize, format, tokenText, signal, report } = checkOptions(options);
  const size = {
    numLayers: numLayers === undefined ? null : checkInteger(DIAGNOSE, 'numLayers', numLayers, 1),
    hiddenSize: hiddenSize === undefined ? null : checkInteger(DIAGNOSE, 'hiddenSize', hiddenSize, 1),
  };
  const draws = checkInteger(DIAGNOSE, 'draws', options.draws ?? 100, 1, 10_000);
  const declared = dtype === undefined ? null : checkFloatDtype(DIAGNOSE, 'dtype', dtype);
  const a = await dumpOf('rollout', rollout, format);
  const b = training === null ? null : await dumpOf('training', training, format);

  const prechecks = new Prechecks();
  const parts = {
    sample: new SampleCollector(),
    effect: new EffectAccumulator(),
    metrics: new MismatchAccumulator(),
    worst: new WorstTokens(),
    points: new PointCollector(),
  };
  const breaks = new Breaks(signal);
  let responses = 0;
  for await (const match of pairs(a, b, signal ? { signal } : {})) {
    const pair = prechecks.align(match);
    if (++responses % REPORT_EVERY === 0) report?.({ responses });
    if (pair === undefined) continue;
    parts.sample.add(pair);
    parts.effect.add(pair);
    parts.metrics.add(batchOf(pair));
    parts.worst.add(pair);
    parts.points.add(pair);
    await breaks.take();
  }

  const { compared } = prechecks;
  const provenance = provenanceOf(a, b, version, options.command ?? 'diagnose()');
  const checks = prechecks.results();
  const conclusion = await conclude(parts.sample.result(), checks, {
    declared,
    size,
    draws,
    ...(signal && { signal }),
  });
  const found = compared.responses > 0;
  const worst = parts.worst.result();
  return {
    ...conclusion,
    counts: {
      responses: {
        rollout: provenance.files[0]!.responses,
        training: (provenance.files[1] ?? provenance.files[0]!).responses,
      },
      comparedResponses: compared.responses,
      comparedTokens: compared.tokens,
      maskedTokens: compared.maskedTokens,
      signatureTokens: conclusion.signatureTokens,
    },
    prechecks: checks,
    effect: found ? await parts.effect.result(SEED, signal) : null,
    metrics: found ? parts.metrics.result() : null,
    worst: worst.map((own) =>
      own.text === null && own.token !== null && tokenText ? { ...own, text: tokenText(own.token) } : own,
    ),
    points: parts.points.result(),
    provenance,
  };
}

/** Of the draws that intervals are made of. */
const SEED = 1;

/** Those whose type nothing else checks, or not before work begins. */
function checkOptions(options: DiagnoseOptions): DiagnoseOptions {
  if (!isObject(options)) invalid(DIAGNOSE, 'options to be an object', options);
  const { tokenText, command, signal, report } = options;
  for (const [name, value] of Object.entries({ tokenText, report })) {
    if (value !== undefined && typeof value !== 'function') {
      invalid(DIAGNOSE, `${name} to be a function`, value);
    }
  }
  if (command !== undefined && typeof command !== 'string') {
    invalid(DIAGNOSE, 'command to be a text', command);
  }
  if (signal !== undefined && !(signal instanceof AbortSignal)) {
    invalid(DIAGNOSE, 'signal to be an AbortSignal', signal);
  }
  return options;
}

async function dumpOf(name: string, source: unknown, format: FormatName | undefined): Promise<AnyDump> {
  if (typeof source === 'string') return openDump(source, format === undefined ? {} : { format });
  if (Array.isArray(source)) return new RowsDump(name, source, format);
  return invalid(
    DIAGNOSE,
    `${name} to be the path of a file or an array of rows (${formatNames.join(', ')})`,
    source,
  );
}

function batchOf({ rollout, training, mask }: Pair) {
  return { offsets: Int32Array.of(0, mask.length), rolloutLogprobs: rollout, logprobs: training, mask };
}
