/** Tables and the chart of scripts/diagnose-proof.mjs. */
import { drawSvg } from '../dist/lib/report/render.js';

/** What each fault has to be called. */
const EXPECTED = {
  'off-by-one': 'shift',
  temperature: 'temperature',
  'divided-by-temperature': 'scaled',
  'top-p-mass': 'kept-mass',
  'stale-weights': 'stale-weights',
  'zero-fill': 'zero-fill',
  'bf16-head': '16-bit-logits',
  'logits-16': '16-bit-logits',
  'split-k': 'reduction-order',
  'batch-variance': 'batch-variance',
  retokenised: 'retokenised',
  'prompt-counted': 'prompt-counted',
  'mask-shifted': 'mask-shifted',
  'corrupted-layer': 'different-weights',
  'routing-flip': 'outliers',
};
const LEVELS = ['weak', 'ordinary', 'strong'];

/** @returns numbers for the JSON, and the same as Markdown */
export function summarize(points) {
  const clean = points.filter(({ fault }) => fault === 'none');
  const settings = [...new Set(points.map(settingOf))];
  const cleanRows = settings.map((setting) => {
    const own = clean.filter((point) => settingOf(point) === setting);
    return { setting, runs: own.length, ...countBy(own, ({ verdict }) => verdict) };
  });
  const faultRows = Object.keys(EXPECTED).map((fault) => {
    const own = points.filter((point) => point.fault === fault);
    return {
      fault,
      cause: EXPECTED[fault],
      ...Object.fromEntries(
        LEVELS.map((level) => [level, named(own.filter((point) => point.level === level))]),
      ),
      bySetting: Object.fromEntries(
        settings.map((setting) => [
          setting,
          named(own.filter((point) => point.level === 'ordinary' && settingOf(point) === setting)),
        ]),
      ),
    };
  });
  const ordinary = points.filter(({ fault, level }) => fault === 'none' || level === 'ordinary');
  const confusion = ['none', ...Object.keys(EXPECTED)].map((fault) => ({
    fault,
    ...countBy(
      ordinary.filter((point) => point.fault === fault),
      ({ cause }) => cause,
    ),
  }));
  return {
    json: { clean: cleanRows, faults: faultRows, confusion },
    text: [cleanTable(cleanRows), faultTable(faultRows, settings), confusionTable(confusion)].join('\n\n'),
  };
}

/** Faults against causes at ordinary strength, as a heat map. */
export function drawConfusion(points) {
  const ordinary = points.filter(({ fault, level }) => fault === 'none' || level === 'ordinary');
  const faults = ['none', ...Object.keys(EXPECTED)];
  const causes = ['bit-identical', 'rounding', ...new Set(Object.values(EXPECTED))];
  const all = [
    ...causes,
    ...new Set(ordinary.map(({ cause }) => cause).filter((cause) => !causes.includes(cause))),
  ];
  const cells = faults.flatMap((fault) => {
    const own = ordinary.filter((point) => point.fault === fault);
    return Object.entries(countBy(own, ({ cause }) => cause)).map(([cause, count]) => ({
      fault,
      cause,
      count,
      share: count / own.length,
    }));
  });
  return drawSvg({
    $schema: 'https://vega.github.io/schema/vega-lite/v6.json',
    background: '#ffffff',
    width: 560,
    height: 420,
    data: { values: cells },
    encoding: {
      x: {
        field: 'cause',
        type: 'nominal',
        sort: all,
        scale: { domain: all },
        title: 'cause that comes first',
        axis: { labelAngle: -40 },
      },
      y: {
        field: 'fault',
        type: 'nominal',
        sort: faults,
        scale: { domain: faults },
        title: 'fault injected',
      },
    },
    layer: [
      {
        mark: { type: 'rect' },
        encoding: {
          color: {
            field: 'share',
            type: 'quantitative',
            scale: { scheme: 'blues', domain: [0, 1] },
            title: 'share',
            legend: { format: '%' },
          },
        },
      },
      {
        mark: { type: 'text', fontSize: 11 },
        encoding: {
          text: { field: 'count', type: 'quantitative' },
          color: { condition: { test: 'datum.share > 0.5', value: '#ffffff' }, value: '#000000' },
        },
      },
    ],
    config: { font: 'system-ui, -apple-system, "Segoe UI", Roboto, sans-serif', view: { stroke: null } },
  });
}

function settingOf({ precision, numerics }) {
  return `${precision} ${numerics}`;
}

function named(points) {
  const hits = points.filter(({ fault, cause }) => cause === EXPECTED[fault]).length;
  return { named: hits, of: points.length };
}

function countBy(points, key) {
  const counts = {};
  for (const point of points) counts[key(point)] = (counts[key(point)] ?? 0) + 1;
  return counts;
}

function share({ named, of }) {
  return of === 0 ? '-' : `${named}/${of}`;
}

function table(headings, rows) {
  const line = (cells) => `| ${cells.join(' | ')} |`;
  return [line(headings), line(headings.map(() => '---')), ...rows.map(line)].join('\n');
}

function cleanTable(rows) {
  const verdicts = ['NOISE FLOOR', 'SUSPICIOUS', 'BROKEN'];
  return table(
    ['clean runs', 'runs', ...verdicts],
    rows.map((row) => [row.setting, row.runs, ...verdicts.map((verdict) => row[verdict] ?? 0)]),
  );
}

function faultTable(rows, settings) {
  return table(
    ['fault', 'named', ...LEVELS, ...settings.map((setting) => `ordinary, ${setting}`)],
    rows.map((row) => [
      row.fault,
      row.cause,
      ...LEVELS.map((level) => share(row[level])),
      ...settings.map((setting) => share(row.bySetting[setting])),
    ]),
  );
}

function confusionTable(rows) {
  return rows
    .map(({ fault, ...counts }) => {
      const list = Object.entries(counts).sort((a, b) => b[1] - a[1]);
      return `- ${fault}: ${list.map(([cause, count]) => `${cause} ${count}`).join(', ')}`;
    })
    .join('\n');
}
