// A step of attention on the GPU, defined once for both families: at equal chunk and tile a query row gets
// the same bits from the training kernel, from prefill and from decode. The arithmetic is that of
// cpu/shared/attention_row.h.
//
// A warp holds 16 query rows in the fragment layout of mma.m16n8k16: with g = lane / 4 and t = lane % 4, a
// lane has of every 8 columns (keys, or elements of the head) the columns 2t and 2t + 1 of rows g and g + 8,
// as x[column / 8][0..1] and x[column / 8][2..3]. fp32 has the same layout, computed by fmaf.
//
// For each tile of keys, in order, a row does
//   tileMax = -infinity; for each step of the tile: scores(), scaleAndMask(), raise()
//   beginTile()          m' = max(m, tileMax), l and O times 2^(m - m')
//   for each step of the tile: probabilities(), addRows() or addSeenRows()
// How many keys a step has changes no bit, and no more do the other rows of the warp, keys beyond a row's
// limit, or zeros that pad the head. Chunks of tiles are joined in order by joinChunk() and joined().
#pragma once
#include "cuda/shared/kernel.cuh"
#include "cuda/shared/row_load.cuh"

namespace isopolicy::cuda {

inline constexpr float kLog2E = 1.44269504088896341f;
inline constexpr float kLn2 = 0.693147180559945309f;
inline constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

__device__ __forceinline__ int laneOf() { return int(threadIdx.x % 32); }

// Rows of kDim elements in dynamic shared memory, from byte `begin` on, a multiple of 128. The 16-byte
// vectors of row r lie at places xor r % 8: eight rows of one column are then in different banks.
template <class T, int kDim>
struct SharedRows {
  static constexpr int kVector = 16 / sizeof(T), kRowBytes = kDim * int(sizeof(T));
  static_assert(kRowBytes % 128 == 0);
  int begin;

  static __device__ __forceinline__ T* pointer(int byte) {
    return reinterpret_cast<T*>(dynamicShared() + byte);
  }
  __device__ __forceinline__ int byteOf(int row, int column) const {
    return begin + row * kRowBytes + (((column / kVector) ^ (row % 8)) * 16) +
           column % kVector * int(sizeof(T));
  }
  __device__ __forceinline__ T* at(int row, int column) const { return pointer(byteOf(row, column)); }
  // From a byte of a row whose number is a multiple of 8, or with a multiple of 8 rows, so many rows and
  // columns further. `columns` is a multiple of the 32 / sizeof(T) columns that the byte is among the first
  // of. For constants one instruction, and most of it part of the address.
  static __device__ __forceinline__ int along(int byte, int rows, int columns) {
    const int bytes = columns * int(sizeof(T));
    return (byte ^ ((bytes % 128) ^ (rows % 8 * 16))) + bytes / 128 * 128 + rows * kRowBytes;
  }
  // From that row on, a multiple of 8.
  __device__ __forceinline__ SharedRows from(int row) const { return {begin + row * kRowBytes}; }
};

// Begins the copies (cp.async) of kRows rows of headDim elements, `stride` elements apart, by kThreads
// threads. Rows from `count` on and columns from headDim on become zeros. `stride` is a multiple of headDim.
// Where vectors are not aligned, elements are copied at once.
template <int kRows, int kThreads, class T, int kDim>
__device__ __forceinline__ void copyRows(SharedRows<T, kDim> to, const T* from, int64_t stride, int count,
                                         int headDim) {
  constexpr int kVector = SharedRows<T, kDim>::kVector, kEach = kDim / kVector;
  const auto copy = [&](int row, int column) {
    const bool present = row < count && column < headDim;
    copyAsync<16>(to.at(row, column), present ? from + row * stride + column : from, present ? 16 : 0);
  };
  if (headDim % kVector != 0 || !isAligned16(from)) {
#pragma unroll 1
    for (int i = int(threadIdx.x); i < kRows * kDim; i += kThreads) {
      const int row = i / kDim, column = i % kDim;
      *to.at(row, column) = row < count && column < headDim ? from[row * stride + column] : T{};
    }
  } else if constexpr (kThreads % kEach == 0 && kRows % (kThreads / kEach) == 0) {
#pragma unroll 4
    for (int row = 0; row < kRows; row += kThreads / kEach)
      copy(int(threadIdx.x) / kEach + row, int(threadIdx.x) % kEach * kVector);
  } else {
#pragma unroll 4
    for (int i = int(threadIdx.x); i < kRows * kEach; i += kThreads) copy(i / kEach, i % kEach * kVector);
  }
}

// ---- products of a warp ----

// s = rows times columns: of 16 rows and kColumns rows, the products of each with each.
template <int kColumns, class T, int kDim>
__device__ __forceinline__ void scores(SharedRows<T, kDim> rows, SharedRows<T, kDim> columns,
                                       float (&s)[kColumns / 8][4]) {
  const int lane = laneOf();
#pragma unroll
  for (int j = 0; j < kColumns / 8; j++)
#pragma unroll
    for (int i = 0; i < 4; i++) s[j][i] = 0.0f;
  if constexpr (sizeof(T) == 2) {
    using Rows = SharedRows<T, kDim>;
    const int row = rows.byteOf(lane % 16, lane / 16 * 8);
    const int column = columns.byteOf(lane / 16 * 8 + lane % 8, lane / 8 % 2 * 8);
#pragma unroll
    for (int k = 0; k < kDim; k += 16) {
      uint32_t a[4];
      ldmatrix(a, Rows::pointer(Rows::along(row, 0, k)));
#pragma unroll
      for (int j = 0; j < kColumns / 16; j++) {
        uint32_t b[4];
        ldmatrix(b, Rows::pointer(Rows::along(column, 16 * j, k)));
        mma<T>(s[2 * j], a, b[0], b[1]);
        mma<T>(s[2 * j + 1], a, b[2], b[3]);
      }
    }
  } else {
    const int g = lane / 4, t = lane % 4;
#pragma unroll 1
    for (int k = 0; k < kDim; k += 4) {
      float a[2][4];
      Pack<T>::load(rows.at(g, k)).widen(a[0]);
      Pack<T>::load(rows.at(g + 8, k)).widen(a[1]);
#pragma unroll
      for (int j = 0; j < kColumns / 8; j++)
#pragma unroll
        for (int e = 0; e < 2; e++) {
          float b[4];
          Pack<T>::load(columns.at(8 * j + 2 * t + e, k)).widen(b);
#pragma unroll
          for (int i = 0; i < 4; i++) {
            s[j][e] = fmaf(a[0][i], b[i], s[j][e]);
            s[j][2 + e] = fmaf(a[1][i], b[i], s[j][2 + e]);
          }
        }
    }
  }
}

// Two neighbours of x as the k-th 16 columns of a left operand, rounded to 16 bits.
template <class T, int kColumns8>
__device__ __forceinline__ void leftOperand(const float (&x)[kColumns8][4], int k, uint32_t (&a)[4]) {
  a[0] = narrow2<T>(x[2 * k][0], x[2 * k][1]);
  a[1] = narrow2<T>(x[2 * k][2], x[2 * k][3]);
  a[2] = narrow2<T>(x[2 * k + 1][0], x[2 * k + 1][1]);
  a[3] = narrow2<T>(x[2 * k + 1][2], x[2 * k + 1][3]);
}

// Of fp32: addRows where row g + 8 i sees rows below seen[i].
template <int kKeys, int kOut, int kDim>
__device__ __forceinline__ void addRowsBelow(const float (&p)[kKeys / 8][4], SharedRows<float, kDim> rows,
                                             int first, float (&out)[kOut / 8][4], const int (&seen)[2]) {
  using Rows = SharedRows<float, kDim>;
  const int byte = rows.byteOf(0, first + laneOf() % 4 * 2);
#pragma unroll
  for (int key = 0; key < kKeys; key++) {
    const float p0 = __shfl_sync(0xffffffffu, p[key / 8][key % 2], key % 8 / 2, 4);
    const float p1 = __shfl_sync(0xffffffffu, p[key / 8][2 + key % 2], key % 8 / 2, 4);
#pragma unroll
    for (int j = 0; j < kOut / 8; j++) {
      const float2 v = *reinterpret_cast<const float2*>(Rows::pointer(Rows::along(byte, key, 8 * j)));
      if (key < seen[0]) {
        out[j][0] = fmaf(p0, v.x, out[j][0]);
        out[j][1] = fmaf(p0, v.y, out[j][1]);
      }
      if (key < seen[1]) {
        out[j][2] = fmaf(p1, v.x, out[j][2]);
        out[j][3] = fmaf(p1, v.y, out[j][3]);
      }
    }
  }
}

// out += p times rows: of each of the 16 rows, the sum of the kKeys rows weighted with p, which 16-bit types
// round; columns `first` .. `first` + kOut - 1 of the rows.
template <int kKeys, int kOut, class T, int kDim>
__device__ __forceinline__ void addRows(const float (&p)[kKeys / 8][4], SharedRows<T, kDim> rows, int first,
                                        float (&out)[kOut / 8][4]) {
  const int lane = laneOf();
  if constexpr (sizeof(T) == 2) {
    using Rows = SharedRows<T, kDim>;
    const int row = rows.byteOf(lane % 16, first + lane / 16 * 8);
#pragma unroll
    for (int k = 0; k < kKeys / 16; k++) {
      uint32_t a[4];
      leftOperand<T>(p, k, a);
#pragma unroll
      for (int j = 0; j < kOut / 16; j++) {
        uint32_t b[4];
        ldmatrix<true>(b, Rows::pointer(Rows::along(row, 16 * k, 16 * j)));
        mma<T>(out[2 * j], a, b[0], b[1]);
        mma<T>(out[2 * j + 1], a, b[2], b[3]);
      }
    }
  } else {
    addRowsBelow<kKeys, kOut>(p, rows, first, out, {kKeys, kKeys});
  }
}

// Whether no element of the rows, in the columns that addRows takes, is infinite or NaN; by a warp. Rows that
// are fp32 need not be: addSeenRows skips what is not seen.
template <int kKeys, int kOut, class T, int kDim>
__device__ __forceinline__ bool rowsAreFinite(SharedRows<T, kDim> rows, int first) {
  if constexpr (sizeof(T) == 4) return false;
  constexpr uint32_t kExponent = std::is_same_v<T, Half> ? 0x7c00u : 0x7f80u;
  constexpr int kVector = SharedRows<T, kDim>::kVector, kEach = kOut / kVector;
  bool finite = true;
#pragma unroll 4
  for (int i = laneOf(); i < kKeys * kEach; i += 32) {
    const uint4 v = Pack<T>::load(rows.at(i / kEach, first + i % kEach * kVector)).bits;
    for (const uint32_t x : {v.x, v.y, v.z, v.w})
      finite &= (~x & kExponent) != 0 && (~x & kExponent << 16) != 0;
  }
  return __all_sync(0xffffffffu, finite);
}

template <int kKeys, int kOut>
struct SeenRows {
  uint32_t p[kKeys / 16][4];  // left operands
  float out[kOut / 8][4];
};

// Row after row, with zeros in the place of what it does not see. Rare, and so kept out of the way: not
// inlined, its operands in local memory.
template <int kKeys, int kOut, class T, int kDim>
__device__ __attribute__((noinline)) void addOneByOne(SeenRows<kKeys, kOut>& x, SharedRows<T, kDim> rows,
                                                      int first, int firstKey, int limit0, int limit1) {
  const int lane = laneOf();
#pragma unroll 1
  for (int r = 0; r < 16; r++) {
    const int seen = __shfl_sync(0xffffffffu, r < 8 ? limit0 : limit1, r % 8 * 4) - firstKey;
#pragma unroll 1
    for (int k = 0; k < kKeys / 16; k++) {
      const auto mask = [&](int key) {
        return (key < seen ? 0x0000ffffu : 0u) | (key + 1 < seen ? 0xffff0000u : 0u);
      };
      const uint32_t low = mask(16 * k + lane % 4 * 2), high = mask(16 * k + lane % 4 * 2 + 8);
#pragma unroll 1
      for (int j = 0; j < kOut / 8; j++) {
        uint32_t b[2];
        ldmatrix<true>(b, rows.at(16 * k + lane % 16, first + 8 * j));
        float sum[4] = {x.out[j][0], x.out[j][1], x.out[j][2], x.out[j][3]};
        mma<T>(sum, x.p[k], b[0] & low, b[1] & high);
        if (lane / 4 == r % 8) {
          x.out[j][r / 8 * 2] = sum[r / 8 * 2];
          x.out[j][r / 8 * 2 + 1] = sum[r / 8 * 2 + 1];
        }
        __syncwarp();
      }
    }
  }
}

// addRows where row g + 8 i of the warp does not see rows from limit[i] - firstKey on: their weights are
// zeros, but what they hold may not be finite.
template <int kKeys, int kOut, class T, int kDim>
__device__ __forceinline__ void addSeenRows(const float (&p)[kKeys / 8][4], SharedRows<T, kDim> rows,
                                            int first, float (&out)[kOut / 8][4], int firstKey,
                                            const int (&limit)[2]) {
  if constexpr (sizeof(T) == 2) {
    SeenRows<kKeys, kOut> x;
#pragma unroll
    for (int k = 0; k < kKeys / 16; k++) leftOperand<T>(p, k, x.p[k]);
#pragma unroll
    for (int j = 0; j < kOut / 8; j++)
#pragma unroll
      for (int i = 0; i < 4; i++) x.out[j][i] = out[j][i];
    addOneByOne(x, rows, first, firstKey, limit[0], limit[1]);
#pragma unroll
    for (int j = 0; j < kOut / 8; j++)
#pragma unroll
      for (int i = 0; i < 4; i++) out[j][i] = x.out[j][i];
  } else {
    addRowsBelow<kKeys, kOut>(p, rows, first, out, {limit[0] - firstKey, limit[1] - firstKey});
  }
}

// ---- the online softmax ----

// Of rows g and g + 8. The sum is this lane's part of it until finishSums().
struct SoftmaxRows {
  float max[2] = {kMinusInfinity, kMinusInfinity};
  float sum[2] = {0.0f, 0.0f};
};

// What is subtracted from scores: where no key was seen so far all of them are minus infinity, and their
// probabilities are to be zeros.
__device__ __forceinline__ float shiftOf(float max) { return max == kMinusInfinity ? 0.0f : max; }

// s = s scale, and minus infinity for keys that a row does not see; scale is that of base 2. The first column
// is key `firstKey`, and row g + 8 i sees keys below limit[i].
template <int kKeys>
__device__ __forceinline__ void scaleAndMask(float (&s)[kKeys / 8][4], float scale, int firstKey,
                                             const int (&limit)[2]) {
  const int t = laneOf() % 4;
#pragma unroll
  for (int j = 0; j < kKeys / 8; j++)
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const int key = firstKey + 8 * j + 2 * t + i % 2;
      s[j][i] = key < limit[i / 2] ? __fmul_rn(s[j][i], scale) : kMinusInfinity;
    }
}

// The same where all rows see all of these keys.
template <int kKeys>
__device__ __forceinline__ void scaleAll(float (&s)[kKeys / 8][4], float scale) {
#pragma unroll
  for (int j = 0; j < kKeys / 8; j++)
#pragma unroll
    for (int i = 0; i < 4; i++) s[j][i] = __fmul_rn(s[j][i], scale);
}

// tileMax = max(tileMax, s), of this lane's columns.
template <int kKeys>
__device__ __forceinline__ void raise(float (&tileMax)[2], const float (&s)[kKeys / 8][4]) {
#pragma unroll
  for (int j = 0; j < kKeys / 8; j++)
#pragma unroll
    for (int i = 0; i < 4; i++) tileMax[i / 2] = max(tileMax[i / 2], s[j][i]);
}

template <int kOut>
__device__ __forceinline__ void beginTile(SoftmaxRows& rows, const float (&tileMax)[2],
                                          float (&out)[kOut / 8][4]) {
  float factor[2];
#pragma unroll
  for (int i = 0; i < 2; i++) {
    const float now = max(rows.max[i], warpMax<4>(tileMax[i]));
    factor[i] = exp2Approx(__fsub_rn(rows.max[i], shiftOf(now)));
    rows.sum[i] = __fmul_rn(rows.sum[i], factor[i]);
    rows.max[i] = now;
  }
  // Times one changes no bit. After some tiles maxima rarely change.
  if (!__any_sync(0xffffffffu, factor[0] != 1.0f || factor[1] != 1.0f)) return;
#pragma unroll
  for (int j = 0; j < kOut / 8; j++)
#pragma unroll
    for (int i = 0; i < 4; i++) out[j][i] = __fmul_rn(out[j][i], factor[i / 2]);
}

// p = 2^(s - m) in the place of s, not rounded; adds them to the sums.
template <int kKeys>
__device__ __forceinline__ void probabilities(SoftmaxRows& rows, float (&s)[kKeys / 8][4]) {
  const float shift[2] = {shiftOf(rows.max[0]), shiftOf(rows.max[1])};
#pragma unroll
  for (int j = 0; j < kKeys / 8; j++)
#pragma unroll
    for (int i = 0; i < 4; i++) {
      s[j][i] = exp2Approx(__fsub_rn(s[j][i], shift[i / 2]));
      rows.sum[i / 2] = __fadd_rn(rows.sum[i / 2], s[j][i]);
    }
}

// At the end of a chunk: the sums of the whole rows, in all of their lanes.
__device__ __forceinline__ void finishSums(SoftmaxRows& rows) {
#pragma unroll
  for (int i = 0; i < 2; i++) {
    rows.sum[i] = __fadd_rn(rows.sum[i], __shfl_xor_sync(0xffffffffu, rows.sum[i], 1));
    rows.sum[i] = __fadd_rn(rows.sum[i], __shfl_xor_sync(0xffffffffu, rows.sum[i], 2));
  }
}

// ---- chunks ----

// What the outputs of the chunks so far and of the next one are multiplied with.
struct ChunkFactors {
  float keep, add;
};

// Joins the maximum and sum of a chunk with those of the chunks before it: at first minus infinity and 0.
__device__ __forceinline__ ChunkFactors joinChunk(float& max, float& sum, float chunkMax, float chunkSum) {
  const float now = max < chunkMax ? chunkMax : max;
  const ChunkFactors f{exp2Approx(__fsub_rn(max, shiftOf(now))),
                       exp2Approx(__fsub_rn(chunkMax, shiftOf(now)))};
  max = now;
  sum = fmaf(chunkSum, f.add, __fmul_rn(sum, f.keep));
  return f;
}
__device__ __forceinline__ float joined(float out, float chunkOut, ChunkFactors f) {
  return fmaf(chunkOut, f.add, __fmul_rn(out, f.keep));
}

// What is rounded once to be an element of the result, with inverse = __frcp_rn(sum). Adding zero leaves no
// zero negative: which sign it had may depend on masked keys.
__device__ __forceinline__ float normalized(float out, float inverse) { return fmaf(out, inverse, 0.0f); }

}  // namespace isopolicy::cuda
