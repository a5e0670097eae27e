/** Responses under two engines, and what `diagnose` might say of them. */
import type { Diagnosis, SignatureName } from '../../lib/diagnose/diagnosis.js';
import { signatureNames } from '../../lib/diagnose/diagnosis.js';
import { EffectAccumulator } from '../../lib/diagnose/effect.js';
import { PointCollector } from '../../lib/diagnose/points.js';
import type { Pair } from '../../lib/diagnose/record.js';
import { WorstTokens } from '../../lib/diagnose/worst.js';
import { MismatchAccumulator } from '../../lib/mismatch/metrics.js';
import { CounterRandom } from '../../lib/random.js';

const settings = { temperature: null, topP: null, topK: null };

/** A response by its two series; all of its tokens count unless a mask says else. */
export function pairOf(
  index: number,
  rollout: ArrayLike<number>,
  training: ArrayLike<number>,
  more: Partial<Pair> = {},
): Pair {
  return {
    id: `sample-${index}`,
    index,
    places: {
      rollout: { file: 'rollout.jsonl', line: index + 1 },
      training: { file: 'training.jsonl', line: index + 1 },
    },
    tokens: null,
    tokenTexts: null,
    rollout: Float64Array.from(rollout),
    training: Float64Array.from(training),
    mask: new Uint8Array(rollout.length).fill(1),
    topLogprobs: { rollout: null, training: null },
    step: null,
    batch: null,
    promptLength: null,
    settings: { rollout: settings, training: settings },
    weightsVersions: { rollout: null, training: null },
    ...more,
  };
}

/** A normal number (Box and Muller). */
export function normal(random: CounterRandom): number {
  return Math.sqrt(-2 * Math.log(1 - random.uniform())) * Math.cos(2 * Math.PI * random.uniform());
}

/**
 * Responses whose log ratios are normal with standard deviation `sigma` and the mean -sigma^2 / 2 at which the mean
 * ratio is 1.
 */
export function normalPairs(
  count: number,
  length: (index: number) => number,
  sigma: number,
  seed = 1,
): Pair[] {
  const random = new CounterRandom(seed);
  return Array.from({ length: count }, (_, index) => {
    const rollout = Float64Array.from({ length: length(index) }, () => Math.log(1 - random.uniform()));
    const training = rollout.map((logMu) => logMu + sigma * normal(random) - sigma ** 2 / 2);
    return pairOf(index, rollout, training, {
      tokens: [...rollout.keys()],
      tokenTexts: [...rollout.keys()].map((t) => ` word${t}`),
    });
  });
}

const titles: Partial<Record<SignatureName, string>> = {
  shift: 'one series is some tokens ahead of the other',
  temperature: 'log-probs of one side are at another temperature',
  floor: 'symmetric noise no larger than rounding predicts',
};

/** What might be said of responses: numbers are theirs, the verdict is made up. */
export async function diagnosisOf(pairs: readonly Pair[], more: Partial<Diagnosis> = {}): Promise<Diagnosis> {
  const effect = new EffectAccumulator();
  const worst = new WorstTokens();
  const points = new PointCollector();
  const metrics = new MismatchAccumulator();
  let tokens = 0;
  for (const pair of pairs) {
    for (const part of [effect, worst, points]) part.add(pair);
    const { rollout, training, mask } = pair;
    const offsets = Int32Array.of(0, mask.length);
    metrics.add({ offsets, mask, rolloutLogprobs: rollout, logprobs: training });
    tokens += mask.reduce((sum, counts) => sum + counts, 0);
  }
  return {
    verdict: 'SUSPICIOUS',
    cause: 'temperature',
    causeText: 'the engines use different temperatures',
    confidence: 0.97,
    action:
      'Divide the training logits by the sampling temperature 0.7 before log-softmax, or have the rollout return raw log-probs.',
    alternatives: ['scaled'],
    dtype: { name: 'bf16', declared: true },
    counts: {
      responses: { rollout: pairs.length + 2, training: pairs.length },
      comparedResponses: pairs.length,
      comparedTokens: tokens,
      maskedTokens: 17,
      signatureTokens: tokens,
    },
    prechecks: [
      {
        kind: 'missing',
        text: 'in the rollout file but not in the training file',
        count: 2,
        of: pairs.length + 2,
        unit: 'responses',
        leftOut: true,
        examples: ['rollout.jsonl:65: sample-64', 'rollout.jsonl:66: sample-65'],
      },
      {
        kind: 'settings',
        text: 'temperature 0.7 at rollout, 1 at training',
        count: pairs.length,
        of: pairs.length,
        unit: 'responses',
        leftOut: false,
        examples: ['rollout.jsonl:1, training.jsonl:1: sample-0 has 0.7 and 1'],
      },
    ],
    signatures: signatureNames.map((name) => ({
      name,
      title: titles[name] ?? `what ${name} leaves behind`,
      found: name === 'temperature' || name === 'uncertainty',
      explained: name === 'temperature' ? 0.94 : ['floor', 'uncertainty'].includes(name) ? null : 0.02,
      evidence: `with T = 0.7002 (95 %: 0.6998 to 0.7007) the standard deviation of d falls from 0.31 to 0.004 nats, of ${tokens} tokens`,
      values:
        name === 'floor'
          ? { logitNoise: 0.31, units: 158.7, low: 2.22, high: 45 }
          : { temperatureRatio: 0.7 },
    })),
    effect: await effect.result(1),
    metrics: metrics.result(),
    worst: worst.result(),
    points: points.result(),
    provenance: {
      files: (['rollout', 'training'] as const).map((side, i) => ({
        side,
        path: `/data/run-17/${side}.jsonl.gz`,
        bytes: 123_456_789 + i,
        sha256: `${i}9a3f5c1`.repeat(8),
        format: 'verl',
        compressed: true,
        responses: pairs.length,
      })),
      version: '1.2.3',
      node: '22.23.3',
      command: 'isopolicy diagnose rollout.jsonl.gz training.jsonl.gz --dtype bf16',
    },
    ...more,
  };
}
