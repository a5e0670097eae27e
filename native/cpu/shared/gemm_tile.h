// The register tiles of the matrix products, one format a way of multiplying:
//
//   Fused<T>      fp32 fused multiply-adds, T widened           every level
//   Pairs         bf16 pairs by vdpbf16ps                       avx512bf16
//   Tiles<Parts>  bf16 on tile registers, 32 k a step           amx
//                 fp16 as two bf16 parts: 11 bits of significand are 8 and 3, so each number is exactly
//                 hi + lo and a product is four products of parts, none of which rounds
//
// A format says how a block of A and a panel of B lie in memory, packs them so, and runs a tile: kRows rows
// of A times kColumns columns of B over some steps of k. Sums are fp32 and stay in memory between blocks of k
// ([chain][row][column]). The order of a sum is a matter of the format and Chains alone: chain c of Chains
// takes steps c, c + Chains, ...; it does not depend on the tile's shape or on what else is in it. Included
// once a pass, inside it, after gemm_pack.h: no guard.
#include "cpu/shared/gemm_ahead.h"
#include "cpu/shared/gemm_pack_vectors.h"
#include "cpu/shared/tiles.h"

namespace isopolicy::ISA_PASS {

// Rows of C where a whole tile is to go when it is done.
struct TileOut {
  void* at = nullptr;  // null: the sums are kept
  int64_t ld = 0;
  bool wide = false;  // fp32, whatever the operands are
  bool past = false;  // past the caches
};

struct TileJob {
  const void* a;
  const void* b;
  // Tiles, in bytes: from a row of A to the next, to the lower half and to the next step, and from the left
  // half of a panel of B to its right one and to the next step.
  int64_t rowA, halfA, stepA, halfB, stepB;
  int64_t steps;
  int turn;     // steps after which memory is asked for once
  float* sums;  // [Chains][kRows][kColumns]
  bool resume;  // the sums go on, else they start from zero
  TileOut out;
  Soon nextA, nextB;
  SoonWritten nextC;
};

// ---- One vector of columns at a time: Fused and Pairs ----

// Vectors of a panel of B. With 32 registers two, so that 14 rows of A make 28 chains beside two vectors of B
// and one broadcast; a step then costs 16 loads for 28 multiply-adds, half of what the load ports give. With
// 16 registers (two a Vec at AVX2) one, and 6 rows; portable code has 16 xmm, four a Vec.
inline constexpr int kTileVectors = ISA_LEVEL >= 2 ? 2 : 1;
inline constexpr int kTileColumns = kTileVectors * kLanes;
inline constexpr int kAllRows = ISA_LEVEL >= 2 ? 14 : ISA_LEVEL == 1 ? 6 : 2;

// Portable code has neither a broadcast nor a fused multiply-add: a shuffle would take a port from additions,
// so an element of a packed row lies there four times.
inline constexpr int kCopies = ISA_LEVEL == 0 ? 4 : 1;
ISA_INLINE Vec copiesAt(const float* a) {
#if ISA_LEVEL == 0
  const Quad x = quadAt(a);
  return {x, x, x, x};
#else
  return splat(a[0]);
#endif
}

struct FusedStep {
  ISA_INLINE static Vec apply(Vec a, Vec b, Vec sum) { return fma(a, b, sum); }
#if ISA_LEVEL >= 2
  template <int Chains, class Out>
  ISA_INLINE static __m512i rounded(Out, Vec a, Vec b) {
    return sideBySide(Out(), a, b);
  }
#endif
};
#if ISA_LEVEL >= 3
// The instruction adds the product of the odd k first, then that of the even one, each with a rounding of its
// own, and takes and gives subnormals as zero.
struct PairStep {
  ISA_INLINE static Vec apply(Vec a, Vec b, Vec sum) {
    return {_mm512_dpbf16_ps(sum.v, (__m512bh)a.v, (__m512bh)b.v)};
  }
  // The instruction that rounds takes subnormals as zero: the sum of a chain is none, that of two may be one.
  template <int Chains>
  ISA_INLINE static __m512i rounded(BFloat16, Vec a, Vec b) {
    if constexpr (Chains == 1) return (__m512i)_mm512_cvtne2ps_pbh(b.v, a.v);
    return sideBySide(BFloat16(), a, b);
  }
};
#endif

#if ISA_LEVEL >= 2
// Rounds and stores a tile that is still in registers: through memory it would cost one of 256 k a twentieth.
template <class Step, class Out, int Chains, int R>
ISA_INLINE void putTile(const TileOut& out, Vec (&sum)[Chains][R][2]) {
  const auto eachRow = [&](auto put) __attribute__((always_inline)) {
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) put(r, r * out.ld);
  };
  if constexpr (Chains == 2)
    eachRow([&](int r, int64_t) __attribute__((always_inline)) {
      sum[0][r][0] = sum[0][r][0] + sum[1][r][0];
      sum[0][r][1] = sum[0][r][1] + sum[1][r][1];
    });
  const auto& total = sum[0];
  if (std::is_same_v<Out, float> || out.wide) {
    float* to = static_cast<float*>(out.at);
    if (out.past)
      eachRow([&](int r, int64_t at)
                  __attribute__((always_inline)) { streamTwo(to + at, total[r][0], total[r][1]); });
    else
      eachRow([&](int r, int64_t at)
                  __attribute__((always_inline)) { storeTwo(to + at, total[r][0], total[r][1]); });
  } else if constexpr (!std::is_same_v<Out, float>) {
    // Rounded before it is known where they go: in both branches the compiler would spill what they share.
    __m512i lines[R];
    eachRow([&](int r, int64_t) __attribute__((always_inline)) {
      lines[r] = Step::template rounded<Chains>(Out(), total[r][0], total[r][1]);
    });
    Out* to = static_cast<Out*>(out.at);
    if (out.past)
      eachRow([&](int r, int64_t at) __attribute__((always_inline)) {
        _mm512_stream_si512(reinterpret_cast<__m512i*>(to + at), lines[r]);
      });
    else
      eachRow([&](int r, int64_t at)
                  __attribute__((always_inline)) { _mm512_storeu_si512(to + at, lines[r]); });
  }
}
#endif

// Steps of a turn: each asks for memory, which takes instructions. Where but a few tiles read a panel, the
// weights that are asked for at a time are so many bytes: more at once would hold each other up.
inline constexpr int kTurnSteps = 8, kTurnBytes = 512;

// Out is what a whole tile may be rounded to and stored as by itself, or void.
template <class Step, class B, class Out, int Chains, int R, int V>
static void vectorTile(const TileJob& job) {
  constexpr int kStride = kAllRows / Chains * kTileColumns;  // of a chain's sums
  Vec sum[Chains][R][V];
#pragma GCC unroll 2
  for (int c = 0; c < Chains; c++)
#pragma GCC unroll 16
    for (int r = 0; r < R; r++)
#pragma GCC unroll 2
      for (int v = 0; v < V; v++)
        sum[c][r][v] = job.resume ? load(job.sums + c * kStride + r * kTileColumns + v * kLanes) : zero();

  [[maybe_unused]] auto nextA = job.nextA, nextB = job.nextB;
  if (ISA_LEVEL > 0) {  // all of C at once: with a third stream in the loop, registers are spilled
    auto nextC = job.nextC;
    nextC.fetch(nextC.left);
  }
  const float* a = static_cast<const float*>(job.a);
  const B* b = static_cast<const B*>(job.b);
  const auto step = [&](auto& sums) __attribute__((always_inline)) {
    Vec across[V];
#pragma GCC unroll 2
    for (int v = 0; v < V; v++) across[v] = load(b + v * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
      const Vec x = copiesAt(a + r * kCopies);
#pragma GCC unroll 2
      for (int v = 0; v < V; v++) sums[r][v] = Step::apply(x, across[v], sums[r][v]);
    }
    a += R * kCopies;
    b += kTileColumns;
  };
  const auto twoSteps = [&]() __attribute__((always_inline)) {
#pragma GCC unroll 2
    for (int c = 0; c < 2; c++) step(sum[c % Chains]);
  };
  int64_t s = 0;
  for (; s + job.turn <= job.steps; s += job.turn) {
    if (ISA_LEVEL > 0) {
      nextA.fetch();
      nextB.fetch();
    }
#pragma GCC unroll 1
    for (int i = 0; i < job.turn; i += 2) twoSteps();
  }
#pragma GCC unroll 1
  for (; s + 2 <= job.steps; s += 2) twoSteps();
  if (s < job.steps) step(sum[0]);

#if ISA_LEVEL >= 2
  if constexpr (V == 2 && !std::is_void_v<Out>)
    if (job.out.at) return putTile<Step, Out>(job.out, sum);
#endif
#pragma GCC unroll 2
  for (int c = 0; c < Chains; c++)
#pragma GCC unroll 16
    for (int r = 0; r < R; r++)
#pragma GCC unroll 2
      for (int v = 0; v < V; v++) store(job.sums + c * kStride + r * kTileColumns + v * kLanes, sum[c][r][v]);
}

// Runs the tile of `rows` rows and `vectors` vectors.
template <class Step, class B, class Out, int Chains, int R = kAllRows / Chains>
ISA_INLINE void runVectorTile(int rows, int vectors, const TileJob& job) {
  if constexpr (R > 0) {
    if (rows < R) return runVectorTile<Step, B, void, Chains, R - 1>(rows, vectors, job);
    if (vectors == 1) return vectorTile<Step, B, void, Chains, R, 1>(job);
    if constexpr (kTileVectors > 1) vectorTile<Step, B, Out, Chains, R, 2>(job);
  }
}

// The rows of a tile times all of `columns` columns of B as it is stored, k by k; the sums of a panel are
// panelSums from those of the one before. Four rows of B go by at a time: with few rows of A it is memory
// that limits, and that wants long reads.
template <class T, int Chains>
static void streamRows(int rows, int64_t columns, const TileJob& job, int64_t ldb, int64_t panelSums) {
  constexpr int64_t kStride = kAllRows / Chains * kTileColumns;  // of a chain's sums
  if (!job.resume)
    for (int64_t p = 0; p < quotientUp(columns, kTileColumns); p++)
      std::fill(job.sums + p * panelSums, job.sums + p * panelSums + Chains * kStride, 0.0f);
  const auto addSteps = [&](auto count, int64_t s) __attribute__((always_inline)) {
    constexpr int kSteps = decltype(count)::value;
    const T* b = static_cast<const T*>(job.b) + s * ldb;
    for (int r = 0; r < rows; r++) {
      Vec x[kSteps];
#pragma GCC unroll 4
      for (int i = 0; i < kSteps; i++)
        x[i] = copiesAt(static_cast<const float*>(job.a) + ((s + i) * rows + r) * kCopies);
      const auto add = [&](int64_t at, auto get) __attribute__((always_inline)) {
        float* to = job.sums + at / kTileColumns * panelSums + r * kTileColumns + at % kTileColumns;
        Vec sum[Chains];
#pragma GCC unroll 2
        for (int c = 0; c < Chains; c++) sum[c] = load(to + c * kStride);
#pragma GCC unroll 4
        for (int i = 0; i < kSteps; i++) sum[i % Chains] = fma(x[i], get(b + i * ldb + at), sum[i % Chains]);
#pragma GCC unroll 2
        for (int c = 0; c < Chains; c++) store(to + c * kStride, sum[c]);
      };
      int64_t at = 0;
      for (; at + kLanes <= columns; at += kLanes) add(at, [](const T* p) { return load(p); });
      const int left = int(columns - at);
      if (left > 0) add(at, [&](const T* p) { return loadPartial(p, left); });
    }
  };
  int64_t s = 0;
  for (; s + 4 <= job.steps; s += 4) addSteps(std::integral_constant<int, 4>(), s);
  for (; s < job.steps; s += Chains) {
    if (s + Chains <= job.steps)
      addSteps(std::integral_constant<int, Chains>(), s);
    else
      addSteps(std::integral_constant<int, 1>(), s);
  }
}

// Tiles of A, and panels of B, that are packed together where their lanes lie across k.
inline constexpr int kVectorTilesPacked = 16, kVectorPanelsPacked = 8;

template <class T, int Chains>
struct Fused {
  using Element = T;
  using Step = FusedStep;
  static constexpr int kChains = Chains, kStepLength = 1;
  static constexpr int kRows = kAllRows / Chains, kColumns = kTileColumns;
  static constexpr int64_t kBlock = 128 * Chains;  // of k: a panel of B is 16 KiB (one chain) and stays in L1
  static constexpr int64_t kBytesA = kRows * kCopies * 4, kBytesB = kColumns * 4;  // a step, ready to run
  // A step of packed weights, and how far the next one is.
  static constexpr int64_t kBytesStored = kColumns * int64_t(sizeof(T)), kStoredStep = kBytesStored;
  // The tile can read packed weights as they are, widening them on the way, which costs it a conversion for
  // kRows multiply-adds. Widened once they serve many tiles, which only pays where those are very many, or
  // where widening takes several instructions.
  static constexpr int kMostDirectTiles = sizeof(T) == 4 ? 1 << 30 : ISA_LEVEL == 0 ? 2 : 16;
  static constexpr int64_t kStreamedRows = 4;  // so many rows of A take a plain B as it lies
  static constexpr int kTilesPacked = kVectorTilesPacked, kPanelsPacked = kVectorPanelsPacked;
  static constexpr bool kTakesStoredRows = false;  // of A, where they are whole steps on whole lines
  // Steps after which memory is asked for once, with many tiles of rows and with few.
  static constexpr int kTurn = kTurnSteps, kTurnOfFew = kTurnBytes / kBytesStored;
  static constexpr bool kLazy = true;                 // A is packed tile by tile, lines of C are asked for
  static constexpr bool kSharesRows = true;           // a tile may have any number of rows
  static constexpr bool kCheapPacking = true;         // beside the product
  static constexpr bool kPutsTiles = ISA_LEVEL >= 2;  // a tile stores its part of C itself

  static void packA(const Source<T>& x, int64_t steps, void* to) {
    packVectorRows<1, kRows, kCopies>(x, steps, static_cast<float*>(to));
  }
  static void packB(const Source<T>& x, int64_t steps, void* to, int64_t panelBytes) {
    packVectorColumns<1, kColumns>(x, steps, static_cast<float*>(to), panelBytes / 4);
  }
  static void packStored(const Source<T>& x, int64_t steps, void* to) {
    T* elements = static_cast<T*>(to);
    eachStep<1>(x, steps, kColumns,
                [&](int64_t step, int64_t lane, Vec v) { store(elements + step * kColumns + lane, v); });
  }
  static void prepare(const void* stored, int64_t, int64_t steps, void* to) {
    const T* from = static_cast<const T*>(stored);
    float* words = static_cast<float*>(to);
    for (int64_t i = 0; i < steps * kColumns; i += kLanes) store(words + i, load(from + i));
  }
  static void run(int rows, int columns, const TileJob& job, bool direct) {
    const int vectors = columns > kLanes ? 2 : 1;
    if (direct)
      runVectorTile<Step, T, T, Chains>(rows, vectors, job);
    else
      runVectorTile<Step, float, T, Chains>(rows, vectors, job);
  }
  static void stream(int rows, int64_t columns, const TileJob& job, int64_t ldb, int64_t panelSums) {
    streamRows<T, Chains>(rows, columns, job, ldb, panelSums);
  }
  struct Scope {};
};

#if ISA_LEVEL >= 3
template <int Chains>
struct Pairs {
  using Element = BFloat16;
  using Step = PairStep;
  static constexpr int kChains = Chains, kStepLength = 2;
  static constexpr int kRows = kAllRows / Chains, kColumns = kTileColumns;
  static constexpr int64_t kBlock = 256 * Chains;
  static constexpr int64_t kBytesA = kRows * 4, kBytesB = kColumns * 4, kBytesStored = kBytesB;
  static constexpr int64_t kStoredStep = kBytesStored;
  static constexpr int kMostDirectTiles = 1 << 30;
  static constexpr int64_t kStreamedRows = 0;
  static constexpr int kTilesPacked = kVectorTilesPacked, kPanelsPacked = kVectorPanelsPacked;
  static constexpr bool kTakesStoredRows = false;
  static constexpr int kTurn = kTurnSteps, kTurnOfFew = kTurnBytes / kBytesStored;
  static constexpr bool kLazy = true, kSharesRows = true, kCheapPacking = true, kPutsTiles = true;

  static void packA(const Source<BFloat16>& x, int64_t steps, void* to) {
    packVectorRows<2, kRows, kCopies>(x, steps, static_cast<float*>(to));
  }
  static void packB(const Source<BFloat16>& x, int64_t steps, void* to, int64_t panelBytes) {
    packVectorColumns<2, kColumns>(x, steps, static_cast<float*>(to), panelBytes / 4);
  }
  static void packStored(const Source<BFloat16>& x, int64_t steps, void* to) { packB(x, steps, to, 0); }
  static void prepare(const void*, int64_t, int64_t, void*) {}
  static void run(int rows, int columns, const TileJob& job, bool) {
    runVectorTile<Step, float, BFloat16, Chains>(rows, columns > kLanes ? 2 : 1, job);
  }
  struct Scope {};
};
#endif

// ---- Tile registers ----

#if ISA_LEVEL >= 4
inline constexpr int64_t kTileBytes = 1024;

// fp16 in packed weights: the even k of sixteen columns, then the odd ones, so that splitting them takes no
// shuffles.
ISA_INLINE void storeApart(char* to, Vec words) {
  const __m512i pairs = _mm512_castps_si512(words.v);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtepi32_epi16(pairs));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + 32),
                      _mm512_cvtepi32_epi16(_mm512_srli_epi32(pairs, 16)));
}
// The same as splitHalves makes of pairs: a line of a tile, and a tile further the rests.
ISA_INLINE void splitStored(const char* from, char* to) {
  const __m512i mask = _mm512_set1_epi32(int(0xffff0000u));
  const __m512 even = load(reinterpret_cast<const Half*>(from)).v,
               odd = load(reinterpret_cast<const Half*>(from + 32)).v;
  const auto upper = [&](__m512 x) { return _mm512_and_si512(_mm512_castps_si512(x), mask); };
  const auto rest = [&](__m512 x) { return _mm512_sub_ps(x, _mm512_castsi512_ps(upper(x))); };
  const auto pairs = [&](__m512 low, __m512 high) {  // (high & mask) | (low >> 16)
    return _mm512_ternarylogic_epi32(_mm512_castps_si512(high), mask,
                                     _mm512_srli_epi32(_mm512_castps_si512(low), 16), 0xea);
  };
  _mm512_store_si512(to, pairs(even, odd));
  _mm512_store_si512(to + kTileBytes, pairs(rest(even), rest(odd)));
}

// A block of A is [step][16-row half][part] tiles, a panel of B [step][16-column half][part]: kRows and
// kColumns are two tiles each, so that four products share four loads and their sums fill four of the eight
// registers.
template <int Parts, int Chains>
struct Tiles {
  using Element = std::conditional_t<Parts == 1, BFloat16, Half>;
  static constexpr int kChains = Chains, kStepLength = kTileDepth;
  static constexpr int kRows = 32, kColumns = 32;
  static constexpr int64_t kBlock = 256 / Parts * Chains;  // of k: a panel of B is a third of L1 (one chain)
  static constexpr int64_t kBytesA = 2 * Parts * kTileBytes, kBytesB = kBytesA, kBytesStored = 2 * kTileBytes;
  static constexpr int64_t kStoredStep = kTileBytes;
  static constexpr int kMostDirectTiles = Parts == 1 ? 1 << 30 : 0;
  static constexpr int64_t kStreamedRows = 0;
  static constexpr int kTilesPacked = 8, kPanelsPacked = 4;
  static constexpr bool kTakesStoredRows = Parts == 1;
  static constexpr int kTurn = 1, kTurnOfFew = 1;
  static constexpr bool kLazy = false;  // neither paid (docs/performance.md)
  static constexpr bool kSharesRows = false, kCheapPacking = false, kPutsTiles = false;
  using Scope = TileScope;

  static void packA(const Source<Element>& x, int64_t steps, void* to) {
    eachLane(x, steps * 16, roundUp(x.lanes, kRows), [&](int64_t row, int64_t pair, Vec words) {
      char* tile = static_cast<char*>(to) + row / kRows * steps * kBytesA + pair / 16 * kBytesA;
      put(tile + row % kRows / 16 * Parts * kTileBytes + row % 16 * 64, words);
    });
  }
  static void packB(const Source<Element>& x, int64_t steps, void* to, int64_t panelBytes) {
    eachStep<2>(x, steps * 16, roundUp(x.lanes, kColumns), [&](int64_t pair, int64_t column, Vec words) {
      char* tile = static_cast<char*>(to) + column / kColumns * panelBytes + pair / 16 * kBytesB;
      put(tile + column % kColumns / 16 * Parts * kTileBytes + pair % 16 * 64, words);
    });
  }
  // Packed weights lie by [16-column half][step], so that the halves are two streams (gemm_stream.h).
  static void packStored(const Source<Element>& x, int64_t steps, void* to) {
    eachStep<2>(x, steps * 16, kColumns, [&](int64_t pair, int64_t column, Vec words) {
      char* at = static_cast<char*>(to) + (column / 16 * steps + pair / 16) * kTileBytes + pair % 16 * 64;
      if constexpr (Parts == 1)
        store(reinterpret_cast<float*>(at), words);
      else
        storeApart(at, words);
    });
  }
  // Steps of a panel whose halves are `half` bytes apart.
  static void prepare(const void* stored, int64_t half, int64_t steps, void* to) {
    const char* from = static_cast<const char*>(stored);
    char* at = static_cast<char*>(to);
    if constexpr (Parts == 2)
      for (int64_t tile = 0; tile < 2 * steps; tile++, at += Parts * kTileBytes) {
        const char* line = from + tile % 2 * half + tile / 2 * kTileBytes;
        for (int row = 0; row < 16; row++) {
          __builtin_prefetch(line + 2 * kTileBytes + row * 64);
          splitStored(line + row * 64, at + row * 64);
        }
      }
  }

  static void run(int rows, int columns, const TileJob& job, bool) {
    for (int c = 0; c < Chains; c++) {
      if (rows > 16)
        columns > 16 ? quad<true, true>(job, c) : quad<true, false>(job, c);
      else
        columns > 16 ? quad<false, true>(job, c) : quad<false, false>(job, c);
    }
  }

  // Pairs of k, and `partBytes` further the rests of fp16.
  ISA_INLINE static void put(char* to, Vec words, int64_t partBytes = kTileBytes) {
    if constexpr (Parts == 1) {
      store(reinterpret_cast<float*>(to), words);
    } else {
      __m512i upper, rest;
      splitHalves(_mm512_castps_si512(words.v), upper, rest);
      _mm512_storeu_si512(to, upper);
      _mm512_storeu_si512(to + partBytes, rest);
    }
  }

 private:
  // Sums in 0 to 3 (row half, column half), A in 4 and 5, B in 6 and 7. Products of one step reach different
  // sums in turn: a product on the same sum as the one before it would wait for it.
  template <bool LowerRows, bool RightColumns>
  static void quad(const TileJob& job, int chain) {
    constexpr int64_t kSumStride = kColumns * 4;
    const int64_t steps = (job.steps - chain + Chains - 1) / Chains;
    float* sums = job.sums + chain * kRows * kColumns;
    writeOut();
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    if (job.resume) {
      _tile_loadd(0, sums, kSumStride);
      if (RightColumns) _tile_loadd(1, sums + 16, kSumStride);
      if (LowerRows) _tile_loadd(2, sums + 16 * kColumns, kSumStride);
      if (LowerRows && RightColumns) _tile_loadd(3, sums + 16 * kColumns + 16, kSumStride);
    }
    const char* a = static_cast<const char*>(job.a) + chain * job.stepA;
    const char* b = static_cast<const char*>(job.b) + chain * job.stepB;
    const int64_t done = chain * ((job.steps + Chains - 1) / Chains);  // steps of the chain before this
    auto nextA = job.nextA.after(done), nextB = job.nextB.after(done);
    auto nextC = job.nextC.after(done);
    const auto multiply = [&]() __attribute__((always_inline)) {
      _tile_dpbf16ps(0, 4, 6);
      if (RightColumns) _tile_dpbf16ps(1, 4, 7);
      if (LowerRows) _tile_dpbf16ps(2, 5, 6);
      if (LowerRows && RightColumns) _tile_dpbf16ps(3, 5, 7);
    };
    const auto loadA = [&](int part) __attribute__((always_inline)) {
      _tile_loadd(4, a + part * kTileBytes, job.rowA);
      if (LowerRows) _tile_loadd(5, a + job.halfA + part * kTileBytes, job.rowA);
    };
    const auto loadB = [&](int part) __attribute__((always_inline)) {
      _tile_loadd(6, b + part * kTileBytes, 64);
      if (RightColumns) _tile_loadd(7, b + job.halfB + part * kTileBytes, 64);
    };
    for (int64_t s = 0; s < steps; s++) {
      loadA(0);
      loadB(0);
      multiply();
      if constexpr (Parts == 2) {  // hi hi, hi lo, lo lo, lo hi: one operand changes at a time
        loadB(1);
        multiply();
        loadA(1);
        multiply();
        loadB(0);
        multiply();
      }
      nextA.fetch();
      nextB.fetch();
      nextC.fetch();
      a += Chains * job.stepA;
      b += Chains * job.stepB;
    }
    _tile_stored(0, sums, kSumStride);
    if (RightColumns) _tile_stored(1, sums + 16, kSumStride);
    if (LowerRows) _tile_stored(2, sums + 16 * kColumns, kSumStride);
    if (LowerRows && RightColumns) _tile_stored(3, sums + 16 * kColumns + 16, kSumStride);
  }
};
#endif

}  // namespace isopolicy::ISA_PASS
