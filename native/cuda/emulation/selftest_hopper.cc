// The emulator's own test, of what devices have from capability 90 on.
#include "cuda/emulation/launch.h"
#include "cuda/emulation/selftest.h"
#include "cuda/shared/number.cuh"
#include "cuda/shared/ptx_hopper.cuh"

namespace isopolicy::cuda::selftest {

namespace {

struct Matrix {
  int rows, columns;
  std::vector<uint16_t> bits;  // row-major, rows padded to multiples of 16 bytes
  int pitch;
  Matrix(int rows, int columns) : rows(rows), columns(columns), pitch((columns + 7) / 8 * 8) {
    bits.resize(size_t(rows * pitch), 0x7fff);
  }
  uint16_t& at(int row, int column) { return bits[size_t(row * pitch + column)]; }
  template <class T>
  void fill() {
    for (int r = 0; r < rows; r++)
      for (int c = 0; c < columns; c++) at(r, c) = roundTo<T>(randomValue()).bits;
  }
  CUtensorMap map(DType dtype, int boxColumns, int boxRows, Swizzle swizzle) {
    return tensorMap(bits.data(), dtype, columns, rows, int64_t(pitch) * 2, boxColumns, boxRows, swizzle);
  }
};

int spanOf(Swizzle swizzle) {
  return swizzle == Swizzle::bytes128  ? 128
         : swizzle == Swizzle::bytes64 ? 64
         : swizzle == Swizzle::bytes32 ? 32
                                       : 16;
}

// d (64 x N) = a b over K = `depth`, operands through TMA in boxes of one swizzle span, K-major or MN-major,
// sizes that do not fill the last box. Without a swizzle a box of 16 bytes a row gives the layout of cores.
template <class T, int N, bool kTransposeA, bool kTransposeB>
void multiply(Swizzle swizzle, bool fromRegisters) {
  constexpr int kDepth = 64, kDepthUsed = 56;
  const int perSpan = spanOf(swizzle) / 2;
  Matrix a = kTransposeA ? Matrix(kDepthUsed, 64) : Matrix(64, kDepthUsed);
  Matrix b = kTransposeB ? Matrix(kDepthUsed, N) : Matrix(N, kDepthUsed);
  a.fill<T>();
  b.fill<T>();
  const auto elementA = [&](int m, int k) {
    return double(toFloat(T{kTransposeA ? a.at(k, m) : a.at(m, k)}));
  };
  const auto elementB = [&](int k, int n) {
    return double(toFloat(T{kTransposeB ? b.at(k, n) : b.at(n, k)}));
  };
  const DType dtype = DTypeOf<T>::value;
  const CUtensorMap mapA = a.map(dtype, perSpan, kTransposeA ? kDepth : 64, swizzle);
  const CUtensorMap mapB = b.map(dtype, perSpan, kTransposeB ? kDepth : N, swizzle);
  // A box is `perSpan` of the contiguous dimension by all of the other.
  const int boxesA = (kTransposeA ? 64 : kDepth) / perSpan, rowsA = kTransposeA ? kDepth : 64;
  const int boxesB = ((kTransposeB ? N : kDepth) + perSpan - 1) / perSpan, rowsB = kTransposeB ? kDepth : N;
  const size_t boxBytesA = size_t(rowsA * spanOf(swizzle) + 1023) / 1024 * 1024;
  const size_t boxBytesB = size_t(rowsB * spanOf(swizzle) + 1023) / 1024 * 1024;
  const size_t bytesA = size_t(boxesA) * boxBytesA, bytesB = size_t(boxesB) * boxBytesB;
  std::vector<float> result(64 * N);
  run(128, bytesA + bytesB + 8, [&] {
    unsigned char *const sharedA = dynamicShared(), *const sharedB = sharedA + bytesA;
    auto* const barrier = reinterpret_cast<uint64_t*>(sharedB + bytesB);
    if (threadIdx.x == 0) {
      mbarrierInit(barrier, 1);
      mbarrierFence();
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      mbarrierArriveExpect(barrier, unsigned((boxesA * rowsA + boxesB * rowsB) * spanOf(swizzle)));
      for (int i = 0; i < boxesA; i++)
        tmaLoad(sharedA + size_t(i) * boxBytesA, mapA, i * perSpan, 0, barrier);
      for (int i = 0; i < boxesB; i++)
        tmaLoad(sharedB + size_t(i) * boxBytesB, mapB, i * perSpan, 0, barrier);
    }
    mbarrierWait(barrier, 0);
    // The descriptor of 16 of K from `k` on, as its comment says.
    const auto descriptor = [&](const unsigned char* shared, bool transposed, size_t boxBytes, int k) {
      const uint32_t at = smemAddress(shared), span = uint32_t(spanOf(swizzle));
      if (swizzle == Swizzle::none) {
        // Chunks of a row are a box apart; MN-major: 8 of K are 128 bytes apart, 8 of MN a box.
        return transposed
                   ? wgmmaDescriptor(at + uint32_t(k) * 16, 128, uint32_t(boxBytes), swizzle)
                   : wgmmaDescriptor(at + uint32_t(k / 8 * boxBytes), uint32_t(boxBytes), 128, swizzle);
      }
      if (transposed) return wgmmaDescriptor(at + uint32_t(k) * span, uint32_t(boxBytes), 8 * span, swizzle);
      const uint32_t box = uint32_t(k / perSpan * boxBytes), inRow = uint32_t(k % perSpan * 2);
      return wgmmaDescriptor(at + box + inRow, 0, 8 * span, swizzle);
    };
    const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    float d[N / 2];
    for (float& x : d) x = NAN;  // not read where nothing is accumulated
    wgmmaFence();
    for (int k = 0; k < kDepth; k += 16) {
      if (fromRegisters) {
        uint32_t fragment[4];
        for (unsigned i = 0; i < 4; i++) {
          const auto element = [&](unsigned half) -> uint32_t {
            const int m = int(16 * warp + g + 8 * (i % 2)), kk = k + int(2 * t + 8 * (i / 2) + half);
            return kk >= kDepthUsed ? 0 : kTransposeA ? a.at(kk, m) : a.at(m, kk);
          };
          fragment[i] = element(0) | element(1) << 16;
        }
        wgmma<T, N, kTransposeB>(d, fragment, descriptor(sharedB, kTransposeB, boxBytesB, k), k > 0);
      } else {
        wgmma<T, N, kTransposeA, kTransposeB>(d, descriptor(sharedA, kTransposeA, boxBytesA, k),
                                              descriptor(sharedB, kTransposeB, boxBytesB, k), k > 0);
      }
    }
    wgmmaCommit();
    wgmmaWait<0>();
    for (unsigned i = 0; i < N / 2; i++) {
      const unsigned row = 16 * warp + g + 8 * (i / 2 % 2), column = 8 * (i / 4) + 2 * t + i % 2;
      result[row * N + column] = d[i];
    }
  });
  for (int m = 0; m < 64; m++) {
    for (int n = 0; n < N; n++) {
      double sum = 0;
      for (int k = 0; k < kDepthUsed; k++) sum += elementA(m, k) * elementB(k, n);
      expectNear(result[size_t(m * N + n)], sum, 1e-4, "wgmma");
    }
  }
}

template <class T, int N, bool kTransposeA, bool kTransposeB>
void multiplyAll() {
  for (const Swizzle swizzle : {Swizzle::bytes128, Swizzle::bytes64, Swizzle::bytes32, Swizzle::none}) {
    multiply<T, N, kTransposeA, kTransposeB>(swizzle, false);
    multiply<T, N, kTransposeA, kTransposeB>(swizzle, true);
  }
}

}  // namespace

TEST(wgmmaProducts) {
  for (const char* name : {"forward", "reverse", "random:7"}) {
    order(name);
    multiplyAll<Half, 8, false, false>();
    multiplyAll<BFloat16, 64, false, true>();
    multiplyAll<Half, 96, true, false>();
    multiplyAll<BFloat16, 128, true, true>();
  }
  order("forward");
  multiplyAll<BFloat16, 256, false, false>();
}

TEST(swizzleOfTma) {
  // Where the manual's figures put chunks: of row r, chunk c lies at c ^ (r % 8) with 128 bytes a row.
  Matrix m(16, 64);
  for (int r = 0; r < 16; r++)
    for (int c = 0; c < 64; c++) m.at(r, c) = uint16_t(r * 64 + c);
  const CUtensorMap map = m.map(DType::float16, 64, 16, Swizzle::bytes128);
  order("forward");
  run(32, 2048 + 8, [&] {
    auto* const barrier = reinterpret_cast<uint64_t*>(dynamicShared() + 2048);
    const auto* const shared = reinterpret_cast<const uint16_t*>(dynamicShared());
    if (threadIdx.x == 0) mbarrierInit(barrier, 1);
    __syncwarp();
    if (threadIdx.x == 0) {
      mbarrierArriveExpect(barrier, 2048);
      tmaLoad(dynamicShared(), map, 0, 0, barrier);
      expectEqual(shared[0], 0xffff, "not there before the wait");
    }
    mbarrierWait(barrier, 0);
    for (int r = 0; r < 16; r++)
      for (int c = 0; c < 64; c++)
        expectEqual(shared[r * 64 + ((c / 8) ^ (r % 8)) * 8 + c % 8], r * 64 + c, "swizzle");
  });
}

TEST(tmaBounds) {
  Matrix m(10, 20), copy(10, 20);
  m.fill<Half>();
  for (uint16_t& bits : copy.bits) bits = 7;
  const CUtensorMap from = m.map(DType::float16, 8, 4, Swizzle::none);
  const CUtensorMap to = copy.map(DType::float16, 8, 4, Swizzle::none);
  for (const char* name : {"forward", "reverse", "random:8"}) {
    order(name);
    run(32, 128 + 8, [&] {
      auto* const barrier = reinterpret_cast<uint64_t*>(dynamicShared() + 128);
      auto* const shared = reinterpret_cast<uint16_t*>(dynamicShared());
      if (threadIdx.x == 0) mbarrierInit(barrier, 1);
      __syncwarp();
      int phase = 0;
      for (int y = -8; y < 12; y += 4) {
        for (int x = -8; x < 24; x += 8) {
          __syncwarp();
          if (threadIdx.x == 0) {
            mbarrierArriveExpect(barrier, 64);
            tmaLoad(shared, from, x, y, barrier);
          }
          mbarrierWait(barrier, unsigned(phase));
          phase ^= 1;
          for (int i = 0; i < 32; i++) {
            const int r = y + i / 8, c = x + i % 8;
            expectEqual(shared[i], r >= 0 && r < 10 && c >= 0 && c < 20 ? m.at(r, c) : 0, "load");
          }
          __syncwarp();
          if (threadIdx.x == 0) {
            tmaStore(to, shared, x, y);
            tmaStoreCommit();
            tmaStoreWaitRead<0>();
          }
        }
      }
    });
    for (int r = 0; r < 10; r++)
      for (int c = 0; c < 24; c++) expectEqual(copy.at(r, c), c < 20 ? m.at(r, c) : 7, "store");
  }
}

TEST(multicast) {
  Matrix m(2, 8);
  m.fill<Half>();
  const CUtensorMap map = m.map(DType::float16, 8, 1, Swizzle::none);
  for (const char* name : {"forward", "reverse", "random:9"}) {
    order(name);
    std::vector<uint16_t> got(64);
    run(
        32, 512,
        [&] {
          auto* const barrier = reinterpret_cast<uint64_t*>(dynamicShared() + 256);
          auto* const done = barrier + 1;
          if (threadIdx.x == 0) {
            mbarrierInit(barrier, 1);
            mbarrierInit(done, 2);
            mbarrierFence();
          }
          clusterSync();
          if (threadIdx.x == 0) {
            mbarrierArriveExpect(barrier, 32);
            tmaLoadMulticast(dynamicShared() + 128 * clusterRank(), map, 0, int(clusterRank()), barrier, 3);
          }
          mbarrierWait(barrier, 0);
          const auto* const shared = reinterpret_cast<const uint16_t*>(dynamicShared());
          if (threadIdx.x < 16)
            got[blockIdx.x * 16 + threadIdx.x] = shared[threadIdx.x / 8 * 64 + threadIdx.x % 8];
          if (threadIdx.x == 0) {
            mbarrierArrive(done);
            mbarrierArriveAt(done, clusterRank() ^ 1);
          }
          mbarrierWait(done, 0);
          clusterSync();
        },
        4, 2);
    for (int i = 0; i < 64; i++) expectEqual(got[size_t(i)], m.at(i / 8 % 2, i % 8), "multicast");
  }
}

TEST(storeMatrices) {
  order("random:10");
  run(32, 512, [] {
    uint32_t from[4], back[4];
    for (uint32_t& x : from) x = uint32_t(randomValue() * 1e9f);
    unsigned char* const row = dynamicShared() + threadIdx.x * 16;
    stmatrix(row, from);
    __syncwarp();
    ldmatrix(back, row);
    for (int i = 0; i < 4; i++) expectEqual(back[i], from[i], "stmatrix");
    __syncwarp();
    stmatrix<true>(row, from);
    __syncwarp();
    ldmatrix<true>(back, row);
    for (int i = 0; i < 4; i++) expectEqual(back[i], from[i], "stmatrix.trans");
  });
}

TEST(hopperFailuresAreTold) {
  order("forward");
  const auto product = [](float(&d)[4]) {
    const uint64_t operand = wgmmaDescriptor(smemAddress(dynamicShared()), 0, 1024, Swizzle::bytes128);
    wgmma<Half, 8>(d, operand, operand, false);
    wgmmaCommit();
  };
  expectFailure(failureOf(128, 8192,
                          [&] {
                            float d[4];
                            product(d);
                            wgmmaWait<0>();
                          }),
                "before any wgmmaFence");
  expectFailure(failureOf(128, 8192,
                          [&] {
                            float d[4];
                            wgmmaFence();
                            product(d);
                            if (threadIdx.x == 40)
                              dynamicShared()[20 * 128 + 4 * 16] = 0;  // chunk 0 of row 20
                            wgmmaWait<0>();
                          }),
                "changed between the product and the wait");
  expectFailure(failureOf(128, 8192,
                          [&] {
                            float d[4];
                            wgmmaFence();
                            product(d);
                          }),
                "before its wgmma products were waited for");
  expectFailure(failureOf(128, 8192,
                          [&] {
                            float d[4];
                            wgmmaFence();
                            if (threadIdx.x < 96) product(d);
                            wgmmaWait<0>();
                          }),
                "different wgmma products");
  expectFailure(failureOf(128, 4096,
                          [&] {
                            float d[4];
                            wgmmaFence();
                            product(d);
                            wgmmaWait<0>();
                          }),
                "of 4096 bytes of dynamic shared memory");
  expectFailure(failureOf(32, 64, [] { mbarrierWait(reinterpret_cast<uint64_t*>(dynamicShared()), 0); }),
                "not initialized");
  expectFailure(failureOf(32, 64,
                          [] {
                            auto* const barrier = reinterpret_cast<uint64_t*>(dynamicShared());
                            if (threadIdx.x == 0) mbarrierInit(barrier, 2);
                            __syncwarp();
                            if (threadIdx.x == 0) mbarrierArrive(barrier);
                            mbarrierWait(barrier, 0);
                          }),
                "deadlock");
  expectFailure(failureOf(32, 64,
                          [] {
                            auto* const barrier = reinterpret_cast<uint64_t*>(dynamicShared());
                            if (threadIdx.x == 0) mbarrierInit(barrier, 2);
                            __syncwarp();
                            mbarrierArrive(barrier);
                          }),
                "");
  setenv("ISOPOLICY_EMULATED_CAPABILITY", "80", 1);
  expectFailure(failureOf(32, 64, [] { mbarrierInit(reinterpret_cast<uint64_t*>(dynamicShared()), 1); }),
                "capability 80");
  unsetenv("ISOPOLICY_EMULATED_CAPABILITY");
}

}  // namespace isopolicy::cuda::selftest
