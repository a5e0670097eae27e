// What the executor and the emulated runtime API know of each other.
#pragma once
#include <functional>

#include "cuda_runtime_api.h"

namespace isopolicy::emulation {

constexpr size_t kDefaultSharedBytes = 48 << 10, kMostSharedBytes = 227 << 10;

// ISOPOLICY_EMULATED_CAPABILITY, 90 by default.
int capability();
// The most dynamic shared memory that a block may ask for on a device of this capability.
size_t sharedMemoryOptin();
// What cudaFuncSetAttribute allowed this kernel.
size_t sharedLimitOf(const void* kernel);
cudaError_t setError(cudaError_t error);
// Does the work, or adds it to the graph that the stream captures.
cudaError_t enqueue(cudaStream_t stream, std::function<void()> work);
// The error of a call that is not allowed while this thread captures a graph, or success.
cudaError_t refuseInCapture();

// cuTensorMapEncodeTiled, in tma.cc.
void* tensorMapEncoder();

}  // namespace isopolicy::emulation
