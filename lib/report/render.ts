import { InternalError } from '../errors.js';
import { type ChartSpec, onPhone } from './figure.js';

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
  axis: {
    labelFontSize: 12,
    titleFontSize: 13,
    titleFontWeight: 'normal',
    gridOpacity: 0.35,
    tickSize: 4,
    labelLimit: onPhone(180, 320),
    titlePadding: 8,
  },
  // Labels of the ends stand under their ticks, like the others.
  axisX: { labelFlush: false },
  padding: { left: 5, top: 5, right: 14, bottom: 5 },
  legend: {
    labelFontSize: 12,
    titleFontSize: 12,
    titleFontWeight: 'normal',
    orient: 'top',
    // A chart as wide as a phone would cut off further columns.
    columns: onPhone(1, 3),
    // Far more than any takes: drawn without a browser, text is thought to be half as wide again as it is.
    labelLimit: onPhone(300, 600),
    // Vega's own limit of 30 would leave lines without a name.
    symbolLimit: 1000,
  },
  header: { labelFontSize: 13, titleFontSize: 13 },
  view: { stroke: null },
  facet: { spacing: 30 },
  tooltipFormat: { numberFormat: '.4~g' },
} as const;

/** A spec of ours as Vega, in {@link baseConfig}'s looks. */
export async function compileSpec(spec: ChartSpec): Promise<object> {
  const compiled = await compile({
    ...spec,
    config: { ...baseConfig, ...(spec.config as object | undefined) },
  });
  return fitPanels(compiled);
}

/** A chart of ours as SVG text, on white: the same spec and data give the same bytes. */
export async function renderSvg(spec: ChartSpec): Promise<string> {
  const still = withoutParams(spec) as ChartSpec;
  const sized = still.width === 'container' ? { ...still, width: WIDTH } : still;
  return draw({ ...(await compileSpec(sized)), background: '#ffffff' });
}

/** Any Vega-Lite spec, its data within it, as SVG text in its own looks: the same spec and data give the same bytes. */
export async function drawSvg(spec: ChartSpec): Promise<string> {
  return draw(await compile(spec));
}

/**
 * Vega-Lite as Vega. What the compiler warns of (a field that is missing) is a mistake in a spec or its data.
 *
 * @throws InternalError with the first warning
 */
async function compile(spec: ChartSpec): Promise<object> {
  const { compile } = (await import('vega-lite' as string)) as VegaLite;
  return compile(spec, { logger: strictLogger() }).spec;
}

/** What is used of a compiled chart that has panels. */
interface Compiled {
  readonly signals?: readonly { readonly name: string; readonly value?: unknown }[];
  readonly data?: readonly { readonly name: string; readonly transform?: readonly Sequence[] }[];
  readonly layout?: { readonly columns?: unknown };
}
interface Sequence {
  readonly stop?: { readonly signal: string };
}

/** What stands beside a panel: labels, margins of the page. */
const BESIDE = 190;

/** Panels one below another on a phone, and no wider than it. (Vega-Lite takes numbers alone for both.) */
function fitPanels(compiled: Compiled): object {
  const columns = compiled.layout?.columns;
  if (typeof columns !== 'number') return compiled;
  const here = `(${onPhone(1, columns).expr})`;
  const width = compiled.signals?.find(({ name }) => name === 'child_width')?.value;
  const signals = compiled.signals?.map((signal) => {
    const square = signal.name === 'child_height' && signal.value === width;
    if (typeof width !== 'number' || !(signal.name === 'child_width' || square)) return signal;
    const narrow = `windowSize()[0] < 600 ? min(${width}, windowSize()[0] - ${BESIDE}) : ${width}`;
    return { name: signal.name, update: narrow };
  });
  // How many panels have a header of their own.
  const data = compiled.data?.map((entry) => ({
    ...entry,
    ...(/^facet_domain_(row|column)$/.test(entry.name) && {
      transform: entry.transform?.map((step) => ({
        ...step,
        ...(step.stop && {
          stop: { signal: step.stop.signal.replace(/(\/|,) \d+(?=\)$)/, (_, sign) => `${sign} ${here}`) },
        }),
      })),
    }),
  }));
  return { ...compiled, signals, data, layout: { ...compiled.layout, columns: { signal: here } } };
}

/** @throws InternalError with the first warning (an infinite extent, say) */
async function draw(compiled: object): Promise<string> {
  const { parse, View, Warn } = (await import('vega' as string)) as Vega;
  const view = new View(parse(compiled), { renderer: 'none', logLevel: Warn, logger: strictLogger() });
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
    // Vega tells of what is thrown while it draws once more, as an error.
    const known = messages.find((message) => message instanceof InternalError);
    if (known !== undefined) throw known;
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
