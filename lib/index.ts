/**
 * isopolicy: one policy, two engines.
 *
 * Kernels and tensors, models, the rollout engine and the training engine, policy-gradient algorithms, loss scaling,
 * mismatch metrics and the sanity test; each usable alone.
 */

export { type Differentiable, gradients } from './autograd/gradients.js';
export { Parameter } from './autograd/parameter.js';
export { Tape } from './autograd/tape.js';
export { type Weight, Weights } from './autograd/weights.js';
export { type Dataset, type DatasetOptions, openDataset } from './data/dataset.js';
export { loadProblems, type Problem, type ProblemOptions, ProblemOrder } from './data/problems.js';
export {
  encodePrompt,
  type PromptTemplate,
  promptTemplate,
  promptTemplates,
} from './data/promptTemplates.js';
export { type CauseName, causes } from './diagnose/causes.js';
export { type DiagnoseOptions, type DumpSource, diagnose } from './diagnose/diagnose.js';
export {
  type CorrectionEffect,
  type Diagnosis,
  type LearningEffect,
  type Precheck,
  type SignatureResult,
  type Verdict as DiagnosisVerdict,
  verdicts,
  type WorstToken,
} from './diagnose/diagnosis.js';
export { type FormatName, formatNames } from './diagnose/formats/format.js';
export { type NoiseFloor, noiseFloor } from './diagnose/noiseFloor.js';
export {
  DeviceError,
  type ErrorCode,
  InternalError,
  InvalidArgumentError,
  IsopolicyError,
} from './errors.js';
export { type GridConfig, type GridOptions, resolveGridOptions } from './grid/config.js';
export { type GridEvent, runGrid } from './grid/run.js';
export type { GridSummary } from './grid/summary.js';
export {
  type DialConfig,
  type DialPoint,
  type DialSummary,
  turnDial,
} from './instruments/dial.js';
export {
  type Dump,
  type Fault,
  type Level,
  levels,
  type PlainRecord,
  type RunSetting,
} from './instruments/faults/fault.js';
export { faultNames, faultOf, faults } from './instruments/faults/index.js';
export { runSteps } from './instruments/faults/run.js';
export { type RunConfig, type RunOptions, resolveRunOptions } from './instruments/faults/runConfig.js';
export type { RunStep } from './instruments/faults/runStep.js';
export { type HeadroomConfig, type HeadroomSummary, measureHeadroom } from './instruments/headroom.js';
export {
  type InjectConfig,
  type InjectOptions,
  type InjectSummary,
  injectFault,
  linesOf,
  resolveInjectOptions,
} from './instruments/inject.js';
export { climbLadder, type LadderConfig, type LadderSummary } from './instruments/ladder.js';
export { type ProfileConfig, type ProfileSummary, profileMismatch } from './instruments/profile.js';
export { type SimulationSummary, simulateCorrections } from './instruments/simulate.js';
export { CheckpointFiles, openCheckpoint, writeCheckpoint } from './io/checkpointFiles.js';
export { type MetricsRecord, RunDirectory, readMetrics } from './io/runDirectory.js';
export { openSafetensors, SafetensorsFile, writeSafetensors } from './io/safetensors.js';
export { bootstrap, type Interval } from './mismatch/bootstrap.js';
export { metricDefinitions } from './mismatch/definitions.js';
export { meanDivergence } from './mismatch/divergence.js';
export { EarlyWarning, earlyWarning, type Warning, type WarningInput } from './mismatch/earlyWarning.js';
export {
  MismatchAccumulator,
  type MismatchBatch,
  type MismatchMetrics,
  mismatchMetrics,
} from './mismatch/metrics.js';
export { routingFlips } from './mismatch/routing.js';
export {
  loadAdapter,
  loadAdapterWeights,
  type SaveAdapterOptions,
  saveAdapter,
} from './models/adapterFiles.js';
export { type CompanionFiles, readCompanionFiles } from './models/companionFiles.js';
export { type DecoderConfig, type ResolvedDecoderConfig, resolveDecoderConfig } from './models/config.js';
export {
  type Conversion,
  type ConvertedTensor,
  type ConvertOptions,
  convertCheckpoint,
  type OverflowChoice,
} from './models/convertCheckpoint.js';
export { Decoder } from './models/decoder.js';
export { inspectModel, type ModelInfo } from './models/inspectModel.js';
export {
  type LanguageModel,
  loadLanguageModel,
  loadModelText,
  type ModelText,
} from './models/languageModel.js';
export { type LoadedModel, type LoadOptions, loadModel, readHuggingFaceConfig } from './models/loadModel.js';
export { addLora, mergeLora, removeLora } from './models/lora.js';
export { type Routes, type RoutesShape, routesShape } from './models/routes.js';
export { type SaveOptions, saveModel } from './models/saveModel.js';
export type { Scores, TokenSequence } from './models/sequences.js';
export type { Forward } from './nn/forward.js';
export { LoraAdapter, type LoraBranch, type LoraConfig, type LoraTarget, loraTargets } from './nn/lora.js';
export {
  type KernelFamily,
  type KnobName,
  knobs,
  type Numerics,
  type NumericsPreset,
  numerics,
  numericsPresets,
} from './numerics.js';
export { adamw } from './ops/adamw.js';
export {
  attention,
  attentionBackward,
  type KvCacheView,
  pagedAttention,
  pageSize,
  writeKvCache,
} from './ops/attention.js';
export { addToColumns, scaleColumns } from './ops/columns.js';
export { combineExperts, combineExpertsBackward } from './ops/combineExperts.js';
export { accumulate, add, multiply, scale } from './ops/elementwise.js';
export { embedding, embeddingBackward, gatherRows, scatterRows } from './ops/embedding.js';
export { type GemmOptions, gemm } from './ops/gemm.js';
export { type GradientStats, gradientStats } from './ops/gradStats.js';
export { type ExpertGroups, groupByExpert } from './ops/groupByExpert.js';
export {
  type GroupedLinearOptions,
  groupedLinear,
  groupedLinearInputGradient,
  groupedLinearWeightGradient,
} from './ops/groupedLinear.js';
export { linear, linearInputGradient, linearWeightGradient } from './ops/linear.js';
export { linearLogprob, linearLogprobBackward } from './ops/linearLogprob.js';
export { type LoadBalance, loadBalance } from './ops/loadBalance.js';
export { chosenLogprobs, logSoftmax, logSoftmaxBackward } from './ops/logSoftmax.js';
export { PackedWeight } from './ops/packWeight.js';
export { columnSum, reduce } from './ops/reduce.js';
export { addRmsNorm, addRmsNormBackward, rmsNorm, rmsNormBackward } from './ops/rmsNorm.js';
export { rope, ropeBackward, ropeTable } from './ops/rope.js';
export { type RoundingStats, roundingStats } from './ops/roundingStats.js';
export { route, routerLoad, routerWeights, routerWeightsBackward } from './ops/route.js';
export { type SampleOptions, sample } from './ops/sample.js';
export { swiglu, swigluBackward } from './ops/swiglu.js';
export { CounterRandom, philox } from './random.js';
export { type AdvantageOptions, groupAdvantages } from './rl/advantages.js';
export {
  type AlgorithmParameters,
  composeAlgorithm,
  createAlgorithm,
  presetConfig,
} from './rl/algorithms.js';
export {
  type Algorithm,
  batchTotals,
  type MiniBatch,
  type PolicyBatch,
  type PolicyLoss,
  type Preparation,
} from './rl/batch.js';
export { availableMemory, checkMemory } from './rl/checkMemory.js';
export { type AlgorithmConfig, checkAlgorithmConfig } from './rl/config.js';
export { type Correction, type CorrectionOptions, correct } from './rl/corrections/correct.js';
export { type Environment, type JudgedResponse, taskEnvironment } from './rl/environment.js';
export { loadAlgorithm } from './rl/load.js';
export { cispoLoss } from './rl/losses/cispo.js';
export { dppoTvLoss } from './rl/losses/dppoTv.js';
export { gspoLoss } from './rl/losses/gspo.js';
export { ppoClipLoss } from './rl/losses/ppoClip.js';
export { reinforceLoss } from './rl/losses/reinforce.js';
export { estimateMemory, type MemoryEstimate, type MemoryOptions, type MemoryRow } from './rl/memory.js';
export {
  type DataOptions,
  type ModelSource,
  type ModelSourceOptions,
  type PromptSource,
  resolveModelSource,
  resolvePromptSource,
} from './rl/modelSource.js';
export { type OpenedSource, openModelSource, openProblems } from './rl/openModelSource.js';
export { type OverlongPrompts, overlongPromptModes } from './rl/overlongPrompts.js';
export { type PresetName, presetNames, presets } from './rl/presets.js';
export { createProblemSet, type ProblemSet, type ProblemSetOptions } from './rl/problemSet.js';
export { effectiveSampleSize } from './rl/ratios.js';
export { readRecording, recordedSteps, type StepRecording } from './rl/recording.js';
export {
  type RouterReplay,
  type RoutingMetrics,
  routerReplays,
  type StepLogprobs,
  Trainer,
  type TrainerOptions,
  type TrainerStep,
  type Trajectory,
} from './rl/trainer.js';
export { loadVerifier, type ResponseVerifier, type UserVerifier, verifierNames } from './rl/verifier.js';
export { type LoraMode, loraModes, RolloutEngine, type RolloutOptions } from './rollout/engine.js';
export type { Completion, GenerationRequest } from './rollout/generation.js';
export type { SamplingOptions } from './rollout/sampling.js';
export {
  type AddonInfo,
  currentDevice,
  type Device,
  freeMemory,
  info,
  type MemoryUse,
  memory,
  type OpProfile,
  type Profile,
  profile,
  Recording,
  record,
  setDevice,
  setThreads,
  setVectorLevel,
  trimMemory,
  type VectorLevel,
} from './runtime.js';
export { type Base, loadBase, prepareBase } from './sanity/base.js';
export { type BaseConfig, type BaseOptions, resolveBaseOptions } from './sanity/baseConfig.js';
export {
  resolveSanityOptions,
  type SanityConfig,
  type SanityOptions,
  type SourceSanityOptions,
} from './sanity/config.js';
export { measureMismatch } from './sanity/effect.js';
export { type FilteredProblems, type FilterSettings, filterProblems } from './sanity/filter.js';
export { type OpenedSubject, openSubject, type SubjectSource } from './sanity/openSubject.js';
export { buildPerfectibleSet, type PerfectibleSet } from './sanity/perfectible.js';
export { runSanity, type SanityEvent, type SanitySummary } from './sanity/run.js';
export type { PrepareOptions, Start, StartEvent, Subject } from './sanity/subject.js';
export { teach } from './sanity/supervised.js';
export { judge, type Verdict } from './sanity/verdict.js';
export { createTask, type Task } from './tasks/index.js';
export { mathEqual } from './tasks/math/equal.js';
export {
  type MathVerdict,
  MathVerifier,
  type MathVerifierOptions,
  mathVerifierVersion,
} from './tasks/math/verifier.js';
export {
  checkFloatDtype,
  type DType,
  type EmulatedDType,
  type FloatDType,
  floatBits,
  formatOf,
  formats,
  isEmulated,
  precisionLabel,
} from './tensor/dtype.js';
export { keep, tidy } from './tensor/scope.js';
export {
  cast,
  copy,
  empty,
  fill,
  full,
  randomNormal,
  randomUniform,
  readTensors,
  Tensor,
  tensor,
  tensorFromBits,
  view,
  zeros,
} from './tensor/tensor.js';
export { type ChatMessage, type ChatOptions, ChatTemplate, loadChatTemplate } from './text/chatTemplate.js';
export { TextStream, type TextStreamOptions } from './text/textStream.js';
export { loadTokenizer, type Tokenizer } from './text/tokenizer.js';
export {
  type EvaluationOptions,
  type LoraOptions,
  resolveTrainOptions,
  type TrainConfig,
  type TrainOptions,
} from './train/config.js';
export { type OpenedTraining, openTraining } from './train/open.js';
export { type TrainPreset, type TrainPresetName, trainPresets } from './train/presets.js';
export { runTrain, type TrainEvent, type TrainRunOptions, type TrainSummary } from './train/run.js';
export { AdamW, type AdamWOptions } from './training/adamW.js';
export { type CheckpointSource, loadCheckpoint, saveCheckpoint } from './training/checkpoint.js';
export {
  type Recompute,
  type RoutedScores,
  type StepResult,
  TrainingEngine,
  type TrainingOptions,
} from './training/engine.js';
export {
  createLossScaler,
  DeepSpeedLossScaler,
  type LossScaler,
  StaticLossScaler,
  TorchLossScaler,
} from './training/lossScaler.js';
export type { RoutingOptions, RoutingRecord } from './training/routing.js';
export { createSchedule, type ScheduleSpec } from './training/schedule.js';
