// Barriers and rendezvous: where threads of a block wait for each other.
#include <algorithm>
#include <cstdio>
#include <cstring>

#include "cuda/emulation/block.h"

namespace isopolicy::emulation {

static std::string maskText(uint32_t mask) {
  char words[16];
  std::snprintf(words, sizeof words, "0x%08x", mask);
  return words;
}

void meetWarp(const char* what, uint32_t mask, void* operands, Meet meet, const Where& where) {
  Thread& me = *current;
  Warp& warp = me.block->warps[me.warp];
  const uint32_t bit = 1u << me.lane;
  if ((mask & bit) == 0)
    fail(std::string(what) + ": lane " + std::to_string(me.lane) + " is not in its own mask", where);
  if ((mask & ~warp.live) != 0)
    fail(std::string(what) + ": the mask " + maskText(mask) +
             " has lanes that have exited or do not exist (live: " + maskText(warp.live) + ")",
         where);
  auto found = std::find_if(warp.meetings.begin(), warp.meetings.end(), [&](const Meeting& m) {
    // Of two that wait for each other neither would go on.
    return m.mask == mask || ((m.mask & bit) != 0 && (m.arrived & mask) != 0);
  });
  if (found == warp.meetings.end()) {
    warp.meetings.push_back({meet, what, mask, 0, {}});
    found = warp.meetings.end() - 1;
  } else if (found->meet != meet || found->mask != mask ||
             (found->what != what && std::strcmp(found->what, what) != 0)) {
    fail(std::string(what) + " with mask " + maskText(mask) + ", while other lanes of the warp wait at " +
             found->what + " with mask " + maskText(found->mask),
         where);
  }
  found->arrived |= bit;
  found->operands[me.lane] = operands;
  if (found->arrived != mask) return suspend(what, where);
  const Meeting complete = *found;
  warp.meetings.erase(found);
  if (meet != nullptr) meet(complete.operands.data(), mask);
  Thread* const first = &me.block->threads[size_t(me.warp) * 32];
  for (unsigned lane = 0; lane < 32; lane++)
    if (mask >> lane & 1) cluster.wake(first[lane]);
  leaveInTurn();  // the last to come goes on in its turn, as all others
}

void Cluster::complete(Barrier& barrier) {
  for (Thread* thread : barrier.waiters) thread->predicate = int(barrier.predicates);
  barrier.arrived = barrier.predicates = 0;
  barrier.completed++;
  wake(barrier.waiters);
}

static void arrive(const char* what, unsigned id, unsigned count, bool wait, bool predicate,
                   const Where& where) {
  Block& block = *current->block;
  if (id >= block.barriers.size())
    fail(std::string(what) + ": there are barriers 0 to 15, got " + std::to_string(id), where);
  if (count % 32 != 0)
    fail(std::string(what) + ": expected a multiple of 32 threads, got " + std::to_string(count), where);
  Barrier& b = block.barriers[id];
  if (b.arrived == 0) b.count = count;
  if (b.count != count)
    fail(std::string(what) + ": barrier " + std::to_string(id) + " is waited for with " +
             std::to_string(count) + " threads here and " + std::to_string(b.count) + " elsewhere (0: all)",
         where);
  b.arrived++;
  b.predicates += predicate;
  if (wait) b.waiters.push_back(current);
  if (b.arrived == (count != 0 ? count : unsigned(block.threads.size()) - block.exited)) {
    cluster.complete(b);
    if (wait) leaveInTurn();
  } else if (wait) {
    suspend(what, where);
  }
}

void barrier(const char* what, unsigned id, unsigned count, bool wait, const Where& where) {
  arrive(what, id, count, wait, false, where);
}

int barrierCount(const char* what, bool predicate, const Where& where) {
  arrive(what, 0, 0, true, predicate, where);
  return current->predicate;
}

// A thread arrives, does other things and then waits: whether the barrier was completed in between is told by
// a count of completions.
void clusterArrive(const Where& where) {
  Barrier& b = cluster.barrier;
  if (current->clusterPhase != 0) fail("barrier.cluster.arrive twice without a wait in between", where);
  current->clusterPhase = b.completed + 1;
  if (++b.arrived == clusterSize * unsigned(current->block->threads.size()) - cluster.exited)
    cluster.complete(b);
}

void clusterWait(const Where& where) {
  Barrier& b = cluster.barrier;
  if (current->clusterPhase == 0) fail("barrier.cluster.wait without an arrive", where);
  const bool complete = b.completed >= current->clusterPhase;
  current->clusterPhase = 0;
  if (complete) return;
  b.waiters.push_back(current);
  suspend("barrier.cluster.wait", where);
}

void Block::threadExits(Thread& thread) {
  exited++;
  cluster.exited++;
  Warp& warp = warps[thread.warp];
  warp.live &= ~(1u << thread.lane);
  for (const Meeting& meeting : warp.meetings) {
    if ((meeting.mask >> thread.lane & 1) == 0) continue;
    cluster.failure = "lane " + std::to_string(thread.lane) + " of warp " + std::to_string(thread.warp) +
                      " exited while others wait for it at " + meeting.what;
  }
  for (Barrier& b : barriers) {
    if (b.arrived > 0 && b.count == 0 && b.arrived == threads.size() - exited) cluster.complete(b);
  }
  Barrier& all = cluster.barrier;
  if (all.arrived > 0 && all.arrived == cluster.size * threads.size() - cluster.exited) cluster.complete(all);
}

void Block::end() {
  for (size_t id = 0; id < barriers.size(); id++) {
    if (barriers[id].arrived > 0)
      cluster.failure = "the block ended while barrier " + std::to_string(id) + " had " +
                        std::to_string(barriers[id].arrived) + " arrivals of " +
                        std::to_string(barriers[id].count);
  }
  for (size_t i = 0; i < warps.size(); i++) {
    if (!warps[i].products.empty())
      cluster.failure = "a warp ended before its wgmma products were waited for";
    if (warps[i].productHash != warps[i / 4 * 4].productHash)
      cluster.failure = "the warps of a warpgroup asked for different wgmma products";
  }
}

}  // namespace isopolicy::emulation
