import { type Finding, type Signature, said } from './signature.js';

/** Upper ends of 1 - p. */
const EDGES = [0.01, 0.1, 0.5, 0.9, 1];

/** How the mismatch grows where the policy is less sure; rounding makes it grow in proportion to 1 - p. */
export const uncertainty: Signature = {
  name: 'uncertainty',
  title: 'growth with entropy, or low probability',
  test({ count, d, openness }): Finding {
    const bins = EDGES.map(() => ({ n: 0, absolute: 0, open: 0 }));
    for (let i = 0; i < count; i++) {
      const bin = bins[EDGES.findIndex((edge) => openness[i]! <= edge)]!;
      bin.n++;
      bin.absolute += Math.abs(d[i]!);
      bin.open += openness[i]!;
    }
    const values: Record<string, number> = {};
    const parts: string[] = [];
    bins.forEach(({ n, absolute, open }, b) => {
      if (n === 0) return;
      values[`meanAbs${EDGES[b]}`] = absolute / n;
      values[`noise${EDGES[b]}`] = absolute === 0 ? 0 : absolute / open;
      parts.push(`${said(absolute / n)} up to ${EDGES[b]}`);
    });
    const [sure, unsure] = [values['noise0.1'], values.noise1 ?? values['noise0.9']];
    const ratio = sure !== undefined && unsure !== undefined && sure > 0 ? unsure / sure : Number.NaN;
    return {
      found: ratio >= 4,
      explained: null,
      evidence: `mean |log mu - log pi| by 1 - p: ${parts.join(', ')}${Number.isNaN(ratio) ? '' : `; over 1 - p the least likely tokens have ${said(ratio)} times the noise of likely ones`}`,
      values: { ...values, ...(Number.isNaN(ratio) ? {} : { ratio }) },
    };
  },
};
