/** What `diagnose` finds: plain data, the same as JSON. */
import type { Interval } from '../mismatch/bootstrap.js';
import type { MismatchMetrics } from '../mismatch/metrics.js';
import type { Side } from './record.js';

/** From harmless to harmful; their places are the exit codes. */
export const verdicts = ['NOISE FLOOR', 'SUSPICIOUS', 'BROKEN'] as const;
export type Verdict = (typeof verdicts)[number];

export const precheckKinds = [
  'missing',
  'token-ids',
  'retokenised',
  'prompt-counted',
  'length',
  'mask',
  'mask-shifted',
  'nothing-counts',
  'not-finite',
  'exact-zero',
  'above-zero',
  'settings',
  'weights-version',
] as const;
export type PrecheckKind = (typeof precheckKinds)[number];

/** One thing that does not align, or that no log-prob can be. */
export interface Precheck {
  readonly kind: PrecheckKind;
  /** What was expected and found, in one line. */
  readonly text: string;
  /** How many responses or tokens. */
  readonly count: number;
  readonly of: number;
  readonly unit: 'responses' | 'tokens';
  /** Whether these were left out of every number that follows. */
  readonly leftOut: boolean;
  /** The first few, each with file, line, id and what was found there. */
  readonly examples: readonly string[];
}

export const signatureNames = [
  'zero-fill',
  'prompt-counted',
  'shift',
  'scaled',
  'temperature',
  'kept-mass',
  'weight-update',
  'outliers',
  'boundaries',
  'chunks',
  'lattice',
  'identity',
  'position',
  'uncertainty',
  'floor',
] as const;
export type SignatureName = (typeof signatureNames)[number];

/** One closed-form test of what a fault would leave in the numbers. */
export interface SignatureResult {
  readonly name: SignatureName;
  /** What it looks for, in a few words. */
  readonly title: string;
  /** Whether the data have it. */
  readonly found: boolean;
  /** Share of the mismatch beyond the floor that this fault would account for, 0 to 1; null where the test says nothing of it. */
  readonly explained: number | null;
  /** One sentence with the numbers. */
  readonly evidence: string;
  readonly values: Readonly<Record<string, number>>;
}

/** Of one correction: what it would leave of these responses. */
export interface CorrectionEffect {
  readonly correction: 'none' | 'Token-TIS' | 'Seq-TIS' | 'Seq-MIS' | 'geometric';
  /** Its bounds, in words. */
  readonly rule: string;
  /** Share of tokens that still teach. */
  readonly keptTokens: number;
  /** Share of responses of which something is left. */
  readonly keptResponses: number;
  /** Share of the uncorrected gradient's coefficients that is left: mean of min(weight, 1) over tokens. */
  readonly signalShare: number;
  /** Effective sample size of the raw weights as a share; NaN without weights. */
  readonly ess: number;
  /** Whether so little is left that the policy would hardly move. */
  readonly frozen: boolean;
}

/** What the mismatch does to a policy gradient from these responses; intervals are of whole responses resampled. */
export interface LearningEffect {
  /** Quantiles of r = pi / mu of tokens, raw. */
  readonly ratioQuantiles: readonly ({ readonly q: number } & Interval)[];
  /** Quantiles of pi(y) / mu(y) of whole responses, as logs. */
  readonly seqLogRatioQuantiles: readonly ({ readonly q: number } & Interval)[];
  readonly klMuPiK1: Interval;
  readonly klMuPiK3: Interval;
  readonly chi2Token: Interval;
  readonly chi2Sequence: Interval;
  readonly essToken: Interval;
  readonly essSequence: Interval;
  /** Tokens of a response: least, median, most. */
  readonly lengths: { readonly min: number; readonly median: number; readonly max: number };
  readonly corrections: readonly CorrectionEffect[];
}

/** A token whose two log-probs are far apart. */
export interface WorstToken {
  readonly id: string;
  /** From 0 within the response. */
  readonly position: number;
  /** Of the response. */
  readonly length: number;
  readonly token: number | null;
  readonly text: string | null;
  readonly logMu: number;
  readonly logPi: number;
  /** Where it stands: file and line on each side. */
  readonly places: Readonly<Record<Side, string>>;
}

/** Tokens whose position, or whose surprise -log mu in nats, is at least `from` and below `to`. */
export interface PlotBin {
  readonly from: number;
  readonly to: number;
  readonly tokens: number;
  /** Mean of |log pi - log mu|. */
  readonly meanAbs: number;
}

/** What charts show: of all tokens, but bounded however long the files are. */
export interface PlotPoints {
  /** At most 2,000 tokens, evenly spread: log mu, log pi, position in the response, number of the response. */
  readonly tokens: readonly (readonly [logMu: number, logPi: number, position: number, response: number])[];
  /** At most 400 responses, evenly spread: tokens that count, and L = sum of their log pi - log mu. */
  readonly responses: readonly (readonly [tokens: number, logRatio: number])[];
  /** Of every token; bins without one are left out. */
  readonly byPosition: readonly PlotBin[];
  readonly bySurprise: readonly PlotBin[];
}

export interface FileProvenance {
  readonly side: Side | 'both';
  readonly path: string;
  readonly bytes: number;
  readonly sha256: string;
  readonly format: string;
  readonly compressed: boolean;
  readonly responses: number;
}

export interface Provenance {
  readonly files: readonly FileProvenance[];
  readonly version: string;
  readonly node: string;
  readonly command: string;
}

export interface Diagnosis {
  readonly verdict: Verdict;
  /** What it most likely comes from: a key of `causes`. */
  readonly cause: string;
  /** The cause in a few words. */
  readonly causeText: string;
  /** How often the same cause came first when whole responses were drawn again, 0 to 1; of n responses at most n / (n + 1). */
  readonly confidence: number;
  /** What to do next, one sentence. */
  readonly action: string;
  /** Other causes that these data can't tell from it. */
  readonly alternatives: readonly string[];
  /** The format whose floor the noise was held against. */
  readonly dtype: { readonly name: string; readonly declared: boolean };
  readonly counts: {
    readonly responses: Readonly<Record<Side, number>>;
    readonly comparedResponses: number;
    readonly comparedTokens: number;
    readonly maskedTokens: number;
    /** Tokens that signatures looked at: all, or those of every second, fourth, ... response. */
    readonly signatureTokens: number;
  };
  readonly prechecks: readonly Precheck[];
  readonly signatures: readonly SignatureResult[];
  /** Null where nothing could be compared. */
  readonly effect: LearningEffect | null;
  readonly metrics: MismatchMetrics | null;
  readonly worst: readonly WorstToken[];
  readonly points: PlotPoints;
  readonly provenance: Provenance;
}
