// Log-probs of chosen tokens straight from hidden states, and their gradient, without the logits ever being
// whole in memory: a block of rows times a block of the vocabulary at a time. The row arithmetic is that of
// log_softmax_row.cuh on the same pieces, and an element of a product depends on nothing but its own row and
// column, so the results equal those of gemm followed by chosenLogprobs to the bit.
#include "ops/linear_logprob.h"

#include "cuda/shared/gemm.cuh"
#include "cuda/shared/log_softmax_row.cuh"

namespace isopolicy::cuda {
namespace {

// A block of logits is at most this many elements: 32 MiB in fp32, which the L2 cache of the large GPUs
// holds, and tiles enough for all of their multiprocessors.
constexpr int64_t kBlockElements = int64_t(1) << 23;
constexpr int64_t kBlockRows = 2048;
// Pieces of all rows of a block, in the forward pass.
constexpr int64_t kBlockPieces = int64_t(1) << 20;
// Columns of a block of the backward pass, whatever the rows: hidden gradients are sums over blocks.
constexpr int64_t kBackwardColumns = 4096;
// Rows start at 16-byte boundaries, whatever the columns.
constexpr int64_t kRowAlignment = 8;

int64_t alignedUp(int64_t columns) { return ceilDiv(columns, kRowAlignment) * kRowAlignment; }

DType logitsType(const LogitsOf& p) { return p.logits16 ? p.dtype : DType::float32; }

const char* offset(const void* data, int64_t elements, DType dtype) {
  return static_cast<const char*>(data) + size_t(elements) * bytesOf(dtype);
}

// logits[i][j] = hidden[i] . weight[firstColumn + j].
void multiply(const LogitsOf& p, const void* hidden, int64_t ldHidden, int64_t rows, int64_t firstColumn,
              int64_t columns, void* logits, int64_t ldLogits, Launcher& gpu) {
  GemmArgs gemm{};
  gemm.a = hidden;
  gemm.b = offset(p.weight, firstColumn * p.width, p.dtype);
  gemm.c = logits;
  gemm.m = rows;
  gemm.n = columns;
  gemm.k = p.width;
  gemm.lda = ldHidden;
  gemm.ldb = p.width;
  gemm.ldc = ldLogits;
  gemm.transposeB = true;
  gemm.readSoon = true;
  gemm.in = p.dtype;
  gemm.out = logitsType(p);
  gemm.splitK = int(p.gemmSplitK);
  launchGemm(gemm, p.gemmFamily, gpu);
}

// ---- Forward ----

constexpr int kWarps = 4, kThreads = 32 * kWarps;

// What the forward kernels share: a block of rows, and the pieces of those rows.
struct ForwardBlock {
  int64_t rows;
  Pieces pieces;
  Temperature temperature;
  const int32_t* targets;  // [rows]
  LogSum* sums;            // [rows, pieces]
  float* chosen;           // [rows]
};

// Pieces [firstPiece, firstPiece + count) of all rows, a piece a warp. The logits come from L2, at best.
template <class T>
__global__ void __launch_bounds__(kThreads)
    sumPiecesKernel(ForwardBlock block, const T* logits, int64_t ldLogits, int32_t firstPiece,
                    int32_t count) {
  const int64_t at = int64_t(blockIdx.x) * kWarps + threadIdx.x / 32, i = at / count;
  if (i >= block.rows) return;
  const int32_t piece = firstPiece + int32_t(at % count);
  const int64_t blockBegin = block.pieces.begin(firstPiece);
  const int64_t begin = block.pieces.begin(piece), end = block.pieces.end(piece);
  const LogitRow<T> row{logits + i * ldLogits, block.temperature};
  const LogSum sum = sumPiece<true>(row, begin - blockBegin, end - blockBegin);
  if (threadIdx.x % 32 > 0) return;
  block.sums[i * block.pieces.count + piece] = sum;
  const int64_t target = block.targets[i];
  if (target >= begin && target < end) block.chosen[i] = row.one(target - blockBegin);
}

// A row a warp.
__global__ void __launch_bounds__(kThreads)
    joinRowsKernel(ForwardBlock block, int64_t firstRow, float* logprobs, float* lse, float* entropy,
                   Check check) {
  const int64_t i = int64_t(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (i >= block.rows) return;
  LogSum sum = LogSum::ofNothing();
  for (int base = 0; base < block.pieces.count; base += kJoinedPieces)
    sum = joinPieces(sum, block.sums + i * block.pieces.count + base,
                     min(kJoinedPieces, block.pieces.count - base));
  if (threadIdx.x % 32 > 0) return;
  const RowLogs logs = logsOf(sum);
  lse[i] = logs.lse;
  entropy[i] = logs.entropy;
  if (checkId(check, firstRow + i, block.targets[i], block.pieces.columns))
    logprobs[i] = block.chosen[i] - logs.lse;
}

void linearLogprob(const LinearLogprobArgs& args, Launcher& gpu) {
  const LogitsOf& p = args.product;
  if (p.rows == 0) return;
  const Pieces pieces = Pieces::of(p.columns, args.chunk);
  const int64_t most = std::min({p.rows, kBlockRows, std::max<int64_t>(1, kBlockPieces / pieces.count)});
  const auto piecesAtOnce =
      int32_t(std::clamp<int64_t>(kBlockElements / most / pieces.longest, 1, pieces.count));
  const int64_t ldLogits = alignedUp(std::min(p.columns, int64_t(piecesAtOnce) * pieces.longest));
  void* logits = gpu.scratch<char>(most * ldLogits * int64_t(bytesOf(logitsType(p))));
  ForwardBlock block{0,
                     pieces,
                     Temperature::of(p.temperature),
                     nullptr,
                     gpu.scratch<LogSum>(most * pieces.count),
                     gpu.scratch<float>(most)};
  const Check check = idCheck(gpu, "targets", p.columns);
  for (int64_t i = 0; i < p.rows; i += most) {
    block.rows = std::min(most, p.rows - i);
    block.targets = p.targets + i;
    for (int32_t piece = 0; piece < pieces.count; piece += piecesAtOnce) {
      const int32_t count = std::min(piecesAtOnce, pieces.count - piece);
      const int64_t begin = pieces.begin(piece), end = pieces.begin(piece + count);
      multiply(p, offset(p.hidden, i * p.width, p.dtype), p.width, block.rows, begin, end - begin, logits,
               ldLogits, gpu);
      dispatchFloat(logitsType(p), [&](auto zero) {
        using T = decltype(zero);
        gpu.launch(sumPiecesKernel<T>, Grid{ceilDiv(block.rows * count, kWarps)}, kThreads, 0, block,
                   static_cast<const T*>(logits), ldLogits, piece, count);
      });
    }
    gpu.launch(joinRowsKernel, Grid{ceilDiv(block.rows, kWarps)}, kThreads, 0, block, i, args.logprobs + i,
               args.lse + i, args.entropy + i, check);
  }
}

// ---- Backward ----
//
// Rows without a gradient are left out of the products altogether: not even a NaN of theirs counts. The GPU
// alone knows which they are, so rows with a gradient are moved together, and as many rows of zeros as are
// missing then stand behind them.

constexpr int kScanWarps = 32, kScanThreads = 32 * kScanWarps;

// active[0..rows): the rows with a gradient in order, then -1. By one block. Looks at all targets, too.
__global__ void __launch_bounds__(kScanThreads)
    findActiveKernel(LogitsOf p, const float* dLogprobs, int32_t* active, Check check) {
  __shared__ int ofWarps[kScanWarps];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  int64_t found = 0;
  for (int64_t base = 0; base < p.rows; base += kScanThreads) {
    const int64_t i = base + threadIdx.x;
    const bool mine = i < p.rows && dLogprobs[i] != 0.0f;
    if (i < p.rows) checkId(check, i, p.targets[i], p.columns);
    const uint32_t votes = __ballot_sync(0xffffffffu, mine);
    if (lane == 0) ofWarps[warp] = __popc(votes);
    __syncthreads();
    int before = __popc(votes & ((1u << lane) - 1)), all = 0;
    for (int w = 0; w < kScanWarps; w++) {
      if (w < warp) before += ofWarps[w];
      all += ofWarps[w];
    }
    if (mine) active[found + before] = int32_t(i);
    found += all;
    __syncthreads();
  }
  for (int64_t i = found + threadIdx.x; i < p.rows; i += kScanThreads) active[i] = -1;
}

// Of kernels whose blocks have 8 columns a thread of one row: `columns` of them, `ld` apart.
constexpr int kSpan = kThreads * kRowAlignment;
struct Segments {
  int64_t ld;
  int32_t perRow;

  static Segments of(int64_t columns, int64_t ld) { return {ld, int32_t(ceilDiv(columns, kSpan))}; }
  Grid grid(int64_t rows) const { return {rows * perRow}; }
  __device__ __forceinline__ int64_t row() const { return blockIdx.x / perRow; }
  // May be past the end of the row.
  __device__ __forceinline__ int64_t column() const {
    return int64_t(blockIdx.x % perRow) * kSpan + threadIdx.x * kRowAlignment;
  }
};

// Hidden states of active rows one below the other, zeros below them.
template <class T>
__global__ void __launch_bounds__(kThreads)
    gatherKernel(LogitsOf p, const int32_t* active, T* to, Segments segments) {
  const int64_t i = segments.row(), j = segments.column();
  if (j >= segments.ld) return;
  float values[kRowAlignment] = {};
  if (active[i] >= 0) {
    const T* from = static_cast<const T*>(p.hidden) + active[i] * p.width + j;
    loadGroup(from, p.width - j, isAligned16(from), 0.0f, values);
  }
  storeNarrow(to + i * segments.ld + j, values);
}

// The gradient of active rows to where they belong.
template <class T>
__global__ void __launch_bounds__(kThreads)
    scatterKernel(const float* from, const int32_t* active, T* dHidden, int64_t width, Segments segments) {
  const int64_t i = segments.row(), j = segments.column();
  if (j >= width || active[i] < 0) return;
  float values[kRowAlignment];
  loadWide(from + i * segments.ld + j, values);
  T* to = dHidden + active[i] * width + j;
  if (j + kRowAlignment <= width && isAligned16(to)) {
    storeNarrow(to, values);
  } else {
#pragma unroll
    for (int k = 0; k < kRowAlignment; k++)
      if (j + k < width) to[k] = narrow<T>(values[k]);
  }
}

// dLogit_j = d (1[j = target] - exp(x_j - lse)) / temperature, stored in the training dtype; zeros where no
// row is. 6 or 4 bytes of memory, or of L2, an element.
template <class T, class Logit>
__global__ void __launch_bounds__(kThreads)
    gradientKernel(LinearLogprobBackwardArgs args, Temperature temperature, const int32_t* active,
                   const Logit* logits, T* dLogits, Segments segments, int64_t firstColumn) {
  const int64_t i = segments.row(), j = segments.column(), at = i * segments.ld + j;
  if (j >= segments.ld) return;
  float values[kRowAlignment] = {};
  const int64_t r = active[i];
  if (r >= 0) {
    const float d = args.dLogprobs[r], lse = args.lse[r];
    const int64_t target = args.product.targets[r] - firstColumn - j;
    const LogitRow<Logit> row{logits, temperature};
    loadWide(logits + at, values);
#pragma unroll
    for (int k = 0; k < kRowAlignment; k++) {
      const float p = expf(row.prepared(values[k]) - lse);
      const float g = k == target ? d * (1.0f - p) : -d * p;
      values[k] = temperature.isOne() ? g : temperature.divide(g);
    }
  }
  storeNarrow(dLogits + at, values);
}

// What a block of rows of the backward pass has in memory.
struct BackwardBlock {
  int64_t rows, ldHidden, ldLogits;
  const int32_t* active;  // [rows]
  void* hidden;           // [rows, ldHidden] of the training dtype
  float* dHidden;         // [rows, ldHidden]
  void* logits;           // [rows, ldLogits]
  void* dLogits;          // [rows, ldLogits] of the training dtype
};

// dHidden += dLogits weight and gradWeight += dLogits^T hidden.
void multiplyBack(const LinearLogprobBackwardArgs& args, const BackwardBlock& block, int64_t begin,
                  int64_t columns, Launcher& gpu) {
  const LogitsOf& p = args.product;
  GemmArgs gemm{};
  gemm.in = p.dtype;
  gemm.out = DType::float32;
  gemm.a = block.dLogits;
  gemm.lda = block.ldLogits;
  gemm.n = p.width;

  GemmArgs toHidden = gemm;
  toHidden.b = offset(p.weight, begin * p.width, p.dtype);
  toHidden.ldb = p.width;
  toHidden.c = block.dHidden;
  toHidden.ldc = block.ldHidden;
  toHidden.m = block.rows;
  toHidden.k = columns;
  toHidden.accumulate = begin > 0;
  toHidden.readSoon = true;
  launchGemm(toHidden, Family::training, gpu);

  if (args.gradWeight == nullptr) return;
  GemmArgs toWeight = gemm;
  toWeight.transposeA = true;
  toWeight.b = block.hidden;
  toWeight.ldb = block.ldHidden;
  toWeight.c = args.gradWeight + begin * p.width;
  toWeight.ldc = p.width;
  toWeight.m = columns;
  toWeight.k = block.rows;
  toWeight.accumulate = true;
  launchGemm(toWeight, Family::training, gpu);
}

template <class T, class Logit>
void backward(const LinearLogprobBackwardArgs& args, Launcher& gpu) {
  const LogitsOf& p = args.product;
  // Not a function of the rows that there are: gradWeight is a sum over blocks.
  const int64_t blockRows = std::clamp<int64_t>(kBlockElements / p.width, 1, kBlockRows);
  const int64_t most = std::min(p.rows, blockRows), columns = std::min(p.columns, kBackwardColumns);
  BackwardBlock block{};
  block.ldHidden = alignedUp(p.width);
  block.ldLogits = alignedUp(columns);
  auto* active = gpu.scratch<int32_t>(p.rows);
  T* hidden = gpu.scratch<T>(most * block.ldHidden);
  Logit* logits = gpu.scratch<Logit>(most * block.ldLogits);
  T* dLogits = gpu.scratch<T>(most * block.ldLogits);
  block.dHidden = gpu.scratch<float>(most * block.ldHidden);
  block.hidden = hidden;
  block.logits = logits;
  block.dLogits = dLogits;
  T* dHidden = static_cast<T*>(args.dHidden);
  const Segments ofHidden = Segments::of(p.width, block.ldHidden);

  gpu.launch(findActiveKernel, Grid{1}, kScanThreads, 0, p, args.dLogprobs, active,
             idCheck(gpu, "targets", p.columns));
  gpu.zero(dHidden, size_t(p.rows * p.width) * sizeof(T));
  for (int64_t i = 0; i < p.rows; i += most) {
    block.rows = std::min(most, p.rows - i);
    block.active = active + i;
    gpu.launch(gatherKernel<T>, ofHidden.grid(block.rows), kThreads, 0, p, block.active, hidden, ofHidden);
    for (int64_t begin = 0; begin < p.columns; begin += columns) {
      const int64_t n = std::min(columns, p.columns - begin);
      multiply(p, hidden, block.ldHidden, block.rows, begin, n, logits, block.ldLogits, gpu);
      const Segments ofLogits = Segments::of(n, block.ldLogits);
      gpu.launch(gradientKernel<T, Logit>, ofLogits.grid(block.rows), kThreads, 0, args,
                 Temperature::of(p.temperature), block.active, logits, dLogits, ofLogits, begin);
      multiplyBack(args, block, begin, n, gpu);
    }
    gpu.launch(scatterKernel<T>, ofHidden.grid(block.rows), kThreads, 0, block.dHidden, block.active, dHidden,
               p.width, ofHidden);
  }
}

void linearLogprobBackward(const LinearLogprobBackwardArgs& args, Launcher& gpu) {
  const LogitsOf& p = args.product;
  if (p.rows == 0) return;
  dispatchFloat(p.dtype, [&](auto zero) {
    using T = decltype(zero);
    if (p.logits16)
      backward<T, T>(args, gpu);
    else
      backward<T, float>(args, gpu);
  });
}

}  // namespace

void registerTrainingLinearLogprob(Registry& registry) {
  addKernel<LinearLogprobArgs>(registry, Family::training, linearLogprob);
  addKernel<LinearLogprobBackwardArgs>(registry, Family::training, linearLogprobBackward);
}

}  // namespace isopolicy::cuda
