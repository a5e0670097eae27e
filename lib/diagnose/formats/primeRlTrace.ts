/**
 * Traces of verifiers' v1 environments (verifiers/v1/trace.py, graph.py, episode.py; August 2026), which prime-rl's
 * file monitor appends to rollouts/step_N/.../traces.jsonl, an episode {traces: [...]} a line, or a trace a line.
 *
 * A trace is a graph of messages: `nodes`, each with its `parent`, the `token_ids` that it adds, their `mask` (true:
 * sampled), and `logprobs`, in newer ones `trainer_logprobs`, one for each sampled token. A path from root to leaf is
 * a sequence; a node that several paths share counts in the first alone, as in prime-rl's trace_to_samples. Newer
 * versions of verifiers write log-probs rounded to a few decimals.
 */
import type { DumpRecord, Place } from '../record.js';
import { Fields } from './fields.js';
import { recordOf } from './format.js';
import { keptRange } from './series.js';

interface Node {
  readonly parent: number | null;
  readonly tokens: readonly number[];
  readonly mask: Uint8Array;
  /** [tokens] NaN where not sampled. */
  readonly rollout: Float64Array;
  readonly training: Float64Array | null;
}

export function isTrace(row: Readonly<Record<string, unknown>>): boolean {
  return ('traces' in row || 'nodes' in row) && !('logprobs' in row);
}

export function traceRecords(row: Readonly<Record<string, unknown>>, place: Place): DumpRecord[] {
  const fields = new Fields(row, place);
  const work = fields.object('run')?.object('work') ?? null;
  const found = {
    step: work?.integer('step') ?? null,
    weightsVersion: work?.object('policy')?.versionSpan('start', 'end') ?? null,
  };
  return (fields.objects('traces') ?? [fields]).flatMap((trace) => branches(trace, found));
}

function branches(trace: Fields, found: Partial<DumpRecord>): DumpRecord[] {
  const nodes = (trace.objects('nodes') ?? []).map(nodeOf);
  const parents = new Set(nodes.map(({ parent }) => parent));
  const leaves = nodes.flatMap((_, i) => (parents.has(i) ? [] : [i]));
  const taken = new Set<number>();
  const id = trace.id('id');
  return leaves.flatMap((leaf, number) => {
    const path = pathTo(nodes, leaf);
    const masks = path.map((i) => (taken.has(i) ? new Uint8Array(nodes[i]!.mask.length) : nodes[i]!.mask));
    for (const i of path) taken.add(i);
    const mask = Uint8Array.from(masks.flatMap((part) => [...part]));
    // A path on which nothing was sampled is no response.
    if (!mask.includes(1)) return [];
    const { start, end } = keptRange(mask);
    const tokens = path.flatMap((i) => nodes[i]!.tokens);
    const join = (part: (node: Node) => Float64Array) => ({
      logprobs: Float64Array.from(path.flatMap((i) => [...part(nodes[i]!)])).slice(start, end),
    });
    const hasTraining = path.some((i) => nodes[i]!.training !== null);
    const rollout = join((node) => node.rollout);
    const training = join((node) => node.training ?? new Float64Array(node.mask.length).fill(Number.NaN));
    return recordOf(trace.place, {
      ...found,
      id: id !== null && leaves.length > 1 ? `${id}#${number}` : id,
      tokens: tokens.slice(start, end),
      promptTokens: start > 0 ? tokens.slice(0, start) : null,
      mask: mask.slice(start, end),
      ...(hasTraining ? { both: { rollout, training } } : { own: rollout }),
    });
  });
}

function nodeOf(fields: Fields, index: number): Node {
  const tokens = fields.array('token_ids') ?? { name: 'token_ids', values: [] };
  const mask = fields.array('mask') ?? { name: 'mask', values: [] };
  fields.sameLength(tokens, mask);
  const counts = fields.mask(mask);
  const parent = fields.integer('parent');
  // Children come after their parents, so that no path is a circle.
  if (parent !== null && parent >= index) fields.fail('parent', `to be a node before ${index}`, parent);
  return {
    parent,
    tokens: fields.ids(tokens),
    mask: counts,
    rollout: spread(fields, 'logprobs', counts) ?? new Float64Array(counts.length).fill(Number.NaN),
    training: spread(fields, 'trainer_logprobs', counts),
  };
}

/** Log-probs of the sampled tokens at their places; NaN elsewhere. */
function spread(fields: Fields, name: string, mask: Uint8Array): Float64Array | null {
  const column = fields.array(name);
  if (column === null || column.values.length === 0) return null;
  const sampled = mask.reduce((sum, one) => sum + one, 0);
  if (column.values.length !== sampled) {
    fields.fail(name, `to have one element for each sampled token (${sampled})`, column.values);
  }
  const numbers = fields.numbers(column);
  let next = 0;
  return Float64Array.from(mask, (one) => (one === 1 ? numbers[next++]! : Number.NaN));
}

function pathTo(nodes: readonly Node[], leaf: number): number[] {
  const path: number[] = [];
  for (let i: number | null = leaf; i !== null; i = nodes[i]!.parent) path.push(i);
  return path.reverse();
}
