/** What answers say, once they are read. */
import type { Expression } from './expression.js';

export type Form =
  /** A number or formula, perhaps with a unit (`cm^2`, `%`, `°`, `$`, `distinct integer`). */
  | { readonly kind: 'quantity'; readonly value: Expression; readonly unit?: string }
  /** `x = ...`, `x \in ...`; `equation`, which is zero where it holds, if both sides are formulas. */
  | { readonly kind: 'named'; readonly name: string; readonly value: Form; readonly equation?: Expression }
  /** `left operator right`, as `difference operator 0`. */
  | { readonly kind: 'relation'; readonly difference: Expression; readonly operator: string }
  /** `a, b, c`, `a or b`: in any order. */
  | { readonly kind: 'list'; readonly items: readonly Form[] }
  /** `{a, b}`: in any order, however often. */
  | { readonly kind: 'set'; readonly items: readonly Form[] }
  /** `(a, b)`, `[a, b)`: points, vectors, intervals. */
  | { readonly kind: 'tuple'; readonly brackets: string; readonly items: readonly Form[] }
  | { readonly kind: 'union'; readonly items: readonly Form[] }
  | { readonly kind: 'matrix'; readonly rows: readonly (readonly Form[])[] }
  /** `3:2`, `8:34 p.m.` */
  | { readonly kind: 'ratio'; readonly parts: readonly Expression[]; readonly unit?: string }
  /** `101_2` */
  | { readonly kind: 'digits'; readonly digits: string; readonly base: number }
  /** `(C) 12`: a letter of multiple choice with what it stands for; a letter alone is a quantity. */
  | { readonly kind: 'choice'; readonly letter: Expression; readonly content: Form }
  | { readonly kind: 'words'; readonly text: string }
  /** What cannot be read: it equals what is spelled alike. */
  | { readonly kind: 'opaque' };

export type Tuple = Extract<Form, { kind: 'tuple' }>;
export type Named = Extract<Form, { kind: 'named' }>;

export interface Answer {
  /** One text for all spellings that differ in looks only. */
  readonly text: string;
  readonly form: Form;
}
