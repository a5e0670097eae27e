/** Checkpoints with their problems, as runs start from them and instruments measure them. */
import { readCompanionFiles } from '../models/companionFiles.js';
import type { Decoder } from '../models/decoder.js';
import { loadModel } from '../models/loadModel.js';
import type { ModelSource, PromptSource } from '../rl/modelSource.js';
import { type OpenedSource, openModelSource } from '../rl/openModelSource.js';
import { readSelectionOf, selectProblems, writeSelection } from './problemFilter.js';
import { type SourceConfig, sourceName } from './sourceConfig.js';
import type { PrepareOptions, Start, StartEvent, Subject } from './subject.js';

type Report = ((event: StartEvent) => void) | undefined;

/** A checkpoint as it is, on all problems of its data set. */
export async function openSource(source: ModelSource | PromptSource, report?: Report): Promise<Subject> {
  const opened = await openModelSource(source);
  return orDispose(opened, async () => subjectOf(source, opened, await load(source.model, opened, report)));
}

/**
 * A checkpoint on the problems of its data set that it solves sometimes.
 *
 * @param run the folder of the run, which gets the set, and keeps the filter's progress where `directory` is not given
 * @returns null where the signal ended the filter before it was done
 * @throws InvalidArgumentError as `openModelSource`, `loadModel` and {@link selectProblems} do
 */
export async function prepareSource(
  config: SourceConfig,
  run: string,
  { directory = run, ...options }: PrepareOptions = {},
): Promise<Start | null> {
  const { source } = config;
  const opened = await openModelSource(source);
  let model: Decoder | undefined;
  const loaded = async () => {
    model ??= await load(source.model, opened, options.report);
    return model;
  };
  return orDispose(opened, async () => {
    try {
      const set = await selectProblems(config, opened, loaded, { directory, ...options });
      if (set === null) {
        model?.dispose();
        await opened[Symbol.asyncDispose]();
        return null;
      }
      if (directory !== run) await writeSelection(run, set);
      return await startOf(config, opened, set, loaded);
    } catch (error) {
      model?.dispose();
      throw error;
    }
  });
}

/** What the run in the folder `run` started from, with the weights of one of its checkpoints. */
export async function reopenSource(config: SourceConfig, run: string, weights: string): Promise<Start> {
  const opened = await openModelSource(config.source);
  return orDispose(opened, async () => {
    const set = await readSelectionOf(config, opened, run);
    return startOf(config, opened, set, () => load(weights, opened));
  });
}

async function load(path: string, { maxLength }: OpenedSource, report?: Report): Promise<Decoder> {
  report?.({ kind: 'load', model: path });
  const { model } = await loadModel(path, { maxLength });
  return model;
}

/** The model is loaded last: what else is wrong shows before. */
async function startOf(
  { source }: SourceConfig,
  opened: OpenedSource,
  { indices, tried, accuracy }: Start['set'],
  model: () => Promise<Decoder>,
): Promise<Start> {
  const environment = opened.problems.subset(indices);
  const files = await readCompanionFiles(source.model);
  return {
    ...subjectOf(source, opened, await model()),
    environment,
    set: { indices, tried, accuracy },
    origin: { config: opened.text.config, files },
  };
}

function subjectOf(source: ModelSource | PromptSource, opened: OpenedSource, model: Decoder): Subject {
  const { problems } = opened;
  return {
    model,
    environment: problems,
    judged: source.verifier !== undefined,
    task: sourceName(source),
    format: (tokens) => problems.format(tokens),
    [Symbol.asyncDispose]: async () => {
      model.dispose();
      await problems[Symbol.asyncDispose]();
    },
  };
}

/** What `body` makes of an opened source; the source is closed where that fails. */
async function orDispose<T>(opened: OpenedSource, body: () => Promise<T>): Promise<T> {
  try {
    return await body();
  } catch (error) {
    await opened[Symbol.asyncDispose]();
    throw error;
  }
}
