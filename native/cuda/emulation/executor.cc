#include "cuda/emulation/executor.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <stdexcept>

#include "cuda/emulation/block.h"
#include "cuda/emulation/fibre.h"
#include "cuda/emulation/runtime.h"

namespace isopolicy::emulation {

Thread* current;
dim3 blockSize, gridSize;
unsigned clusterSize;
size_t sharedMemoryBytes;
// What has a destructor is never destroyed: process.exit() runs those while kernels do.
Cluster& cluster = *new Cluster;

namespace {

std::mutex oneKernel;
const std::function<void()>* body;
std::vector<Fibre*>& idleFibres = *new std::vector<Fibre*>;

enum class Order { forward, reverse, random };
Order order;
uint64_t randomState;

uint64_t nextRandom() {
  randomState ^= randomState << 13;
  randomState ^= randomState >> 7;
  randomState ^= randomState << 17;
  return randomState;
}

void readOrder() {
  const char* text = std::getenv("ISOPOLICY_EMULATED_ORDER");
  const std::string wanted = text == nullptr ? "forward" : text;
  if (wanted == "forward") {
    order = Order::forward;
  } else if (wanted == "reverse") {
    order = Order::reverse;
  } else if (wanted.rfind("random:", 0) == 0) {
    order = Order::random;
    // Set anew for each launch, so that a launch does not depend on those before it.
    randomState = 0x9e3779b97f4a7c15u * (2 * std::strtoull(wanted.c_str() + 7, nullptr, 10) + 1);
  } else {
    throw std::runtime_error("ISOPOLICY_EMULATED_ORDER: expected forward, reverse or random:SEED, got " +
                             wanted);
  }
}

std::string text(const uint3& index) {
  std::string words = std::to_string(index.x);
  if (index.y + index.z > 0 || blockSize.y * blockSize.z > 1)
    words += "," + std::to_string(index.y) + "," + std::to_string(index.z);
  return words;
}

std::string text(const Block& block) {
  return "block " + std::to_string(block.index.x) + "," + std::to_string(block.index.y) + "," +
         std::to_string(block.index.z);
}

std::string placeText(const Where& where) {
  const std::string file = where.file_name();
  return file.substr(file.find_last_of('/') + 1) + ":" + std::to_string(where.line());
}

std::string waitText(const Thread& t) {
  if (t.exited) return "exited";
  return "waits at " + std::string(t.waitsAt ? t.waitsAt : "nothing") + " (" + placeText(t.where) + ")";
}

// Who waits where, equal waits of neighbours in one line.
std::string waitingText() {
  std::string all;
  for (unsigned rank = 0; rank < cluster.size; rank++) {
    const auto& threads = cluster.blocks[rank].threads;
    for (size_t first = 0; first < threads.size();) {
      const std::string words = waitText(threads[first]);
      size_t last = first;
      while (last + 1 < threads.size() && waitText(threads[last + 1]) == words) last++;
      all += "\n  " + text(cluster.blocks[rank]) + " thread " + text(threads[first].index) +
             (last > first ? " to " + text(threads[last].index) : "") + " " + words;
      first = last + 1;
    }
  }
  return all;
}

void perform(const AsyncCopy& copy) {
  std::memcpy(copy.to, copy.from, copy.sourceBytes);
  std::memset(static_cast<char*>(copy.to) + copy.sourceBytes, 0, copy.bytes - copy.sourceBytes);
}

void finishCopies(Thread& thread, size_t count) {
  for (size_t i = 0; i < count; i++) {
    perform(thread.copies[i]);
  }
  thread.copies.erase(thread.copies.begin(), thread.copies.begin() + std::ptrdiff_t(count));
}

void exitThread(Thread& thread) {
  copyWaitAll();
  if (!thread.stores.empty())
    fail("the thread exits while TMA stores read its block's shared memory", thread.where);
  thread.exited = true;
  thread.fibre = nullptr;
  thread.block->threadExits(thread);
}

// The next to run: the first or the last in the block that can, so that one warp gets as far ahead of the
// others as barriers let it; or any.
Thread& nextReady() {
  const auto& ready = cluster.ready;
  const unsigned words = 16 * cluster.size;
  unsigned word = order == Order::reverse ? words - 1 : 0, bit = 0;
  if (order == Order::random) {
    const unsigned from = unsigned(nextRandom() % (64 * words));
    word = from / 64;
    const uint64_t rest = ready[word] >> (from % 64) << (from % 64);
    if (rest != 0) {
      bit = unsigned(std::countr_zero(rest));
    } else {
      do word = (word + 1) % words;
      while (ready[word] == 0);
      bit = unsigned(std::countr_zero(ready[word]));
    }
  } else {
    while (ready[word] == 0) word += order == Order::reverse ? -1u : 1u;
    bit = unsigned(order == Order::reverse ? 63 - std::countl_zero(ready[word])
                                           : std::countr_zero(ready[word]));
  }
  return cluster.blocks[word / 16].threads[word % 16 * 64 + bit];
}

Thread& taken(Thread& thread) {
  cluster.ready[thread.clusterRank * 16 + thread.rank / 64] &= ~(uint64_t(1) << (thread.rank % 64));
  cluster.readyThreads--;
  return thread;
}

Fibre* runningFibre;

// Runs threads that have not begun, one after the other; a thread that has to wait keeps the fibre.
void fibreMain() {
  fibreStarts();
  Fibre* const self = runningFibre;
  for (;;) {
    current->started = true;
    current->fibre = self;
    try {
      (*body)();
      exitThread(*current);
    } catch (const std::exception& error) {
      cluster.failure = error.what();
    } catch (...) {
      cluster.failure = "an exception that is none of std::exception";
    }
    if (cluster.failure.empty() && order != Order::random && cluster.readyThreads > 0) {
      if (Thread& next = nextReady(); !next.started) {
        current = &taken(next);
        continue;
      }
    }
    idleFibres.push_back(self);
    leaveFibre(*self);
  }
}

void runThread(Thread& thread) {
  if (thread.fibre == nullptr) {
    if (idleFibres.empty()) idleFibres.push_back(makeFibre(fibreMain));
    thread.fibre = idleFibres.back();
    idleFibres.pop_back();
  }
  current = &thread;
  runningFibre = thread.fibre;
  enterFibre(*runningFibre);
}

void throwFailure() {
  if (!cluster.failure.empty()) throw std::runtime_error("emulated kernel: " + cluster.failure);
}

void runCluster() {
  auto& background = cluster.background;
  while (cluster.exited < cluster.size * cluster.blocks[0].threads.size()) {
    if (order == Order::random && !background.empty() && nextRandom() % 4 == 0) {
      cluster.finishBackground(size_t(nextRandom() % background.size()));
    } else if (cluster.readyThreads > 0) {
      runThread(taken(nextReady()));
    } else if (!background.empty()) {
      cluster.finishBackground(0);
    } else {
      cluster.failure = "deadlock" + waitingText();
    }
    throwFailure();
  }
  while (!background.empty()) cluster.finishBackground(0);
  for (unsigned rank = 0; rank < cluster.size; rank++) cluster.blocks[rank].end();
  throwFailure();
}

// Fibres of blocks that failed stay in the middle of the kernel: they begin anew.
void abandonCluster() {
  for (Block& block : cluster.blocks) {
    for (Thread& thread : block.threads) {
      if (thread.fibre == nullptr) continue;
      if (std::find(idleFibres.begin(), idleFibres.end(), thread.fibre) == idleFibres.end()) {
        restartFibre(*thread.fibre, fibreMain);
        idleFibres.push_back(thread.fibre);
      }
      thread.fibre = nullptr;
    }
  }
}

constexpr size_t kGuardBytes = 1024;
constexpr unsigned char kGuardByte = 0xa5;

void poison(const Block& block) {
  std::memset(block.arena, kGuardByte, kGuardBytes);
  std::memset(block.shared(), 0xff, sharedMemoryBytes);
  std::memset(block.shared() + sharedMemoryBytes, kGuardByte, kGuardBytes);
}

void checkGuards(const Block& block) {
  const auto broken = [](const unsigned char* guard) {
    return std::any_of(guard, guard + kGuardBytes, [](unsigned char byte) { return byte != kGuardByte; });
  };
  const char* side = broken(block.arena)                          ? "before"
                     : broken(block.shared() + sharedMemoryBytes) ? "past"
                                                                  : nullptr;
  if (side == nullptr) return;
  cluster.failure = text(block) + " wrote " + side + " its " + std::to_string(sharedMemoryBytes) +
                    " bytes of dynamic shared memory";
}

void beginCluster(uint3 first) {
  cluster.ready.fill(0);
  cluster.readyThreads = 0;
  cluster.background.clear();
  cluster.mbarrierWaiters.clear();
  cluster.failure.clear();
  cluster.barrier = {};
  cluster.exited = 0;
  cluster.size = clusterSize;
  while (cluster.blocks.size() < clusterSize) cluster.blocks.emplace_back();
  for (unsigned rank = 0; rank < clusterSize; rank++) {
    Block& block = cluster.blocks[rank];
    block.begin({first.x + rank, first.y, first.z}, rank);
    poison(block);
    for (Thread& thread : block.threads) cluster.wake(thread);
  }
}

void run(const std::function<void()>& kernel, dim3 grid, dim3 size, size_t sharedBytes, unsigned blocks) {
  const std::lock_guard lock(oneKernel);
  readOrder();
  body = &kernel;
  blockSize = size;
  gridSize = grid;
  clusterSize = blocks;
  sharedMemoryBytes = sharedBytes;
  for (unsigned z = 0; z < grid.z; z++) {
    for (unsigned y = 0; y < grid.y; y++) {
      for (unsigned x = 0; x < grid.x; x += blocks) {
        beginCluster({x, y, z});
        try {
          runCluster();
        } catch (...) {
          abandonCluster();
          throw;
        }
        for (unsigned rank = 0; rank < blocks; rank++) checkGuards(cluster.blocks[rank]);
        throwFailure();
      }
    }
  }
}

}  // namespace

void suspend(const char* what, const Where& where) {
  current->waitsAt = what;
  current->where = where;
  leaveFibre(*current->fibre);
}

void leaveInTurn() { leaveFibre(*current->fibre); }

void fail(const std::string& what, const Where& where) {
  cluster.failure =
      text(*current->block) + ", thread " + text(current->index) + ", " + placeText(where) + ": " + what;
  leaveFibre(*current->fibre);
  std::abort();  // a failed block is not resumed
}

void Cluster::wake(Thread& thread) {
  thread.waitsAt = nullptr;
  ready[thread.clusterRank * 16 + thread.rank / 64] |= uint64_t(1) << (thread.rank % 64);
  readyThreads++;
}

void Cluster::wake(std::vector<Thread*>& those) {
  for (Thread* thread : those) wake(*thread);
  those.clear();
}

unsigned char* Block::shared() const { return arena + kGuardBytes; }

void Block::begin(uint3 at, unsigned rankInCluster) {
  index = at;
  if (arena == nullptr)
    arena = static_cast<unsigned char*>(std::aligned_alloc(1024, kMostSharedBytes + 2 * kGuardBytes));
  const size_t count = size_t(blockSize.x) * blockSize.y * blockSize.z;
  threads.resize(count);
  exited = 0;
  warps.assign((count + 31) / 32, {});
  barriers.fill({});
  unsigned rank = 0;
  for (unsigned z = 0; z < blockSize.z; z++) {
    for (unsigned y = 0; y < blockSize.y; y++) {
      for (unsigned x = 0; x < blockSize.x; x++, rank++) {
        Thread& thread = threads[rank];
        thread.index = {x, y, z};
        thread.blockIndex = index;
        thread.rank = rank;
        thread.lane = rank % 32;
        thread.warp = rank / 32;
        thread.block = this;
        thread.clusterRank = rankInCluster;
        thread.sharedMemory = shared();
        thread.started = thread.exited = false;
        thread.fibre = nullptr;
        thread.waitsAt = nullptr;
        thread.clusterPhase = 0;
        thread.copies.clear();
        thread.copyGroups.clear();
        thread.stores.clear();
        thread.storeGroups.clear();
        warps[rank / 32].live |= 1u << (rank % 32);
      }
    }
  }
}

void Cluster::finishBackground(size_t index) {
  const auto work = std::move(background[index]);
  background.erase(background.begin() + std::ptrdiff_t(index));
  work();
}

void inBackground(std::function<void()> work) {
  if (order == Order::reverse) return work();
  cluster.background.push_back(std::move(work));
}

void copyAsync(const AsyncCopy& copy, const Where& where) {
  if (reinterpret_cast<uintptr_t>(copy.to) % copy.bytes != 0 ||
      reinterpret_cast<uintptr_t>(copy.from) % copy.bytes != 0)
    fail("cp.async of " + std::to_string(copy.bytes) + " bytes at an address that is not aligned to them",
         where);
  if (copy.sourceBytes > copy.bytes) fail("cp.async with a source larger than the copy", where);
  if (order != Order::reverse && (order != Order::random || nextRandom() % 2 == 0))
    return current->copies.push_back(copy);
  perform(copy);
  current->copies.push_back({copy.to, copy.from, 0, 0});  // its group keeps its count
}

void copyCommit() {
  size_t open = current->copies.size();
  for (const size_t group : current->copyGroups) open -= group;
  current->copyGroups.push_back(open);
}

void copyWait(size_t pendingGroups) {
  auto& groups = current->copyGroups;
  while (groups.size() > pendingGroups) {
    finishCopies(*current, groups.front());
    groups.erase(groups.begin());
  }
}

void copyWaitAll() {
  finishCopies(*current, current->copies.size());
  current->copyGroups.clear();
}

cudaError_t launch(cudaStream_t stream, std::function<void()> body, dim3 grid, dim3 size, size_t sharedBytes,
                   unsigned blocks, const void* kernel) {
  const size_t threads = size_t(size.x) * size.y * size.z;
  const bool fits = threads >= 1 && threads <= 1024 && size.z <= 64 && grid.x >= 1 && grid.y >= 1 &&
                    grid.z >= 1 && grid.x <= 0x7fffffffu && grid.y <= 65535 && grid.z <= 65535;
  const bool clustered =
      blocks == 1 || (blocks >= 1 && blocks <= kMostBlocks && grid.x % blocks == 0 && capability() >= 90);
  if (!fits || !clustered) return setError(cudaErrorInvalidConfiguration);
  const size_t limit = kernel != nullptr ? sharedLimitOf(kernel) : sharedMemoryOptin();
  if (sharedBytes > limit) return setError(cudaErrorInvalidValue);
  return enqueue(stream, [=, body = std::move(body)] { run(body, grid, size, sharedBytes, blocks); });
}

}  // namespace isopolicy::emulation
