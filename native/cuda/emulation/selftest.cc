// The emulator's own test: node scripts/emulate.mjs --selftest [part of a name]
//
// Layouts are written here a second time, element by element from the tables of the PTX ISA manual, so that a
// mistake that two functions of the emulator share (a fragment loaded and multiplied wrong alike) shows.
#include "cuda/emulation/selftest.h"

#include <cstdio>
#include <vector>

#include "cuda/emulation/launch.h"
#include "cuda/shared/number.cuh"
#include "cuda/shared/warp.cuh"

namespace isopolicy::cuda::selftest {

std::vector<std::pair<std::string, void (*)()>>& tests() {
  static std::vector<std::pair<std::string, void (*)()>> all;
  return all;
}

std::string failureOf(unsigned threads, size_t sharedBytes, const std::function<void()>& body) {
  try {
    const cudaError_t status = emulation::launch(nullptr, body, dim3(1), dim3(threads), sharedBytes);
    return status == cudaSuccess ? "" : cudaGetErrorName(status);
  } catch (const std::exception& error) {
    return error.what();
  }
}

void run(unsigned threads, size_t sharedBytes, const std::function<void()>& body, unsigned blocks,
         unsigned cluster) {
  const cudaError_t status =
      emulation::launch(nullptr, body, dim3(blocks), dim3(threads), sharedBytes, cluster);
  if (status != cudaSuccess) throw std::runtime_error(cudaGetErrorName(status));
}

void expectFailure(const std::string& failure, const std::string& words) {
  if (failure.find(words) == std::string::npos)
    throw std::runtime_error("expected a failure with \"" + words + "\", got \"" + failure + "\"");
}

void order(const char* name) { setenv("ISOPOLICY_EMULATED_ORDER", name, 1); }

float randomValue() {
  static uint32_t state = 12345;
  state = state * 1664525u + 1013904223u;
  return float(int32_t(state >> 8) - (1 << 23)) / float(1 << 23);
}

TEST(barriers) {
  for (const char* name : {"forward", "reverse", "random:1", "random:2"}) {
    order(name);
    std::vector<int> got(256);
    run(256, 1024, [&] {
      int* const shared = reinterpret_cast<int*>(dynamicShared());
      const int i = int(threadIdx.x);
      int value = i;
      for (int round = 0; round < 5; round++) {
        shared[i] = value;
        __syncthreads();
        value = shared[(i + 1) % 256] + 1;
        __syncthreads();
      }
      if (i >= 200) return;  // those that exit do not count
      __syncthreads();
      shared[i] = value;
      __syncthreads();
      got[size_t(i)] = shared[199 - i];
    });
    for (int i = 0; i < 200; i++) expectEqual(got[size_t(i)], (199 - i + 5) % 256 + 5, name);
  }
}

TEST(namedBarriers) {
  for (const char* name : {"forward", "reverse", "random:3"}) {
    order(name);
    int got = 0;
    run(96, 64, [&] {
      volatile int* const shared = reinterpret_cast<int*>(dynamicShared());
      const int warp = int(threadIdx.x) / 32;
      if (warp == 0) {  // produces
        if (threadIdx.x == 0) shared[0] = 41;
        barrierArrive(1, 64);
        barrierSync(2, 96);
      } else if (warp == 1) {  // consumes
        barrierSync(1, 64);
        if (threadIdx.x == 32) shared[1] = shared[0] + 1;
        barrierSync(2, 96);
      } else {
        barrierSync(2, 96);
        if (threadIdx.x == 64) got = shared[1];
      }
    });
    expectEqual(got, 42, name);
  }
}

TEST(missingBarrierShows) {
  const auto result = [](const char* name) {
    order(name);
    int sum = 0;
    run(64, 256, [&] {
      int* const shared = reinterpret_cast<int*>(dynamicShared());
      shared[threadIdx.x] = int(threadIdx.x);
      sum += shared[(threadIdx.x + 1) % 64] * int(threadIdx.x);
    });
    return sum;
  };
  if (result("forward") == result("reverse"))
    throw std::runtime_error("a missing barrier made no difference");
  // Between warps, after a rendezvous within each.
  const auto acrossWarps = [](const char* name) {
    order(name);
    int got = 0;
    run(64, 256, [&] {
      int* const shared = reinterpret_cast<int*>(dynamicShared());
      shared[threadIdx.x] = int(threadIdx.x);
      __syncwarp();
      if (threadIdx.x == 31) got = shared[32];
    });
    return got;
  };
  if (acrossWarps("forward") == acrossWarps("reverse") && acrossWarps("forward") == 32)
    throw std::runtime_error("a missing barrier between warps made no difference");
}

TEST(exchanges) {
  for (const char* name : {"forward", "reverse", "random:4"}) {
    order(name);
    run(64, 0, [&] {
      const unsigned all = 0xffffffffu, lane = threadIdx.x % 32;
      expectEqual(__shfl_sync(all, lane * 3, 5), 15u, "shfl");
      expectEqual(__shfl_sync(all, lane, 5, 8), lane / 8 * 8 + 5, "shfl width");
      expectEqual(__shfl_xor_sync(all, lane, 6), lane ^ 6u, "xor");
      expectEqual(__shfl_up_sync(all, lane, 3), lane < 3 ? lane : lane - 3, "up");
      expectEqual(__shfl_down_sync(all, lane, 3, 16), lane % 16 + 3 < 16 ? lane + 3 : lane, "down");
      expectEqual(__ballot_sync(all, lane % 3 == 0), 0x49249249u, "ballot");
      expectEqual(__match_any_sync(all, lane / 8), 0xffu << (lane / 8 * 8), "match");
      expectEqual(__reduce_add_sync(all, lane), 496u, "add");
      expectEqual(__reduce_max_sync(all, -int(lane) - 1), -1, "max");
      expectEqual(__reduce_min_sync(all, lane + 7), 7u, "min");
      expectEqual(warpSum(double(lane)), 496.0, "warpSum");
      expectEqual(warpMax<8>(float(lane)), float(lane / 8 * 8 + 7), "warpMax<8>");
      if (lane < 8) {  // lanes that part
        expectEqual(__shfl_xor_sync(0xffu, lane, 1), lane ^ 1u, "part");
      } else {
        __syncwarp(~0xffu);
      }
      expectEqual(blockSum<2>(int(threadIdx.x)), 2016, "blockSum");
      expectEqual(blockMax<2>(int(threadIdx.x)), 63, "blockMax");
      expectEqual(__syncthreads_count(threadIdx.x < 10), 10, "count");
      expectEqual(__syncthreads_or(threadIdx.x == 63), 1, "or");
      expectEqual(__syncthreads_and(threadIdx.x != 63), 0, "and");
    });
  }
}

TEST(failuresAreTold) {
  order("forward");
  expectFailure(failureOf(64, 0,
                          [] {
                            if (threadIdx.x < 32) barrierSync(1, 64);
                          }),
                "deadlock");
  expectFailure(failureOf(32, 0,
                          [] {
                            if (threadIdx.x != 7) __syncwarp();
                          }),
                "exited");
  expectFailure(failureOf(32, 0,
                          [] {
                            if (threadIdx.x < 16) {
                              __syncwarp();
                            } else {
                              __ballot_sync(0xffffffffu, 1);
                            }
                          }),
                "while other lanes");
  expectFailure(failureOf(32, 0, [] { __shfl_sync(0xfu, 1, 0); }), "not in its own mask");
  expectFailure(failureOf(32, 100, [] { dynamicShared()[100] = 1; }), "past its 100 bytes");
  expectFailure(failureOf(32, 100, [] { dynamicShared()[-1] = 1; }), "before its 100 bytes");
  expectFailure(failureOf(1, 0, [] { throw std::runtime_error("thrown inside"); }), "thrown inside");
  expectFailure(failureOf(1025, 0, [] {}), "cudaErrorInvalidConfiguration");
  // And the emulator goes on.
  int count = 0;
  run(1000, 0, [&] {
    __syncthreads();
    count++;
  });
  expectEqual(count, 1000, "threads");
}

TEST(asyncCopies) {
  std::vector<int> source(64);
  for (int i = 0; i < 64; i++) source[size_t(i)] = 1000 + i;
  for (const char* name : {"forward", "reverse", "random:5"}) {
    order(name);
    run(8, 1024, [&] {
      int* const shared = reinterpret_cast<int*>(dynamicShared()) + 16 * threadIdx.x;
      copyAsync<16>(shared, &source[0]);
      copyAsync<8>(shared + 4, &source[4], 4);
      copyCommit();
      copyAsync<4>(shared + 6, &source[6]);
      copyCommit();
      copyAsync<16>(shared + 8, &source[8], 0);
      if (name[0] == 'f') expectEqual(shared[0], -1, "not there before the wait");
      copyWait<1>();
      for (int i = 0; i < 5; i++) expectEqual(shared[i], 1000 + i, "first group");
      expectEqual(shared[5], 0, "zero-filled");
      if (name[0] == 'f') expectEqual(shared[6], -1, "the second group may be pending");
      copyWait<0>();
      expectEqual(shared[6], 1006, "second group");
      if (name[0] == 'f') expectEqual(shared[8], -1, "not committed");
      copyWaitAll();
      for (int i = 8; i < 12; i++) expectEqual(shared[i], 0, "zeros");
    });
  }
  order("forward");
  expectFailure(failureOf(1, 64, [&] { copyAsync<16>(dynamicShared() + 8, &source[0]); }), "not aligned");
}

template <class T>
static void product() {
  uint16_t a[16][16], b[16][8];
  double reference[16][8];
  float c[16][8];
  for (auto& row : a)
    for (auto& x : row) x = roundTo<T>(randomValue()).bits;
  for (auto& row : b)
    for (auto& x : row) x = roundTo<T>(randomValue()).bits;
  for (int m = 0; m < 16; m++) {
    for (int n = 0; n < 8; n++) {
      c[m][n] = randomValue();
      reference[m][n] = c[m][n];
      for (int k = 0; k < 16; k++) reference[m][n] += double(toFloat(T{a[m][k]})) * toFloat(T{b[k][n]});
    }
  }
  run(32, 1024, [&] {
    const unsigned lane = threadIdx.x, group = lane >> 2, inGroup = lane % 4;
    // From the tables of the manual: a_i, b_i, c_i in order.
    uint32_t fragmentA[4], fragmentB[2];
    float d[4];
    for (int i = 0; i < 8; i += 2) {
      const unsigned row = (i < 2 || (i >= 4 && i < 6)) ? group : group + 8;
      const unsigned column = inGroup * 2 + (i >= 4 ? 8 : 0);
      fragmentA[i / 2] = a[row][column] | uint32_t(a[row][column + 1]) << 16;
    }
    for (int i = 0; i < 4; i += 2) {
      const unsigned row = inGroup * 2 + (i >= 2 ? 8 : 0);
      fragmentB[i / 2] = b[row][group] | uint32_t(b[row + 1][group]) << 16;
    }
    for (int i = 0; i < 4; i++) d[i] = c[i < 2 ? group : group + 8][inGroup * 2 + (i & 1)];
    // The same from shared memory: a row-major, b once as [n][k], once as [k][n].
    auto* const sharedA = reinterpret_cast<uint16_t*>(dynamicShared());
    uint16_t *const sharedB = sharedA + 256, *const sharedBT = sharedB + 128;
    for (int i = 0; i < 8; i++) sharedA[lane * 8 + i] = a[lane / 2][lane % 2 * 8 + i];
    for (int i = 0; i < 4; i++) {
      sharedB[lane * 4 + i] = b[lane % 4 * 4 + i][lane / 4];
      sharedBT[lane * 4 + i] = b[lane / 2][lane % 2 * 4 + i];
    }
    __syncwarp();
    uint32_t loaded[4], loadedB[2], loadedBT[2], one[1];
    ldmatrix(loaded, sharedA + lane % 16 * 16 + lane / 16 * 8);
    ldmatrix(loadedB, sharedB + lane % 8 * 16 + lane / 8 % 2 * 8);
    ldmatrix<true>(loadedBT, sharedBT + lane % 16 * 8);
    ldmatrix(one, sharedA + lane % 8 * 16);
    for (int i = 0; i < 4; i++) expectEqual(loaded[i], fragmentA[i], "ldmatrix.x4");
    for (int i = 0; i < 2; i++) expectEqual(loadedB[i], fragmentB[i], "ldmatrix.x2");
    for (int i = 0; i < 2; i++) expectEqual(loadedBT[i], fragmentB[i], "ldmatrix.x2.trans");
    expectEqual(one[0], fragmentA[0], "ldmatrix.x1");
    mma<T>(d, fragmentA, fragmentB[0], fragmentB[1]);
    for (int i = 0; i < 4; i++)
      expectNear(d[i], reference[i < 2 ? group : group + 8][inGroup * 2 + (i & 1)], 1e-5, "mma");
  });
}

TEST(warpProducts) {
  for (const char* name : {"forward", "reverse", "random:6"}) {
    order(name);
    product<Half>();
    product<BFloat16>();
  }
}

TEST(numbers) {
  order("forward");
  run(1, 0, [] {
    for (const float x : {1.0f, -0.1f, 65520.0f, 1e-7f, 3e38f, INFINITY}) {
      expectEqual(narrow<Half>(x).bits, roundTo<Half>(x).bits, "fp16");
      expectEqual(narrow<BFloat16>(x).bits, roundTo<BFloat16>(x).bits, "bf16");
      expectEqual(narrow2<Half>(x, 2.0f), roundTo<Half>(x).bits | 0x40000000u, "pair");
    }
    if (!std::isnan(widen(narrow<Half>(NAN)))) throw std::runtime_error("NaN was lost");
    alignas(16) BFloat16 memory[16];
    float values[16], back[16];
    for (int i = 0; i < 16; i++) values[i] = float(i) - 3.5f;
    storeNarrow(memory, values);
    loadWide(memory, back);
    for (int i = 0; i < 16; i++) expectEqual(back[i], values[i], "packs");
  });
}

TEST(runtime) {
  void* memory = nullptr;
  setenv("ISOPOLICY_EMULATED_MEMORY", "1000000", 1);
  expectEqual(int(cudaMalloc(&memory, 2000000)), int(cudaErrorMemoryAllocation), "more than there is");
  expectEqual(int(cudaGetLastError()), int(cudaErrorMemoryAllocation), "kept");
  expectEqual(int(cudaGetLastError()), int(cudaSuccess), "taken");
  expectEqual(int(cudaMalloc(&memory, 400)), int(cudaSuccess), "malloc");
  size_t free = 0, total = 0;
  cudaMemGetInfo(&free, &total);
  expectEqual(free, size_t(1000000 - 512), "free");
  unsetenv("ISOPOLICY_EMULATED_MEMORY");
  int value = 0;
  expectEqual(int(cudaMemcpy(&value, memory, 4, cudaMemcpyDeviceToHost)), 0, "copy");
  expectEqual(value, -1, "poisoned");
  expectEqual(int(cudaMemcpy(memory, &value, 500, cudaMemcpyHostToDevice)), int(cudaErrorInvalidValue),
              "too long");
  int* const device = static_cast<int*>(memory);
  cudaMemset(device, 0, 400);

  cudaStream_t stream;
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  expectEqual(int(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal)), 0, "capture");
  emulation::launch(
      stream, [device] { device[threadIdx.x]++; }, dim3(1), dim3(100), 0);
  expectEqual(device[5], 0, "captured, not run");
  expectEqual(int(cudaStreamEndCapture(stream, &graph)), 0, "end");
  cudaGraphInstantiate(&exec, graph, 0);
  cudaGraphDestroy(graph);
  for (int i = 0; i < 3; i++) cudaGraphLaunch(exec, stream);
  expectEqual(device[5], 3, "replayed");
  cudaGraphExecDestroy(exec);
  // What a capture does not allow ends it.
  cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal);
  expectEqual(int(cudaStreamSynchronize(stream)), int(cudaErrorStreamCaptureUnsupported),
              "no wait in a capture");
  void* other = nullptr;
  expectEqual(int(cudaMalloc(&other, 4)), int(cudaErrorStreamCaptureUnsupported), "no malloc in a capture");
  expectEqual(int(cudaStreamEndCapture(stream, &graph)), int(cudaErrorStreamCaptureInvalidated), "invalid");
  expectEqual(graph == nullptr, true, "no graph");
  cudaStreamDestroy(stream);
  cudaFree(memory);

  const auto kernel = [] {};
  const void* const function = &value;
  const size_t bytes = 100 << 10;
  expectEqual(int(emulation::launch(nullptr, kernel, dim3(1), dim3(1), bytes, 1, function)),
              int(cudaErrorInvalidValue), "48 KiB");
  cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize, int(bytes));
  expectEqual(int(emulation::launch(nullptr, kernel, dim3(1), dim3(1), bytes, 1, function)), 0, "allowed");
  cudaGetLastError();
}

// Not a test: what things cost.
TEST(cost) {
  order("forward");
  const auto time = [](const char* what, unsigned blocks, const std::function<void()>& body) {
    const auto start = std::chrono::steady_clock::now();
    run(256, 1024, body, blocks);
    const double us =
        std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count() / blocks;
    std::printf("    %s: %.1f us a block of 256 threads\n", what, us);
  };
  int sink = 0;
  time("no collectives", 1000, [&] { sink++; });
  time("10 barriers", 1000, [&] {
    for (int i = 0; i < 10; i++) __syncthreads();
  });
  time("a block reduction", 1000, [&] { blockSum<8>(1.0f); });
  time("10 mma", 100, [&] {
    float d[4] = {};
    const uint32_t a[4] = {};
    for (int i = 0; i < 10; i++) mma<Half>(d, a, 0, 0);
  });
}

}  // namespace isopolicy::cuda::selftest

int main(int count, char** arguments) {
  using namespace isopolicy::cuda::selftest;
  int failed = 0;
  for (const auto& [name, test] : tests()) {
    if (count > 1 && name.find(arguments[1]) == std::string::npos) continue;
    try {
      test();
      std::printf("ok   %s\n", name.c_str());
    } catch (const std::exception& error) {
      failed++;
      std::printf("FAIL %s: %s\n", name.c_str(), error.what());
    }
  }
  std::printf(failed == 0 ? "the emulator's own tests passed\n" : "%d failed\n", failed);
  return failed == 0 ? 0 : 1;
}
