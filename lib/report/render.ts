import { InternalError } from '../errors.js';
import type { ChartSpec } from './figure.js';

/** What is used of vega and vega-lite; their own types need a browser's. */
interface Vega {
  parse(spec: object, config?: object): object;
  readonly View: new (runtime: object, options: object) => { toSVG(): Promise<string>; finalize(): void };
  readonly Warn: number;
}
interface VegaLite {
  compile(spec: object, options: object): { readonly spec: object };
}

/** The width of drawn charts; on a page they take the width that there is. */
const WIDTH = 680;

/** What both the page and the SVG look like; colours of text and lines are those of the theme. */
export const baseConfig = {
  background: null,
  font: 'system-ui, -apple-system, "Segoe UI", Roboto, sans-serif',
  axis: { labelFontSize: 12, titleFontSize: 13, titleFontWeight: 'normal', gridOpacity: 0.35, tickSize: 4 },
  legend: {
    labelFontSize: 12,
    titleFontSize: 12,
    titleFontWeight: 'normal',
    orient: 'top',
    columns: 3,
    labelLimit: 360,
    // Vega's own limit of 30 would leave lines without a name.
    symbolLimit: 1000,
  },
  header: { labelFontSize: 13, titleFontSize: 13 },
  view: { stroke: null },
} as const;

/**
 * A Vega-Lite spec as Vega. What the compiler warns of (a field that is missing) is a mistake in a spec or its data.
 *
 * @throws InternalError with the first warning
 */
export async function compileSpec(spec: ChartSpec): Promise<object> {
  const { compile } = (await import('vega-lite' as string)) as VegaLite;
  const config = { ...baseConfig, ...(spec.config as object | undefined) };
  return compile({ ...spec, config }, { logger: strictLogger() }).spec;
}

/** A chart as SVG text: the same spec and data give the same bytes. */
export async function renderSvg(spec: ChartSpec): Promise<string> {
  const { parse, View, Warn } = (await import('vega' as string)) as Vega;
  const still = withoutParams(spec) as ChartSpec;
  const compiled = await compileSpec(still.width === 'container' ? { ...still, width: WIDTH } : still);
  const options = { renderer: 'none', logLevel: Warn, logger: strictLogger() };
  const view = new View(parse({ ...compiled, background: '#ffffff' }), options);
  try {
    return await view.toSVG();
  } finally {
    view.finalize();
  }
}

/** A spec without what answers to a reader: a drawing has none. */
function withoutParams(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutParams);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).flatMap(([key, inner]) => {
      if (key === 'params') return [];
      return [[key, key === 'values' ? inner : withoutParams(inner)]];
    }),
  );
}

function strictLogger(): object {
  const fail = (...messages: readonly unknown[]): never => {
    throw new InternalError(`[report] a chart's spec does not fit its data: ${messages.join(' ')}`);
  };
  const logger = {
    level: () => logger,
    error: fail,
    warn: fail,
    info: () => logger,
    debug: () => logger,
  };
  return logger;
}
