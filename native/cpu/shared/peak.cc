// What the machine can do at most: multiply-adds from registers, and streams through memory. The kernels are
// measured against these, so the loops hold nothing that a kernel could do without.
#include "cpu/shared/kernel.h"
#include "ops/peak.h"
#define ISA_KERNELS "cpu/shared/peak.cc"
#define ISA_PRODUCTS
#include "cpu/shared/each_isa.h"
#ifdef ISA_PASS
#include "cpu/shared/tiles.h"

namespace isopolicy::ISA_PASS {

// One register, unlike Vec, which is several of them at the lower levels.
#if ISA_LEVEL >= 2
using Register = __m512;
ISA_INLINE Register multiplyAdd(Register a, Register b, Register c) { return _mm512_fmadd_ps(a, b, c); }
#elif ISA_LEVEL == 1
using Register = __m256;
ISA_INLINE Register multiplyAdd(Register a, Register b, Register c) { return _mm256_fmadd_ps(a, b, c); }
#else
typedef float Register __attribute__((vector_size(16)));
ISA_INLINE Register multiplyAdd(Register a, Register b, Register c) { return a * b + c; }
#endif
static constexpr int kRegisterLanes = int(sizeof(Register) / sizeof(float));
// Independent chains fill the pipelines: 4 to 6 cycles of up to 2 multiply-adds. Twelve fit in 16 registers;
// of vdpbf16ps they reach 0.92 of what more of them do on a Zen 5, and with 32 registers there is room for
// those.
static constexpr int kPeakChains = ISA_LEVEL >= 2 ? 2 * kPeakAccumulators : kPeakAccumulators;
static constexpr int64_t kChainSteps = kPeakSteps * kPeakAccumulators / kPeakChains;

static float largest(const float* values, int64_t count) { return *std::max_element(values, values + count); }

static float largestLane(Vec x) {
  float lanes[kLanes];
  toArray(x, lanes);
  return largest(lanes, kLanes);
}

// acc = acc * factor + addend from a start that differs by pass and chain (equal chains would be one to the
// compiler). With factor 0.5 and addend 1 every lane ends at 2 exactly, which tells that the work was done.
static float fmaPass(float factor, float addend, int64_t pass) {
  const Register f = Register{} + factor, a = Register{} + addend;
  float most = 0;
  for (int part = 0; part < kLanes / kRegisterLanes; part++) {
    Register acc[kPeakChains];
#pragma GCC unroll 24
    for (int i = 0; i < kPeakChains; i++) acc[i] = Register{} + float(pass % 64 + part + i);
    for (int64_t step = 0; step < kChainSteps; step++) {
#pragma GCC unroll 24
      for (int i = 0; i < kPeakChains; i++) acc[i] = multiplyAdd(acc[i], f, a);
    }
    float lanes[kPeakChains * kRegisterLanes];
    std::memcpy(lanes, acc, sizeof lanes);
    most = std::max(most, largest(lanes, kPeakChains * kRegisterLanes));
  }
  return most;
}

#if ISA_LEVEL >= 3
// Each step adds factor * (1 - 0.5) to a lane. With factor 0.5 twelve chains would end 1024 above their
// start, which is what is told.
static float bf16Pass(float factor, int64_t pass) {
  const __m512 pair = _mm512_castsi512_ps(_mm512_set1_epi32(int32_t(0xbf003f80u)));  // (1, -0.5)
  const __m512bh x = (__m512bh)pair;
  const __m512 wide = _mm512_set1_ps(factor);
  const __m512bh y = _mm512_cvtne2ps_pbh(wide, wide);
  // Different starts: equal ones would be one chain to the compiler.
  const auto start = [pass](int i) { return _mm512_set1_ps(float(pass % 64 + i)); };
  __m512 acc[kPeakChains];
#pragma GCC unroll 24
  for (int i = 0; i < kPeakChains; i++) acc[i] = start(i);
  for (int64_t step = 0; step < kChainSteps; step++) {
#pragma GCC unroll 24
    for (int i = 0; i < kPeakChains; i++) acc[i] = _mm512_dpbf16_ps(acc[i], x, y);
  }
  __m512 most = _mm512_sub_ps(acc[0], start(0));
#pragma GCC unroll 24
  for (int i = 1; i < kPeakChains; i++) most = _mm512_max_ps(most, _mm512_sub_ps(acc[i], start(i)));
  return largestLane({most}) * float(kPeakChains / kPeakAccumulators);
}
#endif

#if ISA_LEVEL >= 4
// Four accumulators, two tiles of a and two of b, as in a product: a step of a tile takes 16 cycles and its
// result is there after 52, so four chains fill the unit. Each step adds 16 * (factor * 1 - factor * 0.5) to
// an element: 4096 in the end, where the factor is 0.5.
static float amxPass(float factor) {
  alignas(64) uint16_t a[16 * kTileDepth], b[16 * kTileDepth];
  alignas(64) float sums[16 * 16];
  uint32_t bits;
  std::memcpy(&bits, &factor, sizeof bits);
  for (int i = 0; i < 16 * kTileDepth; i++) {
    a[i] = i % 2 == 0 ? 0x3f80 : 0xbf00;  // 1, -0.5
    b[i] = uint16_t(bits >> 16);
  }
  const TileScope tiles;
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_loadd(4, a, 64);
  _tile_loadd(5, a, 64);
  _tile_loadd(6, b, 64);
  _tile_loadd(7, b, 64);
  for (int64_t step = 0; step < kPeakTileSteps; step++) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  float most = 0;
  const auto keep = [&] { most = std::max(most, largest(sums, 16 * 16)); };
  _tile_stored(0, sums, 64);
  keep();
  _tile_stored(1, sums, 64);
  keep();
  _tile_stored(2, sums, 64);
  keep();
  _tile_stored(3, sums, 64);
  keep();
  return most;
}
#endif

// Past the caches, which would read a line of the target before it is overwritten.
ISA_INLINE void storeStreaming(float* p, Vec x) {
#if ISA_LEVEL >= 2
  _mm512_stream_ps(p, x.v);
#elif ISA_LEVEL == 1
  _mm256_stream_ps(p, x.lo);
  _mm256_stream_ps(p + 8, x.hi);
#else
  store(p, x);
#endif
}

// The largest element of two blocks: a reduction that no split changes. Two streams far apart, asked for 1
// KiB ahead, keep more lines on their way than one does (19 against 16 GB/s on a core of the Xeon 6).
static float readBlocks(const float* first, const float* second, int64_t count) {
  static constexpr int64_t kAhead = 256;
  Vec m0 = splat(-std::numeric_limits<float>::infinity()), m1 = m0, m2 = m0, m3 = m0;
  int64_t i = 0;
  for (; i + 4 * kLanes <= count; i += 4 * kLanes) {
    for (int line = 0; line < 4; line++) {
      __builtin_prefetch(first + i + kAhead + line * kLanes);
      __builtin_prefetch(second + i + kAhead + line * kLanes);
    }
    m0 = max(m0, max(load(first + i), load(second + i)));
    m1 = max(m1, max(load(first + i + kLanes), load(second + i + kLanes)));
    m2 = max(m2, max(load(first + i + 2 * kLanes), load(second + i + 2 * kLanes)));
    m3 = max(m3, max(load(first + i + 3 * kLanes), load(second + i + 3 * kLanes)));
  }
  for (; i < count; i += kLanes) m0 = max(m0, max(load(first + i), load(second + i)));
  return largestLane(max(max(m0, m1), max(m2, m3)));
}

static float copyBlock(const float* from, float* to, int64_t count) {
  if (reinterpret_cast<uintptr_t>(to) % 64 != 0) {
    std::memcpy(to, from, size_t(count) * sizeof(float));
  } else {
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) storeStreaming(to + i, load(from + i));
    for (; i < count; i++) to[i] = from[i];
#if ISA_LEVEL >= 1
    _mm_sfence();
#endif
  }
  return to[count - 1];
}

void peak(const PeakArgs& args, Workers& workers) {
  static constexpr int64_t kBlock = 262144;  // 1 MiB
  const bool memory = args.kind == PeakKind::read || args.kind == PeakKind::copy;
  const int64_t half = args.count / 2;
  const int64_t blocks = memory ? (half + kBlock - 1) / kBlock : 1;
  Scratch scratch;
  float* results = scratch.get<float>(args.passes * blocks);
  const auto body = [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      const int64_t at = i % blocks * kBlock, count = std::min(kBlock, half - at);
      switch (args.kind) {
        case PeakKind::fma:
          results[i] = fmaPass(args.factor, args.addend, i);
          break;
        case PeakKind::bf16:
#if ISA_LEVEL >= 3
          results[i] = bf16Pass(args.factor, i);
          break;
#else
          throw DeviceError("bf16 has no instruction at this vector level");
#endif
        case PeakKind::amx:
#if ISA_LEVEL >= 4
          results[i] = amxPass(args.factor);
          break;
#else
          throw DeviceError("there are no tiles at this vector level");
#endif
        case PeakKind::read:
          results[i] = readBlocks(args.memory + at, args.memory + half + at, count);
          break;
        case PeakKind::copy:
          results[i] = copyBlock(args.memory + at, args.memory + half + at, count);
          break;
      }
    }
  };
  if (memory) {
    // A pass at a time: two passes at once could share what one of them brought into the cache.
    for (int64_t pass = 0; pass < args.passes; pass++) {
      workers.parallelFor(
          blocks, 1, [&](int64_t begin, int64_t end) { body(pass * blocks + begin, pass * blocks + end); });
    }
  } else {
    workers.parallelFor(args.passes, 1, body);
  }
  *args.out = largest(results, args.passes * blocks);
}

}  // namespace isopolicy::ISA_PASS

#else

namespace isopolicy {
void registerPeak(Registry& registry) { registry.add<PeakArgs>(Family::shared, ISA_VARIANTS(peak)); }
}  // namespace isopolicy

#endif
