import { type Device, devices } from '../device.js';
import { checkChoice, InvalidArgumentError, invalid } from '../errors.js';
import {
  addon,
  checked,
  invoke,
  type NativeOutput,
  opNumber,
  readBytes,
  rememberCallSite,
} from '../native.js';
import { bytesPerElement, type DType, dtypeNumber, dtypeOf, type FloatDType, floatsOf } from './dtype.js';
import { currentScope } from './scope.js';

/** Frees the memory of tensors that were dropped without dispose(): a safety net, run when the event loop is idle. */
const finalizer = new FinalizationRegistry<number>((handle) => {
  addon.dispose(handle);
});

/**
 * A dense, row-major array on a device, of at most five dimensions. Ops run where their tensors are.
 *
 * Ops return at once: they check their arguments, allocate their output and queue the work. Reading is
 * asynchronous (`await tensor.data()`) and is where a failure of queued work surfaces.
 *
 * Memory: call {@link dispose}, or make tensors within {@link tidy} or a `using` declaration.
 */
export class Tensor implements Disposable {
  /** @internal */ readonly handle: number;
  readonly shape: readonly number[];
  readonly dtype: DType;
  readonly device: Device;
  #disposed = false;
  #registered = false;

  /** @internal Tensors are made by ops and by the functions of this module. */
  constructor(output: NativeOutput) {
    this.handle = output.handle;
    this.shape = output.shape;
    this.dtype = dtypeOf(output.dtype);
    this.device = devices[output.device]!;
    const scope = currentScope();
    if (scope) scope.add(this);
    else this.release();
  }

  get size(): number {
    return this.shape.reduce((product, d) => product * d, 1);
  }

  get bytes(): number {
    return this.size * bytesPerElement(this.dtype);
  }

  get disposed(): boolean {
    return this.#disposed;
  }

  /** Gives the memory back. Work that is queued already still runs. Disposing twice does nothing. */
  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    if (this.#registered) finalizer.unregister(this);
    addon.dispose(this.handle);
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  /** @internal The tensor leaves the scope that would have disposed of it. */
  release(): void {
    this.#registered = true;
    finalizer.register(this, this.handle, this);
  }

  /** The values, in row-major order: 16-bit floats widened exactly to fp32, int32 as they are. */
  async data(): Promise<Float32Array | Int32Array> {
    const [values] = await readTensors([this]);
    return values!;
  }

  /** The values of a floating-point tensor, as fp32. */
  async floats(): Promise<Float32Array> {
    if (this.dtype === 'int32') invalid('tensor', 'a floating-point tensor', 'int32');
    return (await this.data()) as Float32Array;
  }

  /** The stored bits: Uint16Array for 16-bit floats, Uint32Array for fp32 and emulated types, Int32Array for int32. */
  async bits(): Promise<Uint16Array | Uint32Array | Int32Array> {
    const [buffer] = await readBytes([this.handle]);
    if (this.dtype === 'int32') return new Int32Array(buffer!);
    return this.dtype === 'fp16' || this.dtype === 'bf16'
      ? new Uint16Array(buffer!)
      : new Uint32Array(buffer!);
  }

  /** A copy of the same bits on a device. */
  async to(device: Device): Promise<Tensor> {
    const [buffer] = await readBytes([this.handle]);
    return initialized(empty(this.shape, this.dtype, device), (t) =>
      checked(addon.upload(t.handle, new Uint8Array(buffer!))),
    );
  }

  /** The only value of a tensor of one element. */
  async item(): Promise<number> {
    if (this.size !== 1) invalid('item', 'a tensor of one element', this.shape);
    return (await this.data())[0]!;
  }

  /** The same memory in another shape of as many elements. */
  reshape(...shape: number[]): Tensor {
    if (shape.reduce((product, d) => product * d, 1) !== this.size) {
      throw new InvalidArgumentError(
        `[reshape] expected a shape of ${this.size} elements, got [${shape.join(', ')}]`,
      );
    }
    return view(this, 0, shape);
  }

  /** Rows `begin` to `end` of the first dimension, on the same memory. */
  rows(begin: number, end: number): Tensor {
    const [first = 0, ...rest] = this.shape;
    if (
      this.shape.length === 0 ||
      !(Number.isInteger(begin) && Number.isInteger(end)) ||
      begin < 0 ||
      end < begin ||
      end > first
    ) {
      throw new InvalidArgumentError(
        `[rows] expected 0 <= begin <= end <= ${first}, got ${begin} and ${end}`,
      );
    }
    const stride = rest.reduce((product, d) => product * d, 1);
    return view(this, begin * stride, [end - begin, ...rest]);
  }

  /** Replaces the contents: floats are rounded to nearest even, and their number must fit; int32 takes only its own values. */
  upload(values: ArrayLike<number>): void {
    if (this.#disposed)
      throw new InvalidArgumentError('[upload] expected a live tensor, got a tensor that was disposed of');
    if (values.length !== this.size)
      invalid('upload', `${this.size} values for shape [${this.shape.join(', ')}]`, values.length);
    if (this.dtype === 'int32') {
      checked(addon.upload(this.handle, values instanceof Int32Array ? values : int32From(values)));
    } else if (this.dtype === 'fp32') {
      checked(addon.upload(this.handle, values instanceof Float32Array ? values : Float32Array.from(values)));
    } else {
      const wide = tensor(values, this.shape, 'fp32', this.device);
      try {
        call('cast', [wide.handle, dtypeNumber(this.dtype), this.handle]);
      } finally {
        wide.dispose();
      }
    }
  }
}

/** Calls an op of native/ops/table.cc and wraps its outputs. */
export function call(op: string, values: readonly number[]): Tensor[] {
  return invoke(numberOf(op), values).map((output) => new Tensor(output));
}

/** As {@link call} for an op of one output. */
export function callOne(op: string, values: readonly number[]): Tensor {
  return new Tensor(invoke(numberOf(op), values)[0]!);
}

/**
 * As {@link call} for an op whose data, not its shapes, can be at fault (an id outside the vocabulary): the call
 * is remembered, so that a failure met later has a stack that points here.
 */
export function callFallible(op: string, values: readonly number[]): Tensor[] {
  const outputs = call(op, values);
  rememberCallSite();
  return outputs;
}

const numbers = new Map<string, number>();
function numberOf(op: string): number {
  let number = numbers.get(op);
  if (number === undefined) {
    number = opNumber(op);
    numbers.set(op, number);
  }
  return number;
}

/** The handle of an optional tensor argument: 0 where it is missing. */
export function handleOf(t: Tensor | null | undefined): number {
  return t ? t.handle : 0;
}

function checkShape(where: string, shape: readonly number[]): void {
  if (!Array.isArray(shape) || shape.length > 5) invalid(where, 'a shape of at most 5 dimensions', shape);
  for (const d of shape)
    if (!Number.isInteger(d) || d < 0) invalid(where, 'dimensions that are integers of at least 0', d);
}

/** Values that int32 holds as they are: a fraction or an overflow is an error, not another number. */
function int32From(values: ArrayLike<number>): Int32Array {
  const ints = Int32Array.from(values);
  ints.forEach((x, i) => {
    if (x !== values[i]) invalid('upload', 'integers from -2^31 to 2^31 - 1 for int32', values[i]);
  });
  return ints;
}

/** A new tensor given its contents; it does not outlive an error. */
function initialized(t: Tensor, write: (t: Tensor) => void): Tensor {
  try {
    write(t);
  } catch (error) {
    t.dispose();
    throw error;
  }
  return t;
}

/**
 * A tensor whose contents are not defined until an op writes them.
 *
 * @param device default: the current one (`setDevice`)
 */
export function empty(shape: readonly number[], dtype: DType = 'fp32', device?: Device): Tensor {
  checkShape('empty', shape);
  const number =
    device === undefined ? 0 : 1 + devices.indexOf(checkChoice('empty', 'device', device, devices));
  return callOne('allocate', [number, dtypeNumber(dtype), shape.length, ...shape]);
}

export function full(shape: readonly number[], value: number, dtype: DType = 'fp32'): Tensor {
  return initialized(empty(shape, dtype), (t) => fill(t, value));
}

export function zeros(shape: readonly number[], dtype: DType = 'fp32'): Tensor {
  return full(shape, 0, dtype);
}

/** Sets every element of `t`, rounding `value` once to its dtype. */
export function fill(t: Tensor, value: number): void {
  call('fill', [t.handle, value]);
}

/**
 * A tensor from JavaScript values in row-major order; floats are rounded to nearest even.
 *
 * @param device default: the current one (`setDevice`)
 */
export function tensor(
  values: ArrayLike<number>,
  shape: readonly number[] = [values.length],
  dtype: DType = 'fp32',
  device?: Device,
): Tensor {
  checkShape('tensor', shape);
  return initialized(empty(shape, dtype, device), (t) => t.upload(values));
}

/** A 16-bit tensor from its stored bits. */
export function tensorFromBits(bits: Uint16Array, shape: readonly number[], dtype: 'fp16' | 'bf16'): Tensor {
  checkShape('tensorFromBits', shape);
  checkChoice('tensorFromBits', 'dtype', dtype, ['fp16', 'bf16']);
  return initialized(empty(shape, dtype), (t) => checked(addon.upload(t.handle, bits)));
}

/** Independent normal values: a pure function of (seed, stream), the same at every thread count. */
export function randomNormal(
  shape: readonly number[],
  options: { seed: number; stream?: number; mean?: number; std?: number; dtype?: FloatDType },
): Tensor {
  const { seed, stream = 0, mean = 0, std = 1, dtype = 'fp32' } = options;
  checkShape('randomNormal', shape);
  return callOne('randomNormal', [dtypeNumber(dtype), shape.length, ...shape, mean, std, seed, stream]);
}

/** Independent fp32 values, uniform between -bound and bound: a pure function of (seed, stream). */
export function randomUniform(
  shape: readonly number[],
  options: { seed: number; stream?: number; bound: number },
): Tensor {
  const { seed, stream = 0, bound } = options;
  checkShape('randomUniform', shape);
  return callOne('randomUniform', [shape.length, ...shape, bound, seed, stream]);
}

/** x in another floating-point type, rounded to nearest even; into `out` where it is given. */
export function cast(x: Tensor, dtype: FloatDType, out?: Tensor): Tensor {
  const outputs = call('cast', [x.handle, dtypeNumber(dtype), handleOf(out)]);
  return out ?? outputs[0]!;
}

/** A copy with memory of its own, or into `out`. */
export function copy(x: Tensor, out?: Tensor): Tensor {
  const outputs = call('copy', [x.handle, handleOf(out)]);
  return out ?? outputs[0]!;
}

/** A window on the memory of x: `shape` elements from element `offset` on. */
export function view(x: Tensor, offset: number, shape: readonly number[]): Tensor {
  checkShape('view', shape);
  return callOne('view', [x.handle, offset, shape.length, ...shape]);
}

/** Reads several tensors with one wait; see {@link Tensor.data}. */
export async function readTensors(tensors: readonly Tensor[]): Promise<(Float32Array | Int32Array)[]> {
  const buffers = await readBytes(tensors.map((t) => t.handle));
  return buffers.map((buffer, i) => {
    const { dtype } = tensors[i]!;
    if (dtype === 'int32') return new Int32Array(buffer);
    if (dtype === 'fp16' || dtype === 'bf16') return floatsOf(dtype, new Uint16Array(buffer));
    return new Float32Array(buffer);
  });
}
