// mbarriers and TMA copies for the emulated build.
#pragma once
#include "cuda.h"
#include "cuda/emulation/warp_matrix.h"

namespace isopolicy::emulation {

void expectHopper(const char* what, const Where& where);

// An mbarrier is in shared memory; its bits are the emulator's own.
void mbarrierInit(uint64_t* barrier, unsigned arrivals, const Where& where);
// Arrives `arrivals` times (0: only expects), after `bytes` more were said to be on their way.
void mbarrierArrive(uint64_t* barrier, unsigned arrivals, unsigned bytes, const Where& where);
// Waits until the phase of that parity is complete.
void mbarrierWait(uint64_t* barrier, unsigned parity, const Where& where);
// The same variable of another block of the cluster.
uint64_t* inBlock(uint64_t* barrier, unsigned rank, const Where& where);

// From global memory; a bit of `blocks` for each block of the cluster that gets it, 0: this one.
void tmaLoad(void* to, const CUtensorMap& map, const int* at, int rank, uint64_t* barrier, unsigned blocks,
             const Where& where);
void tmaStore(const CUtensorMap& map, const void* from, const int* at, int rank, const Where& where);
void tmaStoreCommit();
void tmaStoreWait(size_t pendingGroups);

// What swizzling does to an address of shared memory whose rows have 128, 64 or 32 bytes: the 16-byte chunk's
// number is xored with bits 7 and up.
inline uint32_t swizzled(uint32_t address, uint32_t span) {
  return address ^ ((address >> 7 & (span / 16 - 1)) << 4);
}

}  // namespace isopolicy::emulation
