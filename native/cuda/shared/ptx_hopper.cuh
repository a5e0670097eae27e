// What kernels use of PTX from capability 90 on: mbarriers, TMA copies, clusters, registers of warpgroups,
// and products of warpgroups (ptx_wgmma.cuh). Compiled for another architecture these functions trap: a
// kernel for 90a is not launched there, and its host function looks at properties().capability first.
#pragma once
#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/launcher.h"
#include "cuda/shared/ptx_wgmma.cuh"

#if defined(ISOPOLICY_EMULATED)
#include "cuda/emulation/tma.h"
#endif

namespace isopolicy::cuda {

// ---- matrix fragments ----

// The way back of ldmatrix: lane 8i + r brings the address of row r of matrix i.
template <bool kTransposed = false, int N>
__device__ __forceinline__ void stmatrix(void* row, const uint32_t (&from)[N] PTX_WHERE) {
  static_assert(N == 1 || N == 2 || N == 4);
#if defined(ISOPOLICY_EMULATED)
  emulation::expectHopper("stmatrix", where);
  emulation::storeMatrices(from, N, kTransposed, row, where);
#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)
  const uint32_t at = smemAddress(row);
  if constexpr (N == 1 && !kTransposed) {
    asm volatile("stmatrix.sync.aligned.m8n8.x1.shared.b16 [%0], {%1};" ::"r"(at), "r"(from[0]) : "memory");
  } else if constexpr (N == 1) {
    asm volatile("stmatrix.sync.aligned.m8n8.x1.trans.shared.b16 [%0], {%1};" ::"r"(at), "r"(from[0])
                 : "memory");
  } else if constexpr (N == 2 && !kTransposed) {
    asm volatile("stmatrix.sync.aligned.m8n8.x2.shared.b16 [%0], {%1, %2};" ::"r"(at), "r"(from[0]),
                 "r"(from[1])
                 : "memory");
  } else if constexpr (N == 2) {
    asm volatile("stmatrix.sync.aligned.m8n8.x2.trans.shared.b16 [%0], {%1, %2};" ::"r"(at), "r"(from[0]),
                 "r"(from[1])
                 : "memory");
  } else if constexpr (!kTransposed) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(at), "r"(from[0]),
                 "r"(from[1]), "r"(from[2]), "r"(from[3])
                 : "memory");
  } else {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(at),
                 "r"(from[0]), "r"(from[1]), "r"(from[2]), "r"(from[3])
                 : "memory");
  }
#else
  __trap();
#endif
}

// ---- mbarriers ----

// In shared memory, 8-byte aligned. A phase is complete when `arrivals` arrivals and all expected bytes have
// come; then the next phase begins. Phases have parities 0, 1, 0, ...: to wait for the parity of the phase
// before the first (1) returns at once.
__device__ __forceinline__ void mbarrierInit(uint64_t* barrier, unsigned arrivals PTX_WHERE) {
#if defined(ISOPOLICY_EMULATED)
  emulation::mbarrierInit(barrier, arrivals, where);
#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(smemAddress(barrier)), "r"(arrivals)
               : "memory");
#else
  __trap();
#endif
}
// By the thread that initialized mbarriers, before the barrier (of the block or the cluster) after which they
// are used: makes them visible to TMA and to other blocks.
__device__ __forceinline__ void mbarrierFence() {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile("fence.mbarrier_init.release.cluster;\nfence.proxy.async.shared::cta;" ::: "memory");
#elif !defined(ISOPOLICY_EMULATED)
  __trap();
#endif
}
__device__ __forceinline__ void mbarrierArrive(uint64_t* barrier PTX_WHERE) {
#if defined(ISOPOLICY_EMULATED)
  emulation::mbarrierArrive(barrier, 1, 0, where);
#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(smemAddress(barrier)) : "memory");
#else
  __trap();
#endif
}
// Arrives, and says how many bytes TMA copies will bring in this phase.
__device__ __forceinline__ void mbarrierArriveExpect(uint64_t* barrier, unsigned bytes PTX_WHERE) {
#if defined(ISOPOLICY_EMULATED)
  emulation::mbarrierArrive(barrier, 1, bytes, where);
#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(smemAddress(barrier)),
               "r"(bytes)
               : "memory");
#else
  __trap();
#endif
}
// Arrives at the mbarrier in the same place of block `rank` of the cluster. It tells that memory was read,
// not what this thread wrote: a release for the whole cluster would wait for all of its stores.
__device__ __forceinline__ void mbarrierArriveAt(uint64_t* barrier, unsigned rank PTX_WHERE) {
#if defined(ISOPOLICY_EMULATED)
  emulation::mbarrierArrive(emulation::inBlock(barrier, rank, where), 1, 0, where);
#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile(
      "{\n.reg .b32 there;\nmapa.shared::cluster.u32 there, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [there];\n}" ::"r"(smemAddress(barrier)),
      "r"(rank)
      : "memory");
#else
  __trap();
#endif
}
// Waits until the phase of that parity is complete.
__device__ __forceinline__ void mbarrierWait(uint64_t* barrier, unsigned parity PTX_WHERE) {
#if defined(ISOPOLICY_EMULATED)
  emulation::mbarrierWait(barrier, parity, where);
#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile(
      "{\n.reg .pred complete;\nagain:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 complete, [%0], %1;\n"
      "@complete bra done;\nbra again;\ndone:\n}" ::"r"(smemAddress(barrier)),
      "r"(parity)
      : "memory");
#else
  __trap();
#endif
}
// By each thread that wrote shared memory which wgmma or a TMA store will read, before the barrier between.
// (The emulator does not notice where it is missing.)
__device__ __forceinline__ void fenceAsyncProxy() {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#elif !defined(ISOPOLICY_EMULATED)
  __trap();
#endif
}

// ---- TMA ----

// One thread starts the copy of a box whose first element has the coordinates (the contiguous dimension
// first), which may lie outside of the tensor: what is outside comes as zeros. The mbarrier gets the bytes of
// the whole box. The box is dense in shared memory; `to` is 128-byte aligned, 1024-byte aligned where the map
// swizzles by 128 bytes.
__device__ __forceinline__ void tmaLoad(void* to, const CUtensorMap& map, int x, int y,
                                        uint64_t* barrier PTX_WHERE) {
#if defined(ISOPOLICY_EMULATED)
  const int at[] = {x, y};
  emulation::tmaLoad(to, map, at, 2, barrier, 0, where);
#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], "
      "[%4];" ::"r"(smemAddress(to)),
      "l"(&map), "r"(x), "r"(y), "r"(smemAddress(barrier))
      : "memory");
#else
  __trap();
#endif
}
__device__ __forceinline__ void tmaLoad(void* to, const CUtensorMap& map, int x, int y, int z,
                                        uint64_t* barrier PTX_WHERE) {
#if defined(ISOPOLICY_EMULATED)
  const int at[] = {x, y, z};
  emulation::tmaLoad(to, map, at, 3, barrier, 0, where);
#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4}], "
      "[%5];" ::"r"(smemAddress(to)),
      "l"(&map), "r"(x), "r"(y), "r"(z), "r"(smemAddress(barrier))
      : "memory");
#else
  __trap();
#endif
}
// To the same place of each block of the cluster whose bit is set in `blocks`, each one's own mbarrier told.
__device__ __forceinline__ void tmaLoadMulticast(void* to, const CUtensorMap& map, int x, int y,
                                                 uint64_t* barrier, uint16_t blocks PTX_WHERE) {
#if defined(ISOPOLICY_EMULATED)
  const int at[] = {x, y};
  emulation::tmaLoad(to, map, at, 2, barrier, blocks, where);
#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], "
      "[%1, {%2, "
      "%3}], [%4], %5;" ::"r"(smemAddress(to)),
      "l"(&map), "r"(x), "r"(y), "r"(smemAddress(barrier)), "h"(blocks)
      : "memory");
#else
  __trap();
#endif
}
__device__ __forceinline__ void tmaLoadMulticast(void* to, const CUtensorMap& map, int x, int y, int z,
                                                 uint64_t* barrier, uint16_t blocks PTX_WHERE) {
#if defined(ISOPOLICY_EMULATED)
  const int at[] = {x, y, z};
  emulation::tmaLoad(to, map, at, 3, barrier, blocks, where);
#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], "
      "[%1, {%2, "
      "%3, %4}], [%5], %6;" ::"r"(smemAddress(to)),
      "l"(&map), "r"(x), "r"(y), "r"(z), "r"(smemAddress(barrier)), "h"(blocks)
      : "memory");
#else
  __trap();
#endif
}
// One thread stores a box; what lies outside of the tensor is left out. Shared memory that threads wrote
// needs fenceAsyncProxy() and a barrier before.
__device__ __forceinline__ void tmaStore(const CUtensorMap& map, const void* from, int x, int y PTX_WHERE) {
#if defined(ISOPOLICY_EMULATED)
  const int at[] = {x, y};
  emulation::tmaStore(map, from, at, 2, where);
#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%1, %2}], [%3];" ::"l"(&map),
               "r"(x), "r"(y), "r"(smemAddress(from))
               : "memory");
#else
  __trap();
#endif
}
__device__ __forceinline__ void tmaStore(const CUtensorMap& map, const void* from, int x, int y,
                                         int z PTX_WHERE) {
#if defined(ISOPOLICY_EMULATED)
  const int at[] = {x, y, z};
  emulation::tmaStore(map, from, at, 3, where);
#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile("cp.async.bulk.tensor.3d.global.shared::cta.bulk_group [%0, {%1, %2, %3}], [%4];" ::"l"(&map),
               "r"(x), "r"(y), "r"(z), "r"(smemAddress(from))
               : "memory");
#else
  __trap();
#endif
}
// Ends a group of this thread's stores.
__device__ __forceinline__ void tmaStoreCommit() {
#if defined(ISOPOLICY_EMULATED)
  emulation::tmaStoreCommit();
#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile("cp.async.bulk.commit_group;" ::: "memory");
#else
  __trap();
#endif
}
// Waits until all but kPending of this thread's latest groups have read shared memory: before it is written
// again, and (with 0) before the thread exits.
template <int kPending>
__device__ __forceinline__ void tmaStoreWaitRead() {
#if defined(ISOPOLICY_EMULATED)
  emulation::tmaStoreWait(kPending);
#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(kPending) : "memory");
#else
  __trap();
#endif
}
// Fetches the tensor map itself, some time before its first use.
__device__ __forceinline__ void tmaPrefetch(const CUtensorMap& map) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
#endif
}

// A tensor of 16-bit or fp32 elements in global memory, of two or three dimensions, the contiguous one first,
// and the box that one copy takes of it. Strides are in bytes and multiples of 16, the tensor is 16-byte
// aligned, a box has at most 256 elements a dimension, and its rows are as long as the swizzle (or multiples
// of 16 bytes without one). Passed to a kernel by value, as `const __grid_constant__ CUtensorMap`.
CUtensorMap tensorMap(const void* data, DType dtype, int64_t width, int64_t height, int64_t rowBytes,
                      int boxWidth, int boxHeight, Swizzle swizzle);
CUtensorMap tensorMap(const void* data, DType dtype, int64_t width, int64_t height, int64_t depth,
                      int64_t rowBytes, int64_t planeBytes, int boxWidth, int boxHeight, int boxDepth,
                      Swizzle swizzle);

// ---- warpgroups and clusters ----

// Gives registers back, or takes them: by all threads of a warpgroup, once, where the roles of the warpgroups
// part. The kernel has __launch_bounds__(threads, 1): without the 1 ptxas may ignore it.
template <int kRegisters>
__device__ __forceinline__ void registersDecrease(PTX_WHERE_ONLY) {
  static_assert(kRegisters % 8 == 0 && kRegisters >= 24 && kRegisters <= 256);
#if defined(ISOPOLICY_EMULATED)
  emulation::setRegisters(where);
#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
#else
  __trap();
#endif
}
template <int kRegisters>
__device__ __forceinline__ void registersIncrease(PTX_WHERE_ONLY) {
  static_assert(kRegisters % 8 == 0 && kRegisters >= 24 && kRegisters <= 256);
#if defined(ISOPOLICY_EMULATED)
  emulation::setRegisters(where);
#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
#else
  __trap();
#endif
}

// The block's number in its cluster (Launcher::launchCluster).
__device__ __forceinline__ unsigned clusterRank() {
#if defined(ISOPOLICY_EMULATED)
  return emulation::current->clusterRank;
#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)
  unsigned rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
#else
  __trap();
  return 0;
#endif
}
// A barrier of all threads of the cluster; also before a block exits whose shared memory others still use.
__device__ __forceinline__ void clusterSync(PTX_WHERE_ONLY) {
#if defined(ISOPOLICY_EMULATED)
  emulation::clusterArrive(where);
  emulation::clusterWait(where);
#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile("barrier.cluster.arrive.aligned;\nbarrier.cluster.wait.aligned;" ::: "memory");
#else
  __trap();
#endif
}

}  // namespace isopolicy::cuda
