#include "cuda/emulation/executor.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <stdexcept>

#include "cuda/emulation/block.h"
#include "cuda/emulation/fibre.h"
#include "cuda/emulation/runtime.h"

namespace isopolicy::emulation {

Thread* current;
uint3 blockIndex;
dim3 blockSize, gridSize;
unsigned char* sharedMemory;
size_t sharedMemoryBytes;
Block block;

namespace {

std::mutex oneKernel;
const std::function<void()>* body;
std::string kernelName;
std::vector<Fibre*> idleFibres;

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
    throw std::runtime_error("ISOPOLICY_EMULATED_ORDER: expected forward, reverse or random:SEED, got " + wanted);
  }
}

std::string text(const uint3& index) {
  std::string words = std::to_string(index.x);
  if (index.y + index.z > 0 || blockSize.y * blockSize.z > 1)
    words += "," + std::to_string(index.y) + "," + std::to_string(index.z);
  return words;
}

std::string blockText() {
  return kernelName + ", block " + std::to_string(blockIndex.x) + "," + std::to_string(blockIndex.y) + "," +
         std::to_string(blockIndex.z);
}

std::string placeText(const Where& where) {
  const std::string file = where.file_name();
  return file.substr(file.find_last_of('/') + 1) + ":" + std::to_string(where.line());
}

// Who waits where, equal waits of neighbours in one line.
std::string waitingText() {
  std::string all;
  const auto& threads = block.threads;
  for (size_t first = 0; first < threads.size();) {
    const Thread& t = threads[first];
    const auto words = [](const Thread& t) {
      return t.exited ? std::string("exited")
                      : "waits at " + std::string(t.waitsAt ? t.waitsAt : "nothing") + " (" + placeText(t.where) + ")";
    };
    size_t last = first;
    while (last + 1 < threads.size() && words(threads[last + 1]) == words(t)) last++;
    all += "\n  thread " + text(t.index) + (last > first ? " to " + text(threads[last].index) : "") + " " + words(t);
    first = last + 1;
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
  thread.exited = true;
  thread.fibre = nullptr;
  block.threadExits(thread);
}

Thread* takeReady() {
  auto& ready = block.ready;
  if (order == Order::random) std::swap(ready.front(), ready[size_t(nextRandom() % ready.size())]);
  Thread* thread = ready.front();
  ready.pop_front();
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
      block.failure = kernelName + ": " + error.what();
    } catch (...) {
      block.failure = kernelName + ": an exception that is none of std::exception";
    }
    if (block.failure.empty() && order != Order::random && !block.ready.empty() && !block.ready.front()->started) {
      current = takeReady();
      continue;
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

void runBlock() {
  block.begin();
  while (block.exited < block.threads.size()) {
    if (order == Order::random && !block.background.empty() && nextRandom() % 4 == 0) {
      block.finishBackground(size_t(nextRandom() % block.background.size()));
    } else if (!block.ready.empty()) {
      runThread(*takeReady());
    } else if (!block.background.empty()) {
      block.finishBackground(0);
    } else {
      throw std::runtime_error(blockText() + ": deadlock" + waitingText());
    }
    if (!block.failure.empty()) throw std::runtime_error(block.failure);
  }
  while (!block.background.empty()) block.finishBackground(0);
  block.end();
  if (!block.failure.empty()) throw std::runtime_error(block.failure);
}

// Fibres of a block that failed stay in the middle of the kernel: they begin anew.
void abandonBlock() {
  for (Thread& thread : block.threads) {
    if (thread.fibre == nullptr) continue;
    if (std::find(idleFibres.begin(), idleFibres.end(), thread.fibre) != idleFibres.end()) continue;
    restartFibre(*thread.fibre, fibreMain);
    idleFibres.push_back(thread.fibre);
  }
}

constexpr size_t kGuardBytes = 1024;
constexpr unsigned char kGuardByte = 0xa5;

void checkGuard(const unsigned char* guard, const char* side) {
  for (size_t i = 0; i < kGuardBytes; i++) {
    if (guard[i] != kGuardByte)
      throw std::runtime_error(blockText() + ": wrote " + side + " its " + std::to_string(sharedMemoryBytes) +
                               " bytes of dynamic shared memory");
  }
}

void run(const std::function<void()>& kernel, dim3 grid, dim3 size, size_t sharedBytes, const std::string& name) {
  const std::lock_guard lock(oneKernel);
  readOrder();
  static unsigned char* const arena =
      static_cast<unsigned char*>(std::aligned_alloc(1024, kMostSharedBytes + 3 * kGuardBytes));
  body = &kernel;
  kernelName = name;
  blockSize = size;
  gridSize = grid;
  sharedMemory = arena + kGuardBytes;
  sharedMemoryBytes = sharedBytes;
  std::memset(arena, kGuardByte, kGuardBytes);
  std::memset(sharedMemory + sharedBytes, kGuardByte, kGuardBytes);
  for (blockIndex.z = 0; blockIndex.z < grid.z; blockIndex.z++) {
    for (blockIndex.y = 0; blockIndex.y < grid.y; blockIndex.y++) {
      for (blockIndex.x = 0; blockIndex.x < grid.x; blockIndex.x++) {
        std::memset(sharedMemory, 0xff, sharedBytes);
        try {
          runBlock();
        } catch (...) {
          abandonBlock();
          throw;
        }
        checkGuard(arena, "before");
        checkGuard(sharedMemory + sharedBytes, "past");
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
  block.failure = blockText() + ", thread " + text(current->index) + ", " + placeText(where) + ": " + what;
  leaveFibre(*current->fibre);
  std::abort();  // a failed block is not resumed
}

void Block::wake(std::vector<Thread*>& those) {
  // Descending where the order is reverse: they were put there in any order.
  std::sort(those.begin(), those.end(), [](Thread* a, Thread* b) {
    return order == Order::reverse ? a->rank > b->rank : a->rank < b->rank;
  });
  for (Thread* thread : those) {
    thread->waitsAt = nullptr;
    ready.push_back(thread);
  }
  those.clear();
}

void Block::begin() {
  const size_t count = size_t(blockSize.x) * blockSize.y * blockSize.z;
  threads.resize(count);
  ready.clear();
  background.clear();
  failure.clear();
  exited = 0;
  mbarrierWaiters.clear();
  warps.assign((count + 31) / 32, {});
  barriers.fill({});
  unsigned rank = 0;
  for (unsigned z = 0; z < blockSize.z; z++) {
    for (unsigned y = 0; y < blockSize.y; y++) {
      for (unsigned x = 0; x < blockSize.x; x++, rank++) {
        Thread& thread = threads[rank];
        thread.index = {x, y, z};
        thread.rank = rank;
        thread.lane = rank % 32;
        thread.warp = rank / 32;
        thread.started = thread.exited = false;
        thread.fibre = nullptr;
        thread.waitsAt = nullptr;
        thread.copies.clear();
        thread.copyGroups.clear();
        warps[rank / 32].live |= 1u << (rank % 32);
      }
    }
  }
  for (size_t i = 0; i < count; i++) ready.push_back(&threads[order == Order::reverse ? count - 1 - i : i]);
}

void Block::finishBackground(size_t index) {
  const auto work = std::move(background[index]);
  background.erase(background.begin() + std::ptrdiff_t(index));
  work();
}

void inBackground(std::function<void()> work) {
  if (order == Order::reverse) return work();
  block.background.push_back(std::move(work));
}

void copyAsync(const AsyncCopy& copy, const Where& where) {
  if (reinterpret_cast<uintptr_t>(copy.to) % copy.bytes != 0 || reinterpret_cast<uintptr_t>(copy.from) % copy.bytes != 0)
    fail("cp.async of " + std::to_string(copy.bytes) + " bytes at an address that is not aligned to them", where);
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
                   const void* kernel, const std::string& name) {
  const size_t threads = size_t(size.x) * size.y * size.z;
  const bool fits = threads >= 1 && threads <= 1024 && size.z <= 64 && grid.x >= 1 && grid.y >= 1 && grid.z >= 1 &&
                    grid.x <= 0x7fffffffu && grid.y <= 65535 && grid.z <= 65535;
  if (!fits) return setError(cudaErrorInvalidConfiguration);
  if (sharedBytes > kDefaultSharedBytes && (kernel != nullptr ? sharedBytes > sharedLimitOf(kernel)
                                                              : sharedBytes > sharedMemoryOptin()))
    return setError(cudaErrorInvalidValue);
  return enqueue(stream, [=, body = std::move(body)] { run(body, grid, size, sharedBytes, name); });
}

}  // namespace isopolicy::emulation
