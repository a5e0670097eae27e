import { floatDtypes, type NativeFloatDType } from '../tensor/dtype.js';
import { type Tensor, view } from '../tensor/tensor.js';
import { isMixtureLayer, type ResolvedDecoderConfig } from './config.js';

/** A tensor of a Hugging Face checkpoint, and the parameter of a {@link Decoder} whose rows it is. */
export interface PublishedTensor {
  readonly name: string;
  readonly shape: readonly number[];
  /** Name of the parameter. */
  readonly parameter: string;
  /** Its first row in the parameter, whose dimensions but the last are counted as one. */
  readonly row: number;
}

/** What safetensors calls the dtypes that weights are stored in. */
export const storedDtypes = { fp32: 'F32', fp16: 'F16', bf16: 'BF16' } as const;

/** The dtype of that name; nothing for one that weights are not stored in. */
export function storedDtypeOf(stored: string): NativeFloatDType | undefined {
  return floatDtypes.find((dtype) => storedDtypes[dtype] === stored);
}

/** Bytes that are read or written at once: as many as the JavaScript thread copies in a few milliseconds. */
export const CHUNK_BYTES = 2 ** 24;

/** The head of a model whose head is its embedding: some checkpoints hold it all the same. */
export const HEAD = 'lm_head.weight';
export const EMBEDDING = 'model.embed_tokens.weight';

/** Rows of a master as {@link PublishedTensor} counts them: on the same memory, of at most two dimensions. */
export function masterRows(master: Tensor, begin: number, end: number): Tensor {
  const { shape } = master;
  if (shape.length < 3) return master.rows(begin, end);
  const columns = shape.at(-1)!;
  return view(master, begin * columns, [end - begin, columns]);
}

/** What a mixture and the projections of an expert are called. */
interface MixtureNames {
  readonly module: string;
  readonly gate: string;
  readonly up: string;
  readonly down: string;
}
const qwen3Names: MixtureNames = { module: 'mlp', gate: 'gate_proj', up: 'up_proj', down: 'down_proj' };
const mixtralNames: MixtureNames = { module: 'block_sparse_moe', gate: 'w1', up: 'w3', down: 'w2' };

/**
 * The tensors that Llama, Qwen2, Qwen3, Qwen3-MoE and Mixtral checkpoints consist of, in the order of the decoder's
 * parameters. Most are parameters of the same name; Q, K and V are the row blocks of one, gate and up of another, and so are
 * the experts of a mixture, which are published apart.
 */
export function publishedTensors(config: ResolvedDecoderConfig): PublishedTensor[] {
  const { vocabSize, hiddenSize, intermediateSize, numLayers, numHeads, numKvHeads, headDim } = config;
  const tensors: PublishedTensor[] = [];
  const whole = (name: string, ...shape: number[]) => tensors.push({ name, shape, parameter: name, row: 0 });
  /** Blocks of rows of `parameter`, in order; `columns` is missing where it is a vector. */
  const blocks = (parameter: string, rowsOf: Readonly<Record<string, number>>, columns?: number) => {
    const [module, kind] = splitLast(parameter);
    const [prefix] = splitLast(module);
    let row = 0;
    for (const [block, rows] of Object.entries(rowsOf)) {
      const shape = columns === undefined ? [rows] : [rows, columns];
      tensors.push({ name: `${prefix}.${block}.${kind}`, shape, parameter, row });
      row += rows;
    }
  };
  const qkv = { q_proj: numHeads * headDim, k_proj: numKvHeads * headDim, v_proj: numKvHeads * headDim };
  const gateUp = { gate_proj: intermediateSize, up_proj: intermediateSize };

  const dense = (mlp: string) => {
    blocks(`${mlp}.gate_up_proj.weight`, gateUp, hiddenSize);
    whole(`${mlp}.down_proj.weight`, hiddenSize, intermediateSize);
    if (!config.mlpBias) return;
    blocks(`${mlp}.gate_up_proj.bias`, gateUp);
    whole(`${mlp}.down_proj.bias`, hiddenSize);
  };
  // Of the mixtures Qwen3's have norms of heads, Mixtral's have none.
  const { module, gate, up, down } = config.qkNorm ? qwen3Names : mixtralNames;
  const mixture = (layer: string) => {
    const { numExperts, moeIntermediateSize: width } = config;
    const mlp = `${layer}.mlp`;
    const add = (name: string, shape: readonly number[], parameter: string, row: number) =>
      tensors.push({
        name: `${layer}.${module}.${name}.weight`,
        shape,
        parameter: `${mlp}.${parameter}.weight`,
        row,
      });
    add('gate', [numExperts, hiddenSize], 'gate', 0);
    for (let e = 0; e < numExperts; e++) {
      add(`experts.${e}.${gate}`, [width, hiddenSize], 'experts.gate_up_proj', 2 * e * width);
      add(`experts.${e}.${up}`, [width, hiddenSize], 'experts.gate_up_proj', (2 * e + 1) * width);
    }
    for (let e = 0; e < numExperts; e++) {
      add(`experts.${e}.${down}`, [hiddenSize, width], 'experts.down_proj', e * hiddenSize);
    }
  };

  whole(EMBEDDING, vocabSize, hiddenSize);
  for (let layer = 0; layer < numLayers; layer++) {
    const prefix = `model.layers.${layer}`;
    const attention = `${prefix}.self_attn`;
    whole(`${prefix}.input_layernorm.weight`, hiddenSize);
    blocks(`${attention}.qkv_proj.weight`, qkv, hiddenSize);
    if (config.attentionBias) blocks(`${attention}.qkv_proj.bias`, qkv);
    whole(`${attention}.o_proj.weight`, hiddenSize, numHeads * headDim);
    if (config.qkNorm) for (const norm of ['q_norm', 'k_norm']) whole(`${attention}.${norm}.weight`, headDim);
    if (config.attentionOutBias) whole(`${attention}.o_proj.bias`, hiddenSize);
    whole(`${prefix}.post_attention_layernorm.weight`, hiddenSize);
    if (isMixtureLayer(config, layer)) mixture(prefix);
    else dense(`${prefix}.mlp`);
  }
  whole('model.norm.weight', hiddenSize);
  if (!config.tieWordEmbeddings) whole(HEAD, vocabSize, hiddenSize);
  return tensors;
}

function splitLast(name: string): [head: string, tail: string] {
  const dot = name.lastIndexOf('.');
  return [name.slice(0, dot), name.slice(dot + 1)];
}
