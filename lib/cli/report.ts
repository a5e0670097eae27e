import { readFile, stat } from 'node:fs/promises';
import { arch, cpus } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';
import { Argument, Command } from 'commander';
import type { Diagnosis } from '../diagnose/diagnosis.js';
import { restoredDiagnosis } from '../diagnose/restore.js';
import { InvalidArgumentError } from '../errors.js';
import type { GridConfig } from '../grid/config.js';
import type { GridSummary } from '../grid/summary.js';
import type { DialSummary } from '../instruments/dial.js';
import type { HeadroomSummary } from '../instruments/headroom.js';
import type { LadderSummary } from '../instruments/ladder.js';
import type { ProfileSummary } from '../instruments/profile.js';
import type { SimulationSummary } from '../instruments/simulate.js';
import { atomicWriteFile } from '../io/atomicWrite.js';
import { makeWritableFolder } from '../io/folder.js';
import type { ReportRun } from '../report/figure.js';
import type { SanityConfig } from '../sanity/config.js';
import type { SanitySummary } from '../sanity/run.js';
import type { TrainConfig } from '../train/config.js';
import type { TrainSummary } from '../train/run.js';
import { version } from '../version.js';
import { diagnosisText } from './diagnoseReport.js';
import { dialReport } from './dial.js';
import { count, toJson } from './format.js';
import { gridReport } from './gridReport.js';
import { headroomReport } from './headroom.js';
import { ladderReport } from './ladder.js';
import { mismatchReport } from './mismatch.js';
import { pathOption } from './options.js';
import { sanityReport } from './sanityReport.js';
import { simulationReport } from './simulate.js';
import { trainReport } from './trainReport.js';

interface Flags {
  readonly out?: string;
  readonly svg?: string;
  readonly title?: string;
  readonly force?: boolean;
  readonly json?: boolean;
}

/** `isopolicy report`: run directories as one page. */
export function reportCommand(): Command {
  return new Command('report')
    .summary('make one self-contained HTML page, and SVGs, of run directories')
    .description(
      'Turn the folders of runs (sanity, train, grid, mismatch, ladder, dial, headroom, simulate, diagnose) into one page that ' +
        'needs no network: charts with tooltips and zoom, in light and dark.',
    )
    .addArgument(new Argument('<dirs...>', 'folders of runs'))
    .addOption(
      pathOption('--out <file>', 'the page (default: report.html in the folder, or here for several)'),
    )
    .addOption(pathOption('--svg <dir>', 'also write every chart as an SVG into this folder'))
    .option('--title <text>', 'title of the page')
    .option('--force', 'write over a file that is no report')
    .option('--json', 'print what was written as one JSON object')
    .addHelpText('after', '\nExample:\n  $ isopolicy report runs/my-grid --svg figures')
    .action(report);
}

async function report(directories: readonly string[], flags: Flags): Promise<void> {
  const { buildSections } = await import('../report/build.js');
  const { renderPage } = await import('../report/html.js');
  const { renderSvg } = await import('../report/render.js');
  const sections = await buildSections(directories, textOf);
  const out = flags.out ?? join(directories.length === 1 ? directories[0]! : '.', 'report.html');
  await checkOut(out, flags.force === true);
  const title = flags.title ?? (sections.length === 1 ? sections[0]!.title : `${sections.length} runs`);
  const page = await renderPage({
    title,
    sections,
    footer: footerText(),
  });
  const svgs: string[] = [];
  if (flags.svg !== undefined) {
    await makeWritableFolder('report', '--svg', flags.svg);
    let number = 0;
    for (const { figures } of sections) {
      number++;
      for (const { id, spec } of figures) {
        const name = sections.length === 1 ? `${id}.svg` : `${number}-${id}.svg`;
        await atomicWriteFile(join(flags.svg, name), `${await renderSvg(spec)}\n`);
        svgs.push(join(flags.svg, name));
      }
    }
  }
  await atomicWriteFile(out, page);
  const figures = sections.reduce((sum, section) => sum + section.figures.length, 0);
  process.stdout.write(
    flags.json
      ? `${toJson({ page: out, figures, svgs })}\n`
      : `${out}: ${count(figures, 'chart')}${svgs.length > 0 ? `, ${count(svgs.length, 'SVG')} in ${flags.svg}` : ''}\n`,
  );
}

function footerText(): string {
  return `Made by isopolicy ${version} on Node ${process.versions.node}, ${cpus()[0]?.model.trim() ?? 'unknown processor'}, ${arch()}.`;
}

/** The page of a diagnosis that is kept in `directory`, as `isopolicy report` makes it of that folder. */
export async function diagnosisPage(diagnosis: Diagnosis, directory: string): Promise<string> {
  const { sectionOf } = await import('../report/build.js');
  const { renderPage } = await import('../report/html.js');
  const section = await sectionOf(
    {
      directory,
      name: basename(resolve(directory)),
      command: 'diagnose',
      version: diagnosis.provenance.version,
      config: {},
      summary: diagnosis as unknown as Record<string, unknown>,
      metrics: [],
      notes: [],
    },
    textOf,
  );
  return renderPage({ title: section.title, sections: [section], footer: footerText() });
}

/** Refuses, before charts are drawn, a place that cannot be written and a file that is no report. */
async function checkOut(out: string, force: boolean): Promise<void> {
  const { PAGE_MARK } = await import('../report/html.js');
  await makeWritableFolder('report', 'the folder of --out', dirname(out));
  const present = await stat(out).catch(() => undefined);
  if (present === undefined) return;
  // A device or a pipe may never come to the end of its text.
  if (!present.isFile()) throw new InvalidArgumentError(`[report] expected --out to be a file, got ${out}`);
  if (!force && !(await readFile(out, 'utf8')).includes(PAGE_MARK)) {
    throw new InvalidArgumentError(
      `[report] expected ${out} to be missing or a report, got another file (--force writes over it)`,
    );
  }
}

/** What the command of a finished run printed. */
export function textOf({ command, summary, config, directory }: ReportRun): string | undefined {
  const s = summary as unknown;
  switch (command) {
    case 'sanity':
      return sanityReport(s as SanitySummary, config as unknown as SanityConfig, directory);
    case 'grid':
      return gridReport(s as GridSummary, config as unknown as GridConfig, directory, false);
    case 'mismatch':
      return mismatchReport(s as ProfileSummary, directory);
    case 'ladder':
      return ladderReport(s as LadderSummary, directory);
    case 'dial':
      return dialReport(s as DialSummary, directory);
    case 'headroom':
      return headroomReport(s as HeadroomSummary, directory);
    case 'simulate':
      return simulationReport(s as SimulationSummary, directory);
    case 'train':
      return trainReport(s as TrainSummary, config as unknown as TrainConfig, directory);
    case 'diagnose':
      return diagnosisText(restoredDiagnosis(s));
    default:
      return undefined;
  }
}
