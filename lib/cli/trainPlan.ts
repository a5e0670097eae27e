/** What a training run would be, told without its weights: --dry-run. */

import { formatBytes } from '../bytes.js';
import type { MemoryEstimate } from '../rl/memory.js';
import type { ProblemSet } from '../rl/problemSet.js';
import type { TrainConfig } from '../train/config.js';
import type { OpenedTraining } from '../train/open.js';
import { count, formatCount, formatTable, wrap } from './format.js';

export interface TrainPlan {
  readonly model: string;
  readonly parameters: number;
  readonly problems: number;
  readonly evaluated: number;
  /** Problems of both whose prompts are too long (overlongPrompts drop). */
  readonly leftOut: { readonly training: number; readonly evaluation: number };
  /** Tokens of the longest prompt, and of it with the longest response. */
  readonly longestPrompt: number;
  readonly maxLength: number;
  /** Responses of a step, and of an evaluation. */
  readonly responses: { readonly step: number; readonly evaluation: number };
  /** A prompt as the model reads it, special tokens included. */
  readonly example: { readonly prompt: string; readonly answers: readonly string[] };
  readonly memory: Pick<MemoryEstimate, 'rows' | 'phases' | 'lastingBytes' | 'peakBytes' | 'residentBytes'>;
  /** Bytes that a run may take here, and whether this one does. */
  readonly availableBytes: number;
  readonly fits: boolean;
}

export function planOf(config: TrainConfig, opened: OpenedTraining, availableBytes: number): TrainPlan {
  const { source, evaluation, memory } = opened;
  const { problems } = source;
  const { rows, phases, lastingBytes, peakBytes, residentBytes } = memory;
  const evaluated = evaluation?.prompts.length ?? 0;
  return {
    model: config.model,
    parameters: memory.parameters,
    problems: problems.prompts.length,
    evaluated,
    leftOut: { training: problems.leftOut, evaluation: evaluation?.leftOut ?? 0 },
    longestPrompt: opened.longestPrompt,
    maxLength: opened.maxLength,
    responses: {
      step: config.batch.promptsPerStep * config.batch.groupSize,
      evaluation: evaluated * (config.evaluation?.samples ?? 0),
    },
    example: exampleOf(problems),
    memory: { rows, phases, lastingBytes, peakBytes, residentBytes },
    availableBytes,
    fits: residentBytes <= availableBytes,
  };
}

function exampleOf(problems: ProblemSet): TrainPlan['example'] {
  return { prompt: problems.format(problems.prompts[0]!), answers: problems.problems[0]!.answers };
}

/** The plan as text of at most 80 columns; the example prompt has the lines that it has. */
export function planText(plan: TrainPlan, config: TrainConfig): string {
  const { memory, example, responses } = plan;
  const right = { align: 'right' } as const;
  const table = formatTable(
    [{ heading: 'memory' }, { heading: 'bytes', ...right }, { heading: 'what it is' }],
    [
      ...memory.rows.map(({ name, bytes, note }) => [name, formatBytes(bytes), note]),
      ...memory.phases.map(({ name, bytes, note }) => [`+ ${name}`, formatBytes(bytes), note]),
      ['at its peak', formatBytes(memory.peakBytes), 'what lasts, and the largest of the phases (+)'],
      ['in all', formatBytes(memory.residentBytes), 'with what the allocator keeps for the next phase'],
      ['available', formatBytes(plan.availableBytes), plan.fits ? 'it fits' : 'IT DOES NOT FIT'],
    ],
  );
  const evaluation =
    config.evaluation === null
      ? 'no evaluation (evaluation.data, --eval-data)'
      : `evaluation on ${count(plan.evaluated, 'problem')}${without(plan.leftOut.evaluation)}: ${responses.evaluation} responses, every ` +
        `${count(config.evaluation.every, 'step')}`;
  return [
    ...wrap(`${plan.model}: ${formatCount(plan.parameters)} parameters`),
    ...wrap(
      `${count(plan.problems, 'problem')}${without(plan.leftOut.training)}, the longest prompt of ${count(plan.longestPrompt, 'token')}, ` +
        `with its response ${plan.maxLength}; ${responses.step} responses a step; ${evaluation}`,
    ),
    '',
    'The first prompt:',
    example.prompt,
    `Right: ${example.answers.length === 0 ? 'what the verifier calls right' : example.answers.join(' | ')}`,
    '',
    table,
  ].join('\n');
}

function without(leftOut: number): string {
  return leftOut === 0 ? '' : ` (${leftOut} left out: their prompts are too long)`;
}
