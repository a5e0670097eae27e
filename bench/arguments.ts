/** The command line of `npm run bench`. */
import { parseArgs } from 'node:util';
import { type Device, devices, initialDevice } from '../lib/device.js';
import { checkChoice, checkInteger, checkNumber, InvalidArgumentError } from '../lib/errors.js';
import { floatDtypes, type NativeFloatDType } from '../lib/tensor/dtype.js';
import { type PeerName, peerNames, peersOf } from './peers/list.js';

export const groupNames = [
  'gemm',
  'attention',
  'log-softmax',
  'linear-logprob',
  'elementwise',
  'calls',
  'engine',
] as const;
export type GroupName = (typeof groupNames)[number];

/** `shared`: one kernel that both engines use. */
export const familyNames = ['rollout', 'training', 'shared'] as const;
export type FamilyName = (typeof familyNames)[number];

export interface BenchOptions {
  readonly only: readonly GroupName[];
  readonly dtypes: readonly NativeFloatDType[];
  readonly families: readonly FamilyName[];
  readonly shapes: 'tiny' | 'quick' | 'full';
  readonly device: Device;
  /** Empty: all that the addon takes by itself. */
  readonly threads: readonly number[];
  /** Milliseconds of measuring a row. */
  readonly time: number;
  /** Input sets a row; null: as many as exceed the caches. */
  readonly sets: number | null;
  readonly out: string | null;
  /** Parts of the names of rows (`gemm rollout bf16 1x151936x1536`), one of which a row must have; empty: every row. */
  readonly rows: readonly string[];
  /** Libraries that are measured beside; empty: none. */
  readonly peers: readonly PeerName[];
  /** Where the peers from npm are; null: ISOPOLICY_PEERS_DIR or a folder in the cache. */
  readonly peersDir: string | null;
  /** Whether peers are kept off vector code above our own level. */
  readonly pinPeers: boolean;
  /** The engines' cost by context, batch, size and threads, instead of rows. */
  readonly scaling: boolean;
  readonly help: boolean;
}

const options = [
  ['only', 'GROUPS', 'some of the groups below (default: all)'],
  ['dtype', 'DTYPES', `some of ${floatDtypes.join(', ')} (default: all)`],
  ['family', 'FAMILIES', `some of ${familyNames.join(', ')} (default: all)`],
  ['device', 'DEVICE', 'cpu or cuda (default: ISOPOLICY_DEVICE, else cpu)'],
  ['shapes', 'SET', 'quick (two minutes; the default), full or tiny'],
  ['threads', 'N', 'native threads, or a list (default: what the addon takes)'],
  ['time', 'MS', 'milliseconds a row (default: 100; full 400, tiny 1)'],
  ['sets', 'N', 'input sets a row rotates (default: beyond the caches)'],
  ['rows', 'TEXTS', 'rows whose name has one of these in it'],
  ['peers', '[NAMES]', 'hold against other libraries (default: all of them)'],
  ['peers-dir', 'DIR', 'where the peers from npm are'],
  ['pin-peers', '', 'peers use no vector level above ours'],
  ['scaling', '', 'instead: how the cost of the engines grows'],
  ['out', 'FILE', 'write everything as JSON, too'],
  ['help', '', 'print this'],
] as const;

export const helpText = [
  'Usage: npm run bench -- [options]',
  '',
  'Times the kernels beside the peaks of the machine, or of its GPU.',
  'Lists take commas: --dtype fp16,bf16',
  '',
  ...options.map(([name, value, text]) => `  ${`--${name} ${value}`.padEnd(20)}${text}`),
  '',
  `Groups: ${groupNames.join(', ')}`,
  `Peers: ${peerNames.join(', ')}`,
  'Exit code: 0, 1 where a row failed or no GPU is, 2 for bad arguments.',
  'docs/benchmarks.md tells what a row means, bench/peers/README.md of peers.',
].join('\n');

const shapeSets = ['tiny', 'quick', 'full'] as const;
const defaultTime = { tiny: '1', quick: '100', full: '400' } as const;

const names: readonly string[] = options.map(([name]) => `--${name}`);
const flags: readonly string[] = options.filter(([, value]) => value === '').map(([name]) => name);

/**
 * What the arguments behind the script's name ask for.
 *
 * @throws InvalidArgumentError for an unknown option or value (naming the nearest), or one that is missing
 */
export function parseBenchArguments(argv: readonly string[]): BenchOptions {
  const { tokens } = parseArgs({
    args: argv.map((arg, i) => (arg === '--peers' && isOption(argv[i + 1]) ? '--peers=all' : arg)),
    options: Object.fromEntries(
      options.map(([name]) => [
        name,
        { type: flags.includes(name) ? ('boolean' as const) : ('string' as const) },
      ]),
    ),
    strict: false,
    allowPositionals: true,
    tokens: true,
  });
  const given = new Map<string, string>();
  for (const token of tokens) {
    if (token.kind === 'positional')
      throw new InvalidArgumentError(
        `[bench] expected options only, got ${JSON.stringify(token.value)} (did you mean --only ${token.value}?)`,
      );
    if (token.kind !== 'option') continue;
    checkChoice('bench', 'each option', token.rawName, names);
    if (flags.includes(token.name)) given.set(token.name, '');
    else if (token.value === undefined || (!token.inlineValue && token.value.startsWith('--')))
      throw new InvalidArgumentError(`[bench] expected a value after --${token.name}, got none`);
    else given.set(token.name, token.value);
  }
  const list = <T extends string>(name: string, choices: readonly T[]): readonly T[] =>
    given
      .get(name)
      ?.split(',')
      .map((item) => checkChoice('bench', `--${name}`, item, choices)) ?? choices;

  const shapes = checkChoice('bench', '--shapes', given.get('shapes') ?? 'quick', shapeSets);
  const device = checkChoice('bench', '--device', given.get('device') ?? initialDevice(), devices);
  for (const name of device === 'cuda' ? ['threads', 'pin-peers', 'scaling'] : [])
    if (given.has(name))
      throw new InvalidArgumentError(`[bench] expected --device cpu where --${name} is given, got cuda`);
  const sets = given.get('sets');
  return {
    only: list('only', groupNames),
    dtypes: list('dtype', floatDtypes),
    families: list('family', familyNames),
    shapes,
    device,
    threads: (given.get('threads')?.split(',') ?? []).map((n) =>
      checkInteger('bench', '--threads', number(n), 1, 256),
    ),
    time: checkNumber('bench', '--time', number(given.get('time') ?? defaultTime[shapes]), 1),
    sets:
      sets !== undefined
        ? checkInteger('bench', '--sets', number(sets), 1, 64)
        : shapes === 'tiny'
          ? 2
          : null,
    rows: given.get('rows')?.split(',') ?? [],
    peers:
      given.get('peers') === 'all'
        ? peersOf(device)
        : given.has('peers')
          ? list('peers', peersOf(device))
          : [],
    peersDir: given.get('peers-dir') ?? null,
    pinPeers: given.has('pin-peers'),
    scaling: given.has('scaling'),
    out: given.get('out') ?? null,
    help: given.has('help'),
  };
}

/** Whether an option that may stand alone does: nothing follows, or the next option. */
function isOption(next: string | undefined): boolean {
  return next === undefined || next.startsWith('--');
}

/** NaN for what is not a number, the empty string among it. */
function number(text: string): number {
  return text.trim() === '' ? Number.NaN : Number(text);
}
