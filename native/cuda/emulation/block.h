// The running blocks: who waits for whom. Only the emulator's own sources include this.
#pragma once
#include <array>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cuda/emulation/executor.h"

namespace isopolicy::emulation {

// Lanes of a warp on their way to one rendezvous.
struct Meeting {
  Meet meet;
  const char* what;
  uint32_t mask, arrived;
  std::array<void*, 32> operands;
};

struct WarpProduct;

struct Warp {
  uint32_t live = 0;  // lanes that exist and have not exited
  std::vector<Meeting> meetings;
  // wgmma: products not yet done, how many of them each committed group has, and what was asked for.
  std::deque<std::shared_ptr<WarpProduct>> products;
  std::deque<size_t> productGroups;
  uint64_t productHash = 0;
  bool fenced = false;
};

struct Barrier {
  unsigned arrived = 0, count = 0, predicates = 0;
  unsigned completed = 0;  // how often
  std::vector<Thread*> waiters;
};

struct Block {
  uint3 index;
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  std::array<Barrier, 16> barriers;
  unsigned exited = 0;
  unsigned char* arena = nullptr;  // the shared memory with a guard before it and one after it

  unsigned char* shared() const;
  void begin(uint3 index, unsigned rankInCluster);
  // What must hold when all threads have exited.
  void end();
  void threadExits(Thread& thread);
};

constexpr unsigned kMostBlocks = 8;  // of a cluster

// The blocks that run at the same time.
struct Cluster {
  std::deque<Block> blocks;  // as many as the largest cluster had; the first `size` of them run
  unsigned size = 0, exited = 0;
  // The threads that can run, a bit each: 1024 for each block.
  std::array<uint64_t, 16 * kMostBlocks> ready;
  unsigned readyThreads = 0;
  std::deque<std::function<void()>> background;
  std::vector<Thread*> mbarrierWaiters;
  Barrier barrier;
  std::string failure;

  void wake(Thread& thread);
  // Wakes all, and empties the list.
  void wake(std::vector<Thread*>& those);
  void complete(Barrier& barrier);
  void finishBackground(size_t index);
};
extern Cluster& cluster;

// Leaves the current thread waiting until somebody wakes it.
void suspend(const char* what, const Where& where);
// Lets the other ready threads go first.
void leaveInTurn();

}  // namespace isopolicy::emulation
