// The emulated runtime API: memory, devices, errors.
#include "cuda/emulation/runtime.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>

namespace isopolicy::emulation {
namespace {

thread_local cudaError_t lastError = cudaSuccess;

std::mutex memoryLock;
std::map<char*, size_t> allocations;  // of device memory, by address
size_t allocated = 0;

size_t memoryBytes() {
  const char* text = std::getenv("ISOPOLICY_EMULATED_MEMORY");
  return text != nullptr && *text != 0 ? std::strtoull(text, nullptr, 10) : size_t(4) << 30;
}

// Whether all of it lies in one allocation of device memory.
bool onDevice(const void* pointer, size_t bytes) {
  const std::lock_guard lock(memoryLock);
  char* const first = static_cast<char*>(const_cast<void*>(pointer));
  auto after = allocations.upper_bound(first);
  if (after == allocations.begin()) return false;
  const auto& [start, length] = *--after;
  return size_t(first - start) + bytes <= length;
}

bool copyFits(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  if (kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice)
    if (!onDevice(to, bytes)) return false;
  if (kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice)
    if (!onDevice(from, bytes)) return false;
  return true;
}

}  // namespace

int capability() {
  const char* text = std::getenv("ISOPOLICY_EMULATED_CAPABILITY");
  return text != nullptr && *text != 0 ? std::atoi(text) : 90;
}

size_t sharedMemoryOptin() {
  const int c = capability();
  return size_t(c >= 90 ? 227 : c == 80 ? 163 : c >= 86 ? 99 : 64) << 10;
}

cudaError_t setError(cudaError_t error) {
  if (error != cudaSuccess) lastError = error;
  return error;
}

}  // namespace isopolicy::emulation

using namespace isopolicy::emulation;

cudaError_t cudaGetLastError() {
  const cudaError_t error = lastError;
  lastError = cudaSuccess;
  return error;
}
cudaError_t cudaPeekAtLastError() { return lastError; }

struct ErrorText {
  cudaError_t error;
  const char *name, *words;
};
static const ErrorText& textOf(cudaError_t error) {
  static constexpr ErrorText kTexts[] = {
      {cudaErrorUnknown, "cudaErrorUnknown", "unknown error"},
      {cudaSuccess, "cudaSuccess", "no error"},
      {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
      {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
      {cudaErrorInitializationError, "cudaErrorInitializationError", "initialization error"},
      {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration", "invalid configuration argument"},
      {cudaErrorInvalidDevicePointer, "cudaErrorInvalidDevicePointer", "invalid device pointer"},
      {cudaErrorInsufficientDriver, "cudaErrorInsufficientDriver",
       "CUDA driver version is insufficient for CUDA runtime version"},
      {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
      {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
      {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
      {cudaErrorIllegalState, "cudaErrorIllegalState",
       "the operation cannot be performed in the present state"},
      {cudaErrorNotReady, "cudaErrorNotReady", "device not ready"},
      {cudaErrorLaunchFailure, "cudaErrorLaunchFailure", "unspecified launch failure"},
      {cudaErrorNotSupported, "cudaErrorNotSupported", "operation not supported"},
      {cudaErrorStreamCaptureUnsupported, "cudaErrorStreamCaptureUnsupported",
       "operation not permitted when stream is capturing"},
      {cudaErrorStreamCaptureInvalidated, "cudaErrorStreamCaptureInvalidated",
       "operation failed due to a previous error during capture"},
  };
  for (const ErrorText& text : kTexts)
    if (text.error == error) return text;
  return kTexts[0];
}
const char* cudaGetErrorString(cudaError_t error) { return textOf(error).words; }
const char* cudaGetErrorName(cudaError_t error) { return textOf(error).name; }

cudaError_t cudaDriverGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) { return setError(device == 0 ? cudaSuccess : cudaErrorInvalidDevice); }

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (device != 0) return setError(cudaErrorInvalidDevice);
  *properties = {};
  std::snprintf(properties->name, sizeof properties->name, "emulated CUDA device");
  properties->totalGlobalMem = memoryBytes();
  properties->sharedMemPerBlock = kDefaultSharedBytes;
  properties->sharedMemPerBlockOptin = sharedMemoryOptin();
  properties->sharedMemPerMultiprocessor = sharedMemoryOptin() + 1024;
  properties->regsPerBlock = properties->regsPerMultiprocessor = 65536;
  properties->warpSize = 32;
  properties->maxThreadsPerBlock = 1024;
  properties->maxThreadsPerMultiProcessor = 2048;
  properties->maxThreadsDim[0] = properties->maxThreadsDim[1] = 1024;
  properties->maxThreadsDim[2] = 64;
  properties->maxGridSize[0] = 0x7fffffff;
  properties->maxGridSize[1] = properties->maxGridSize[2] = 65535;
  properties->major = capability() / 10;
  properties->minor = capability() % 10;
  properties->multiProcessorCount = 4;
  properties->l2CacheSize = 4 << 20;
  properties->pageableMemoryAccess = 0;
  properties->memoryBusWidth = 64;
  properties->unifiedAddressing = 1;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  cudaDeviceProp p;
  if (const cudaError_t error = cudaGetDeviceProperties(&p, device); error != cudaSuccess) return error;
  switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock:
      *value = p.maxThreadsPerBlock;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlock:
      *value = int(p.sharedMemPerBlock);
      break;
    case cudaDevAttrWarpSize:
      *value = p.warpSize;
      break;
    case cudaDevAttrMultiProcessorCount:
      *value = p.multiProcessorCount;
      break;
    case cudaDevAttrL2CacheSize:
      *value = p.l2CacheSize;
      break;
    case cudaDevAttrComputeCapabilityMajor:
      *value = p.major;
      break;
    case cudaDevAttrComputeCapabilityMinor:
      *value = p.minor;
      break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      *value = int(p.sharedMemPerMultiprocessor);
      break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = int(p.sharedMemPerBlockOptin);
      break;
    default:
      return setError(cudaErrorInvalidValue);
  }
  return cudaSuccess;
}

cudaError_t cudaGetDriverEntryPointByVersion(const char* symbol, void** function, unsigned,
                                             unsigned long long, cudaDriverEntryPointQueryResult* status) {
  *function = std::string(symbol) == "cuTensorMapEncodeTiled" ? tensorMapEncoder() : nullptr;
  if (status != nullptr)
    *status = *function != nullptr ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
  return setError(*function != nullptr ? cudaSuccess : cudaErrorInvalidValue);
}

cudaError_t cudaMalloc(void** pointer, size_t bytes) {
  *pointer = nullptr;
  if (const cudaError_t error = refuseInCapture(); error != cudaSuccess) return error;
  if (bytes == 0) return cudaSuccess;
  const size_t rounded = (bytes + 255) / 256 * 256;
  const std::lock_guard lock(memoryLock);
  if (rounded < bytes || allocated + rounded > memoryBytes()) return setError(cudaErrorMemoryAllocation);
  // Of the size asked for, so that AddressSanitizer knows where it ends.
  void* memory = nullptr;
  if (posix_memalign(&memory, 256, bytes) != 0) return setError(cudaErrorMemoryAllocation);
  std::memset(memory, 0xff, bytes);
  allocations[static_cast<char*>(memory)] = bytes;
  allocated += rounded;
  *pointer = memory;
  return cudaSuccess;
}

cudaError_t cudaFree(void* pointer) {
  if (const cudaError_t error = refuseInCapture(); error != cudaSuccess) return error;
  if (pointer == nullptr) return cudaSuccess;
  const std::lock_guard lock(memoryLock);
  const auto found = allocations.find(static_cast<char*>(pointer));
  if (found == allocations.end()) return setError(cudaErrorInvalidValue);
  allocated -= (found->second + 255) / 256 * 256;
  allocations.erase(found);
  std::free(pointer);
  return cudaSuccess;
}

cudaError_t cudaMallocHost(void** pointer, size_t bytes) {
  *pointer = nullptr;
  if (const cudaError_t error = refuseInCapture(); error != cudaSuccess) return error;
  if (bytes == 0) return cudaSuccess;
  return setError(posix_memalign(pointer, 4096, bytes) == 0 ? cudaSuccess : cudaErrorMemoryAllocation);
}
cudaError_t cudaHostAlloc(void** pointer, size_t bytes, unsigned) { return cudaMallocHost(pointer, bytes); }
cudaError_t cudaFreeHost(void* pointer) {
  std::free(pointer);
  return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  const std::lock_guard lock(memoryLock);
  *total = memoryBytes();
  *free = *total > allocated ? *total - allocated : 0;
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  if (bytes == 0) return cudaSuccess;
  if (!copyFits(to, from, bytes, kind)) return setError(cudaErrorInvalidValue);
  return enqueue(stream, [=] { std::memcpy(to, from, bytes); });
}
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  return cudaMemcpyAsync(to, from, bytes, kind, nullptr);
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  if (bytes == 0) return cudaSuccess;
  if (!onDevice(to, bytes)) return setError(cudaErrorInvalidValue);
  return enqueue(stream, [=] { std::memset(to, value, bytes); });
}
cudaError_t cudaMemset(void* to, int value, size_t bytes) {
  return cudaMemsetAsync(to, value, bytes, nullptr);
}
