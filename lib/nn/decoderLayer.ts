import type { Forward } from './forward.js';
import type { Residual, RmsNorm } from './rmsNorm.js';
import type { SelfAttention } from './selfAttention.js';
import type { SwigluMlp } from './swigluMlp.js';

/** One pre-norm block: x = x + attention(norm(x)); x = x + mlp(norm(x)), the last addition left to the next norm. */
export class DecoderLayer {
  constructor(
    readonly attentionNorm: RmsNorm,
    readonly attention: SelfAttention,
    readonly mlpNorm: RmsNorm,
    readonly mlp: SwigluMlp,
  ) {}

  forward(pass: Forward, residual: Residual): Residual {
    const before = this.attentionNorm.forward(pass, residual);
    const attended = this.attention.forward(pass, before.out);
    const between = this.mlpNorm.forward(pass, { x: before.x, delta: attended });
    return { x: between.x, delta: this.mlp.forward(pass, between.out) };
  }
}
