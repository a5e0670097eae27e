/** What `isopolicy info` prints of a path, in lines of a name and a value. */
import type { ModelInfo, StoredWeights } from '../models/inspectModel.js';
import type { AdapterInfo, DataInfo, FolderInfo, RunInfo, TensorsInfo } from './folderInfo.js';
import { MOST_ROWS } from './folderInfo.js';
import { count, formatBytes, formatNumber, formatTable, PAGE_WIDTH, quoted, toJson, wrap } from './format.js';

const NAME_WIDTH = 15;

type Fact = readonly [name: string, value: string];

/** The report of what a path holds. */
export function folderReport(info: FolderInfo): string {
  switch (info.kind) {
    case 'model':
      return modelReport(info);
    case 'adapter':
      return adapterReport(info);
    case 'run':
      return lines(runFacts(info));
    case 'tensors':
      return tensorsReport(info);
    case 'data':
      return lines(dataFacts(info));
  }
}

function lines(facts: readonly Fact[]): string {
  return facts
    .flatMap(([name, value]) =>
      wrap(value, PAGE_WIDTH - NAME_WIDTH).map(
        (line, i) => `${(i === 0 ? name : '').padEnd(NAME_WIDTH)}${line}`,
      ),
    )
    .join('\n');
}

/** A number in groups of three digits; what is not told is a question mark. */
function grouped(value: number | null): string {
  return value === null ? '?' : value.toLocaleString('en-US', { maximumFractionDigits: 2 });
}

function modelReport(model: ModelInfo): string {
  const { modelProblems, textProblems } = model;
  return [
    lines(modelFacts(model)),
    ...problemList(CANNOT_LOAD, modelProblems),
    ...problemList('No text goes in or out:', textProblems),
  ].join('\n');
}

const CANNOT_LOAD = 'isopolicy cannot load it:';
const CAN_LOAD: Fact = ['isopolicy', 'can load it'];

function problemList(title: string, problems: readonly string[]): string[] {
  return problems.length === 0 ? [] : ['', title, ...problems.flatMap((problem) => bullet(problem))];
}

function bullet(text: string): string[] {
  return wrap(text, PAGE_WIDTH - 2).map((line, i) => `${i === 0 ? '- ' : '  '}${line}`);
}

function modelFacts(model: ModelInfo): Fact[] {
  const { path, modelType, architecture, sizes, parameters, memory, tokenizer, chatTemplate } = model;
  const { numExperts, numExpertsPerToken } = sizes;
  const facts: Fact[] = [
    ['model', path],
    ['architecture', [architecture ?? '?', ...(modelType === null ? [] : [`(${modelType})`])].join(' ')],
  ];
  if (parameters) {
    const { total, embedding, active, from } = parameters;
    const parts = [
      `${grouped(total)} (${formatBillions(total)})`,
      ...(active < total ? [`${grouped(active)} active`] : []),
      `${grouped(embedding)} in the embedding${model.tieWordEmbeddings ? '' : ' and the head'}`,
      ...(from === 'config' ? ['by config.json'] : []),
    ];
    facts.push(['parameters', parts.join(', ')]);
  }
  facts.push(
    [
      'layers',
      `${grouped(sizes.numLayers)} of width ${sizes.hiddenSize ?? '?'}, MLP ${sizes.intermediateSize ?? '?'}`,
    ],
    [
      'attention',
      `${sizes.numHeads ?? '?'} heads of ${sizes.headDim ?? '?'}, ${sizes.numKvHeads ?? '?'} for keys and values`,
    ],
    ...(numExperts === null
      ? []
      : [['experts', `${numExperts}, ${numExpertsPerToken ?? '?'} for each token`] as Fact]),
    [
      'vocabulary',
      `${grouped(sizes.vocabSize)}${model.tieWordEmbeddings ? ', the head is the embedding' : ''}`,
    ],
    ['context', `${grouped(sizes.maxPositionEmbeddings)} tokens`],
    ['rope', ropeText(model)],
    ['weights', weightsText(model.weights, model.dtype)],
  );
  if (memory) {
    const cache = memory.cachePerToken;
    facts.push([
      'memory',
      `${formatBytes(memory.masters)} as fp32 masters, ${formatBytes(memory.snapshot)} in 16 bits` +
        `${cache === null ? '' : `, ${formatBytes(cache)} of cache a token in 16 bits`}`,
    ]);
  }
  if (tokenizer) {
    const { kind, vocabSize, specialTokens, bos, pad, eos } = tokenizer;
    const named = Object.entries({ bos, pad }).flatMap(([name, token]) =>
      token ? [`${name} ${token}`] : [],
    );
    facts.push(
      [
        'tokenizer',
        [`${kind} of ${grouped(vocabSize)} tokens, ${specialTokens} special`, ...named].join(', '),
      ],
      ['ends with', eos.map(({ id, token }) => `${id} ${token ?? '?'}`).join(', ') || 'nothing'],
    );
  }
  facts.push(['chat template', chatTemplate ?? 'none']);
  if (model.modelProblems.length === 0) facts.push(CAN_LOAD);
  return facts;
}

/** As models are called: 494M, 1.54B. */
function formatBillions(parameters: number): string {
  const [scaled, unit] =
    parameters >= 1e9
      ? [parameters / 1e9, 'B']
      : parameters >= 1e6
        ? [parameters / 1e6, 'M']
        : [parameters / 1e3, 'k'];
  return `${formatNumber(scaled)}${unit}`;
}

function ropeText({ ropeTheta, ropeScaling }: ModelInfo): string {
  const theta = `theta ${ropeTheta ?? '?'}`;
  if (ropeScaling === null) return `${theta}, not scaled`;
  const { rope_type: type, type: older, ...rest } = ropeScaling;
  const settings = Object.entries(rest).map(([name, value]) => `${name} ${String(value)}`);
  return [theta, `scaling ${String(type ?? older)}`, ...settings].join(', ');
}

function weightsText({ files, bytes, dtypes }: StoredWeights, declared: string | null): string {
  if (files.length === 0) return 'none';
  const kinds = Object.entries(dtypes).sort(([, a], [, b]) => b - a);
  const [main] = kinds;
  const stored =
    main === undefined
      ? `${declared ?? 'unknown dtype'}${declared === null ? '' : ' by config.json'}`
      : kinds
          .map(([dtype, values], i) => (i === 0 ? dtype : `${grouped(values)} values in ${dtype}`))
          .join(', ');
  const states = (['Git LFS pointer', 'missing'] as const).flatMap((state) => {
    const n = files.filter((file) => file.state === state).length;
    if (n === 0) return [];
    return [state === 'missing' ? `${n} missing` : `${count(n, state)} (fetch the files: git lfs pull)`];
  });
  return [stored, `${formatBytes(bytes)} in ${count(files.length, 'file')}`, ...states].join(', ');
}

function adapterReport(info: AdapterInfo): string {
  const { problems } = info;
  const facts = [...adapterFacts(info), ...(problems.length === 0 ? [CAN_LOAD] : [])];
  return [lines(facts), ...problemList(CANNOT_LOAD, problems)].join('\n');
}

function adapterFacts({
  path,
  type,
  base,
  rank,
  alpha,
  targets,
  parameters,
  dtypes,
  bytes,
}: AdapterInfo): Fact[] {
  return [
    ['adapter', path],
    ['type', type ?? '?'],
    ['of model', base ?? '?'],
    ['rank', `${rank ?? '?'}, alpha ${alpha ?? '?'}`],
    ['targets', Array.isArray(targets) ? targets.join(', ') : String(targets ?? '?')],
    ['parameters', grouped(parameters)],
    ['weights', `${dtypes.join(', ')}, ${formatBytes(bytes)}`],
  ];
}

function runFacts({ path, command, version, finished, checkpoint }: RunInfo): Fact[] {
  const resume = `isopolicy ${command} --resume ${quoted(path)}`;
  return [
    ['run', path],
    ['command', `isopolicy ${command}${version === null ? '' : `, version ${version}`}`],
    ['state', finished ? 'has a summary' : `not finished; go on with: ${resume}`],
    ['checkpoint', checkpoint === null ? 'none' : `after ${count(checkpoint, 'step')}`],
    ['figures', `isopolicy report ${quoted(path)}`],
  ];
}

function tensorsReport({ path, bytes, metadata, tensors }: TensorsInfo): string {
  const values = tensors.reduce(
    (sum, { shape }) => sum + shape.reduce((product, dim) => product * dim, 1),
    0,
  );
  const facts = lines([
    ['tensors', path],
    ['size', `${count(tensors.length, 'tensor')}, ${grouped(values)} values, ${formatBytes(bytes)}`],
    ...Object.entries(metadata).map(([key, text]): Fact => ['metadata', `${key}: ${shortened(text)}`]),
  ]);
  if (tensors.length === 0) return facts;
  const table = formatTable(
    [{ heading: 'dtype' }, { heading: 'shape' }, { heading: 'tensor' }],
    tensors.map(({ name, dtype, shape }) => [dtype, `[${shape.join(', ')}]`, name]),
  );
  return `${facts}\n\n${table}`;
}

function dataFacts({ path, files, bytes, columns, rows, first }: DataInfo): Fact[] {
  return [
    ['data set', path],
    ['files', `${files}, ${formatBytes(bytes)}`],
    ['rows', rows === null ? `more than ${grouped(MOST_ROWS)}` : grouped(rows)],
    ['columns', columns.join(', ')],
    ...Object.entries(first ?? {})
      .flatMap(([name, value]) => brokenLines(`${name}: ${shortened(value)}`))
      .map((line, i): Fact => [i === 0 ? 'first row' : '', line]),
  ];
}

/** Text in lines that are broken at spaces, and within a word that is longer than a line. */
function brokenLines(text: string): string[] {
  const width = PAGE_WIDTH - NAME_WIDTH;
  const pieces = text.match(new RegExp(`.{1,${width}}(?:\\s+|$)|.{${width}}`, 'g')) ?? [];
  return pieces.map((piece) => piece.trimEnd());
}

/** A value in about three lines. */
function shortened(value: unknown): string {
  const text = toJson(value ?? null);
  return text.length > 200 ? `${text.slice(0, 197)}...` : text;
}
