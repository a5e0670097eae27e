// mbarriers, tensor maps and TMA copies.
#include "cuda/emulation/tma.h"

#include <algorithm>

#include "cuda/emulation/block.h"
#include "cuda/emulation/runtime.h"

namespace isopolicy::emulation {
namespace {

// Tells an mbarrier that was made from memory that was not.
constexpr uint64_t kMade = 1;
struct State {
  uint64_t tag : 2, phase : 1, expected : 20, pending : 20;
  int64_t bytes : 21;  // on their way; fewer than none where they came before they were told of
};
static_assert(sizeof(State) == 8);

State stateOf(const uint64_t* barrier, const char* what, const Where& where) {
  State state;
  std::memcpy(&state, barrier, 8);
  if (state.tag != kMade) fail(std::string(what) + ": an mbarrier that was not initialized", where);
  return state;
}

// Completes the phase where all have arrived and all bytes have come.
void put(uint64_t* barrier, State state) {
  const bool complete = state.pending == 0 && state.bytes == 0;
  if (complete) {
    state.phase ^= 1;
    state.pending = state.expected;
  }
  std::memcpy(barrier, &state, 8);
  if (!complete) return;
  auto& waiters = cluster.mbarrierWaiters;
  std::vector<Thread*> woken;
  const auto goesOn = [&](Thread* t) { return t->mbarrier == barrier && state.phase != t->parity; };
  std::copy_if(waiters.begin(), waiters.end(), std::back_inserter(woken), goesOn);
  std::erase_if(waiters, goesOn);
  cluster.wake(woken);
}

// The emulator's tensor map.
constexpr uint64_t kMapTag = 0x70616d726f736e65;
struct Map {
  uint64_t tag;
  unsigned char* address;
  uint32_t rank, elementBytes, span;  // of the swizzle; 0: none
  uint32_t sizes[5], box[5];
  uint64_t strides[5];  // in bytes
};
static_assert(sizeof(Map) <= sizeof(CUtensorMap));

CUresult encodeTiled(CUtensorMap* map, CUtensorMapDataType type, cuuint32_t rank, void* address,
                     const cuuint64_t* sizes, const cuuint64_t* strides, const cuuint32_t* box,
                     const cuuint32_t* elementStrides, CUtensorMapInterleave interleave,
                     CUtensorMapSwizzle swizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill fill) {
  static constexpr uint32_t kBytes[] = {1, 2, 4, 4, 8, 8, 2, 4, 8, 2};
  Map m = {};
  m.tag = kMapTag;
  m.address = static_cast<unsigned char*>(address);
  m.rank = rank;
  m.elementBytes = kBytes[type];
  m.span = swizzle == CU_TENSOR_MAP_SWIZZLE_NONE ? 0 : 16u << swizzle;
  bool good = rank >= 1 && rank <= 5 && reinterpret_cast<uintptr_t>(address) % 16 == 0 &&
              interleave == CU_TENSOR_MAP_INTERLEAVE_NONE && fill == CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE;
  for (uint32_t i = 0; good && i < rank; i++) {
    good = sizes[i] >= 1 && sizes[i] <= uint64_t(1) << 32 && box[i] >= 1 && box[i] <= 256 &&
           elementStrides[i] == 1 &&
           (i == 0 || (strides[i - 1] % 16 == 0 && strides[i - 1] < uint64_t(1) << 40));
    m.sizes[i] = uint32_t(std::min<uint64_t>(sizes[i], 0xffffffffu));
    m.box[i] = box[i];
    m.strides[i] = i == 0 ? m.elementBytes : strides[i - 1];
  }
  const uint32_t rowBytes = good ? box[0] * m.elementBytes : 0;
  if (!good || rowBytes % 16 != 0 || (m.span != 0 && rowBytes > m.span)) return CUDA_ERROR_INVALID_VALUE;
  std::memcpy(map, &m, sizeof m);
  return CUDA_SUCCESS;
}

// The map, where the copy may be made with it.
Map checked(const CUtensorMap& map, const int* at, int rank, uint32_t sharedAddress, const char* what,
            const Where& where) {
  expectHopper(what, where);
  Map m;
  std::memcpy(&m, &map, sizeof m);
  if (m.tag != kMapTag) fail(std::string(what) + ": this is no tensor map", where);
  // Their first elements: a chunk of 16 bytes lies within bounds, across the upper one, or outside.
  if (at[0] * int(m.elementBytes) % 16 != 0 && at[0] < 0)
    fail(std::string(what) + ": the emulator does not know a box that begins at " + std::to_string(at[0]),
         where);
  if (int(m.rank) != rank)
    fail(std::string(what) + ": a tensor map of rank " + std::to_string(m.rank) + " with " +
             std::to_string(rank) + " coordinates",
         where);
  if (sharedAddress % 128 != 0)
    fail(std::string(what) + ": shared memory that is not 128-byte aligned", where);
  if (m.span != 0 && m.box[0] * m.elementBytes != m.span)
    fail(std::string(what) + ": the emulator wants rows of the box as long as the swizzle", where);
  return m;
}

size_t boxBytes(const Map& m) {
  size_t bytes = m.elementBytes;
  for (uint32_t i = 0; i < m.rank; i++) bytes *= m.box[i];
  return bytes;
}

// Calls body(global, inside, shared) for each 16 bytes of the box: the first `inside` of them are in bounds.
template <class Body>
void eachChunk(const Map& m, const int* at, uint32_t sharedAddress, unsigned char* shared, Body body) {
  const uint32_t rowBytes = m.box[0] * m.elementBytes;
  const size_t rows = boxBytes(m) / rowBytes;
  for (size_t row = 0; row < rows; row++) {
    unsigned char* global = m.address;
    bool inBounds = true;
    size_t rest = row;
    for (uint32_t d = 1; d < m.rank; d++) {
      const int64_t index = int64_t(at[d]) + int64_t(rest % m.box[d]);
      rest /= m.box[d];
      inBounds = inBounds && index >= 0 && index < int64_t(m.sizes[d]);
      global += index * int64_t(m.strides[d]);
    }
    for (uint32_t byte = 0; byte < rowBytes; byte += 16) {
      const int64_t column = int64_t(at[0]) * m.elementBytes + byte;
      const int64_t left = inBounds && column >= 0 ? int64_t(m.sizes[0]) * m.elementBytes - column : 0;
      const uint32_t address = sharedAddress + uint32_t(row) * rowBytes + byte;
      const uint32_t physical = m.span == 0 ? address : swizzled(address, m.span);
      body(global + column, size_t(std::clamp<int64_t>(left, 0, 16)),
           shared + (int64_t(physical) - sharedAddress));
    }
  }
}

}  // namespace

void* tensorMapEncoder() { return reinterpret_cast<void*>(encodeTiled); }

void expectHopper(const char* what, const Where& where) {
  if (capability() < 90)
    fail(std::string(what) + " on a device of capability " + std::to_string(capability()), where);
}

void mbarrierInit(uint64_t* barrier, unsigned arrivals, const Where& where) {
  expectHopper("mbarrier.init", where);
  sharedAddress(barrier);
  State state = {};
  state.tag = kMade;
  state.expected = state.pending = arrivals;
  std::memcpy(barrier, &state, 8);
}

void mbarrierArrive(uint64_t* barrier, unsigned arrivals, unsigned bytes, const Where& where) {
  State state = stateOf(barrier, "mbarrier.arrive", where);
  if (arrivals > state.pending)
    fail("mbarrier.arrive: more arrivals in a phase than the mbarrier was made for", where);
  state.pending -= arrivals;
  state.bytes += bytes;
  put(barrier, state);
}

void mbarrierWait(uint64_t* barrier, unsigned parity, const Where& where) {
  const State state = stateOf(barrier, "mbarrier.try_wait", where);
  if (state.phase != parity) return;
  current->mbarrier = barrier;
  current->parity = parity;
  cluster.mbarrierWaiters.push_back(current);
  suspend(parity == 0 ? "mbarrierWait of parity 0" : "mbarrierWait of parity 1", where);
}

uint64_t* inBlock(uint64_t* barrier, unsigned rank, const Where& where) {
  if (rank >= cluster.size) fail("there is no block " + std::to_string(rank) + " in the cluster", where);
  return reinterpret_cast<uint64_t*>(cluster.blocks[rank].shared() +
                                     (reinterpret_cast<unsigned char*>(barrier) - current->sharedMemory));
}

void tmaLoad(void* to, const CUtensorMap& map, const int* at, int rank, uint64_t* barrier, unsigned blocks,
             const Where& where) {
  const uint32_t address = sharedAddress(to);
  const Map m = checked(map, at, rank, address, "TMA load", where);
  sharedAt(address, boxBytes(m), "TMA load", where);
  stateOf(barrier, "TMA load", where);
  if (blocks >> cluster.size != 0) fail("TMA load: to blocks that the cluster does not have", where);
  std::array<int, 5> first = {};
  std::copy_n(at, rank, first.begin());
  for (unsigned b = 0; b < cluster.size; b++) {
    if (blocks == 0 ? b != current->clusterRank : (blocks >> b & 1) == 0) continue;
    unsigned char* const shared = cluster.blocks[b].shared() + (address - kSharedBase);
    uint64_t* const signal = inBlock(barrier, b, where);
    inBackground([=] {
      eachChunk(m, first.data(), address, shared,
                [&](const unsigned char* global, size_t inside, unsigned char* to) {
                  std::memset(to, 0, 16);
                  if (inside > 0) std::memcpy(to, global, inside);
                });
      State state;
      std::memcpy(&state, signal, 8);
      state.bytes -= int64_t(boxBytes(m));
      put(signal, state);
    });
  }
}

void tmaStore(const CUtensorMap& map, const void* from, const int* at, int rank, const Where& where) {
  const uint32_t address = sharedAddress(from);
  const Map m = checked(map, at, rank, address, "TMA store", where);
  unsigned char* const shared = sharedAt(address, boxBytes(m), "TMA store", where);
  std::array<int, 5> first = {};
  std::copy_n(at, rank, first.begin());
  current->stores.push_back([=] {
    eachChunk(m, first.data(), address, shared,
              [&](unsigned char* global, size_t inside, const unsigned char* from) {
                if (inside > 0) std::memcpy(global, from, inside);
              });
  });
}

void tmaStoreCommit() {
  size_t open = current->stores.size();
  for (const size_t group : current->storeGroups) open -= group;
  current->storeGroups.push_back(open);
}

void tmaStoreWait(size_t pendingGroups) {
  auto& groups = current->storeGroups;
  while (groups.size() > pendingGroups) {
    for (size_t i = 0; i < groups.front(); i++) current->stores[i]();
    current->stores.erase(current->stores.begin(), current->stores.begin() + std::ptrdiff_t(groups.front()));
    groups.erase(groups.begin());
  }
}

}  // namespace isopolicy::emulation
