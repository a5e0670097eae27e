/** Who judges the responses to the problems of a data set: the math verifier, plain comparison, or a user's own module. */
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { basename, resolve } from 'node:path';
import type { Problem } from '../data/problems.js';
import { InternalError, InvalidArgumentError, invalid, nearest } from '../errors.js';
import { MathVerifier, type MathVerifierOptions, mathVerifierVersion } from '../tasks/math/verifier.js';
import { callUser, importDefault, isUserModule } from './userModule.js';

/** Judges responses as text. */
export interface ResponseVerifier extends AsyncDisposable {
  /** Changes with whatever may change a verdict; runs record it. */
  readonly version: string;
  /** Whether problems must have answers. */
  readonly needsAnswers: boolean;
  /** The reward of a response: 1 for a right one, 0 for a wrong one; a user's may give any finite number. */
  verify(response: string, problem: Problem): Promise<number>;
}

/** A user's own verdict: `export default (response, problem) => response.includes(problem.answers[0])`. */
export type UserVerifier = (
  response: string,
  problem: Problem,
) => number | boolean | Promise<number | boolean>;

const mathOptions = {
  /** The last `\boxed`, equal in value: of MATH, AIME and AMC. */
  math: { mode: 'symbolic', place: 'boxed' },
  /** The same, equal in form. */
  'math-strict': { mode: 'strict', place: 'boxed' },
  /** Also `<answer>`, `####` and "the answer is". */
  'math-stated': { mode: 'symbolic', place: 'stated' },
} as const satisfies Record<string, MathVerifierOptions>;

/** The verifiers that are built in; any other is a file. */
export const verifierNames: readonly string[] = [...Object.keys(mathOptions), 'exact'];

/**
 * Checks the form of a verifier's spec: a name, or the path of a file, which is made absolute so that a run can be resumed
 * from any folder.
 *
 * @throws InvalidArgumentError naming the verifiers that there are, and the nearest
 */
export function resolveVerifierSpec(where: string, spec: unknown, name = 'verifier'): string {
  if (typeof spec === 'string' && isUserModule(spec)) return resolve(spec);
  if (typeof spec === 'string' && verifierNames.includes(spec)) return spec;
  const near = typeof spec === 'string' ? nearest(spec, verifierNames) : undefined;
  throw new InvalidArgumentError(
    `[${where}] expected ${name} to be one of ${verifierNames.join(', ')}, or a file ending in .ts, .mts, .js or .mjs, ` +
      `got ${JSON.stringify(spec)}${near === undefined ? '' : ` (did you mean ${near}?)`}`,
  );
}

/**
 * The verifier that a spec names: `math`, `math-strict`, `math-stated`, `exact` (the response is one of the answers,
 * letter by letter but for space around it), or a file whose default export is a {@link UserVerifier}.
 *
 * @throws InvalidArgumentError on an unknown name, or a file that is missing, does not run or exports no function
 */
export async function loadVerifier(spec: string): Promise<ResponseVerifier> {
  const where = 'verifier';
  const resolved = resolveVerifierSpec(where, spec);
  if (resolved in mathOptions) return mathVerifier(resolved as keyof typeof mathOptions);
  if (resolved === 'exact') return exactVerifier;
  const exported = await importDefault(where, resolved);
  if (typeof exported !== 'function') {
    invalid(
      where,
      `the default export of ${resolved} to be a function of a response and its problem`,
      exported,
    );
  }
  return userVerifier(resolved, exported as UserVerifier, await readFile(resolved));
}

function mathVerifier(name: keyof typeof mathOptions): ResponseVerifier {
  const verifier = new MathVerifier(mathOptions[name]);
  return {
    version: `${mathVerifierVersion}/${name}`,
    needsAnswers: true,
    verify: async (response, { answers }) => ((await verifier.verify(response, answers)).correct ? 1 : 0),
    [Symbol.asyncDispose]: () => verifier.close(),
  };
}

const exactVerifier: ResponseVerifier = {
  version: 'exact-1',
  needsAnswers: true,
  async verify(response, { answers }) {
    const given = response.trim();
    return answers.some((answer) => answer.trim() === given) ? 1 : 0;
  },
  async [Symbol.asyncDispose]() {},
};

/** For prompts whose responses have no rewards. */
export const unjudged: ResponseVerifier = {
  version: 'none',
  needsAnswers: false,
  verify: () => Promise.reject(new InternalError('responses to prompts without a verifier have no rewards')),
  async [Symbol.asyncDispose]() {},
};

function userVerifier(path: string, verify: UserVerifier, source: Buffer): ResponseVerifier {
  const digest = createHash('sha256').update(source).digest('hex').slice(0, 16);
  return {
    version: `${basename(path)}/sha256-${digest}`,
    needsAnswers: false,
    async verify(response, problem) {
      const what = `${path} to judge a response to problem ${problem.id}`;
      const reward: unknown = await callUser('verifier', what, () => verify(response, problem));
      // Number() would make a 0 of null, '' and [], which are mistakes.
      if (typeof reward !== 'boolean' && !(typeof reward === 'number' && Number.isFinite(reward))) {
        invalid('verifier', `${path} to return a finite number or a boolean`, reward);
      }
      return Number(reward);
    },
    async [Symbol.asyncDispose]() {},
  };
}
