import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { DeviceError, InvalidArgumentError } from '../../lib/errors.js';
import {
  createLossScaler,
  DeepSpeedLossScaler,
  type LossScaler,
  StaticLossScaler,
  TorchLossScaler,
} from '../../lib/training/lossScaler.js';

/** Plays steps, 'x' an overflow and '.' a clean one; the scale after each. */
function play(scaler: LossScaler, steps: string): number[] {
  return [...steps].map((step) => {
    const before = scaler.scale;
    const { skipped, changed } = scaler.update(step === 'x');
    assert.equal(skipped, step === 'x');
    assert.equal(changed, scaler.scale !== before);
    return scaler.scale;
  });
}

const clean = (steps: number) => '.'.repeat(steps);

describe('TorchLossScaler', () => {
  it('backs off at once and grows after the interval of clean steps in a row', () => {
    const scaler = new TorchLossScaler({ initScale: 64, growthInterval: 3 });
    //                              .   .   .    .    .    x   .   .   x   x   .   .   .   .
    assert.deepEqual(
      play(scaler, '...' + '..' + 'x' + '..' + 'xx' + '....'),
      [64, 64, 128, 128, 128, 64, 64, 64, 32, 16, 16, 16, 32, 32],
    );
    assert.deepEqual(scaler.state(), {
      kind: 'torch',
      scale: 32,
      growthFactor: 2,
      backoffFactor: 0.5,
      growthInterval: 3,
      growthTracker: 1,
      overflows: 3,
      growths: 2,
    });
  });

  it('has the defaults of PyTorch', () => {
    const scaler = new TorchLossScaler();
    play(scaler, clean(1999));
    assert.equal(scaler.scale, 65536);
    play(scaler, '.');
    assert.equal(scaler.scale, 131072);
  });

  it('counts the growth window from an overflow, not from the start', () => {
    const scaler = createLossScaler('verl');
    play(scaler, `${clean(399)}x${clean(399)}`);
    assert.equal(scaler.scale, 32768);
    play(scaler, '.');
    assert.equal(scaler.scale, 65536);
  });

  it('stays within fp32', () => {
    const high = new TorchLossScaler({ initScale: 2 ** 127, growthInterval: 1 });
    assert.deepEqual(play(high, '.'), [2 ** 127]);
    assert.equal(high.state().growths, 0);
    const low = new TorchLossScaler({ initScale: 2 ** -148 });
    assert.deepEqual(play(low, 'xx'), [2 ** -149, 2 ** -149]);
  });

  it('refuses bad options', () => {
    assert.throws(
      () => new TorchLossScaler({ initScale: 0 }),
      /scale to be a finite fp32 number above 0, got 0/,
    );
    assert.throws(() => new TorchLossScaler({ initScale: 1e39 }), /scale to be a finite fp32 number/);
    assert.throws(() => new TorchLossScaler({ growthFactor: 1 }), /growthFactor to be above 1, got 1/);
    assert.throws(() => new TorchLossScaler({ backoffFactor: 1 }), /backoffFactor to be above 0 and below 1/);
    assert.throws(() => new TorchLossScaler({ growthInterval: 0 }), /growthInterval/);
  });
});

describe('DeepSpeedLossScaler', () => {
  it('skips but does not lower at the first overflow, then lowers at each', () => {
    const scaler = new DeepSpeedLossScaler();
    assert.deepEqual(play(scaler, 'x'), [65536]);
    assert.equal(scaler.state().hysteresisLeft, 1);
    // Clean steps do not restore the hysteresis by default.
    assert.deepEqual(play(scaler, '..xx'), [65536, 65536, 32768, 16384]);
  });

  it('restores the hysteresis at a growth alone', () => {
    const scaler = new DeepSpeedLossScaler({ initScale: 64, scaleWindow: 3 });
    // i: 0 x (h 2 -> 1), 1 2 clean, 3 clean: 3 - 0 divides by 3 (grow, h = 2), 4 x (h -> 1), 5 x (lower), 6
    // 7, 8 grow.
    assert.deepEqual(play(scaler, 'x...xx...'), [64, 64, 64, 128, 128, 64, 64, 64, 128]);
    assert.deepEqual(scaler.state(), {
      kind: 'deepspeed',
      scale: 128,
      scaleFactor: 2,
      scaleWindow: 3,
      hysteresis: 2,
      consecutiveHysteresis: false,
      minScale: 1,
      iteration: 9,
      lastOverflow: 5,
      hysteresisLeft: 2,
      overflows: 3,
      growths: 2,
    });
  });

  it('counts the window from iteration -1 before the first overflow', () => {
    // Grows at i = 2 and 5: i + 1 divisible by 3.
    const scaler = new DeepSpeedLossScaler({ initScale: 1, scaleWindow: 3 });
    assert.deepEqual(play(scaler, '......'), [1, 1, 2, 2, 2, 4]);
    const standard = createLossScaler('deepspeed');
    play(standard, clean(999));
    assert.equal(standard.scale, 65536);
    play(standard, '.');
    assert.equal(standard.scale, 131072);
  });

  it('moves the window with a tolerated overflow as well', () => {
    const scaler = new DeepSpeedLossScaler({ initScale: 8, scaleWindow: 3 });
    // Overflow at i = 1 that h absorbs: the next growth is at i = 4, not 2.
    assert.deepEqual(play(scaler, '.x...'), [8, 8, 8, 8, 16]);
  });

  it('restores the hysteresis at every clean step with consecutiveHysteresis', () => {
    const scaler = new DeepSpeedLossScaler({ initScale: 64, consecutiveHysteresis: true });
    assert.deepEqual(play(scaler, 'x.x.xx'), [64, 64, 64, 64, 64, 32]);
  });

  it('lowers at once with hysteresis 1', () => {
    assert.deepEqual(play(new DeepSpeedLossScaler({ initScale: 8, hysteresis: 1 }), 'xx'), [4, 2]);
  });

  it('stops at the minimum and fails at an overflow there, changing nothing', () => {
    const scaler = new DeepSpeedLossScaler({ initScale: 6, minScale: 4 });
    assert.deepEqual(play(scaler, 'xx'), [6, 4]);
    const before = scaler.state();
    assert.throws(
      () => scaler.update(true),
      (error: unknown) => {
        assert.ok(error instanceof DeviceError);
        assert.match(error.message, /expected finite gradients at minScale = 4, got an overflow/);
        return true;
      },
    );
    assert.deepEqual(scaler.state(), before);
  });

  it('tolerates an overflow at the minimum while there is hysteresis', () => {
    const scaler = new DeepSpeedLossScaler({ initScale: 1 });
    assert.deepEqual(play(scaler, 'x'), [1]);
    assert.throws(() => scaler.update(true), DeviceError);
  });

  it('refuses bad options', () => {
    assert.throws(
      () => new DeepSpeedLossScaler({ hysteresis: 0 }),
      /hysteresis to be an integer of at least 1/,
    );
    assert.throws(() => new DeepSpeedLossScaler({ minScale: 0 }), /minScale to be above 0, got 0/);
    assert.throws(
      () => new DeepSpeedLossScaler({ initScale: 2, minScale: 4 }),
      /scale to be at least minScale = 4/,
    );
    assert.throws(() => new DeepSpeedLossScaler({ scaleFactor: 1 }), /scaleFactor/);
    assert.throws(() => new DeepSpeedLossScaler({ scaleWindow: 0.5 }), /scaleWindow/);
  });
});

describe('StaticLossScaler', () => {
  it('never moves, skips and counts overflows', () => {
    const scaler = new StaticLossScaler(1024);
    assert.deepEqual(play(scaler, '.x.x'), [1024, 1024, 1024, 1024]);
    assert.deepEqual(scaler.state(), { kind: 'static', scale: 1024, overflows: 2, growths: 0 });
  });
});

describe('createLossScaler', () => {
  it('knows the presets', () => {
    const torch = { initScale: 65536, growthFactor: 2, backoffFactor: 0.5 };
    assert.deepEqual(
      createLossScaler('torch').state(),
      new TorchLossScaler({ ...torch, growthInterval: 2000 }).state(),
    );
    assert.deepEqual(
      createLossScaler('verl').state(),
      new TorchLossScaler({ ...torch, growthInterval: 400 }).state(),
    );
    const deepspeed = { initScale: 2 ** 16, scaleFactor: 2, scaleWindow: 1000, hysteresis: 2, minScale: 1 };
    assert.deepEqual(
      createLossScaler('deepspeed').state(),
      new DeepSpeedLossScaler({ ...deepspeed, consecutiveHysteresis: false }).state(),
    );
    assert.deepEqual(createLossScaler('none').state(), new StaticLossScaler(1).state());
    assert.equal(createLossScaler('static:4096').scale, 4096);
    assert.equal(createLossScaler('static:0.5').scale, 0.5);
  });

  it('refuses anything else', () => {
    assert.throws(() => createLossScaler('deepsped'), /did you mean deepspeed\?/);
    for (const bad of ['static:', 'static:0', 'static:-1', 'static:x', 'static:1e39', 'static:N', 'static']) {
      assert.throws(() => createLossScaler(bad), InvalidArgumentError, bad);
    }
  });
});

describe('saved state', () => {
  const makers: Record<string, () => LossScaler> = {
    torch: () => new TorchLossScaler({ initScale: 2 ** 20, growthInterval: 3 }),
    deepspeed: () => new DeepSpeedLossScaler({ initScale: 2 ** 30, scaleWindow: 3 }),
    consecutive: () =>
      new DeepSpeedLossScaler({ initScale: 2 ** 30, scaleWindow: 3, consecutiveHysteresis: true }),
    static: () => new StaticLossScaler(8),
  };
  for (const [name, make] of Object.entries(makers)) {
    it(`of ${name} goes through JSON and on as if nothing had happened`, () => {
      const steps = fc
        .array(fc.constantFrom('.', '.', '.', 'x'), { maxLength: 24 })
        .map((list) => list.join(''));
      fc.assert(
        fc.property(steps, steps, (first, second) => {
          const scaler = make();
          play(scaler, first);
          const resumed = createLossScaler(scaler.kind === 'static' ? 'static:2' : scaler.kind);
          resumed.load(JSON.parse(JSON.stringify(scaler.state())));
          assert.deepEqual(play(resumed, second), play(scaler, second));
          assert.deepEqual(resumed.state(), scaler.state());
        }),
      );
    });

    it(`of ${name} is checked on load, field by field, and a bad one changes nothing`, () => {
      const scaler = make();
      play(scaler, '.x.');
      const good = scaler.state();
      for (const field of Object.keys(good)) {
        for (const bad of [undefined, null, 'x', Number.NaN, -7]) {
          assert.throws(
            () => scaler.load({ ...good, [field]: bad }),
            (error: unknown) => error instanceof InvalidArgumentError && error.message.includes(field),
            `${field} = ${bad}`,
          );
        }
      }
      for (const bad of [null, undefined, 'torch', 3])
        assert.throws(() => scaler.load(bad), InvalidArgumentError);
      assert.deepEqual(scaler.state(), good);
    });
  }

  it('of another kind is refused', () => {
    assert.throws(
      () => new TorchLossScaler().load(new StaticLossScaler().state()),
      /state\.kind to be torch, got "static"/,
    );
  });

  it('must be consistent in itself', () => {
    const torch = new TorchLossScaler({ growthInterval: 3 });
    assert.throws(() => torch.load({ ...torch.state(), growthTracker: 3 }), /growthTracker/);
    const deepspeed = new DeepSpeedLossScaler();
    assert.throws(() => deepspeed.load({ ...deepspeed.state(), hysteresisLeft: 3 }), /hysteresisLeft/);
    assert.throws(() => deepspeed.load({ ...deepspeed.state(), lastOverflow: 0 }), /lastOverflow/);
    assert.throws(
      () => deepspeed.load({ ...deepspeed.state(), scale: 0.5 }),
      /scale to be at least minScale/,
    );
  });

  it('is a copy', () => {
    const scaler = new TorchLossScaler();
    const state = scaler.state();
    state.scale = 1;
    assert.equal(scaler.scale, 65536);
    scaler.load(state);
    state.scale = 2;
    assert.equal(scaler.scale, 1);
  });
});
