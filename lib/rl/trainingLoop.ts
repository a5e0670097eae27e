/** The steps of a training run, from its start or a checkpoint to the last, with all that it leaves in its folder. */
import { DeviceError, InvalidArgumentError } from '../errors.js';
import { type Checkpoint, type RunDirectory, readMetrics } from '../io/runDirectory.js';
import { TensorBoardWriter } from '../io/tensorboard.js';
import { EarlyWarning, type Warning } from '../mismatch/earlyWarning.js';
import type { LossScaler } from '../training/lossScaler.js';
import { recordOf, type StepRecord, warningInput, windowMean } from './record.js';
import { writeRecording } from './recording.js';
import type { Trainer } from './trainer.js';

/** Numbers of an evaluation, under `eval/name` keys; none where there was none. */
export type Measured = Readonly<Record<string, number>>;

export interface LoopOptions {
  readonly directory: RunDirectory;
  readonly trainer: Trainer;
  readonly scaler: LossScaler;
  /** The records of the steps that are done; as many as there are steps. */
  readonly records: readonly StepRecord[];
  /** What was measured of the weights that the run goes on from, where that is known. */
  readonly measured?: Measured | undefined;
  /** Steps of the whole run. */
  readonly steps: number;
  /** A prompt or a response as text, for samples.jsonl. */
  readonly format: (tokens: Int32Array) => string;
  /** Saves the state after `step` steps. */
  readonly save: (step: number, records: readonly StepRecord[], measured: Measured) => Promise<void>;
  /** Whether it is saved then; it is after the last step, always. */
  readonly saves: (step: number, measured: Measured) => boolean;
  /** Measures the weights after `step` steps, where that is wanted then; its numbers join the record of the next step. */
  readonly measure?: (step: number) => Promise<Measured>;
  /** Steps between recordings of all log-probs; 0 for none. */
  readonly recordEvery: number;
  /** Ends the run before its last step, by the rewards so far. */
  readonly ended?: (rewards: readonly number[]) => boolean;
  /** Seconds that the run has taken, those before it was resumed included. */
  readonly seconds: () => number;
  /** A folder for TensorBoard event files. */
  readonly tensorboard?: string | undefined;
  /** Aborting it ends the run after the step that is running, with a checkpoint. */
  readonly signal?: AbortSignal | undefined;
  readonly report?: (record: StepRecord) => void;
}

export interface LoopResult {
  /** Steps done. */
  readonly step: number;
  readonly records: readonly StepRecord[];
  /** Mean reward of each step. */
  readonly rewards: readonly number[];
  /** Of the last weights. */
  readonly measured: Measured;
  /** Why nothing could be sampled in the step after the last: logits that are not finite. */
  readonly divergence?: string;
  /** The first warning of a growing mismatch. */
  readonly warning: Warning | null;
}

/** Samples of a step that are kept as text. */
const SAMPLES_SHOWN = 2;

/**
 * Runs the steps that are left. Each is a function of the weights and its number, so a run that was stopped, or killed,
 * and goes on from a checkpoint has the same bits as one that was not.
 */
export async function trainingLoop(options: LoopOptions): Promise<LoopResult> {
  const { directory, trainer, scaler, steps, signal, tensorboard } = options;
  const records = [...options.records];
  const rewards = records.map((record) => record['train/reward']!);
  const watch = new EarlyWarning();
  for (const record of records) watch.add(warningInput(record));
  let step = records.length;
  let saved = step;
  let divergence: string | undefined;
  let tracker: TensorBoardWriter | undefined;
  const track = async (at: number, scalars: Measured) => {
    if (tensorboard === undefined) return;
    tracker ??= await TensorBoardWriter.open(tensorboard);
    await tracker.scalars(at, scalars);
  };
  /** What `body` returns; undefined where the policy has no finite logits to sample from. */
  const unlessDiverged = <T>(body: Promise<T>): Promise<T | undefined> =>
    body.catch((error: unknown) => {
      divergence = divergenceOf(error);
      return undefined;
    });
  const measure = async () =>
    (options.measure && !signal?.aborted && (await unlessDiverged(options.measure(step)))) || {};
  const save = async () => {
    await options.save(step, records, measured);
    saved = step;
  };

  let measured = options.measured ?? (await measure());
  // The run was stopped before these weights were measured: their checkpoint has no score yet.
  if (options.measured === undefined && step > 0 && Object.keys(measured).length > 0) await save();
  while (step < steps && divergence === undefined && !signal?.aborted && !options.ended?.(rewards)) {
    const result = await unlessDiverged(trainer.step(step));
    if (result === undefined) break;
    rewards.push(result.reward);
    const record = {
      ...recordOf(result, {
        window: windowMean(rewards, step),
        overflows: scaler.state().overflows,
        lossScale: scaler.scale,
        warned: watch.add(result.mismatch) !== null,
        totalSeconds: options.seconds(),
      }),
      ...measured,
    };
    records.push(record);
    await directory.appendMetrics(record);
    const { step: _, ...scalars } = record;
    await track(step, scalars);
    for (const { prompt, completion, reward } of result.trajectories.slice(0, SAMPLES_SHOWN)) {
      await directory.appendSample({
        step,
        prompt: options.format(prompt),
        response: options.format(completion.tokens),
        reward,
        finishReason: completion.finishReason,
      });
    }
    if (options.recordEvery > 0 && step % options.recordEvery === 0) {
      const rewardsOfStep = result.trajectories.map(({ reward }) => reward);
      await writeRecording(directory.path, step, result.logprobs, rewardsOfStep);
    }
    options.report?.(record);
    step++;
    measured = await measure();
    if (options.saves(step, measured)) await save();
  }
  if (saved !== step) await save();
  // Of the last weights there is no step whose record these could join.
  if (step >= steps && Object.keys(measured).length > 0) {
    await directory.appendMetrics({ step, ...measured });
    await track(step, measured);
  }
  await tracker?.close();
  return {
    step,
    records,
    rewards,
    measured,
    ...(divergence !== undefined && { divergence }),
    warning: watch.warning,
  };
}

/**
 * The checkpoint that a run goes on from, after a check of its log; a run without one begins, with an empty log.
 *
 * @throws InvalidArgumentError where the log lacks a step before the checkpoint: a kill leaves it whole, a disk or an
 *   editor may not
 */
export async function findStart(where: string, directory: RunDirectory): Promise<Checkpoint | undefined> {
  const checkpoint = await directory.latestCheckpoint();
  if (checkpoint === undefined) {
    await directory.truncateMetrics(0);
    return undefined;
  }
  const { step, path } = checkpoint;
  const before = (await readMetrics(directory.path)).filter((record) => record.step < step).length;
  if (before !== step) {
    throw new InvalidArgumentError(
      `[${where}] expected metrics.jsonl to have the ${step} steps before the newest checkpoint, got ${before} of them, ` +
        `in ${directory.path}: remove ${path} to go on from the checkpoint before it`,
    );
  }
  return checkpoint;
}

/** The records of the steps before a checkpoint, at which the log then ends. */
export async function recordsBefore(directory: RunDirectory, { step }: Checkpoint): Promise<StepRecord[]> {
  await directory.truncateMetrics(step);
  return (await readMetrics(directory.path)) as StepRecord[];
}

/** What an error tells of a policy whose logits are not finite; any other error is thrown on. */
function divergenceOf(error: unknown): string {
  if (error instanceof DeviceError && error.message.startsWith('[sample] expected logits'))
    return error.message;
  throw error;
}
