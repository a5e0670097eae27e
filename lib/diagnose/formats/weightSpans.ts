/** The version of the weights as SGLang tells it (python/sglang/srt/utils/weight_versions.py, 2026). */
import type { Fields } from './fields.js';

/** What SGLang calls weights that nobody gave a version. */
const UNNAMED = 'default';

/**
 * `weight_version`, a text; or, where weights changed on the way and the spans are those of this response's tokens (`hasSpans`), `weight_versions` of {version,
 * start, end}: the version that sampled each of `length` tokens.
 */
export function weightsOf(fields: Fields, length: number, hasSpans: boolean): string | string[] | null {
  const spans = hasSpans ? (fields.objects('weight_versions') ?? []) : [];
  if (spans.length > 1) {
    const versions = spans.flatMap((span) => {
      const [start, end] = [span.integer('start'), span.integer('end')];
      const version = span.id('version');
      if (version === null || start === null || end === null || end < start) {
        fields.fail('weight_versions', 'to be spans {version, start, end}', span.values);
      }
      return Array.from({ length: end - start }, () => version);
    });
    if (versions.length !== length) {
      fields.fail('weight_versions', `to cover the ${length} tokens of the response`, versions);
    }
    return versions;
  }
  const version = spans[0]?.id('version') ?? fields.id('weight_version');
  return version === UNNAMED ? null : version;
}
