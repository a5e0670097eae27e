/** Opens what a {@link ModelSource} names, up to the weights. */
import { openDataset } from '../data/dataset.js';
import { loadProblems, type Problem } from '../data/problems.js';
import { questions } from '../data/questions.js';
import { invalid } from '../errors.js';
import { loadModelText, type ModelText } from '../models/languageModel.js';
import type { ModelSource, PromptSource } from './modelSource.js';
import { createProblemSet, type ProblemSet } from './problemSet.js';
import { isUserModule } from './userModule.js';
import { unjudged } from './verifier.js';

/** A source's problems, ready to be sampled for; its weights are not read yet. */
export interface OpenedSource extends AsyncDisposable {
  readonly text: ModelText;
  readonly problems: ProblemSet;
  /** Longest prompt and response together: the context that engines need. */
  readonly maxLength: number;
}

/**
 * Reads the small files of a model and the problems of a data set: what is wrong with either shows before the weights
 * are read.
 *
 * @throws InvalidArgumentError as {@link loadModelText}, `openDataset`, `loadProblems` and {@link createProblemSet} do, and
 *   where prompts and responses are longer than the model's context
 */
export async function openModelSource(source: ModelSource | PromptSource): Promise<OpenedSource> {
  const text = await loadModelText(source.model);
  const { maxPositionEmbeddings } = text.config.decoder;
  const problems = await openProblems(text, source);
  const maxLength = Math.max(...problems.prompts.map(({ length }) => length)) + source.responseLength;
  if (maxLength > maxPositionEmbeddings) {
    await problems[Symbol.asyncDispose]();
    const what = `the longest prompt and responseLength = ${source.responseLength} to be within the model's context of ${maxPositionEmbeddings} tokens`;
    invalid('modelSource', what, maxLength);
  }
  return { text, problems, maxLength, [Symbol.asyncDispose]: () => problems[Symbol.asyncDispose]() };
}

/** The problems of a data set for a model; also a second set, to evaluate on, by the same template. */
export async function openProblems(
  text: ModelText,
  source: Omit<ModelSource, 'model'> | Omit<PromptSource, 'model'>,
): Promise<ProblemSet> {
  const problems = source.data === undefined ? questions : await readProblems(source.data, source);
  return createProblemSet(text, problems, { ...source, verifier: source.verifier ?? unjudged });
}

async function readProblems(
  data: string,
  source: Omit<ModelSource, 'model'> | Omit<PromptSource, 'model'>,
): Promise<readonly Problem[]> {
  const { split, promptColumn, answerColumn, idColumn, count, dataSeed: seed, verifier } = source;
  const dataset = await openDataset(data, { ...(split !== undefined && { split }) });
  return loadProblems(dataset, {
    ...(promptColumn !== undefined && { promptColumn }),
    ...(answerColumn !== undefined && { answerColumn }),
    ...(idColumn !== undefined && { idColumn }),
    ...(count !== undefined && { count }),
    seed,
    rows: verifier === undefined || isUserModule(verifier),
  });
}
