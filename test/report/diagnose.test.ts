import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { describe, it } from 'node:test';
import { diagnosisPage, textOf } from '../../lib/cli/report.js';
import type { Diagnosis } from '../../lib/diagnose/diagnosis.js';
import { RunDirectory } from '../../lib/io/runDirectory.js';
import { figuresOfDiagnosis } from '../../lib/report/charts/diagnose.js';
import type { Figure, ReportRun } from '../../lib/report/figure.js';
import { loadRun } from '../../lib/report/load.js';
import { renderSvg } from '../../lib/report/render.js';
import { isopolicy, temporaryFolder } from '../cli/command.js';
import { diagnosisOf, normalPairs, pairOf } from '../diagnose/support.js';

const root = temporaryFolder();
const usual = await diagnosisOf(normalPairs(40, (i) => 5 + (i % 30), 0.1));

function figures(diagnosis: Diagnosis): Figure[] {
  const summary = JSON.parse(JSON.stringify(diagnosis)) as ReportRun['summary'];
  return figuresOfDiagnosis({ summary } as ReportRun);
}

const bars = (svg: string) => svg.match(/aria-roledescription="bar"/g)?.length;

describe('figuresOfDiagnosis', () => {
  it('has a chart of each kind, with every correction and signature', async () => {
    const all = figures(usual);
    assert.deepEqual(
      all.map(({ id }) => id),
      ['logprobs', 'by-position', 'by-surprise', 'drift', 'explained', 'floor', 'left'],
    );
    const svgs = new Map<string, string>();
    for (const { id, spec } of all) svgs.set(id, await renderSvg(spec));
    assert.equal(bars(svgs.get('left')!), 15);
    // Two signatures say nothing of a share.
    assert.equal(bars(svgs.get('explained')!), usual.signatures.length - 2);
    assert.ok(svgs.get('floor')!.includes('>159 roundings</text>'));
    for (const word of ['Token-TIS', 'Seq-MIS', 'signal left'])
      assert.ok(svgs.get('left')!.includes(`>${word}</text>`), word);
    const points = svgs.get('logprobs')!.match(/aria-roledescription="point"/g)?.length;
    assert.equal(points, usual.points.tokens.length);
    for (const svg of svgs.values()) assert.doesNotMatch(svg, /NaN|…/);
  });

  it('leaves out what there is nothing of', async () => {
    const same = await diagnosisOf(normalPairs(3, () => 4, 0));
    assert.deepEqual(
      figures(same).map(({ id }) => id),
      ['logprobs', 'explained', 'floor', 'left'],
    );
    const nothing = await diagnosisOf([]);
    const none = nothing.signatures.map((signature) => ({
      ...signature,
      explained: null,
      values: {},
    }));
    assert.deepEqual(figures({ ...nothing, signatures: none }), []);
    assert.deepEqual(figuresOfDiagnosis({ summary: null } as ReportRun), []);
  });

  it('draws log-probs that none can be, and far too small ones at the edge', async () => {
    const wild = await diagnosisOf([
      pairOf(0, [0, 2, -1e30, -3], [-1e30, 0, 0, -3]),
      pairOf(1, [-1, -2], [-1.5, -2.5]),
    ]);
    for (const { id, spec } of figures(wild)) {
      const svg = await renderSvg(spec);
      assert.match(svg, /^<svg /, id);
      assert.doesNotMatch(svg, /NaN|Infinity/, id);
    }
    const [logprobs] = figures(wild);
    const layers = logprobs!.spec.layer as { data: { values: { x: number; y: number }[] } }[];
    assert.deepEqual(
      layers[1]!.data.values.slice(0, 3).map(({ x, y }) => [x, y]),
      [
        [0, -50],
        [2, 0],
        [-50, 0],
      ],
    );
  });
});

describe('the page of a diagnosis', () => {
  it('is the one that report makes of the folder, ids and texts that read like numbers included', async () => {
    const folder = path.join(root, 'run');
    const worst = usual.worst.map((token, i) =>
      i === 0 ? { ...token, id: 'NaN', text: 'Infinity' } : token,
    );
    const diagnosis = { ...usual, worst };
    const config = { command: 'diagnose', version: usual.provenance.version, config: {} };
    await (await RunDirectory.create(folder, config)).writeSummary(diagnosis);
    const page = await diagnosisPage(diagnosis, folder);
    const { status, stderr } = isopolicy(['report', folder]);
    assert.equal(status, 0, stderr);
    assert.equal(fs.readFileSync(path.join(folder, 'report.html'), 'utf8'), page);
    assert.match(page, /\nNaN .*&quot;Infinity&quot;/);
    assert.match(page, /<pre>SUSPICIOUS {2}/);
    assert.equal(page.match(/<figure /g)?.length, 7);
    // ESS is NaN where a correction has no weights.
    assert.match(textOf(await loadRun(folder))!, /^none .* - {2}every token as it is$/m);
  });
});
