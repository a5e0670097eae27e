import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { join, sep } from 'node:path';
import { metricDefinitions, rangeText } from '../mismatch/definitions.js';
import { type Figure, onDark } from './figure.js';
import { compileSpec, renderSvg } from './render.js';

/** A part of the page: a run, or runs that are shown together. */
export interface Section {
  readonly title: string;
  /** Lines of plain text: verdict, settings, what the reader should know. */
  readonly lines: readonly string[];
  /** What the command printed, in a fixed-width block. */
  readonly text?: string;
  /** The command that made it. */
  readonly command: string;
  readonly figures: readonly Figure[];
}

export interface Page {
  readonly title: string;
  readonly sections: readonly Section[];
  /** What made the page: version, machine. */
  readonly footer: string;
}

/** Marks a page as one of ours, which may be written over. */
export const PAGE_MARK = '<meta name="generator" content="isopolicy report">';

/**
 * One self-contained page: styles, data and the chart runtime are within it, nothing is fetched. Charts are there as SVG
 * at once; the script then draws them anew in the reader's theme and width, with tooltips and zoom.
 */
export async function renderPage({ title, sections, footer }: Page): Promise<string> {
  const body: string[] = [];
  let number = 0;
  for (const section of sections) {
    const figures: string[] = [];
    for (const figure of section.figures) figures.push(await figureHtml(figure, number++));
    // The title of the page stands right above its only section: not the same words twice.
    const repeated = sections.length === 1 && section.title === title;
    body.push(
      '<section>',
      ...(repeated ? [] : [`<h2>${escapeHtml(section.title)}</h2>`]),
      ...section.lines.map((line) => `<p>${escapeHtml(line)}</p>`),
      `<p class="command"><code>${escapeHtml(section.command)}</code></p>`,
      ...(section.text === undefined ? [] : [`<pre>${escapeHtml(section.text)}</pre>`]),
      ...figures,
      '</section>',
    );
  }
  const vega = await readFile(vegaRuntime(), 'utf8');
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
${PAGE_MARK}
<title>${escapeHtml(title)}</title>
<style>
${STYLE}
</style>
</head>
<body>
<header><h1>${escapeHtml(title)}</h1><button id="theme" type="button" aria-label="switch between light and dark">light / dark</button></header>
<main>
${body.join('\n')}
${definitionsHtml()}
</main>
<footer><p>${escapeHtml(footer)}</p>
<p>Charts: Vega (BSD 3-Clause, University of Washington Interactive Data Lab).</p></footer>
<div id="tip" role="status"></div>
<script>
${scriptText(vega)}
</script>
<script>
${SCRIPT}
</script>
</body>
</html>
`;
}

/** The browser build of the vega package, wherever it is installed. */
function vegaRuntime(): string {
  const entry = createRequire(import.meta.url).resolve('vega');
  const folder = entry.slice(0, entry.lastIndexOf(`${sep}vega${sep}`));
  return join(folder, 'vega', 'build', 'vega.min.js');
}

async function figureHtml({ id, title, caption, spec }: Figure, number: number): Promise<string> {
  const svg = (await renderSvg(spec)).replace('<svg ', `<svg role="img" aria-label="${escapeHtml(title)}" `);
  const compiled = JSON.stringify(await compileSpec(spec));
  return `<figure id="${escapeHtml(`${id}-${number}`)}">
<h3>${escapeHtml(title)}</h3>
<div class="chart">${svg}</div>
<figcaption>${escapeHtml(caption)}</figcaption>
<script type="application/json" class="spec">${scriptText(compiled)}</script>
</figure>`;
}

function definitionsHtml(): string {
  const rows = Object.entries(metricDefinitions).map(([name, { label, definition, unit, healthy }]) => {
    const range = healthy ? rangeText(healthy) : '';
    const cells = [name, label, definition, unit, range, healthy?.source ?? ''];
    return `<tr>${cells.map((cell) => `<td>${escapeHtml(cell)}</td>`).join('')}</tr>`;
  });
  return `<section><details><summary>What the metrics mean</summary>
<p>mu is the rollout engine's policy, pi the training engine's; r = pi / mu of a token, L the sum of log pi - log mu over a response. Estimates are on raw ratios, before any truncation; masked tokens are left out.</p>
<div class="wide"><table><thead><tr><th>name</th><th>label</th><th>definition</th><th>unit</th><th>healthy</th><th>says who</th></tr></thead>
<tbody>${rows.join('\n')}</tbody></table></div></details></section>`;
}

export function escapeHtml(text: string): string {
  return text
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;');
}

/** Text that may stand within a script element: nothing in it ends the element. */
function scriptText(text: string): string {
  return text.replaceAll('<!--', '<\\!--').replaceAll(/<\/(script)/gi, '<\\/$1');
}

const STYLE = `:root { color-scheme: light; --back: #ffffff; --text: #1b1f24; --faint: #57606a; --line: #d0d7de; --block: #f6f8fa; }
:root[data-theme="dark"] { color-scheme: dark; --back: #0f1317; --text: #e6e9ec; --faint: #9aa4ae; --line: #30363d; --block: #171c22; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--text); font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
header, main, footer { max-width: 820px; margin: 0 auto; padding: 0 16px; }
header { display: flex; align-items: baseline; justify-content: space-between; gap: 12px; padding-top: 24px; }
h1 { font-size: 1.5rem; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 0.4rem; padding-top: 1rem; border-top: 1px solid var(--line); overflow-wrap: anywhere; }
h3 { font-size: 1rem; margin: 0 0 0.4rem; }
p { margin: 0.3rem 0; overflow-wrap: anywhere; }
pre { background: var(--block); border: 1px solid var(--line); border-radius: 6px; padding: 10px 12px; overflow-x: auto; font-size: 12.5px; line-height: 1.4; }
code { background: var(--block); border-radius: 4px; padding: 1px 5px; font-size: 0.85em; overflow-wrap: anywhere; }
figure { margin: 1.6rem 0; }
figcaption { color: var(--faint); font-size: 0.88rem; }
.chart { overflow-x: auto; }
.chart svg { max-width: none; height: auto; display: block; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.85rem; min-width: 720px; }
td:nth-child(5) { white-space: nowrap; }
th, td { text-align: left; vertical-align: top; padding: 3px 10px 3px 0; border-bottom: 1px solid var(--line); }
summary { cursor: pointer; }
footer { color: var(--faint); font-size: 0.85rem; padding-top: 2rem; padding-bottom: 2rem; }
button { font: inherit; font-size: 0.8rem; color: var(--text); background: var(--block); border: 1px solid var(--line); border-radius: 6px; padding: 4px 10px; cursor: pointer; white-space: nowrap; }
#tip { position: fixed; display: none; pointer-events: none; z-index: 9; background: var(--block); color: var(--text); border: 1px solid var(--line); border-radius: 6px; padding: 6px 9px; font-size: 12.5px; max-width: min(420px, calc(100vw - 8px)); white-space: pre-wrap; overflow-wrap: anywhere; box-shadow: 0 2px 8px rgba(0, 0, 0, 0.2); }`;

const SCRIPT = `'use strict';
const root = document.documentElement;
const prefersDark = matchMedia('(prefers-color-scheme: dark)');
const theme = () => root.dataset.theme;
const setTheme = (name) => { root.dataset.theme = name; drawAll(); };
const tip = document.getElementById('tip');
const lines = (value) => typeof value === 'object' && value !== null
  ? Object.entries(value).map(([key, v]) => key + ': ' + v).join('\\n') : String(value);
const tooltip = (_handler, event, _item, value) => {
  if (value === null || value === undefined || value === '') { tip.style.display = 'none'; return; }
  tip.textContent = lines(value);
  tip.style.display = 'block';
  const { width, height } = tip.getBoundingClientRect();
  tip.style.left = Math.max(4, Math.min(event.clientX + 14, innerWidth - width - 4)) + 'px';
  tip.style.top = Math.max(4, Math.min(event.clientY + 14, innerHeight - height - 4)) + 'px';
};
const colors = () => {
  const style = getComputedStyle(root);
  const of = (name) => style.getPropertyValue(name).trim();
  const [text, faint, line] = [of('--text'), of('--faint'), of('--line')];
  return {
    background: 'transparent',
    axis: { labelColor: text, titleColor: text, gridColor: line, domainColor: faint, tickColor: faint },
    legend: { labelColor: text, titleColor: text },
    title: { color: text },
    style: { 'guide-label': { fill: text }, 'guide-title': { fill: text }, 'cell': { stroke: line } },
  };
};
const views = [];
const figures = [...document.querySelectorAll('figure')].map((figure) => ({
  chart: figure.querySelector('.chart'),
  text: figure.querySelector('.spec').textContent,
}));
const onDark = ${JSON.stringify(onDark)};
const specOf = (text) => JSON.parse(theme() !== 'dark' ? text
  : Object.entries(onDark).reduce((all, [light, dark]) => all.replaceAll('"' + light + '"', '"' + dark + '"'), text));
let drawing = Promise.resolve();
function drawAll() {
  drawing = drawing.then(async () => {
    for (const view of views.splice(0)) view.finalize();
    for (const { chart, text } of figures) {
      chart.textContent = '';
      const view = new vega.View(vega.parse(specOf(text), colors()), {
        renderer: 'svg', container: chart, hover: true, tooltip,
      });
      views.push(view);
      await view.runAsync();
    }
    root.dataset.drawn = String(views.length);
  });
}
document.getElementById('theme').addEventListener('click', () => setTheme(theme() === 'dark' ? 'light' : 'dark'));
prefersDark.addEventListener('change', (event) => setTheme(event.matches ? 'dark' : 'light'));
let width = innerWidth;
addEventListener('resize', () => { if (innerWidth !== width) { width = innerWidth; drawAll(); } });
setTheme(prefersDark.matches ? 'dark' : 'light');`;
