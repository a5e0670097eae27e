import { gatherRows } from '../autograd/functions.js';
import type { Tensor } from '../tensor/tensor.js';
import type { Forward } from './forward.js';
import type { MoeMlp } from './moeMlp.js';
import type { Residual, RmsNorm } from './rmsNorm.js';
import type { SelfAttention } from './selfAttention.js';
import type { SwigluMlp } from './swigluMlp.js';

/** One pre-norm block: x = x + attention(norm(x)); x = x + mlp(norm(x)), the last addition left to the next norm. */
export class DecoderLayer {
  constructor(
    readonly attentionNorm: RmsNorm,
    readonly attention: SelfAttention,
    readonly mlpNorm: RmsNorm,
    readonly mlp: SwigluMlp | MoeMlp,
  ) {}

  /** All tokens are attended to; with `rows` (int32) these alone go on behind the attention. */
  forward(pass: Forward, residual: Residual, rows: Tensor | null = null): Residual {
    const { layer } = this.attention;
    const before = this.attentionNorm.forward(pass, residual);
    pass.observe?.('attentionNorm', layer, before.out);
    const attended = this.attention.forward(pass, before.out, rows);
    const x = rows ? gatherRows(pass.tape, before.x, rows) : before.x;
    const between = this.mlpNorm.forward(pass, { x, delta: attended });
    pass.observe?.('residual', layer, between.x);
    pass.observe?.('mlpNorm', layer, between.out);
    return { x: between.x, delta: this.mlp.forward(pass, between.out) };
  }
}
