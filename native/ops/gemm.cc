#include "ops/gemm.h"

#include "ops/op.h"
#include "ops/pack_weight.h"

namespace isopolicy {

namespace {

constexpr int kMaxSplit = 1 << 30;

// "b of shape [K, N] with K = 64": which dimension must be what.
std::string wanted(const char* name, const char* symbols, const char* symbol, int64_t value) {
  return std::string(name) + " of shape " + symbols + " with " + symbol + " = " + std::to_string(value);
}

void expectResultDtype(const OpCall& call, const char* name, DType dtype, DType in) {
  call.expect(
      dtype == in || dtype == DType::float32,
      std::string(name) + " to be " + (in == DType::float32 ? "" : std::string(nameOf(in)) + " or ") + "fp32",
      nameOf(dtype));
}

}  // namespace

GemmArgs inputGradientProduct(const LinearInputGradientArgs& args, int i, int64_t column, float* sums) {
  const bool last = i == args.count - 1;
  GemmArgs g;
  g.a = static_cast<const char*>(args.dy) + column * int64_t(bytesOf(args.in));
  g.b = args.weights[i];
  g.c = last ? args.dx : sums;
  g.m = args.rows;
  g.n = args.k;
  g.k = args.n[i];
  g.lda = args.dyColumns;
  g.ldb = args.k;
  g.ldc = args.k;
  g.in = args.in;
  g.out = last ? args.out : DType::float32;
  g.addend = i > 0 ? sums : nullptr;
  g.ldAddend = args.k;
  return g;
}

// gemm(a, b, bias?, out?, family, splitK, transposeA, transposeB, outDtype, accumulate): a [M, K] or
// [B, M, K], b [K, N] or [B, K, N] (each with its last two dimensions exchanged where transposed).
void gemmOp(OpCall& call) {
  const Tensor a = call.tensor("a");
  const Tensor b = call.tensor("b");
  const auto bias = call.optionalTensor("bias");
  const auto into = call.optionalTensor("out");
  call.expectFloat("a", a);
  const Family family = call.family();
  GemmArgs g;
  g.splitK = int(call.integer("splitK", 0, kMaxSplit));
  g.transposeA = call.flag("transposeA");
  g.transposeB = call.flag("transposeB");
  g.in = a.dtype;
  g.out = call.dtype("outDtype");
  g.accumulate = call.flag("accumulate");

  call.expectDtype("b", b, a.dtype);
  expectResultDtype(call, "outDtype", g.out, a.dtype);
  call.expect(a.shape.rank == 2 || a.shape.rank == 3, "a of 2 or 3 dimensions", a.shape.text());
  const bool batched = a.shape.rank == 3;
  call.expect(b.shape.rank == 2 || (batched && b.shape.rank == 3),
              batched ? "b of 2 or 3 dimensions" : "b of 2 dimensions, as a", b.shape.text());
  g.m = a.shape[g.transposeA ? -1 : -2];
  g.k = a.shape[g.transposeA ? -2 : -1];
  g.n = b.shape[g.transposeB ? -2 : -1];
  call.expect(b.shape[g.transposeB ? -1 : -2] == g.k,
              wanted("b", g.transposeB ? "[N, K]" : "[K, N]", "K", g.k), b.shape.text());
  g.lda = a.shape[-1];
  g.ldb = b.shape[-1];
  g.ldc = g.n;
  if (batched) {
    g.batch = a.shape[0];
    g.strideA = g.m * g.k;
    g.strideC = g.m * g.n;
    if (b.shape.rank == 3) {
      call.expect(b.shape[0] == g.batch, wanted("b", g.transposeB ? "[B, N, K]" : "[B, K, N]", "B", g.batch),
                  b.shape.text());
      g.strideB = g.k * g.n;
    } else if (!g.transposeA) {
      // One b for all: the batch is a taller a. The sums are the same, since a row does not know the others.
      g.m *= g.batch;
      g.batch = 1;
    }
  }
  if (bias) {
    call.expectDtype("bias", *bias, a.dtype);
    call.expectShape("bias", *bias, {g.n}, "[N]");
  }
  const Shape shape = batched ? Shape{a.shape[0], a.shape[g.transposeA ? -1 : -2], g.n} : Shape{g.m, g.n};
  if (g.accumulate) {
    call.expect(into.has_value(), "out where accumulate is set", "none");
    call.expect(g.out == DType::float32, "outDtype to be fp32 where accumulate is set", nameOf(g.out));
  }
  if (into) {
    call.expectShape("out", *into, shape, batched ? "[B, M, N]" : "[M, N]");
    call.expectDtype("out", *into, g.out);
    call.expect(!into->overlaps(a) && !into->overlaps(b) && !(bias && into->overlaps(*bias)),
                "out to have memory of its own", "memory that a, b or bias uses");
  }
  const Tensor out = into ? *into : call.output(g.out, shape);
  g.a = a.data();
  g.b = b.data();
  g.bias = bias ? bias->data() : nullptr;
  g.c = out.data();
  call.enqueue(family, g, {&a, &b, bias ? &*bias : nullptr, into ? &*into : nullptr});
}

// linear(x, family, splitK, outDtype, count, then count times weight, bias?, packedRows, packedColumns,
// packedLevel): x [rows, K], weight_i [N_i, K] -> [rows, sum of N_i], a block of columns for each weight. A
// weight of packedRows >= 0 is a packed [packedRows, packedColumns].
void linearOp(OpCall& call) {
  const Tensor x = call.tensor("x");
  const Family family = call.family();
  const auto splitK = int(call.integer("splitK", 0, kMaxSplit));
  const DType out = call.dtype("outDtype");
  const int64_t count = call.integer("the number of weights", 1, LinearInputGradientArgs::kMaxWeights);
  call.expectFloat("x", x);
  call.expectRank("x", x, 2, "[rows, K]");
  expectResultDtype(call, "outDtype", out, x.dtype);
  const int64_t rows = x.shape[0], k = x.shape[1];

  std::vector<Tensor> weights;
  std::vector<std::optional<Tensor>> biases;
  std::vector<int64_t> packedRows;
  int64_t columns = 0;
  for (int64_t i = 0; i < count; i++) {
    const std::string weightName = "weights[" + std::to_string(i) + "]";
    const std::string biasName = "biases[" + std::to_string(i) + "]";
    const Tensor weight = call.tensor(weightName.c_str());
    const auto bias = call.optionalTensor(biasName.c_str());
    const int64_t packed = call.integer("packedRows", -1), packedK = call.integer("packedColumns", 0);
    const auto level = VectorLevel(call.integer("packedLevel", 0, kVectorLevels - 1));
    call.expectDtype(weightName.c_str(), weight, x.dtype);
    if (packed >= 0) {
      expectPacked(call, weightName.c_str(), weight, {packed, packedK, level}, k, splitK,
                   wanted(weightName.c_str(), "[N, K]", "K", k));
    } else {
      call.expectRank(weightName.c_str(), weight, 2, "[N, K]");
      call.expect(weight.shape[1] == k, wanted(weightName.c_str(), "[N, K]", "K", k), weight.shape.text());
    }
    const int64_t n = packed >= 0 ? packed : weight.shape[0];
    if (bias) {
      call.expectDtype(biasName.c_str(), *bias, x.dtype);
      call.expectShape(biasName.c_str(), *bias, {n}, "[N]");
    }
    columns += n;
    weights.push_back(weight);
    biases.push_back(bias);
    packedRows.push_back(packed);
  }

  // Weights (and biases) that lie one behind the other, as row blocks of one parameter do, are multiplied as
  // one: x is then packed once, and the sums are the same.
  const auto continues = [&](size_t i) {
    const auto behind = [](const Tensor& a, const Tensor& b) { return a.as<char>() + a.bytes() == b.data(); };
    if (packedRows[i - 1] >= 0 || packedRows[i] >= 0 || !behind(weights[i - 1], weights[i])) return false;
    if (!biases[i - 1] || !biases[i]) return !biases[i - 1] && !biases[i];
    return behind(*biases[i - 1], *biases[i]);
  };
  const Tensor y = call.output(out, {rows, columns});
  int64_t column = 0;
  for (size_t i = 0, next; i < weights.size(); i = next) {
    GemmArgs g;
    g.a = x.data();
    g.b = weights[i].data();
    g.bias = biases[i] ? biases[i]->data() : nullptr;
    g.c = y.as<char>() + column * int64_t(bytesOf(out));
    g.m = rows;
    g.packedB = packedRows[i] >= 0;
    g.n = g.packedB ? packedRows[i] : weights[i].shape[0];
    for (next = i + 1; next < weights.size() && continues(next); next++) {
      g.n += weights[next].shape[0];
      call.context.retainForRecording(weights[next]);
      if (biases[next]) call.context.retainForRecording(*biases[next]);
    }
    g.k = k;
    g.lda = g.ldb = k;
    g.ldc = columns;
    g.transposeB = true;
    g.in = x.dtype;
    g.out = out;
    g.splitK = splitK;
    call.enqueue(family, g, {&x, &weights[i], biases[i] ? &*biases[i] : nullptr});
    column += g.n;
  }
}

// linearInputGradient(dy, dtype, count, weights...): dy [rows, sum of N_i], weight_i [N_i, K] -> dx [rows, K]
void linearInputGradientOp(OpCall& call) {
  const Tensor dy = call.tensor("dy");
  LinearInputGradientArgs g{};
  g.in = dy.dtype;
  g.out = call.dtype("dtype");
  g.count = int(call.integer("the number of weights", 1, LinearInputGradientArgs::kMaxWeights));
  call.expectFloat("dy", dy);
  call.expectRank("dy", dy, 2, "[rows, sum of N]");
  expectResultDtype(call, "dtype", g.out, dy.dtype);
  g.rows = dy.shape[0];
  g.dyColumns = dy.shape[1];

  std::vector<Tensor> weights;
  int64_t columns = 0;
  for (int i = 0; i < g.count; i++) {
    const std::string name = "weights[" + std::to_string(i) + "]";
    const Tensor weight = call.tensor(name.c_str());
    call.expectDtype(name.c_str(), weight, dy.dtype);
    call.expectRank(name.c_str(), weight, 2, "[N, K]");
    if (i == 0) g.k = weight.shape[1];
    call.expect(weight.shape[1] == g.k, wanted(name.c_str(), "[N, K]", "K", g.k), weight.shape.text());
    g.weights[i] = weight.data();
    g.n[i] = int32_t(weight.shape[0]);
    columns += weight.shape[0];
    weights.push_back(weight);
  }
  call.expect(columns == g.dyColumns, wanted("dy", "[rows, sum of N]", "sum of N", columns), dy.shape.text());
  const Tensor dx = call.output(g.out, {g.rows, g.k});
  g.dy = dy.data();
  g.dx = dx.data();
  for (const Tensor& weight : weights) call.context.retainForRecording(weight);
  call.enqueue(Family::training, g, {&dy});
}

// linearWeightGradient(dy, x, columnOffset, grad, accumulate): grad [N, K] += or =
// dy[:, columnOffset : columnOffset + N]^T x
void linearWeightGradientOp(OpCall& call) {
  const Tensor dy = call.tensor("dy");
  const Tensor x = call.tensor("x");
  const int64_t offset = call.integer("columnOffset", 0);
  const Tensor grad = call.tensor("grad");
  const bool accumulate = call.flag("accumulate");
  call.expectFloat("dy", dy);
  call.expectRank("dy", dy, 2, "[rows, columns]");
  call.expectDtype("x", x, dy.dtype);
  call.expectRank("x", x, 2, "[rows, K]");
  call.expect(x.shape[0] == dy.shape[0], wanted("x", "[rows, K]", "rows", dy.shape[0]), x.shape.text());
  call.expectDtype("grad", grad, DType::float32);
  call.expectRank("grad", grad, 2, "[N, K]");
  call.expect(grad.shape[1] == x.shape[1], wanted("grad", "[N, K]", "K", x.shape[1]), grad.shape.text());
  call.expect(offset + grad.shape[0] <= dy.shape[1],
              "columnOffset + N of at most the " + std::to_string(dy.shape[1]) + " columns of dy",
              std::to_string(offset) + " + " + std::to_string(grad.shape[0]));
  call.expect(!grad.overlaps(dy) && !grad.overlaps(x), "grad to have memory of its own",
              "memory that dy or x uses");
  GemmArgs g;
  g.a = dy.as<char>() + offset * int64_t(bytesOf(dy.dtype));
  g.b = x.data();
  g.c = grad.data();
  g.m = grad.shape[0];
  g.n = grad.shape[1];
  g.k = dy.shape[0];
  g.lda = dy.shape[1];
  g.ldb = g.ldc = g.n;
  g.transposeA = true;
  g.accumulate = accumulate;
  g.in = dy.dtype;
  call.enqueue(Family::training, g, {&dy, &x, &grad});
}

}  // namespace isopolicy
