import os from 'node:os';
import { formatBytes } from '../bytes.js';
import { InvalidArgumentError } from '../errors.js';
import { resolveDecoderConfig } from '../models/config.js';
import { defaultMaxBatch } from '../rollout/engine.js';
import { freeMemory, memory } from '../runtime.js';
import { estimateMemory, type MemoryEstimate, type MemoryOptions } from './memory.js';

/**
 * Bytes that this process may still take without others having to give way: what the system says is available (on Linux
 * MemAvailable, which counts caches that it would drop), and no more than the process's limit, such as a container's,
 * leaves it. macOS does not tell what it would drop: there it is all memory that other processes may share. With a GPU as
 * the current device it is what is free there, or kept by the allocator for reuse.
 */
export function availableMemory(): number {
  const ofDevice = freeMemory();
  if (ofDevice !== null) return ofDevice + memory().cachedBytes;
  const ofSystem = process.platform === 'darwin' ? os.totalmem() : os.freemem();
  const limit = process.constrainedMemory(); // 0, or more than there is, where there is none
  const used = process.memoryUsage.rss();
  return limit > 0 && limit < os.totalmem() ? Math.min(ofSystem, Math.max(0, limit - used)) : ofSystem;
}

/**
 * Expects a run to fit into memory before it begins, rather than to be killed by the system in its midst.
 *
 * @param available bytes; default {@link availableMemory}
 * @throws InvalidArgumentError with the estimate's total, its largest parts and by how much which options would lower it
 */
export function checkMemory(estimate: MemoryEstimate, available = availableMemory()): void {
  const { residentBytes, rows, phases } = estimate;
  if (residentBytes <= available) return;
  const largest = [...rows, ...phases].sort((a, b) => b.bytes - a.bytes).slice(0, 4);
  const parts = largest.map(({ name, bytes }) => `${name} ${formatBytes(bytes)}`).join(', ');
  const help = remedies(estimate).map(({ text, bytes }) => `${text} (${formatBytes(bytes)})`);
  throw new InvalidArgumentError(
    `[memory] expected a run within the ${formatBytes(available)} of memory that are available, got one that takes ` +
      `${formatBytes(residentBytes)} (most of it: ${parts}); what would help: ${[...help, 'a smaller model'].join(', ')}`,
  );
}

/** Options that lower the total, each alone and all together, and what it would then be. */
function remedies({ config, options, residentBytes }: MemoryEstimate): { text: string; bytes: number }[] {
  const { microBatchTokens = 4096, maxLength = config.maxPositionEmbeddings, rolloutPrecision } = options;
  const usual = defaultMaxBatch(resolveDecoderConfig(config), maxLength, rolloutPrecision);
  const { maxBatch = usual } = options;
  const fewerTokens = Math.max(Math.ceil(microBatchTokens / 4), maxLength - 1);
  const fewerSequences = Math.ceil(maxBatch / 4);
  const changes: [text: string, options: Partial<MemoryOptions>][] = [
    ['recomputation of layers', { recompute: 'layers' }],
    [`micro-batches of ${fewerTokens} tokens`, { microBatchTokens: fewerTokens }],
    [`${fewerSequences} sequence${fewerSequences === 1 ? '' : 's'} at once`, { maxBatch: fewerSequences }],
    ['LoRA of rank 16', { lora: options.lora ?? { rank: 16 } }],
  ];
  const bytesWith = (change: Partial<MemoryOptions>) => {
    const { kvPages, ...others } = options;
    const pages = kvPages !== undefined && change.maxBatch === undefined ? { kvPages } : {};
    return estimateMemory(config, { ...others, ...pages, ...change }).residentBytes;
  };
  const helpful = changes.filter(([, change]) => bytesWith(change) < 0.99 * residentBytes);
  const each = helpful.map(([text, change]) => ({ text, bytes: bytesWith(change) }));
  if (each.length < 2) return each;
  const all = Object.assign({}, ...helpful.map(([, change]) => change)) as Partial<MemoryOptions>;
  return [...each, { text: 'all of these', bytes: bytesWith(all) }];
}
