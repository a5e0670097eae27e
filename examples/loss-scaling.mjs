/**
 * How the two common loss scalers answer the same overflows. PyTorch's halves the scale at each; DeepSpeed's lets the
 * first one pass (hysteresis) and then divides at each until it has grown again. Both skip every step that overflowed.
 *
 * Run: node examples/loss-scaling.mjs
 */
import { DeepSpeedLossScaler, TorchLossScaler } from 'isopolicy';

const torch = new TorchLossScaler({ growthInterval: 4 });
const deepspeed = new DeepSpeedLossScaler({ scaleWindow: 4 });

// One character a step: `x` is a gradient with an infinity or a NaN, `.` is a clean one.
const steps = '..x.xx......x.....x..';
const effect = (before, after) => (after > before ? 'grows' : after < before ? 'falls' : '');

const rows = Array.from(steps, (mark, step) => {
  const overflow = mark === 'x';
  const before = [torch.scale, deepspeed.scale];
  torch.update(overflow);
  deepspeed.update(overflow);
  return {
    step,
    gradient: overflow ? 'overflow' : 'finite',
    torch: before[0],
    'torch after': effect(before[0], torch.scale),
    deepspeed: before[1],
    'deepspeed after': effect(before[1], deepspeed.scale),
    'overflows forgiven': deepspeed.state().hysteresisLeft - 1,
  };
});
console.table(rows);
console.log(`final scale: torch ${torch.scale}, deepspeed ${deepspeed.scale}`);
