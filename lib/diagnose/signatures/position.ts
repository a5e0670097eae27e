import { clusteredMean } from '../countedTokens.js';
import { nth } from '../select.js';
import { type Finding, notTestable, OPEN, type Signature, said } from './signature.js';

const RATIO = 3;
const ERRORS = 6;

/** Noise that grows along the response: a cache in fewer bits, positions or chunks that the engines treat otherwise. */
export const position: Signature = {
  name: 'position',
  title: 'growth with position',
  test(tokens): Finding {
    const { count, token, response, sample, d, openness } = tokens;
    const places = new Float64Array(count);
    let n = 0;
    for (let i = 0; i < count; i++)
      if (openness[i]! >= OPEN) places[n++] = token[i]! - sample.offsets[response[i]!]!;
    if (n < 60) return notTestable('needs 60 unsure tokens');
    const early = nth(places.subarray(0, n), Math.floor(n / 3));
    const late = nth(places.subarray(0, n), Math.floor((2 * n) / 3));
    const part = (from: number, to: number) =>
      clusteredMean(tokens, (i) => {
        const place = token[i]! - sample.offsets[response[i]!]!;
        return openness[i]! >= OPEN && place >= from && place <= to
          ? Math.abs(d[i]!) / openness[i]!
          : Number.NaN;
      });
    const [a, b] = [part(0, early), part(late, Number.POSITIVE_INFINITY)];
    const ratio = a.mean === 0 ? (b.mean === 0 ? 1 : Number.POSITIVE_INFINITY) : b.mean / a.mean;
    const errors = ratio === 1 ? 0 : (b.mean - a.mean) / Math.hypot(a.error, b.error);
    return {
      found: ratio >= RATIO && errors >= ERRORS,
      explained: null,
      evidence: `the noise of the logits is ${said(b.mean)} from position ${late} on and ${said(a.mean)} up to ${early}: ${said(ratio)} times (${said(Math.abs(errors))} standard errors)`,
      values: { ratio, errors, early, late },
    };
  },
};
