/** The version of the weights as SGLang tells it (python/sglang/srt/utils/weight_versions.py, 2026). */
import type { Fields } from './fields.js';

/** What SGLang calls weights that nobody gave a version. */
const UNNAMED = 'default';

/**
 * `weight_version`, a text; or, where weights changed on the way and the spans are those of this response's tokens
 * (`hasSpans`), `weight_versions` of {version, start, end}: the version that sampled each of `length` tokens.
 */
export function weightsOf(fields: Fields, length: number, hasSpans: boolean): string | string[] | null {
  const spans = hasSpans ? (fields.objects('weight_versions') ?? []) : [];
  if (spans.length > 1) {
    const versions: string[] = [];
    for (const span of spans) {
      const [version, start, end] = [span.id('version'), span.integer('start'), span.integer('end')];
      if (version === null || start !== versions.length || end === null || end < start || end > length) {
        const expected = `to be spans {version, start, end} that follow each other up to ${length}`;
        fields.fail('weight_versions', expected, span.values);
      }
      for (let t = start; t < end; t++) versions.push(version);
    }
    if (versions.length !== length) {
      fields.fail('weight_versions', `to cover the ${length} tokens of the response`, versions);
    }
    return versions;
  }
  const version = spans[0]?.id('version') ?? fields.id('weight_version');
  return version === UNNAMED ? null : version;
}
