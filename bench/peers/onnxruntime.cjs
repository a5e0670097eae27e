/**
 * ONNX Runtime's driver: node onnxruntime.cjs FOLDER, where FOLDER/node_modules has onnxruntime-node. The requests and
 * answers are those of driver.h. A product is a model of one MatMul whose weight is a constant, which the runtime
 * packs when it makes the session.
 */
const path = require('node:path');
const readline = require('node:readline');

const folder = path.resolve(process.argv[2] ?? '.');
const ort = require(path.join(folder, 'node_modules/onnxruntime-node'));
const { version } = require(path.join(folder, 'node_modules/onnxruntime-node/package.json'));
const threads = Number(process.env.OMP_NUM_THREADS ?? 1);

const sampleMs = 2;
/** Numbers of onnx.proto3's TensorProto.DataType, and the words of onnxruntime-node. */
const types = { fp32: { number: 1, name: 'float32' }, fp16: { number: 10, name: 'float16' } };

// ---- the model, in the wire format of protocol buffers ----

function varint(value) {
  const bytes = [];
  let rest = BigInt(value);
  do {
    const low = Number(rest & 127n);
    rest >>= 7n;
    bytes.push(rest > 0n ? low | 128 : low);
  } while (rest > 0n);
  return Buffer.from(bytes);
}

const integer = (field, value) => Buffer.concat([varint(field * 8), varint(value)]);
function block(field, ...parts) {
  const body = Buffer.concat(parts);
  return Buffer.concat([varint(field * 8 + 2), varint(body.length), body]);
}
const text = (field, value) => block(field, Buffer.from(value));

/** y [m, n] = x [m, k] times the constant w [k, n]. */
function productModel(type, m, n, k, weight) {
  const dimension = (d) => block(1, integer(1, d));
  const value = (field, name, dims) =>
    block(field, text(1, name), block(2, block(1, integer(1, type), block(2, ...dims.map(dimension)))));
  const node = block(1, text(1, 'x'), text(1, 'w'), text(2, 'y'), text(4, 'MatMul'));
  const constant = block(5, integer(1, k), integer(1, n), integer(2, type), text(8, 'w'), block(9, weight));
  const graph = [node, text(2, 'product'), constant, value(11, 'x', [m, k]), value(12, 'y', [m, n])];
  const irVersion = integer(1, 8);
  const opset = block(8, integer(2, 17));
  return Buffer.concat([irVersion, block(7, ...graph), opset]);
}

// ---- values ----

function toFp16(x) {
  // Of the normal range alone, truncated: what the inputs here need.
  const bits = new Uint32Array(Float32Array.of(x).buffer)[0];
  const exponent = ((bits >> 23) & 255) - 112;
  return exponent <= 0 ? 0 : ((bits >> 16) & 0x8000) | (exponent << 10) | ((bits >> 13) & 0x3ff);
}

/** Uniform values of a period that no row length divides. */
function values(type, count, scale) {
  const period = Math.min(count, 100003);
  const out = type === 'fp32' ? new Float32Array(count) : new Uint16Array(count);
  let state = 12345;
  for (let i = 0; i < period; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    const x = scale * (state / 2 ** 31 - 1);
    out[i] = type === 'fp32' ? x : toFp16(x);
  }
  for (let at = period; at < count; at += period) out.copyWithin(at, 0, Math.min(period, count - at));
  return out;
}

/** Newer Nodes have Float16Array, and the runtime then asks for it. */
function input(type, m, k) {
  const data = values(type, m * k, 1);
  const half = type === 'fp16' && typeof Float16Array === 'function';
  return new ort.Tensor(types[type].name, half ? new Float16Array(data.buffer) : data, [m, k]);
}

async function prepareProduct(type, sets, [m, n, k]) {
  const runs = [];
  for (let set = 0; set < sets; set++) {
    const weight = values(type, n * k, k ** -0.5);
    const model = productModel(types[type].number, m, n, k, Buffer.from(weight.buffer));
    const session = await ort.InferenceSession.create(model, {
      executionProviders: ['cpu'],
      intraOpNumThreads: threads,
      interOpNumThreads: 1,
      logSeverityLevel: 3,
    });
    const x = input(type, m, k);
    runs.push({ run: () => session.run({ x }), release: () => session.release() });
  }
  return runs;
}

// ---- timing ----

class Timer {
  constructor(runs) {
    this.all = runs;
    this.next = 0;
    this.runs = 1;
  }

  async warm() {
    for (const _ of this.all) await this.sample(1);
    for (;;) {
      const took = await this.sample(this.runs);
      if (took >= sampleMs) return;
      const wanted = Math.floor((1.2 * this.runs * sampleMs) / Math.max(took, 1e-3));
      this.runs = Math.max(this.runs + 1, Math.min(16 * this.runs, wanted));
    }
  }

  async sample(count) {
    const start = performance.now();
    for (let i = 0; i < count; i++) await this.all[this.next++ % this.all.length].run();
    return performance.now() - start;
  }

  async measure(milliseconds) {
    const each = [];
    let total = 0;
    while (total < milliseconds || each.length < 2) {
      const took = await this.sample(this.runs);
      total += took;
      each.push(took / this.runs);
    }
    return each;
  }
}

// ---- requests ----

let timer;
async function drop() {
  for (const { release } of timer?.all ?? []) await release();
  timer = undefined;
}

async function answer(line) {
  const [verb, ...words] = line.split(' ');
  if (verb === 'prepare') {
    await drop();
    const [op, type, sets, ...dims] = words;
    if (op !== 'gemmPacked') return 'none no such op';
    if (!types[type]) return 'none no product of this dtype';
    timer = new Timer(await prepareProduct(type, Number(sets), dims.map(Number)));
    await timer.warm();
    return 'ready';
  }
  if (verb === 'time')
    return timer
      ? `samples ${(await timer.measure(Number(words[0]))).join(' ')}`
      : 'none nothing is prepared';
  await drop();
  return 'dropped';
}

async function main() {
  console.log(`hello ${version}`);
  for await (const line of readline.createInterface({ input: process.stdin })) {
    try {
      console.log(await answer(line));
    } catch (error) {
      timer = undefined;
      console.log(`none ${String(error.message).split('\n')[0]}`);
    }
  }
}

main();
