/** What must hold before log-probs are compared: the same responses, tokens, masks and settings. What does not align is refused. */

import { compareTokens } from './compareTokens.js';
import type { Precheck, PrecheckKind } from './diagnosis.js';
import { precheckKinds } from './diagnosis.js';
import { maskShift } from './maskShift.js';
import { type Match, type Matched, NAMED, type OwnRecord } from './pairs.js';
import { placeText } from './place.js';
import type { Pair, Side } from './record.js';

/** Above this a log-prob is more than 0 with rounding. */
const MAX_LOGPROB = 1e-6;
/** A token that one side is sure of: exactly 0, where the other is below this. */
const SURE = -0.01;

/** What one side says of a token or a response and the other doesn't. */
interface Tally {
  count: number;
  readonly examples: string[];
}

interface Rule {
  readonly unit: Precheck['unit'];
  readonly leftOut: boolean;
  readonly text: string;
}

const RULES: Readonly<Record<PrecheckKind, Rule>> = {
  missing: responses(true, 'expected each response on both sides'),
  'token-ids': responses(true, 'expected the same tokens on both sides, got others'),
  retokenised: responses(true, 'expected the same tokens on both sides, got the same text in other tokens'),
  'prompt-counted': responses(true, 'expected the tokens of the response, got those of the prompt with them'),
  length: responses(true, 'expected as many tokens on both sides'),
  mask: responses(true, 'expected the same mask on both sides'),
  'mask-shifted': responses(true, 'expected the same mask on both sides, got it shifted'),
  'nothing-counts': responses(true, 'expected a token that counts'),
  'not-finite': tokens(true, 'expected finite log-probs, got null, NaN or infinity'),
  'exact-zero': tokens(false, `expected log-probs, got exactly 0 where the other side is below ${SURE}`),
  'above-zero': tokens(false, 'expected log-probs of at most 0'),
  settings: responses(false, 'expected the same sampling settings on both sides'),
  'weights-version': responses(false, 'expected the same weights on both sides'),
};

/** Counts of what could be compared. */
export interface Compared {
  responses: number;
  /** That count, with both log-probs finite. */
  tokens: number;
  /** Of compared responses, with a mask of 0. */
  maskedTokens: number;
}

/** Aligns response after response, and keeps count of all that did not align or that no log-prob can be. */
export class Prechecks {
  readonly compared: Compared = { responses: 0, tokens: 0, maskedTokens: 0 };
  readonly #tallies = new Map<PrecheckKind, Tally>();
  readonly #missing: Record<Side, number> = { rollout: 0, training: 0 };
  /** Responses of both sides, and their tokens that count. */
  #matched = 0;
  #counting = 0;
  #highest = 0;

  /** The response token by token under both engines; undefined where it was refused, which is counted. */
  align(match: Match): Pair | undefined {
    if ('missing' in match) {
      const { missing, place, id } = match;
      this.#missing[missing]++;
      const name = id === null ? placeText(place) : `${placeText(place)}, id ${id}`;
      this.#note('missing', () => `${name}: not in ${missing}`, this.#missing[missing] <= NAMED);
      return undefined;
    }
    this.#matched++;
    return this.#alignTokens(match) ? this.#alignMasks(match) : undefined;
  }

  /** All that was found so far; nothing of what was not. */
  results(): Precheck[] {
    return precheckKinds.flatMap((kind) => {
      const tally = this.#tallies.get(kind);
      if (tally === undefined) return [];
      const { unit, leftOut, text } = RULES[kind];
      const { count, examples } = tally;
      const of = unit === 'tokens' ? this.#counting : this.#matched + (kind === 'missing' ? count : 0);
      return [{ kind, text: `${text}${this.#more(kind)}`, count, of, unit, leftOut, examples }];
    });
  }

  #more(kind: PrecheckKind): string {
    const { rollout, training } = this.#missing;
    if (kind === 'missing') return `, got ${rollout} that rollout lacks and ${training} that training lacks`;
    return kind === 'above-zero' ? `, got up to ${this.#highest.toPrecision(3)}` : '';
  }

  #alignTokens({ rollout, training }: Matched): boolean {
    const difference = compareTokens(rollout, training);
    if (difference === undefined) return true;
    this.#note(difference.kind, () => `${nameOf(rollout, training)}: ${difference.found}`);
    return false;
  }

  #alignMasks(match: Matched): Pair | undefined {
    const { rollout, training, index } = match;
    const length = rollout.own.logprobs.length;
    const name = nameOf(rollout, training);
    if (rollout.mask !== null && training.mask !== null) {
      const position = firstDifference(rollout.mask, training.mask);
      if (position >= 0) {
        const by = maskShift(rollout.mask, training.mask);
        if (by === 0) this.#note('mask', () => `${name}: differs from position ${position} on`);
        else this.#note('mask-shifted', () => `${name}: training's is rollout's, ${shiftText(by)}`);
        return undefined;
      }
    }
    const counts = rollout.mask ?? training.mask ?? new Uint8Array(length).fill(1);
    const mask = this.#finite(match, counts);
    const kept = sum(mask);
    if (kept === 0) {
      const why = length === 0 ? 'no tokens' : sum(counts) > 0 ? 'none is finite' : 'a mask of zeros';
      this.#note('nothing-counts', () => `${name}: ${why}`);
      return undefined;
    }
    this.#compareSettings(rollout, training);
    this.#compareVersions(rollout, training, mask);
    this.compared.responses++;
    this.compared.tokens += kept;
    this.compared.maskedTokens += length - sum(counts);
    return {
      id: rollout.id ?? `#${index + 1}`,
      index,
      places: { rollout: rollout.place, training: training.place },
      tokens: rollout.tokens ?? training.tokens,
      tokenTexts: rollout.tokenTexts ?? training.tokenTexts,
      rollout: rollout.own.logprobs,
      training: training.own.logprobs,
      mask,
      topLogprobs: {
        rollout: rollout.own.topLogprobs ?? null,
        training: training.own.topLogprobs ?? null,
      },
      step: rollout.step ?? training.step,
      batch: rollout.batch ?? training.batch,
      promptLength: (rollout.promptTokens ?? training.promptTokens)?.length ?? null,
      settings: { rollout: rollout.settings, training: training.settings },
      weightsVersions: { rollout: rollout.weightsVersion, training: training.weightsVersion },
    };
  }

  /** The mask without tokens that have no finite log-prob; what log-probs can't be is counted on the way. */
  #finite({ rollout, training }: Matched, counts: Uint8Array): Uint8Array {
    const mask = counts.slice();
    const note = (kind: PrecheckKind, t: number) =>
      this.#note(kind, () => {
        const [mu, pi] = [rollout, training].map(({ own }) => Number(own.logprobs[t]!.toPrecision(6)));
        return `${nameOf(rollout, training)}: position ${t}, ${mu} and ${pi}`;
      });
    for (let t = 0; t < mask.length; t++) {
      if (mask[t] === 0) continue;
      this.#counting++;
      const mu = rollout.own.logprobs[t]!;
      const pi = training.own.logprobs[t]!;
      if (!Number.isFinite(mu) || !Number.isFinite(pi)) {
        mask[t] = 0;
        note('not-finite', t);
        continue;
      }
      if ((mu === 0 && pi < SURE) || (pi === 0 && mu < SURE)) note('exact-zero', t);
      if (mu > MAX_LOGPROB || pi > MAX_LOGPROB) {
        this.#highest = Math.max(this.#highest, mu, pi);
        note('above-zero', t);
      }
    }
    return mask;
  }

  #compareSettings(rollout: OwnRecord, training: OwnRecord): void {
    const differing = (['temperature', 'topP', 'topK'] as const).filter((name) => {
      const [a, b] = [rollout.settings[name], training.settings[name]];
      return a !== null && b !== null && a !== b;
    });
    if (differing.length === 0) return;
    this.#note('settings', () => {
      const found = differing.map(
        (name) => `${name} ${rollout.settings[name]} and ${training.settings[name]}`,
      );
      return `${nameOf(rollout, training)}: ${found.join(', ')}`;
    });
  }

  #compareVersions(rollout: OwnRecord, training: OwnRecord, mask: Uint8Array): void {
    const [a, b] = [rollout.weightsVersion, training.weightsVersion];
    if (a === null || b === null) return;
    for (let t = 0; t < mask.length; t++) {
      const [mu, pi] = [typeof a === 'string' ? a : a[t]!, typeof b === 'string' ? b : b[t]!];
      if (mask[t] === 0 || mu === pi) continue;
      this.#note('weights-version', () => `${nameOf(rollout, training)}: position ${t}, ${mu} and ${pi}`);
      return;
    }
  }

  /** @param named whether it is among the first of its kind; of `missing`, among those of its side */
  #note(kind: PrecheckKind, example: () => string, named?: boolean): void {
    const tally = this.#tallies.get(kind) ?? { count: 0, examples: [] };
    this.#tallies.set(kind, tally);
    tally.count++;
    if (named ?? tally.examples.length < NAMED) tally.examples.push(example());
  }
}

/** Where a response is, and its id: `rollout.jsonl:3, training.jsonl:5, id a17`. */
function nameOf(rollout: OwnRecord, training: OwnRecord): string {
  const places = [...new Set([placeText(rollout.place), placeText(training.place)])];
  return rollout.id === null ? places.join(', ') : `${places.join(', ')}, id ${rollout.id}`;
}

function sum(mask: Uint8Array): number {
  let total = 0;
  for (const value of mask) total += value;
  return total;
}

function firstDifference(a: Uint8Array, b: Uint8Array): number {
  return a.findIndex((value, t) => value !== b[t]);
}

function shiftText(by: number): string {
  return `${Math.abs(by)} ${Math.abs(by) === 1 ? 'position' : 'positions'} ${by > 0 ? 'later' : 'earlier'}`;
}

function responses(leftOut: boolean, text: string): Rule {
  return { unit: 'responses', leftOut, text };
}

function tokens(leftOut: boolean, text: string): Rule {
  return { unit: 'tokens', leftOut, text };
}
