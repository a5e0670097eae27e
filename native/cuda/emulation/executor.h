// Runs a kernel on the CPU: the blocks one after the other, each thread of a block as a fibre that runs until
// it has to wait for others (a barrier, a shuffle, a product of the warp).
//
// Which of the threads that could go on goes on is up to ISOPOLICY_EMULATED_ORDER: the first of the block
// (forward, the default), the last (reverse), or any (random:SEED). A missing barrier makes results depend on
// it. The order decides about asynchronous copies, too: forward does them as late as may be (when waited
// for), so that a missing wait reads old data; reverse does them at once, so that an overwrite of what others
// still read shows; random does either.
//
// The process runs one kernel at a time.
#pragma once
#include <cstdint>
#include <functional>
#include <source_location>
#include <string>
#include <vector>

#include "cuda_runtime_api.h"

namespace isopolicy::emulation {

using Where = std::source_location;

// A copy that cp.async began; `sourceBytes` of `bytes` come from memory, the rest are zeros.
struct AsyncCopy {
  void* to;
  const void* from;
  unsigned bytes, sourceBytes;
};

struct Block;
struct Fibre;

struct Thread {
  uint3 index, blockIndex;
  unsigned rank, lane, warp;
  Block* block;
  unsigned clusterRank;
  // Dynamic shared memory of the block: 1024-byte aligned, exactly as long as asked for.
  unsigned char* sharedMemory;
  bool started = false, exited = false;
  Fibre* fibre = nullptr;
  // What it waits for, for the error message; null: it can run.
  const char* waitsAt = nullptr;
  Where where;
  int predicate = 0;          // of __syncthreads_or and its like: what it brings and what it gets
  unsigned clusterPhase = 0;  // of the cluster's barrier, where it has arrived and not yet waited
  const uint64_t* mbarrier = nullptr;
  unsigned parity = 0;
  // cp.async: copies not yet done, and how many of them each committed group has.
  std::vector<AsyncCopy> copies;
  std::vector<size_t> copyGroups;
  // The same of TMA stores.
  std::vector<std::function<void()>> stores;
  std::vector<size_t> storeGroups;
};

extern Thread* current;
extern dim3 blockSize, gridSize;
extern unsigned clusterSize;
extern size_t sharedMemoryBytes;

// Runs `body` for every thread (or puts it into the graph that `stream` captures), `clusterSize` blocks along
// x at a time; such blocks must not use static __shared__ variables, which the emulator has once only. A
// launch that CUDA refuses returns the error; a bug that the emulator finds (deadlock, overrun of shared
// memory, a collective with threads missing) throws std::runtime_error. `kernel` is what cudaFuncSetAttribute
// knows.
cudaError_t launch(cudaStream_t stream, std::function<void()> body, dim3 grid, dim3 block, size_t sharedBytes,
                   unsigned clusterSize = 1, const void* kernel = nullptr);

// ---- for the intrinsics ----

// Ends the launch with an error that tells the thread and the place.
[[noreturn]] void fail(const std::string& what, const Where& where);

// A rendezvous of the lanes in `mask`. `meet` runs once, when the last lane is there, with every lane's
// operands.
using Meet = void (*)(void* const* operands, uint32_t mask);
void meetWarp(const char* what, uint32_t mask, void* operands, Meet meet, const Where& where);

// A barrier of the block. `count` 0: all threads that have not exited. `wait` false: arrives only.
void barrier(const char* what, unsigned id, unsigned count, bool wait, const Where& where);
// __syncthreads that tells how many of the threads brought a true predicate.
int barrierCount(const char* what, bool predicate, const Where& where);

void clusterArrive(const Where& where);
void clusterWait(const Where& where);

void copyAsync(const AsyncCopy& copy, const Where& where);
void copyCommit();
void copyWait(size_t pendingGroups);
void copyWaitAll();

// Something that the hardware does on its own time (a TMA copy).
void inBackground(std::function<void()> work);

}  // namespace isopolicy::emulation
