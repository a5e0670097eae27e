import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { before, describe, it } from 'node:test';
import { pathToFileURL } from 'node:url';
import {
  assertUsageErrors,
  isopolicy,
  isopolicyEach,
  type Outcome,
  temporaryFolder,
} from '../cli/command.js';
import { Browser, browserName } from './browser.js';
import { makeRuns, runNames } from './runs.js';

const root = temporaryFolder();
before(() => makeRuns(root));
const dir = (name: string) => path.join(root, name);
const page = (name: string) => fs.readFileSync(path.join(dir(name), 'report.html'), 'utf8');

/** A copy of a run, to be damaged. */
function copyOf(name: string, as: string): string {
  fs.cpSync(dir(name), dir(as), { recursive: true });
  fs.rmSync(path.join(dir(as), 'report.html'), { force: true });
  return dir(as);
}

describe('isopolicy report', () => {
  it('makes one page and the SVGs of every kind of run', () => {
    const outcomes = isopolicyEach([
      ...runNames.map((name) => ['report', dir(name), '--svg', path.join(root, `svg-${name}`), '--json']),
      ['report', dir('ladder')], // a report is written over
    ]);
    for (const { status, stderr } of outcomes) assert.equal(status, 0, stderr);
    for (const [i, name] of runNames.entries()) {
      const { stdout } = outcomes[i]!;
      const { page: file, figures, svgs } = JSON.parse(stdout);
      assert.equal(file, path.join(dir(name), 'report.html'));
      assert.ok(figures >= 2 && svgs.length === figures, name);
      for (const drawn of svgs) {
        const text = fs.readFileSync(drawn, 'utf8');
        assert.match(text, /^<svg .*<\/svg>\s*$/s);
        assert.ok(!text.includes('NaN'), drawn);
        assert.ok(!text.includes('…'), `${drawn} has text that is cut off`);
      }
      const html = page(name);
      assert.equal(html.match(/<figure /g)?.length, figures);
      assert.ok(!/<(script|link|img)[^>]+(src|href)=/.test(html), 'nothing is fetched');
      assert.ok(html.includes('KL[mu||pi], k3'), 'definitions');
    }
    assert.ok(page('grid').includes('e8m4 (emulated)'));
    assert.ok(page('mismatch').includes('<h3>Mismatch by entropy</h3>'));
  });

  it('shows sanity runs of one task together, and refuses to mix tasks', () => {
    const other = copyOf('sanity', 'sanity-2');
    const config = JSON.parse(fs.readFileSync(path.join(other, 'config.json'), 'utf8'));
    config.config.seed = 6;
    fs.writeFileSync(path.join(other, 'config.json'), JSON.stringify(config));
    const out = path.join(root, 'both.html');
    const both = isopolicy(['report', dir('sanity'), other, '--out', out]);
    assert.equal(both.status, 0, both.stderr);
    const html = fs.readFileSync(out, 'utf8');
    assert.ok(html.includes('2 sanity runs') && html.includes('seed 5') && html.includes('seed 6'));
    config.config.task = 'sort:3:4';
    fs.writeFileSync(path.join(other, 'config.json'), JSON.stringify(config));
    const mixed = isopolicy(['report', dir('sanity'), other, '--out', path.join(root, 'mixed.html')]);
    assert.equal(mixed.status, 2);
    assert.match(
      mixed.stderr,
      /^isopolicy: \[report\] expected sanity runs of one task .*sort:2:4.*sort:3:4[^\n]+\n$/,
    );
    assert.ok(!fs.existsSync(path.join(root, 'mixed.html')));
  });

  it('draws runs whose mismatch is exactly 0, and tells apart runs that differ in their folder alone', () => {
    const matched = copyOf('sanity', 'matched');
    const metrics = fs.readFileSync(path.join(matched, 'metrics.jsonl'), 'utf8');
    const zero = metrics.replace(/"(mismatch\/(?:meanAbsLogRatio|klMuPiK3))":[^,}]+/g, '"$1":0');
    assert.notEqual(zero, metrics);
    fs.writeFileSync(path.join(matched, 'metrics.jsonl'), zero);
    const out = path.join(root, 'zero.html');
    const [alone, both] = isopolicyEach([
      ['report', matched, '--json'],
      ['report', matched, dir('sanity'), '--out', out],
    ]) as [Outcome, Outcome];
    assert.equal(alone.status, 0, alone.stderr);
    assert.ok(JSON.parse(alone.stdout).figures >= 2);
    assert.ok(!page('matched').includes('<h3>Mismatch</h3>'), 'no empty chart');
    assert.equal(both.status, 0, both.stderr);
    const html = fs.readFileSync(out, 'utf8');
    assert.match(html, /Exactly 0 at every step, so without a line: [^.]*seed 5, matched\./);
    assert.match(html, /Healthy: &lt;= 0\.001 \(NeMo RL/);
    assert.match(html, /seed 5, not passed, training accuracy 0\.\d{3}/);
  });

  it('shows runs that were killed as far as they go, without torn lines', () => {
    const points = path.join(copyOf('mismatch', 'half-mismatch'), 'points.jsonl');
    fs.appendFileSync(points, '{"key":"to');
    const metrics = path.join(copyOf('sanity', 'half'), 'metrics.jsonl');
    fs.appendFileSync(metrics, '{"step":12,"train/rew');
    copyOf('grid', 'killed');
    for (const name of ['half', 'killed']) fs.rmSync(path.join(dir(name), 'summary.json'));
    const before = [points, metrics].map((file) => fs.readFileSync(file));
    const names = ['half-mismatch', 'half', 'killed'];
    const outcomes = isopolicyEach(names.map((name) => ['report', dir(name), '--json']));
    for (const { status, stderr } of outcomes) assert.equal(status, 0, stderr);
    assert.deepEqual(
      [points, metrics].map((file) => fs.readFileSync(file)),
      before,
      'left as they are',
    );
    assert.equal(JSON.parse(outcomes[0]!.stdout).figures, 3);
    for (const name of ['half', 'killed']) assert.match(page(name), /no summary yet/);
    assert.match(page('half'), /last line of metrics\.jsonl is torn/);
    assert.match(page('killed'), /Training accuracy by algorithm/);
    assert.doesNotMatch(page('killed'), /Final and peak accuracy/);
  });

  it('says a title once where there is one section', () => {
    const titled = [
      [dir('headroom')],
      [dir('headroom'), '--title', 'Room'],
      [dir('headroom'), dir('dial')],
    ].map((args, i) => ({ args, out: path.join(root, `titled-${i}.html`) }));
    const outcomes = isopolicyEach(titled.map(({ args, out }) => ['report', ...args, '--out', out]));
    for (const { status, stderr } of outcomes) assert.equal(status, 0, stderr);
    const titles = titled.map(({ out }) =>
      [...fs.readFileSync(out, 'utf8').matchAll(/<h([12])>([^<]*)<\/h\1>/g)].map(
        ([, n, text]) => `${n} ${text}`,
      ),
    );
    assert.deepEqual(titles, [
      ['1 headroom: headroom'],
      ['1 Room', '2 headroom: headroom'],
      ['1 2 runs', '2 headroom: headroom', '2 dial: dial'],
    ]);
  });

  it('names what it cannot use, and overwrites nothing', () => {
    const future = copyOf('sanity', 'future');
    fs.writeFileSync(path.join(future, 'config.json'), '{"formatVersion":99}');
    const strange = copyOf('sanity', 'strange');
    fs.writeFileSync(
      path.join(strange, 'config.json'),
      '{"formatVersion":1,"command":"sanitty","config":{}}',
    );
    const torn = copyOf('sanity', 'torn');
    fs.writeFileSync(path.join(torn, 'metrics.jsonl'), '{"step":0}\nnonsense\n{"step":2}\n');
    const broken = copyOf('sanity', 'broken');
    fs.writeFileSync(path.join(broken, 'summary.json'), '{"pass');
    const { thresholds, ...earlier } = JSON.parse(
      fs.readFileSync(path.join(copyOf('grid', 'earlier'), 'summary.json'), 'utf8'),
    );
    assert.ok(Array.isArray(thresholds));
    fs.writeFileSync(path.join(dir('earlier'), 'summary.json'), JSON.stringify(earlier));
    fs.mkdirSync(dir('empty'));
    const cases: [name: string, message: RegExp][] = [
      ['missing', /the folder of a run/],
      ['empty', /the folder of a run/],
      ['future', /format version 1 .*99/],
      ['strange', /one of sanity, grid.*"sanitty" \(did you mean sanity\?\)/],
      ['torn', /metrics\.jsonl/],
      ['broken', /summary\.json to be readable JSON/],
      ['earlier', /summary\.json to have the fields that this version writes/],
    ];
    assertUsageErrors(cases.map(([name, message]) => [['report', dir(name)], message]));
    for (const [name] of cases) assert.ok(!fs.existsSync(path.join(dir(name), 'report.html')), name);
    const mine = path.join(root, 'mine.html');
    fs.writeFileSync(mine, 'precious');
    const refused = isopolicy(['report', dir('ladder'), '--out', mine]);
    assert.equal(refused.status, 2);
    assert.match(refused.stderr, /to be missing or a report, got another file \(--force/);
    assert.equal(fs.readFileSync(mine, 'utf8'), 'precious');
    assert.equal(isopolicy(['report', dir('ladder'), '--out', mine, '--force']).status, 0);
  });
});

/** What the tooltip says once a pointer is at a place. */
async function tipAt(browser: Browser, at: { x: number; y: number }): Promise<string> {
  await browser.evaluate("document.getElementById('tip').style.display = 'none'");
  await browser.send('Input.dispatchMouseEvent', { type: 'mouseMoved', x: at.x - 1, y: at.y });
  await browser.send('Input.dispatchMouseEvent', { type: 'mouseMoved', ...at });
  for (let i = 0; i < 40; i++) {
    await new Promise((resolve) => setTimeout(resolve, 50));
    const tip = await browser.evaluate<string>(
      "document.getElementById('tip').style.display === 'block' ? document.getElementById('tip').textContent : ''",
    );
    if (tip !== '') return tip;
  }
  return '';
}

describe('the page in a browser', () => {
  const name = browserName();
  const skip = name === undefined && 'no browser (chromium, google-chrome) is installed';

  it('draws every chart offline, in light and dark, at 1280 and at 360 columns, and answers a pointer', {
    skip,
  }, async () => {
    for (const { status, stderr } of isopolicyEach(runNames.map((run) => ['report', dir(run)])))
      assert.equal(status, 0, stderr);
    const browser = await Browser.start(name!);
    try {
      for (const run of runNames) {
        const url = pathToFileURL(path.join(dir(run), 'report.html')).href;
        for (const [width, dark] of [
          [1280, false],
          [360, true],
        ] as const) {
          await browser.open(url, { width, height: 800 }, dark);
          const state = await browser.evaluate<{
            drawn: string;
            figures: number;
            marks: number[];
            theme: string;
            wide: boolean;
            cut: string[];
          }>(`({
            drawn: document.documentElement.dataset.drawn,
            figures: document.querySelectorAll('figure').length,
            marks: [...document.querySelectorAll('.chart svg')].map((svg) => svg.querySelectorAll('path').length),
            theme: document.documentElement.dataset.theme,
            wide: document.documentElement.scrollWidth > innerWidth,
            cut: [...document.querySelectorAll('.chart')]
              .filter((chart) => chart.scrollWidth > chart.clientWidth)
              .map((chart) => chart.parentElement.id),
          })`);
          assert.equal(Number(state.drawn), state.figures, run);
          assert.ok(state.marks.length === state.figures && state.marks.every((count) => count > 3), run);
          assert.equal(state.theme, dark ? 'dark' : 'light');
          assert.equal(state.wide, false, `${run} scrolls sideways at ${width}`);
          assert.deepEqual(state.cut, [], `charts of ${run} scroll sideways at ${width}`);
        }
        await browser.evaluate("document.getElementById('theme').click(); drawing");
        assert.equal(await browser.evaluate('document.documentElement.dataset.theme'), 'light');
      }
      assert.deepEqual(browser.complaints(), []);

      // A pointer on a line tells of the step under it, not of the first.
      await browser.open(
        pathToFileURL(path.join(dir('sanity'), 'report.html')).href,
        { width: 1280, height: 900 },
        false,
      );
      const steps: string[] = [];
      for (const share of [0, 1]) {
        const point = await browser.evaluate<{ x: number; y: number }>(`(() => {
          const points = [...document.querySelectorAll('.chart')[0].querySelectorAll('.mark-symbol.role-mark path')];
          const point = points[${share} * (points.length - 1)];
          point.scrollIntoView({ block: 'center' });
          const { left, top, width, height } = point.getBoundingClientRect();
          return { x: left + width / 2, y: top + height / 2 };
        })()`);
        steps.push(await tipAt(browser, point));
      }
      assert.match(steps[0]!, /step: 1\n/);
      assert.match(steps[1]!, /step: 12\n/);

      // A pointer on a bar of the ladder.
      await browser.open(
        pathToFileURL(path.join(dir('ladder'), 'report.html')).href,
        { width: 1280, height: 900 },
        false,
      );
      const at = await browser.evaluate<{ x: number; y: number }>(`(() => {
        const bars = [...document.querySelectorAll('.chart svg .mark-rect path')];
        const bar = bars.reduce((a, b) => (a.getBoundingClientRect().width > b.getBoundingClientRect().width ? a : b));
        bar.scrollIntoView({ block: 'center' });
        const { left, top, width, height } = bar.getBoundingClientRect();
        return { x: left + width / 2, y: top + height / 2 };
      })()`);
      const tip = await tipAt(browser, at);
      assert.match(tip, /nats per token/);
      assert.deepEqual(browser.complaints(), []);
    } finally {
      await browser.close();
    }
  });
});
