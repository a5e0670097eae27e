// The running block: who waits for whom. Only the emulator's own sources include this.
#pragma once
#include <array>
#include <deque>
#include <functional>
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

struct Warp {
  uint32_t live = 0;  // lanes that exist and have not exited
  std::vector<Meeting> meetings;
};

struct Barrier {
  unsigned arrived = 0, count = 0, predicates = 0;
  std::vector<Thread*> waiters;
};

struct Block {
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  std::array<Barrier, 16> barriers;
  std::deque<Thread*> ready;
  std::deque<std::function<void()>> background;
  std::vector<Thread*> mbarrierWaiters;
  size_t exited = 0;
  std::string failure;

  void begin();
  void end();
  // Makes threads ready, in the order of the launch, and empties the list.
  void wake(std::vector<Thread*>& those);
  void threadExits(Thread& thread);
  void completeBarrier(Barrier& barrier);
  void finishBackground(size_t index);
};
extern Block block;

// Leaves the current thread waiting until somebody wakes it.
void suspend(const char* what, const Where& where);
// Lets the other ready threads go first.
void leaveInTurn();

}  // namespace isopolicy::emulation
